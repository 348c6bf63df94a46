//! The transition of a request: the decision, and all that follows from it without a client.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::StepKind;
use crate::api::duration::after;
use crate::api::ops_request::PostgresOpsRequestStatus;
use crate::plan::action::Action;
use crate::plan::observed::Observed;
use crate::plan::operation::attempts::find_step;
use crate::plan::operation::{Decision, decide};
use crate::plan::rollout::grace;
use crate::plan::status::request::{RequestEvent, record};
use crate::plan::status::write_policy::{StatusWrite, WritePolicy};
use crate::plan::waiting::Waiting;

/// How long until the next observation after an effect that shows at once.
const REQUEUE_AFTER_EFFECT: Duration = Duration::from_millis(50);

/// How long until the next observation while servers are waited for: they send no events.
const REQUEUE_WHILE_POLLING: Duration = Duration::from_millis(500);

/// How long until the next observation of a request that waits for its turn, an issuer, a budget or
/// a slot. Most of these are watched too.
const REQUEUE_WHILE_WAITING: Duration = Duration::from_secs(3);

/// How long a preflight takes that waits for nothing but the trial of the issuers.
const TRIAL: Duration = Duration::from_secs(15);

/// All that one observation leads to.
#[derive(Clone, Debug)]
pub struct Transition {
    /// The decision.
    pub decision: Decision,
    /// The status after it.
    pub status: PostgresOpsRequestStatus,
    /// When the status is written.
    pub write: StatusWrite,
    /// The events.
    pub events: Vec<RequestEvent>,
    /// When the request is observed again.
    pub requeue: Requeue,
}

/// When a request is observed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// After this time.
    After(Duration),
    /// When the watch shows a change.
    OnChange,
}

impl Transition {
    /// The effects, in their order.
    #[must_use]
    pub fn actions(&self) -> Vec<Action> {
        match &self.decision {
            Decision::Act { actions, .. } => actions.clone(),
            Decision::Finish(actions) => actions.iter().cloned().map(Action::from).collect(),
            _ => vec![],
        }
    }

    /// Whether the request has ended, and this process need remember nothing of it.
    #[must_use]
    pub const fn ends(&self) -> bool {
        matches!(
            self.decision,
            Decision::Complete(_) | Decision::Finish(_) | Decision::Rest(_)
        )
    }

    /// When the request is observed again after an effect could not be had.
    #[must_use]
    pub const fn requeue_after_failure(&self) -> Requeue {
        match self.decision {
            Decision::Act { .. } => Requeue::After(REQUEUE_WHILE_POLLING),
            _ => self.requeue,
        }
    }
}

/// The transition of a request at this time. `delay` is how late its status may show a step that
/// succeeded.
#[must_use]
pub fn transition(observed: &Observed, delay: Duration, now: Timestamp) -> Transition {
    let decision = decide(observed, now);
    let (status, events) = record(observed, &decision, now);
    let policy = WritePolicy {
        delay,
        has_grace_period: grace::for_request(&observed.request, observed.database.as_deref())
            .is_some(),
    };
    let write = match decision {
        Decision::Finish(_) | Decision::Rest(_) => StatusWrite::Unchanged,
        _ => observed.stored.plan_write(&status, policy, now),
    };
    let requeue = requeue(observed, &decision, &status, now);
    Transition {
        decision,
        status,
        write,
        events,
        requeue,
    }
}

fn requeue(
    observed: &Observed,
    decision: &Decision,
    status: &PostgresOpsRequestStatus,
    now: Timestamp,
) -> Requeue {
    match decision {
        // An effect that is had again and again does not show: it is given time.
        Decision::Act { actions, .. }
            if is_news(observed, status) && actions.iter().all(Action::shows_at_once) =>
        {
            Requeue::After(REQUEUE_AFTER_EFFECT)
        }
        Decision::Wait { step, on, .. } if step.is_none() || *on == Waiting::Slot => {
            Requeue::After(REQUEUE_WHILE_WAITING)
        }
        Decision::Wait {
            step: Some(step), ..
        } if step.kind == StepKind::Preflight && preflight_takes_long(observed, now) => {
            Requeue::After(REQUEUE_WHILE_WAITING)
        }
        Decision::Rest(None) => Requeue::OnChange,
        Decision::Rest(Some(until)) => {
            let rest = Duration::try_from(until.duration_since(now)).unwrap_or_default();
            Requeue::After(rest.max(REQUEUE_WHILE_POLLING))
        }
        _ => Requeue::After(REQUEUE_WHILE_POLLING),
    }
}

/// Whether the decision is another one than the last.
fn is_news(observed: &Observed, status: &PostgresOpsRequestStatus) -> bool {
    let old = observed.request.status.as_ref();
    old.map(|old| (old.phase, &old.steps)) != Some((status.phase, &status.steps))
}

/// Whether the preflight waits for more than the trial: an issuer that is not ready, or a budget.
fn preflight_takes_long(observed: &Observed, now: Timestamp) -> bool {
    let step = find_step(observed.request.steps(), &StepKind::Preflight.into());
    let began = step.and_then(|step| step.started_at.as_ref());
    began.is_some_and(|Time(began)| after(*began, TRIAL) <= now)
}
