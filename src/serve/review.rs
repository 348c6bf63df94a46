//! A review: from a question to a verdict.
//!
//! # Expected flow
//! The kind and operation of the question are held against the webhook's registration; then the
//! object is decoded, and then judged (`validate`) or filled in (`mutate`).
//!
//! # Guarantees
//! A verdict for every question: an object that does not decode is refused with the path of the
//! first field that does not, or, when it was only to be filled in, let through, because the API
//! server's schema is the next to speak. Updates that leave the spec alone and objects that are
//! being deleted always pass, so that finalizers and status can be written whatever has become of
//! the cluster. An object of more values than any real one has is not decoded, so that what a
//! review costs is bounded.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::{Postgres, PostgresOpsRequest};
use crate::rules;
use crate::rules::defaults::InstallationDefaults;
use crate::rules::document::FieldSelection;
use crate::rules::{ClusterFacts, Effect, Finding, Operation, Review, Rule};

use crate::serve::admission::{AdmissionRequest, AdmissionResponse, Cause, Details, Status};
use crate::serve::webhooks::Webhook;
use crate::serve::weight;

/// Id of the finding for an object that does not decode.
pub const UNDECODABLE: &str = "decodes";

/// What an object may have, fields and list entries counted. Certificates with a thousand names
/// each, which is what the rules allow, are three thousand; ten thousand, decoded as what costs
/// most, are a tenth of the memory that the chart gives.
const MOST_VALUES: usize = 10_000;

/// What came of a review.
#[derive(Debug)]
pub struct AdmissionVerdict {
    /// What the rules found, refusals and warnings.
    pub findings: Vec<Finding>,
    /// What is to be filled in.
    pub patch: Option<json_patch::Patch>,
    /// A question that this webhook is not there for: the registration is wrong.
    pub misdirected: Option<String>,
}

impl AdmissionVerdict {
    const PASS: Self = Self {
        findings: vec![],
        patch: None,
        misdirected: None,
    };

    fn found(findings: Vec<Finding>) -> Self {
        Self {
            findings,
            ..Self::PASS
        }
    }

    fn wrong_webhook(why: String) -> Self {
        Self {
            misdirected: Some(why),
            ..Self::PASS
        }
    }

    /// Whether the object is let in.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.misdirected.is_none() && self.findings.iter().all(|f| f.effect == Effect::Warn)
    }
}

/// A kind that is reviewed.
pub trait ReviewedKind:
    kube::Resource + Clone + DeserializeOwned + Serialize + Sized + 'static
{
    /// The rules that it is judged by.
    fn rules() -> Box<dyn Iterator<Item = &'static Rule<Self>>>;

    /// The document with its defaults.
    fn defaulted(
        document: Value,
        review: &Review<Self>,
        facts: &dyn ClusterFacts,
        installation: &InstallationDefaults,
    ) -> Value;

    /// As much of a document as `defaulted` reads or changes.
    fn touched(review: &Review<Self>) -> &'static FieldSelection;
}

impl ReviewedKind for PostgresOpsRequest {
    fn rules() -> Box<dyn Iterator<Item = &'static Rule<Self>>> {
        Box::new(rules::ops_request::rules())
    }

    fn defaulted(
        document: Value,
        review: &Review<Self>,
        facts: &dyn ClusterFacts,
        installation: &InstallationDefaults,
    ) -> Value {
        rules::defaults::ops_request(document, review, facts, installation)
    }

    fn touched(review: &Review<Self>) -> &'static FieldSelection {
        if review.old.is_some() {
            &rules::defaults::REQUEST_UPDATE
        } else {
            &rules::defaults::REQUEST
        }
    }
}

impl ReviewedKind for Postgres {
    fn rules() -> Box<dyn Iterator<Item = &'static Rule<Self>>> {
        Box::new(rules::postgres::rules())
    }

    fn defaulted(
        document: Value,
        review: &Review<Self>,
        facts: &dyn ClusterFacts,
        installation: &InstallationDefaults,
    ) -> Value {
        rules::defaults::postgres(document, review, facts, installation)
    }

    fn touched(_: &Review<Self>) -> &'static FieldSelection {
        &rules::defaults::POSTGRES
    }
}

/// How a webhook reviews: `validate` or `mutate` of a kind.
pub type ReviewFn = fn(
    &AdmissionRequest<'_>,
    Operation,
    &dyn ClusterFacts,
    &InstallationDefaults,
) -> AdmissionVerdict;

/// Reviews a question that came to this webhook.
#[must_use]
pub fn review(
    webhook: &Webhook,
    question: &AdmissionRequest<'_>,
    facts: &dyn ClusterFacts,
    installation: &InstallationDefaults,
) -> AdmissionVerdict {
    let AdmissionRequest {
        kind, operation, ..
    } = question;
    if (
        kind.group.as_ref(),
        kind.version.as_ref(),
        kind.kind.as_ref(),
    ) != (webhook.group, webhook.version, webhook.kind)
    {
        return AdmissionVerdict::wrong_webhook(format!(
            "{} reviews {}/{} {}, and was asked about {}/{} {}: correct the registration",
            webhook.path,
            webhook.group,
            webhook.version,
            webhook.kind,
            kind.group,
            kind.version,
            kind.kind
        ));
    }
    let operation = match operation.as_ref() {
        "CREATE" => Operation::Create,
        "UPDATE" => Operation::Update,
        "DELETE" => Operation::Delete,
        other => {
            return AdmissionVerdict::wrong_webhook(format!(
                "{} does not review {other}: correct the registration",
                webhook.path
            ));
        }
    };
    // Status and scale are written by programs, and never change what was judged.
    if question
        .sub_resource
        .as_deref()
        .is_some_and(|part| !part.is_empty())
    {
        return AdmissionVerdict::PASS;
    }
    (webhook.judge)(question, operation, facts, installation)
}

/// Judges an object by the rules of its kind.
pub(super) fn validate<K: ReviewedKind<DynamicType = ()>>(
    question: &AdmissionRequest<'_>,
    operation: Operation,
    facts: &dyn ClusterFacts,
    installation: &InstallationDefaults,
) -> AdmissionVerdict {
    if passes_unseen(question, operation) {
        return AdmissionVerdict::PASS;
    }
    match decode::<K>(question, operation) {
        Ok(review) => {
            let review = Review {
                allowed: Arc::clone(&installation.allowed),
                ..review
            };
            AdmissionVerdict::found(rules::judge(K::rules(), &review, Some(facts)))
        }
        Err(finding) => AdmissionVerdict::found(vec![finding]),
    }
}

/// Fills in what an object leaves out.
pub(super) fn mutate<K: ReviewedKind<DynamicType = ()>>(
    question: &AdmissionRequest<'_>,
    operation: Operation,
    facts: &dyn ClusterFacts,
    installation: &InstallationDefaults,
) -> AdmissionVerdict {
    if operation == Operation::Delete || passes_unseen(question, operation) {
        return AdmissionVerdict::PASS;
    }
    let Ok(review) = decode::<K>(question, operation) else {
        return AdmissionVerdict::PASS;
    };
    let Some(document) = question
        .object
        .and_then(|raw| K::touched(&review).select(raw.get()).ok())
    else {
        return AdmissionVerdict::PASS;
    };
    let defaulted = K::defaulted(document.clone(), &review, facts, installation);
    let patch = json_patch::diff(&document, &defaulted);
    AdmissionVerdict {
        patch: (!patch.0.is_empty()).then_some(patch),
        ..AdmissionVerdict::PASS
    }
}

/// An object, with only as much of it decoded as says whether it need be decoded.
#[derive(serde::Deserialize)]
struct Skimmed<'a> {
    #[serde(borrow)]
    metadata: Option<SkimmedMetadata<'a>>,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct SkimmedMetadata<'a> {
    #[serde(borrow)]
    deletion_timestamp: Option<&'a RawValue>,
}

/// Whether the object is to pass whatever it looks like: it is being deleted, or its spec stays as
/// it is.
fn passes_unseen(question: &AdmissionRequest<'_>, operation: Operation) -> bool {
    fn skim(raw: Option<&RawValue>) -> Option<(bool, Option<&RawValue>)> {
        let skimmed: Skimmed<'_> = serde_json::from_str(raw?.get()).ok()?;
        Some((
            skimmed
                .metadata
                .is_some_and(|m| m.deletion_timestamp.is_some()),
            skimmed.spec,
        ))
    }
    if operation != Operation::Update {
        return false;
    }
    let Some((leaving, spec)) = skim(question.object) else {
        return false;
    };
    leaving
        || spec
            .zip(skim(question.old_object).and_then(|(_, spec)| spec))
            .is_some_and(|(new, old)| is_same(new, old))
}

/// Whether two texts say the same. The API server writes what is equal in the same way, so they are
/// hardly ever read for it.
fn is_same(new: &RawValue, old: &RawValue) -> bool {
    let value = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).ok();
    new.get() == old.get()
        || ![new, old]
            .iter()
            .any(|raw| weight::exceeds(raw.get(), MOST_VALUES))
            && value(new) == value(old)
}

/// The object and what it was, or the finding that says where it does not decode.
fn decode<K: ReviewedKind<DynamicType = ()>>(
    question: &AdmissionRequest<'_>,
    operation: Operation,
) -> Result<Review<K>, Finding> {
    let namespace = question.namespace.as_deref();
    let decode_part = |raw: Option<&RawValue>, what: &str| -> Result<K, Finding> {
        let raw = raw.ok_or_else(|| undecodable(what, "is missing", "send it with the review"))?;
        if weight::exceeds(raw.get(), MOST_VALUES) {
            return Err(overweight(raw));
        }
        let mut object: K = from_json(raw)?;
        // No rule reads them, and they are as large as the rest.
        object.meta_mut().managed_fields = None;
        // The API server may leave it to the envelope to say where the object is.
        if let (None, Some(namespace)) = (&object.meta().namespace, namespace) {
            object.meta_mut().namespace = Some(namespace.to_owned());
        }
        Ok(object)
    };
    Ok(match operation {
        Operation::Create => {
            Review::create(decode_part(question.object, "object")?, Arc::default())
        }
        // What is stored may be older than our types: an old object that does not decode is no
        // reason to refuse a new one.
        Operation::Update => Review {
            operation,
            object: decode_part(question.object, "object")?,
            old: decode_part(question.old_object, "oldObject").ok(),
            allowed: Arc::default(),
        },
        Operation::Delete => {
            let object = question
                .old_object
                .and_then(leaving)
                .map_or_else(|| decode_part(question.old_object, "oldObject"), Ok);
            Review {
                operation,
                ..Review::create(object?, Arc::default())
            }
        }
    })
}

/// What the rules of a deletion look at, and what it takes to be an object: whatever else is
/// stored, however much, can go.
static LEAVING: FieldSelection = FieldSelection::Fields(&[
    ("apiVersion", FieldSelection::All),
    ("kind", FieldSelection::All),
    (
        "metadata",
        FieldSelection::Fields(&[
            ("name", FieldSelection::All),
            ("namespace", FieldSelection::All),
        ]),
    ),
    (
        "spec",
        FieldSelection::Fields(&[
            ("version", FieldSelection::All),
            ("deletionPolicy", FieldSelection::All),
        ]),
    ),
]);

fn leaving<K: DeserializeOwned>(raw: &RawValue) -> Option<K> {
    serde_json::from_value(LEAVING.select(raw.get()).ok()?).ok()
}

fn overweight(raw: &RawValue) -> Finding {
    let heaviest = weight::heaviest(raw.get());
    let (field, problem) = match heaviest.as_str() {
        "" => (
            "object",
            format!("it has more than {MOST_VALUES} fields and list entries"),
        ),
        field => (
            field,
            format!(
                "the object has more than {MOST_VALUES} fields and list entries, and most of them here"
            ),
        ),
    };
    undecodable(field, &problem, "leave most of them out")
}

fn from_json<K: DeserializeOwned>(raw: &RawValue) -> Result<K, Finding> {
    // Keeping track of the path costs as much as decoding, so only what does not decode is decoded
    // once more with it.
    serde_json::from_str(raw.get())
        .or_else(|_| decode_object(&mut serde_json::Deserializer::from_str(raw.get())))
}

/// An object, or the finding that says where it does not decode.
pub fn decode_object<'de, K: DeserializeOwned, D>(deserializer: D) -> Result<K, Finding>
where
    D: serde::Deserializer<'de, Error = serde_json::Error>,
{
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { "object" } else { path.as_str() };
        // serde_json counts lines in a text that its author never wrote.
        let problem = error.inner().to_string();
        let problem = problem
            .rsplit_once(" at line ")
            .map_or(problem.as_str(), |(problem, _)| problem);
        undecodable(
            path,
            &problem.chars().take(200).collect::<String>(),
            "correct it; `kubectl explain` says what it takes",
        )
    })
}

fn undecodable(field: &str, problem: &str, remedy: &str) -> Finding {
    Finding {
        rule: UNDECODABLE,
        effect: Effect::Refuse,
        field: field.to_owned(),
        problem: problem.to_owned(),
        remedy: remedy.to_owned(),
    }
}

/// The answer to the API server.
pub fn answer(
    webhook: &Webhook,
    question: &AdmissionRequest<'_>,
    verdict: AdmissionVerdict,
) -> Result<AdmissionResponse, serde_json::Error> {
    let allowed = verdict.allowed();
    let AdmissionVerdict {
        findings,
        patch,
        misdirected,
    } = verdict;
    let (refusals, warnings): (Vec<Finding>, Vec<Finding>) = findings
        .into_iter()
        .partition(|f| f.effect == Effect::Refuse);
    let mut audit_annotations = BTreeMap::new();
    for (key, findings) in [("refused-by", &refusals), ("warned-by", &warnings)] {
        if !findings.is_empty() {
            let mut ids: Vec<&str> = findings.iter().map(|f| f.rule).collect();
            ids.dedup();
            audit_annotations.insert(key, ids.join(","));
        }
    }
    let status = match misdirected {
        Some(message) => Some(Status {
            code: 400,
            reason: "BadRequest",
            message,
            details: None,
        }),
        None if !allowed => Some(invalid(webhook, question, &refusals)),
        None => None,
    };
    let patch = patch
        .map(|patch| serde_json::to_vec(&patch))
        .transpose()?
        .map(ByteString);
    Ok(AdmissionResponse {
        allowed,
        status,
        warnings: warnings.iter().map(Finding::warning).collect(),
        audit_annotations,
        patch_type: patch.is_some().then_some("JSONPatch"),
        patch,
    })
}

/// The longest name that Kubernetes gives to anything.
const LONGEST_NAME: usize = 253;

fn invalid(webhook: &Webhook, question: &AdmissionRequest<'_>, refusals: &[Finding]) -> Status {
    let lines: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    let cause = |f: &Finding| Cause {
        reason: "FieldValueInvalid",
        // kubectl prints the causes and not the message above them.
        message: format!("[{}] {}; {}", f.rule, f.problem, f.remedy),
        field: f.field.clone(),
    };
    Status {
        code: 422,
        reason: "Invalid",
        message: lines.join("\n"),
        details: Some(Details {
            name: question
                .name
                .iter()
                .flat_map(|name| name.chars())
                .take(LONGEST_NAME)
                .collect(),
            kind: webhook.kind,
            group: webhook.group,
            causes: refusals.iter().map(cause).collect(),
        }),
    }
}
