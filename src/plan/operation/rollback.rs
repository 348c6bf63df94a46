//! The way back to the database's own spec.

use crate::api::operation::Operation;
use crate::api::step::{Course, StepId};
use crate::api::{Postgres, StepKind};
use crate::plan::action::{ClusterAction, RequestAction};
use crate::plan::observed::{Observed, Paused, Trial};
use crate::plan::operation::attempts::find_step;
use crate::plan::operation::goal::{keeping_trust, target_spec};
use crate::plan::operation::intent::{Intent, Outcome};
use crate::plan::purpose::Purpose;
use crate::plan::rollout::next_step;
use crate::plan::waiting::Waiting;
use crate::tls::posture;

fn step(kind: StepKind) -> StepId {
    StepId::from(kind).on(Course::Rollback)
}

/// The next thing to do on the way back, after the operation was given up for this cause.
pub(super) fn roll_back(observed: &Observed, database: &Postgres, cause: &str) -> Intent {
    let has_trial = observed
        .issuance()
        .is_ok_and(|issuance| issuance.trial != Trial::Absent);
    let end_trial = || {
        let end = ClusterAction::EndTrial;
        Intent::act(step(StepKind::Preflight), Purpose::EndTrial, end)
    };
    if observed.paused != Paused::ByUs {
        // It was never paused, and nothing has changed; or it is resumed already, and its own
        // reconciler takes it to its spec.
        if has_trial {
            return end_trial();
        }
        let failed = find_step(observed.request.steps(), &StepKind::RollbackFailed.into());
        let how = failed.and_then(|step| step.message.as_deref());
        let why = how.map_or(cause.to_owned(), |how| format!("{cause}; {how}"));
        return Intent::End(Outcome::Failed(why));
    }
    let wait = |why: &_| {
        let on = Waiting::Observation(Clone::clone(why));
        Intent::wait(step(StepKind::Observe), on)
    };
    let live = match &observed.live {
        Ok(live) => live,
        Err(why) => return wait(why),
    };
    let cluster = match &live.cluster {
        Ok(cluster) => cluster,
        Err(why) => return wait(why),
    };
    let request = &observed.request;
    // Where the new spec was written already, the served leaves belong to it.
    let is_written = database.spec == target_spec(&database.spec, request, live.major);
    let material = if is_written && request.spec.operation() != Some(Operation::Rotate) {
        cluster.in_secret
    } else {
        cluster.previous.or(cluster.in_secret)
    };
    let origin = posture(&database.spec, live.major, material.as_ref());
    let origin = origin.map_or_else(
        || cluster.applied.clone(),
        |origin| keeping_trust(origin, &cluster.applied),
    );
    Intent::from_progress(next_step(cluster, &origin, None), Course::Rollback, || {
        if has_trial {
            return end_trial();
        }
        let resume = RequestAction::Resume;
        Intent::act(step(StepKind::Resume), Purpose::Resume, resume)
    })
}
