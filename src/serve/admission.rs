//! `AdmissionReview`, in versions `v1` and `v1beta1`: the envelope around an object, and the answer
//! to it.
//!
//! # Expected flow
//! [`AdmissionRequest::parse`] takes the bytes apart without looking into the objects, so that a
//! bad object can be answered with a verdict. [`AdmissionRequest::answer`] puts the verdict into
//! the envelope that was asked with.
//!
//! # Guarantees
//! Reading takes time and memory linear in the bytes, however deep they are nested: the objects are
//! skipped, not built.
//!
//! # Assumptions
//! The caller bounds the number of bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A review as the API server asks for it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request: Option<AdmissionRequest<'a>>,
}

/// What the API server asks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionRequest<'a> {
    /// Must be repeated in the answer.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// Kind of the objects, as the webhook is registered for it.
    #[serde(borrow)]
    pub kind: RequestKind<'a>,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    #[serde(borrow)]
    pub operation: Cow<'a, str>,
    /// Name of the object; missing when the API server is still to make one up.
    #[serde(borrow, default)]
    pub name: Option<Cow<'a, str>>,
    /// Namespace of the objects.
    #[serde(borrow, default)]
    pub namespace: Option<Cow<'a, str>>,
    /// Part of the object that is written, such as `status`.
    #[serde(borrow, default)]
    pub sub_resource: Option<Cow<'a, str>>,
    /// The object as it is to be; missing for a deletion.
    #[serde(borrow, default)]
    pub object: Option<&'a RawValue>,
    /// The object as it was; missing for a creation.
    #[serde(borrow, default)]
    pub old_object: Option<&'a RawValue>,
    /// `admission.k8s.io/v1` or `admission.k8s.io/v1beta1`.
    #[serde(skip)]
    api_version: Version,
}

/// A version of the review that can be answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Version {
    #[default]
    V1,
    V1beta1,
}

impl Version {
    const ALL: [Self; 2] = [Self::V1, Self::V1beta1];

    const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "admission.k8s.io/v1",
            Self::V1beta1 => "admission.k8s.io/v1beta1",
        }
    }
}

/// Group, version and kind of an object.
#[derive(Debug, Deserialize)]
pub struct RequestKind<'a> {
    /// API group; empty for the core group.
    #[serde(borrow, default)]
    pub group: Cow<'a, str>,
    /// Version.
    #[serde(borrow)]
    pub version: Cow<'a, str>,
    /// Kind.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
}

/// Why bytes are no question. The caller can do nothing but ask differently: HTTP 400.
#[derive(Debug, thiserror::Error)]
pub enum NotAReview {
    /// Not JSON, or not an AdmissionReview.
    #[error("the body is no AdmissionReview: {0}")]
    Undecodable(#[from] serde_json::Error),
    /// Another kind of object.
    #[error("the body is a {0}: send an AdmissionReview")]
    OtherKind(String),
    /// Another version of the API.
    #[error("apiVersion {0} is unknown: use admission.k8s.io/v1 or admission.k8s.io/v1beta1")]
    OtherVersion(String),
    /// An AdmissionReview without a request.
    #[error("the AdmissionReview has no request")]
    NoRequest,
    /// A request without a uid: no answer could be matched to it.
    #[error("the request has no uid")]
    NoUid,
}

impl<'a> AdmissionRequest<'a> {
    /// Reads a question; see the module's documentation.
    pub fn parse(body: &'a [u8]) -> Result<Self, NotAReview> {
        let Envelope {
            api_version,
            kind,
            request,
        } = serde_json::from_slice(body)?;
        if kind != "AdmissionReview" {
            return Err(NotAReview::OtherKind(kind.chars().take(100).collect()));
        }
        let Some(version) = Version::ALL
            .into_iter()
            .find(|known| known.as_str() == api_version)
        else {
            return Err(NotAReview::OtherVersion(
                api_version.chars().take(100).collect(),
            ));
        };
        let question = request.ok_or(NotAReview::NoRequest)?;
        if question.uid.is_empty() {
            return Err(NotAReview::NoUid);
        }
        Ok(Self {
            api_version: version,
            ..question
        })
    }

    /// The answer to this question, as JSON.
    pub fn answer(&self, answer: AdmissionResponse) -> Result<Vec<u8>, serde_json::Error> {
        let response = Response {
            uid: &self.uid,
            answer,
        };
        serde_json::to_vec(&Reply {
            api_version: self.api_version.as_str(),
            kind: "AdmissionReview",
            response,
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
struct Response<'a> {
    uid: &'a str,
    #[serde(flatten)]
    answer: AdmissionResponse,
}

/// What the API server is told.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionResponse {
    /// Whether the object is let in.
    pub allowed: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// What the author should know; `kubectl` prints each on a line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What the audit log should know.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub audit_annotations: BTreeMap<&'static str, String>,
    /// A JSON patch, which the API server applies to the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<ByteString>,
    /// `JSONPatch`, with a patch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_type: Option<&'static str>,
}

/// Why an object is not let in: the parts of `metav1.Status` that reach the author.
#[derive(Debug, Serialize)]
pub struct Status {
    /// HTTP status for the author.
    pub code: u16,
    /// The same as a word.
    pub reason: &'static str,
    /// All reasons, one a line.
    pub message: String,
    /// Each reason by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// Each reason by itself, for programs.
#[derive(Debug, Serialize)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// Kind of the object.
    pub kind: &'static str,
    /// Group of the object.
    pub group: &'static str,
    /// One cause for each reason.
    pub causes: Vec<Cause>,
}

/// One reason.
#[derive(Debug, Serialize)]
pub struct Cause {
    /// Always `FieldValueInvalid`.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
    /// Path of the field.
    pub field: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn envelope(version: &str) -> Value {
        json!({
            "apiVersion": version, "kind": "AdmissionReview",
            "request": {
                "uid": "u-1", "kind": {"group": "kubedb.com", "version": "v1", "kind": "Postgres"}, "operation": "CREATE",
                "namespace": "demo", "object": {"spec": {}}, "oldObject": null, "dryRun": true,
            },
        })
    }

    #[test]
    fn it_is_answered_in_the_version_that_asked_with_its_uid() {
        for version in ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"] {
            let body = envelope(version).to_string();
            let question = AdmissionRequest::parse(body.as_bytes()).expect("a question");
            assert!(question.object.is_some() && question.old_object.is_none());
            let answer = question
                .answer(AdmissionResponse {
                    allowed: true,
                    ..AdmissionResponse::default()
                })
                .expect("JSON");
            let expected = json!({"apiVersion": version, "kind": "AdmissionReview", "response": {"uid": "u-1", "allowed": true}});
            assert_eq!(
                serde_json::from_slice::<Value>(&answer).expect("JSON"),
                expected
            );
        }
    }

    #[test]
    fn what_is_no_question_says_why() {
        let with = |key: &str, value: Value| {
            let mut body = envelope("admission.k8s.io/v1");
            *body.pointer_mut(key).expect("a key") = value;
            body.to_string()
        };
        for (body, words) in [
            (String::new(), "no AdmissionReview"),
            ("{".to_owned(), "no AdmissionReview"),
            ("[]".to_owned(), "no AdmissionReview"),
            (with("/kind", json!("Pod")), "is a Pod"),
            (
                with("/apiVersion", json!("admission.k8s.io/v2")),
                "admission.k8s.io/v2 is unknown",
            ),
            (with("/request", Value::Null), "no request"),
            (with("/request/uid", json!("")), "no uid"),
            (with("/request/uid", json!(7)), "no AdmissionReview"),
        ] {
            let problem = AdmissionRequest::parse(body.as_bytes())
                .map(|_| ())
                .expect_err(&body)
                .to_string();
            assert!(problem.contains(words), "{body}: {problem}");
        }
    }

    #[test]
    fn a_hundred_thousand_levels_are_skipped_not_climbed() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let body = envelope("admission.k8s.io/v1")
            .to_string()
            .replace(r#"{"spec":{}}"#, &deep);
        assert!(
            AdmissionRequest::parse(body.as_bytes())
                .expect("a question")
                .object
                .is_some()
        );
    }
}
