//! Checks of the admission webhooks.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::cli::doctor::installation::{
    AdmissionTrial, Inquiry, Installation, UnreadableObject, WebhookClient,
};
use crate::cli::doctor::report::CheckResult::{NotAsked, Problems, Well};
use crate::cli::doctor::report::{ASK_ANOTHER, CheckResult, CheckVerdict, known};
use crate::pki::certificate::summarize_pem;

const NONE_REGISTERED: &str = "no webhook is registered";

/// The webhooks that are registered, with their names.
fn registered(
    installation: &Installation,
) -> Result<impl Iterator<Item = (&str, &WebhookClient)>, UnreadableObject> {
    Ok(known(&installation.webhooks)?
        .iter()
        .filter_map(|webhook| Some((webhook.name.as_str(), webhook.registered.as_ref()?))))
}

/// Warns only: the controllers judge by the same rules, so nothing breaks without webhooks.
pub(super) fn registration(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let webhooks = known(&installation.webhooks)?;
    let missing = webhooks
        .iter()
        .filter(|webhook| webhook.registered.is_none());
    Ok(CheckResult::from_problems(
        CheckVerdict::Warn,
        missing.map(|webhook| format!("{} is not registered", webhook.name)),
        format!("all {}", webhooks.len()),
    ))
}

pub(super) fn cas(
    installation: &Installation,
    now: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    Ok(CheckResult::from_problems(
        CheckVerdict::Fail,
        registered(installation)?
            .filter_map(|(name, webhook)| Some(format!("{name} {}", ca_problem(webhook, now)?))),
        "good",
    ))
}

fn ca_problem(webhook: &WebhookClient, now: Timestamp) -> Option<String> {
    if webhook.ca_bundle.is_empty() {
        return Some("has no CA".to_owned());
    }
    let Some(ca) = summarize_pem(&webhook.ca_bundle) else {
        return Some("has a CA that cannot be read".to_owned());
    };
    (ca.not_after <= now).then(|| format!("has a CA that ended at {}", ca.not_after))
}

pub(super) fn endpoints(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let mut bad = BTreeSet::new();
    let mut good = BTreeSet::new();
    for (_, webhook) in registered(installation)? {
        match &webhook.service {
            Some(service) if service.ready_endpoints == 0 => {
                bad.insert(format!(
                    "Service {} has no endpoint that is ready",
                    service.path
                ));
            }
            Some(service) => {
                good.insert(format!(
                    "{}: {} ready",
                    service.path, service.ready_endpoints
                ));
            }
            None => {
                good.insert("called by URL".to_owned());
            }
        }
    }
    let good = if good.is_empty() {
        NONE_REGISTERED.to_owned()
    } else {
        Vec::from_iter(good).join(", ")
    };
    Ok(CheckResult::from_problems(CheckVerdict::Fail, bad, good))
}

pub(super) fn answer(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let trial = match known(&installation.trial)? {
        Inquiry::Answered(trial) => trial,
        Inquiry::NotAllowed(why) => {
            return Ok(NotAsked {
                why: why.clone(),
                remedy: ASK_ANOTHER,
            });
        }
    };
    Ok(match trial {
        AdmissionTrial::Refused => Well("an invalid request was refused".to_owned()),
        AdmissionTrial::Admitted { .. } if registered(installation)?.next().is_none() => {
            Well(NONE_REGISTERED.to_owned())
        }
        AdmissionTrial::Admitted { namespace } => NotAsked {
            why: format!(
                "an invalid request was admitted: no webhook reviews namespace {namespace}"
            ),
            remedy: "name another one with -n: pgrekey's own and kube-system are not reviewed",
        },
        AdmissionTrial::NotCalled { message } => {
            Problems(CheckVerdict::Fail, vec![message.clone()])
        }
    })
}
