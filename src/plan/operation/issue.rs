//! Certificates are issued on the way to the goal.
//!
//! cert-manager issues into Secrets that users' pods may mount. So every server trusts the CA before
//! cert-manager is asked.

use std::collections::BTreeSet;

use crate::api::StepKind;
use crate::api::operation::Operation;
use crate::pki::{CaId, Material};
use crate::plan::action::{Action, ClusterAction};
use crate::plan::observed::cluster::ObservedCluster;
use crate::plan::observed::{Issuance, Observed, ObservedCertificate, Trial};
use crate::plan::operation::goal::Goal;
use crate::plan::operation::intent::Intent;
use crate::plan::purpose::Purpose;
use crate::plan::rollout::{Progress, next_step};
use crate::plan::waiting::{StepProblem, Waiting};
use crate::tls::{Alias, Files, Posture};

const STEP: StepKind = StepKind::Issue;

/// The certificates that were issued for the goal; `None` if it needs none. An error is what has to
/// be done or waited for first.
pub(super) fn issue(
    observed: &Observed,
    goal: &Goal<'_>,
    cluster: &ObservedCluster,
) -> Result<Option<Material>, Intent> {
    if !goal.issues_certificates() {
        return Ok(None);
    }
    let issuance = observed
        .issuance()
        .map_err(|why| Intent::wait(STEP, Waiting::Issuance(why.clone())))?;
    let requests = to_request(goal, issuance);
    if !requests.is_empty() {
        let Trial::Passed(cas) = &issuance.trial else {
            return Err(try_issuers(STEP, &issuance.trial));
        };
        return Err(widen_trust(cluster, cas).unwrap_or(Intent::Act {
            step: STEP.into(),
            purpose: Purpose::RequestCertificates,
            actions: requests,
        }));
    }
    for (alias, certificate) in &issuance.certificates {
        let is_new = certificate
            .requested_at_revision
            .is_none_or(|requested| certificate.revision > requested);
        if certificate.issuing || !certificate.ready || !is_new {
            let on = Waiting::Certificate(*alias, certificate.failure.clone());
            return Err(Intent::wait(STEP, on));
        }
    }
    let material = match &issuance.issued {
        None => return Err(Intent::wait(STEP, Waiting::IssuedSecrets)),
        Some(Err(why)) => return Err(Intent::fail(STEP, StepProblem::BadMaterial(why.clone()))),
        Some(Ok(material)) => *material,
    };
    if issuance.trial != Trial::Absent {
        let end = ClusterAction::EndTrial;
        return Err(Intent::act(STEP, Purpose::EndTrial, end));
    }
    Ok(Some(material))
}

/// What a trial needs that has not passed.
pub(super) fn try_issuers(step: StepKind, trial: &Trial) -> Intent {
    match trial {
        Trial::Absent | Trial::Begun => {
            Intent::act(step, Purpose::StartTrial, ClusterAction::StartTrial)
        }
        // cert-manager does not ask again for what was refused: a new trial asks anew.
        Trial::Failed(why) => Intent::Fail {
            step: step.into(),
            problem: StepProblem::TrialFailed(why.clone()),
            retry: vec![ClusterAction::EndTrial.into()],
        },
        Trial::Pending(why) => Intent::wait(step, Waiting::Trial(why.clone())),
        Trial::Passed(_) => Intent::wait(step, Waiting::Trial(None)),
    }
}

/// Why the issued certificates cannot be served as the goal asks for it, where none of them will be
/// issued anew. `None` while cert-manager issues by itself.
pub(super) fn defect_of_what_stays<'a>(
    goal: &Goal<'_>,
    issuance: &'a Issuance,
) -> Option<&'a String> {
    let is_settled = |certificate: &ObservedCertificate| certificate.ready && !certificate.issuing;
    let all_stay =
        to_request(goal, issuance).is_empty() && issuance.certificates.values().all(is_settled);
    match &issuance.issued {
        Some(Err(why)) if all_stay => Some(why),
        _ => None,
    }
}

/// The requests that cert-manager has yet to get: Certificates as the spec asks for them; for a
/// rotation, new ones, and so for a key that is only written otherwise.
fn to_request(goal: &Goal<'_>, issuance: &Issuance) -> Vec<Action> {
    let certificate = |alias| issuance.certificates.get(alias);
    if !Alias::ALL
        .iter()
        .all(|alias| certificate(alias).is_some_and(|certificate| certificate.matches))
    {
        let spec = Box::new(goal.desired.clone());
        return vec![ClusterAction::RequestCertificates(spec).into()];
    }
    let is_renewed = |alias: Alias| match goal.operation {
        Some(Operation::Rotate) => true,
        Some(Operation::Change) => goal.encoded_anew.contains(&alias),
        _ => false,
    };
    let is_unrequested = |certificate: &ObservedCertificate| {
        certificate.requested_at_revision.is_none_or(|requested| {
            certificate.revision <= requested
                && !certificate.issuing
                && certificate.failure.is_none()
        })
    };
    issuance
        .certificates
        .iter()
        .filter(|(alias, certificate)| is_renewed(**alias) && is_unrequested(certificate))
        .map(|(alias, certificate)| {
            let revision = certificate
                .requested_at_revision
                .unwrap_or(certificate.revision);
            let alias = *alias;
            ClusterAction::Reissue { alias, revision }.into()
        })
        .collect()
}

/// Brings trust in these CAs to every server; `None` when it is there. Servers without certificate
/// files trust no CA.
fn widen_trust(cluster: &ObservedCluster, cas: &BTreeSet<CaId>) -> Option<Intent> {
    let files = cluster.applied.files.as_ref()?;
    let wider = Posture {
        files: Some(Files {
            trust: files.trust.union(cas).copied().collect(),
            ..files.clone()
        }),
        ..cluster.applied.clone()
    };
    // A walk that only trusts more is part of the stage that trusts more.
    let step = StepKind::Expand.into();
    match next_step(cluster, &wider, None) {
        Progress::Reached => None,
        Progress::Act {
            purpose, actions, ..
        } => Some(Intent::Act {
            step,
            purpose: match purpose {
                Purpose::ApplyStage(_) => Purpose::ApplyStage(StepKind::Expand),
                purpose => purpose,
            },
            actions: actions.into_iter().map(Action::from).collect(),
        }),
        Progress::Wait { on, .. } => Some(Intent::Wait { step, on }),
    }
}
