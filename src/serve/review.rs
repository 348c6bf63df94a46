//! A review: from a request to a verdict.
//!
//! # Expected flow
//! The kind and operation of the request are held against the webhook's registration; then the
//! object is decoded, and then judged (`validate`) or filled in (`mutate`).
//!
//! # Guarantees
//! A verdict for every request: an object that does not decode is refused with the path of the
//! first field that does not, or, when it was only to be filled in, let through, because the API
//! server's schema is the next to speak. Updates that leave the spec alone and objects that are
//! being deleted always pass, so that finalizers and status can be written whatever has become of
//! the cluster. An object of more values than any real one has is not decoded, so that what a
//! review costs is bounded.

use std::sync::Arc;

use crate::rules;
use crate::rules::defaults::InstallationDefaults;
use crate::rules::kind::ReviewedKind;
use crate::rules::{ClusterFacts, Effect, Finding, Operation, Review};

use crate::serve::admission::AdmissionRequest;
use crate::serve::decode::{decode, passes_unseen};

/// What came of a review.
#[derive(Debug)]
pub struct AdmissionVerdict {
    /// What the rules found, refusals and warnings.
    pub findings: Vec<Finding>,
    /// What is to be filled in.
    pub patch: Option<json_patch::Patch>,
    /// A request that this webhook is not there for: the registration is wrong.
    pub wrong_webhook: Option<String>,
}

impl AdmissionVerdict {
    pub(super) const PASS: Self = Self {
        findings: vec![],
        patch: None,
        wrong_webhook: None,
    };

    fn found(findings: Vec<Finding>) -> Self {
        Self {
            findings,
            ..Self::PASS
        }
    }

    pub(super) fn wrong_webhook(why: String) -> Self {
        Self {
            wrong_webhook: Some(why),
            ..Self::PASS
        }
    }

    /// Whether the object is let in.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.wrong_webhook.is_none() && self.findings.iter().all(|f| f.effect == Effect::Warn)
    }
}

/// Judges an object by the rules of its kind.
pub(super) fn validate<K: ReviewedKind<DynamicType = ()>>(
    request: &AdmissionRequest<'_>,
    operation: Operation,
    facts: &dyn ClusterFacts,
    installation: &InstallationDefaults,
) -> AdmissionVerdict {
    if passes_unseen(request, operation) {
        return AdmissionVerdict::PASS;
    }
    match decode::<K>(request, operation) {
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
    request: &AdmissionRequest<'_>,
    operation: Operation,
    facts: &dyn ClusterFacts,
    installation: &InstallationDefaults,
) -> AdmissionVerdict {
    if operation == Operation::Delete || passes_unseen(request, operation) {
        return AdmissionVerdict::PASS;
    }
    let Ok(review) = decode::<K>(request, operation) else {
        return AdmissionVerdict::PASS;
    };
    let Some(document) = request
        .object
        .and_then(|raw| K::defaulted_fields(&review).select(raw.get()).ok())
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
