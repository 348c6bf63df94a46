//! Decodes the objects of a review.
//!
//! # Guarantees
//! An object with more values than any real one is not decoded, which bounds the cost of a review.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::rules::decode::{decode_object, undecodable};
use crate::rules::document::FieldSelection;
use crate::rules::kind::ReviewedKind;
use crate::rules::{AdmissionOperation, Finding, Review};

use crate::serve::admission::AdmissionRequest;
use crate::serve::weight;

/// The most fields and list entries of an object. Three certificates with a thousand names each,
/// which the rules allow, have three thousand. Ten thousand of the most expensive kind need a tenth
/// of the memory that the chart gives.
const MOST_VALUES: usize = 10_000;

/// The parts of an object that tell whether it must be decoded.
#[derive(Deserialize)]
struct Skimmed<'a> {
    #[serde(borrow)]
    metadata: Option<SkimmedMetadata<'a>>,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SkimmedMetadata<'a> {
    #[serde(borrow)]
    deletion_timestamp: Option<&'a RawValue>,
}

/// Whether the object passes without a look at its spec: it is being deleted, or the spec does not
/// change.
pub(super) fn passes_unseen(request: &AdmissionRequest<'_>, operation: AdmissionOperation) -> bool {
    fn skim(raw: Option<&RawValue>) -> Option<(bool, Option<&RawValue>)> {
        let skimmed: Skimmed<'_> = serde_json::from_str(raw?.get()).ok()?;
        Some((
            skimmed
                .metadata
                .is_some_and(|m| m.deletion_timestamp.is_some()),
            skimmed.spec,
        ))
    }
    if operation != AdmissionOperation::Update {
        return false;
    }
    let Some((leaving, spec)) = skim(request.object) else {
        return false;
    };
    leaving
        || spec
            .zip(skim(request.old_object).and_then(|(_, spec)| spec))
            .is_some_and(|(new, old)| is_same(new, old))
}

/// Whether two JSON texts are equal. The API server writes equal values in the same way, so they
/// are hardly ever parsed.
fn is_same(new: &RawValue, old: &RawValue) -> bool {
    let value = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).ok();
    new.get() == old.get()
        || ![new, old]
            .iter()
            .any(|raw| weight::exceeds(raw.get(), MOST_VALUES))
            && value(new) == value(old)
}

/// The object and the old one, or the finding that names the field that does not decode.
pub(super) fn decode<K: ReviewedKind<DynamicType = ()>>(
    request: &AdmissionRequest<'_>,
    operation: AdmissionOperation,
) -> Result<Review<K>, Finding> {
    let namespace = request.namespace.as_deref();
    let decode_part = |raw: Option<&RawValue>, what: &str| -> Result<K, Finding> {
        let raw = raw.ok_or_else(|| undecodable(what, "is missing", "send it with the review"))?;
        if weight::exceeds(raw.get(), MOST_VALUES) {
            return Err(overweight(raw));
        }
        let mut object: K = from_json(raw)?;
        // No rule reads managedFields, which are as large as the rest.
        object.meta_mut().managed_fields = None;
        // The API server may give the namespace in the request only.
        if let (None, Some(namespace)) = (&object.meta().namespace, namespace) {
            object.meta_mut().namespace = Some(namespace.to_owned());
        }
        Ok(object)
    };
    Ok(match operation {
        AdmissionOperation::Create => {
            Review::create(decode_part(request.object, "object")?, Arc::default())
        }
        // A stored object may be older than our types: if it does not decode, that is no reason to
        // refuse the new one.
        AdmissionOperation::Update => Review {
            operation,
            object: decode_part(request.object, "object")?,
            old: decode_part(request.old_object, "oldObject").ok(),
            allowed: Arc::default(),
        },
        AdmissionOperation::Delete => {
            let object = request
                .old_object
                .and_then(leaving)
                .map_or_else(|| decode_part(request.old_object, "oldObject"), Ok);
            Review {
                operation,
                ..Review::create(object?, Arc::default())
            }
        }
    })
}

/// The fields that the rules of deletions read, and those that every object needs. An object can be
/// deleted whatever else it holds.
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
