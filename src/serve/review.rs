//! The review of one object: by the rules of its kind, or for its defaults.
//!
//! # Expected flow
//! The object is decoded, and then validated by the rules (`validate`) or given its defaults
//! (`mutate`).
//!
//! # Guarantees
//! Every request gets a verdict. `validate` refuses an object that does not decode, with the path
//! of the first bad field; `mutate` lets it pass, because the API server's schema comes next.
//! Updates that leave the spec as it is, and objects that are being deleted, always pass:
//! finalizers and status can be written in any state of the cluster.

use std::sync::Arc;

use crate::rules;
use crate::rules::defaults::InstallationDefaults;
use crate::rules::kind::ReviewedKind;
use crate::rules::{AdmissionOperation, ClusterFacts, Effect, Finding, Review};

use crate::serve::admission::AdmissionRequest;
use crate::serve::decode::{decode, passes_unseen};

/// The result of a review.
#[derive(Debug)]
pub struct AdmissionVerdict {
    /// The findings of the rules, refusals and warnings.
    pub findings: Vec<Finding>,
    /// The defaults, as a patch.
    pub patch: Option<json_patch::Patch>,
    /// Why this webhook does not review the request: the registration is wrong.
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

    /// Whether the object is admitted.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.wrong_webhook.is_none() && self.findings.iter().all(|f| f.effect == Effect::Warn)
    }
}

/// Validates an object by the rules of its kind.
pub(super) fn validate<K: ReviewedKind<DynamicType = ()>>(
    request: &AdmissionRequest<'_>,
    operation: AdmissionOperation,
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

/// Fills in the defaults of an object.
pub(super) fn mutate<K: ReviewedKind<DynamicType = ()>>(
    request: &AdmissionRequest<'_>,
    operation: AdmissionOperation,
    facts: &dyn ClusterFacts,
    installation: &InstallationDefaults,
) -> AdmissionVerdict {
    if operation == AdmissionOperation::Delete || passes_unseen(request, operation) {
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
