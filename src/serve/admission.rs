//! `AdmissionReview`, versions `v1` and `v1beta1`: the request with its objects, and the response.
//!
//! kube has types of this name. These borrow the objects as raw text ([`RawValue`]), so that
//! parsing allocates nothing for them.
//!
//! # Expected flow
//! [`AdmissionRequest::parse`] leaves the objects undecoded, so that a bad object gets a verdict
//! and not HTTP 400. [`AdmissionRequest::encode`] puts the response into an `AdmissionReview` of
//! the request's version.
//!
//! # Guarantees
//! Parsing takes time and memory linear in the bytes, however deep they are nested: the objects are
//! skipped, not built.
//!
//! # Assumptions
//! The caller bounds the number of bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The `AdmissionReview` that the API server sends.
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

/// The request of the API server.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionRequest<'a> {
    /// The response repeats it.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// Kind of the objects, as the webhook is registered for it.
    #[serde(borrow)]
    pub kind: RequestKind<'a>,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    #[serde(borrow)]
    pub operation: Cow<'a, str>,
    /// Name of the object. `None` if the API server has yet to generate it.
    #[serde(borrow, default)]
    pub name: Option<Cow<'a, str>>,
    /// Namespace of the objects.
    #[serde(borrow, default)]
    pub namespace: Option<Cow<'a, str>>,
    /// The subresource that is written, such as `status`.
    #[serde(borrow, default)]
    pub sub_resource: Option<Cow<'a, str>>,
    /// The new object. `None` for a deletion.
    #[serde(borrow, default)]
    pub object: Option<&'a RawValue>,
    /// The old object. `None` for a creation.
    #[serde(borrow, default)]
    pub old_object: Option<&'a RawValue>,
    /// `admission.k8s.io/v1` or `admission.k8s.io/v1beta1`.
    #[serde(skip)]
    api_version: Version,
}

/// A supported version of `AdmissionReview`.
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

/// Why a body is no admission request: HTTP 400.
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
    /// A request without a uid: the API server could not match a response to it.
    #[error("the request has no uid")]
    NoUid,
}

impl<'a> AdmissionRequest<'a> {
    /// Parses the body of a review; see the module's documentation.
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
        let request = request.ok_or(NotAReview::NoRequest)?;
        if request.uid.is_empty() {
            return Err(NotAReview::NoUid);
        }
        Ok(Self {
            api_version: version,
            ..request
        })
    }

    /// The `AdmissionReview` with this response, as JSON.
    pub fn encode(&self, response: AdmissionResponse) -> Result<Vec<u8>, serde_json::Error> {
        let response = ResponseWithUid {
            uid: &self.uid,
            response,
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
    response: ResponseWithUid<'a>,
}

#[derive(Serialize)]
struct ResponseWithUid<'a> {
    uid: &'a str,
    #[serde(flatten)]
    response: AdmissionResponse,
}

/// The response to the API server.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionResponse {
    /// Whether the object is admitted.
    pub allowed: bool,
    /// Why it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Warnings for the author; `kubectl` prints each on a line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Annotations for the audit log.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub audit_annotations: BTreeMap<&'static str, String>,
    /// A JSON patch, which the API server applies to the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<ByteString>,
    /// `JSONPatch`, with a patch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_type: Option<&'static str>,
}

/// Why an object is refused: the parts of `metav1.Status` that reach the author.
#[derive(Debug, Serialize)]
pub struct Status {
    /// HTTP status for the author.
    pub code: u16,
    /// Reason for the author, such as `Invalid`.
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
    fn a_response_has_the_version_and_the_uid_of_its_request() {
        for version in ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"] {
            let body = envelope(version).to_string();
            let request = AdmissionRequest::parse(body.as_bytes()).expect("a request");
            assert!(request.object.is_some() && request.old_object.is_none());
            let json = request
                .encode(AdmissionResponse {
                    allowed: true,
                    ..AdmissionResponse::default()
                })
                .expect("JSON");
            let expected = json!({"apiVersion": version, "kind": "AdmissionReview", "response": {"uid": "u-1", "allowed": true}});
            assert_eq!(
                serde_json::from_slice::<Value>(&json).expect("JSON"),
                expected
            );
        }
    }

    #[test]
    fn a_body_that_is_no_request_says_why() {
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
                .expect("a request")
                .object
                .is_some()
        );
    }
}
