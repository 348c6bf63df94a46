//! The conditions that must hold before anything changes.

use crate::api::StepKind;
use crate::api::ops_request::Apply;
use crate::plan::observed::cluster::ObservedCluster;
use crate::plan::observed::{Live, Observed, Trial};
use crate::plan::operation::goal::Goal;
use crate::plan::operation::intent::Intent;
use crate::plan::operation::issue::{defect_of_what_stays, try_issuers};
use crate::plan::waiting::{StepProblem, Waiting};
use crate::tls::{Method, ServerTls, method};

const STEP: StepKind = StepKind::Preflight;

/// The first condition that does not hold; `None` when the database may be paused.
pub(super) fn preflight(observed: &Observed, live: &Live, goal: &Goal<'_>) -> Option<Intent> {
    let cluster = match &live.cluster {
        Ok(cluster) => cluster,
        Err(why) => return Some(Intent::wait(STEP, Waiting::Observation(why.clone()))),
    };
    if let Err(on) = may_disrupt(observed, live, cluster, goal) {
        return Some(Intent::wait(STEP, on));
    }
    match locked_out_roles(cluster, goal, live.major) {
        Err(on) => return Some(Intent::wait(STEP, on)),
        Ok(roles) if !roles.is_empty() => {
            return Some(Intent::fail(STEP, StepProblem::LockedOut(roles)));
        }
        Ok(_) => {}
    }
    if loses_password_login(cluster, goal, live.major) {
        return Some(Intent::fail(STEP, StepProblem::NoChannelBinding));
    }
    if !goal.issues_certificates() {
        return None;
    }
    let issuance = match &live.issuance {
        Ok(issuance) => issuance,
        Err(why) => return Some(Intent::wait(STEP, Waiting::Issuance(why.clone()))),
    };
    if let Some(why) = &issuance.refused {
        return Some(Intent::fail(STEP, StepProblem::Refused(why.clone())));
    }
    if !issuance.conflicts.is_empty() {
        let conflicts = StepProblem::Conflicts(issuance.conflicts.clone());
        return Some(Intent::fail(STEP, conflicts));
    }
    if let Some(why) = defect_of_what_stays(goal, issuance) {
        return Some(Intent::fail(STEP, StepProblem::BadForGoal(why.clone())));
    }
    if !issuance.not_ready.is_empty() {
        let on = Waiting::Issuers(issuance.not_ready.clone());
        return Some(Intent::wait(STEP, on));
    }
    match &issuance.trial {
        Trial::Passed(_) => None,
        trial => Some(try_issuers(STEP, trial)),
    }
}

/// Whether pods are there and serve, and may be replaced, as far as this request needs it.
fn may_disrupt(
    observed: &Observed,
    live: &Live,
    cluster: &ObservedCluster,
    goal: &Goal<'_>,
) -> Result<(), Waiting> {
    let budgets = || {
        let budgets = live.budgets.as_ref();
        budgets.map_err(|why| Waiting::Budgets(why.clone()))
    };
    let replaces = goal.replaces.is_some();
    if observed.request.spec.apply == Apply::IfReady {
        let (wanted, found) = (cluster.replicas, cluster.pods.len());
        if wanted != found {
            return Err(Waiting::PodCount { wanted, found });
        }
        let mut pods = cluster.pods.iter();
        pods.try_for_each(|pod| cluster.serves_its_role(pod))?;
        if matches!(budgets()?.own, Some(..1)) && cluster.replicas > 1 && replaces {
            return Err(Waiting::OwnBudget);
        }
    }
    if replaces {
        cluster.keeps_data()?;
        if let Some(conflict) = budgets()?.conflict() {
            return Err(Waiting::Budget(conflict));
        }
    }
    Ok(())
}

/// Whether clients would have to log in by SCRAM under the leaf that is served now, although they need
/// not yet, and libpq cannot. The stages before another leaf is served ask for the password already.
fn loses_password_login(cluster: &ObservedCluster, goal: &Goal<'_>, major: u32) -> bool {
    let applied = &cluster.applied;
    let (Some(tls), true) = (applied.accept.tls, cluster.lacks_channel_binding) else {
        return false;
    };
    let target = goal.target(cluster, None);
    let keeps_tls = target.is_some_and(|target| target.serve == ServerTls::Tls);
    // Under `md5` roles whose passwords are stored as MD5 can log in.
    let loses = match (tls, method(&goal.desired, major)) {
        (Method::Cert, desired) => desired != Method::Cert,
        (Method::Md5, desired) => desired == Method::Scram,
        (Method::Scram, _) => false,
    };
    keeps_tls && loses
}

/// Roles whose passwords the servers would not accept any more: those stored as MD5, where SCRAM
/// will be asked for.
fn locked_out_roles(
    cluster: &ObservedCluster,
    goal: &Goal<'_>,
    major: u32,
) -> Result<Vec<String>, Waiting> {
    let accept = cluster.applied.accept;
    let is_scram = accept.plain.or(accept.tls) == Some(Method::Scram);
    if method(&goal.desired, major) != Method::Scram || is_scram {
        return Ok(vec![]);
    }
    let (_, primary) = cluster.primary()?;
    Ok(primary.md5_roles.clone())
}
