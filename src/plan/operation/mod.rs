//! The next decision about a request: a pure function of one observation and the time.
//!
//! # Expected flow
//! [`transition`](crate::plan::transition::transition) asks [`decide`] and derives the status, the
//! events and the next observation from the decision. The controller records the status, executes
//! the actions, and observes again.
//!
//! ```text
//! wait for the turn -> begin -> preflight -> pause -> issue -> rollout to the target -> write the spec -> resume -> end
//! on the way back:     rollout to the database's own spec -> resume -> end
//! ```
//!
//! # Guarantees
//! 1. Total and pure: the same observation and time give the same decision; an unknown fact is
//!    waited for, never guessed.
//! 2. The world comes first: a step is done when an observation shows it. `status.steps` only counts
//!    attempts.
//! 3. One disruption at a time: see [`next_step`].
//! 4. Every wait says what it waits for.
//! 5. After a crash at any point the next decision is the same or a later one.
//! 6. Whatever the end, the database is resumed, and serves its spec as far as the world allows.
//!
//! # Assumptions
//! A decision is recorded before its actions are executed. A status that was decided on and not
//! written yet is part of the next observation of this process.

pub mod attempts;
pub mod goal;
mod intent;
mod issue;
mod preflight;
mod rollback;

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::annotations::{OPS_REQUEST_FINALIZER, TTL};
use crate::api::duration::{self, after};
use crate::api::ops_request::{Apply, OpsPhase};
use crate::api::postgres::DatabasePhase;
use crate::api::step::{Course, StepId};
use crate::api::{Postgres, PostgresOpsRequest, StepKind};
use crate::plan::action::{Action, ClusterAction, RequestAction};
use crate::plan::observed::{Observed, Paused};
use crate::plan::purpose::{Failure, Purpose};
use crate::plan::rollout::{Progress, grace, next_step};
use crate::plan::waiting::Waiting;

use attempts::{AttemptStart, AttemptState, Feasibility, RetryPolicy, attempt_state, find_step};
use goal::Goal;
use intent::Intent;
use issue::issue;
use preflight::preflight;
use rollback::roll_back;

pub use intent::Outcome;

/// The next decision about a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Execute these actions, then observe again.
    Act {
        /// The step that they belong to.
        step: StepId,
        /// Their purpose.
        purpose: Purpose,
        /// Why the last effect of this step could not be had.
        last_failure: Option<String>,
        /// In this order.
        actions: Vec<Action>,
        /// Whether a try of the step begins.
        attempt: AttemptStart,
    },
    /// Observe again later.
    Wait {
        /// The step that waits; `None` before the request has begun.
        step: Option<StepId>,
        /// What it waits for.
        on: Waiting,
        /// Whether a try of the step begins.
        attempt: AttemptStart,
    },
    /// Give the operation up, and go back to the database's own spec.
    RollBack {
        /// Why.
        cause: Failure,
    },
    /// Execute these actions after the end. Nothing is recorded any more.
    Finish(Vec<RequestAction>),
    /// The operation ends.
    Complete(Outcome),
    /// Nothing is left to do; until then, if a time is given.
    Rest(Option<Timestamp>),
}

/// The next decision.
#[must_use]
pub fn decide(observed: &Observed, now: Timestamp) -> Decision {
    let request = &observed.request;
    if request.is_finished() {
        return after_the_end(request, now);
    }
    let Some(database) = &observed.database else {
        return Decision::Complete(Outcome::Failed(format!(
            "the database {} does not exist, or is no longer the one that this request began on",
            request.spec.database_ref.name
        )));
    };
    if database.metadata.deletion_timestamp.is_some() {
        return Decision::Complete(Outcome::Failed("the database is being deleted".to_owned()));
    }
    if has_lost_its_claim(observed) {
        return begin(observed);
    }
    if !is_claimed(request) {
        return before_the_beginning(observed, database);
    }
    // A failed rollback ends by resuming the database, whatever else is observed.
    if let Some(step) = find_step(request.steps(), &StepKind::RollbackFailed.into())
        && observed.paused == Paused::ByUs
    {
        let why = step.message.clone().unwrap_or_default();
        return resume(Purpose::ResumeAsIs(why), AttemptStart::GoesOn);
    }
    let intent = match rollback_cause(request) {
        Some(cause) => roll_back(observed, database, &cause),
        None if request.metadata.deletion_timestamp.is_some() => {
            let cause = Failure::RequestDeleted;
            return Decision::RollBack { cause };
        }
        None => wait_for_clients(observed, advance(observed, database), now),
    };
    count_attempts(observed, intent, now)
}

fn after_the_end(request: &PostgresOpsRequest, now: Timestamp) -> Decision {
    if has_finalizer(request) {
        return Decision::Finish(vec![RequestAction::RemoveFinalizer]);
    }
    let ttl = request.annotations().get(TTL);
    let ttl = ttl.and_then(|text| duration::parse(text).ok());
    let conditions = request.status.iter().flat_map(|status| &status.conditions);
    let ended = conditions.map(|condition| &condition.last_transition_time);
    let ended = ended.max().or(request.metadata.creation_timestamp.as_ref());
    match ttl.zip(ended).map(|(ttl, ended)| after(ended.0, ttl)) {
        Some(over) if over <= now => Decision::Finish(vec![RequestAction::Delete]),
        over => Decision::Rest(over),
    }
}

fn before_the_beginning(observed: &Observed, database: &Postgres) -> Decision {
    let request = &observed.request;
    if request.metadata.deletion_timestamp.is_some() {
        return if has_finalizer(request) {
            Decision::Finish(vec![RequestAction::RemoveFinalizer])
        } else {
            Decision::Rest(None)
        };
    }
    if request.begun_on().is_some() {
        return begin(observed);
    }
    if let Some(on) = wait_for_turn(request, &observed.siblings) {
        return wait_to_begin(on);
    }
    // Only now: the earlier requests may have changed what the rules find.
    if !observed.refused.is_empty() {
        return Decision::Complete(Outcome::Failed(observed.refused.join("; ")));
    }
    match may_begin(request, database, &observed.paused, observed.free_slots) {
        Err(on) => wait_to_begin(on),
        Ok(()) => begin(observed),
    }
}

const fn wait_to_begin(on: Waiting) -> Decision {
    Decision::Wait {
        step: None,
        on,
        attempt: AttemptStart::GoesOn,
    }
}

/// The earlier request about the same database that has to end first.
#[must_use]
pub fn wait_for_turn(
    request: &PostgresOpsRequest,
    siblings: &[std::sync::Arc<PostgresOpsRequest>],
) -> Option<Waiting> {
    let ahead = request.ahead(siblings);
    Some(Waiting::EarlierRequest(ahead.first()?.name_any()))
}

/// Whether a request may begin whose turn it is.
pub fn may_begin(
    request: &PostgresOpsRequest,
    database: &Postgres,
    paused: &Paused,
    free_slots: usize,
) -> Result<(), Waiting> {
    if free_slots == 0 {
        return Err(Waiting::Slot);
    }
    if let Paused::ByOther(paused_by) = paused {
        return Err(Waiting::Resumed(paused_by.clone()));
    }
    let phase = database.status.as_ref().and_then(|status| status.phase);
    if request.spec.apply == Apply::IfReady && phase != Some(DatabasePhase::Ready) {
        return Err(Waiting::DatabaseReady(phase));
    }
    Ok(())
}

/// Whether a request has begun, and its finalizer keeps it from vanishing.
fn is_claimed(request: &PostgresOpsRequest) -> bool {
    has_finalizer(request) && request.begun_on().is_some()
}

fn has_finalizer(request: &PostgresOpsRequest) -> bool {
    request
        .finalizers()
        .iter()
        .any(|name| name == OPS_REQUEST_FINALIZER)
}

/// Whether a running request lost its finalizer or `status.begunOn` (`kubectl replace` drops both).
/// The database is still paused in its name, so the request goes on. A request that is being
/// deleted cannot get a finalizer back.
fn has_lost_its_claim(observed: &Observed) -> bool {
    let request = &observed.request;
    let can_be_claimed = request.metadata.deletion_timestamp.is_none() || has_finalizer(request);
    observed.paused == Paused::ByUs && !is_claimed(request) && can_be_claimed
}

/// The request begins: its database and pods are recorded, and then it gets its finalizer.
fn begin(observed: &Observed) -> Decision {
    let request = &observed.request;
    if let (None, Err(why)) = (request.begun_on(), &observed.pod_uids) {
        return wait_to_begin(Waiting::PodUids(why.clone()));
    }
    let step = StepId::from(StepKind::Begin);
    let attempt = match find_step(request.steps(), &step) {
        None => AttemptStart::Begins,
        Some(_) => AttemptStart::GoesOn,
    };
    let actions = if has_finalizer(request) {
        vec![]
    } else {
        vec![RequestAction::AddFinalizer.into()]
    };
    Decision::Act {
        last_failure: last_failure(observed, &step),
        step,
        purpose: Purpose::Start,
        actions,
        attempt,
    }
}

/// Why the operation was given up, if it was.
fn rollback_cause(request: &PostgresOpsRequest) -> Option<String> {
    let step = find_step(request.steps(), &StepKind::Rollback.into())?;
    Some(step.message.clone().unwrap_or_default())
}

/// Keeps the client grace period before the walk goes on without what clients know.
///
/// The period starts when the previous stage ended. If a renewal, not this request, did that stage,
/// it starts when the bundle last changed.
fn wait_for_clients(observed: &Observed, intent: Intent, now: Timestamp) -> Intent {
    let steps = observed.request.steps();
    let period = grace::for_request(&observed.request, observed.database.as_deref());
    let (Intent::Act { step, actions, .. }, Some(period)) = (&intent, period) else {
        return intent;
    };
    if find_step(steps, step).is_some() {
        return intent;
    }
    let previous = match step.kind {
        StepKind::Migrate => Some(StepKind::Expand),
        StepKind::Contract => Some(StepKind::Migrate),
        _ => None,
    };
    let previous = previous.and_then(|kind| find_step(steps, &kind.into()));
    let previous_ended =
        previous.and_then(|step| step.finished_at.as_ref().or(step.started_at.as_ref()));
    let cluster = observed.cluster().ok();
    let bundle_changed = || {
        let cluster = cluster?;
        grace::client_need(cluster, cluster_actions(actions))?;
        cluster.trust_changed_at
    };
    let since = previous_ended.map(|time| time.0).or_else(bundle_changed);
    let until = since.map(|since| grace::until(cluster, since, period));
    match until {
        Some(until) if now < until => Intent::wait(StepKind::ClientGracePeriod, Waiting::Clients),
        _ => intent,
    }
}

fn cluster_actions(actions: &[Action]) -> impl Iterator<Item = &ClusterAction> {
    actions.iter().filter_map(|action| match action {
        Action::Cluster(action) => Some(action),
        Action::Request(_) => None,
    })
}

/// The way to the goal.
fn advance(observed: &Observed, database: &Postgres) -> Intent {
    if let Paused::ByOther(paused_by) = &observed.paused {
        return Intent::wait(StepKind::Pause, Waiting::Resumed(paused_by.clone()));
    }
    let is_paused = observed.paused == Paused::ByUs;
    let live = match &observed.live {
        Ok(live) => live,
        Err(why) => {
            let step = if is_paused {
                StepKind::Observe
            } else {
                StepKind::Preflight
            };
            return Intent::wait(step, Waiting::Observation(why.clone()));
        }
    };
    let goal = Goal::new(&observed.request, database, live.major);
    if is_paused {
        return match next(observed, &goal) {
            Ok(progress) => roll_out(progress, &goal, database),
            Err(intent) => intent,
        };
    }
    if database.spec == goal.desired && matches!(next(observed, &goal), Ok(Progress::Reached)) {
        return Intent::End(Outcome::Successful);
    }
    match preflight(observed, live, &goal) {
        Some(intent) => intent,
        // Not in Preflight, whose patience would be used up by it.
        None if observed.free_slots == 0 => Intent::wait(StepKind::Pause, Waiting::Slot),
        None => Intent::act(StepKind::Pause, Purpose::Pause, RequestAction::Pause),
    }
}

/// The rollout to the goal; then the spec is written, and the database resumes.
fn roll_out(progress: Progress, goal: &Goal<'_>, database: &Postgres) -> Intent {
    Intent::from_progress(progress, Course::Forward, || {
        if database.spec == goal.desired {
            return Intent::act(StepKind::Resume, Purpose::Resume, RequestAction::Resume);
        }
        let write = RequestAction::WriteSpec(Box::new(goal.desired.clone()));
        Intent::act(StepKind::UpdateDatabase, Purpose::WriteSpec, write)
    })
}

/// The next step of the rollout to the goal, once the certificates are issued.
fn next(observed: &Observed, goal: &Goal<'_>) -> Result<Progress, Intent> {
    let cluster = observed
        .cluster()
        .map_err(|why| Intent::wait(StepKind::Observe, Waiting::Observation(why.clone())))?;
    let issued = issue(observed, goal, cluster)?;
    let target = goal
        .target(cluster, issued)
        .ok_or_else(|| Intent::wait(StepKind::Issue, Waiting::Certificates))?;
    Ok(next_step(cluster, &target, goal.replaces))
}

/// Turns an intent into a decision: attempts are counted, and patience ends.
fn count_attempts(observed: &Observed, intent: Intent, now: Timestamp) -> Decision {
    let spec = &observed.request.spec;
    let policy = RetryPolicy::from_request(spec.timeout.as_deref(), spec.max_retries);
    let (step, feasibility) = match &intent {
        Intent::End(outcome) => return Decision::Complete(outcome.clone()),
        Intent::Act { step, .. } | Intent::Wait { step, .. } => (step, Feasibility::Possible),
        Intent::Fail { step, .. } => (step, Feasibility::Impossible),
    };
    let steps = observed.request.steps();
    let state = attempt_state(steps, step, feasibility, policy, now);
    // The request says how long clients get. And a wait for a slot is no try of the step: how long
    // other operations work is not this request's fault.
    let is_grace_period = step.kind == StepKind::ClientGracePeriod;
    let waits_for_slot = matches!(&intent, Intent::Wait { on, .. } if *on == Waiting::Slot);
    let is_patient = is_grace_period || waits_for_slot;
    if state == AttemptState::Exhausted && !is_patient {
        return give_up(observed, intent);
    }
    let is_known = find_step(steps, step).is_some();
    let attempt = match state {
        AttemptState::Begins if !(waits_for_slot || is_grace_period && is_known) => {
            AttemptStart::Begins
        }
        _ => AttemptStart::GoesOn,
    };
    match intent {
        Intent::Act {
            step,
            purpose,
            actions,
        } => Decision::Act {
            last_failure: last_failure(observed, &step),
            step,
            purpose,
            actions,
            attempt,
        },
        Intent::Wait { step, on } => Decision::Wait {
            step: Some(step),
            on,
            attempt,
        },
        Intent::Fail {
            step,
            problem,
            retry,
        } if attempt == AttemptStart::Begins && !retry.is_empty() => Decision::Act {
            step,
            purpose: Purpose::Retry(problem),
            last_failure: None,
            actions: retry,
            attempt,
        },
        Intent::Fail { step, problem, .. } => Decision::Wait {
            step: Some(step),
            on: Waiting::NextTry(problem),
            attempt,
        },
        Intent::End(outcome) => Decision::Complete(outcome),
    }
}

/// Why the last effect of this step could not be had.
fn last_failure(observed: &Observed, step: &StepId) -> Option<String> {
    let failure = observed.last_failure.as_ref()?;
    (failure.step.as_ref() == Some(step)).then(|| failure.why.clone())
}

/// On the way forward the operation rolls back. A rollback ends with what could be had: the
/// database is never left paused.
fn give_up(observed: &Observed, intent: Intent) -> Decision {
    let failure = match intent {
        Intent::End(outcome) => return Decision::Complete(outcome),
        Intent::Act { step, purpose, .. } => Failure::NotDone {
            last_failure: last_failure(observed, &step),
            step,
            purpose,
        },
        Intent::Wait { step, on } => Failure::TimedOut { step, waiting: on },
        Intent::Fail { step, problem, .. } => Failure::Impossible { step, problem },
    };
    let is_resuming = matches!(
        &failure,
        Failure::NotDone { step, .. } if *step == StepKind::Resume.into()
    );
    match rollback_cause(&observed.request) {
        // The operation is done but for this: only this is tried, until it works.
        None if is_resuming => Decision::Act {
            step: StepKind::Resume.into(),
            purpose: Purpose::Resume,
            last_failure: None,
            actions: vec![RequestAction::Resume.into()],
            attempt: AttemptStart::Begins,
        },
        None => Decision::RollBack { cause: failure },
        Some(_) if observed.paused == Paused::ByUs => resume(
            Purpose::ResumeAsIs(failure.to_string()),
            AttemptStart::Begins,
        ),
        Some(cause) => Decision::Complete(Outcome::Failed(format!(
            "{cause}; during the rollback, {failure}"
        ))),
    }
}

fn resume(purpose: Purpose, attempt: AttemptStart) -> Decision {
    Decision::Act {
        step: StepKind::RollbackFailed.into(),
        purpose,
        last_failure: None,
        actions: vec![RequestAction::Resume.into()],
        attempt,
    }
}

/// Whether the request is one of the operations that run in this cluster: it has begun and not
/// ended, also if it has lost its finalizer.
#[must_use]
pub fn is_running(request: &PostgresOpsRequest) -> bool {
    let has_begun = request.begun_on().is_some() || request.phase() == Some(OpsPhase::Progressing);
    has_begun && !request.is_finished()
}
