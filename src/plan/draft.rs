//! When a status is written: what a later pgrekey must know at once, what only people read within seconds.
//!
//! An operation changes its status dozens of times, in steps that take a fraction of a second. The API server is spared what is
//! old before anybody has read it.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::PostgresOpsRequest;
use crate::api::ops_request::PostgresOpsRequestStatus;

use super::action::Action;
use super::decide::{Decision, SETTLE};
use super::ledger::TURN_BACK;

/// What has changed is written after this long.
const LATE: Duration = Duration::from_secs(5);

/// A status that is not written yet. Whoever loses it loses the times of a few seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// What it is to be written over.
    over: Option<PostgresOpsRequestStatus>,
    /// The status.
    pub status: PostgresOpsRequestStatus,
    /// Since when the two differ.
    since: Timestamp,
}

impl Draft {
    /// Whether it is still to be written over what is there.
    #[must_use]
    pub fn is_over(&self, written: Option<&PostgresOpsRequestStatus>) -> bool {
        self.over.as_ref() == written
    }
}

/// What becomes of a status.
#[derive(Clone, Debug, PartialEq)]
pub enum Save {
    /// It is there already.
    Not,
    /// It is written later.
    Later(Box<Draft>),
    /// It is written now, before what was decided is done.
    Now,
}

/// What becomes of the status that follows from a decision about this request, where `draft` is what was not written before.
#[must_use]
pub fn save(
    request: &PostgresOpsRequest,
    written: Option<&PostgresOpsRequestStatus>,
    draft: Option<&Draft>,
    status: &PostgresOpsRequestStatus,
    decision: &Decision,
    now: Timestamp,
) -> Save {
    if written == Some(status) {
        return Save::Not;
    }
    let since = draft.map_or(now, |draft| draft.since);
    let is_due = since + LATE <= now
        || disrupts(decision)
        || written.is_none_or(|written| {
            // The time that clients are given counts from a step on.
            let is_timed = request.annotations().contains_key(SETTLE) && written.steps.len() != status.steps.len();
            is_timed || written.phase != status.phase || tries(written) != tries(status)
        });
    if is_due {
        return Save::Now;
    }
    Save::Later(Box::new(Draft { over: written.cloned(), status: status.clone(), since }))
}

/// Whether it is remembered before it is done that clients will notice.
fn disrupts(decision: &Decision) -> bool {
    let Decision::Act { actions, .. } = decision else { return false };
    actions.iter().any(|action| matches!(action, Action::Evict { .. } | Action::SwitchOver { .. }))
}

/// How often steps were tried again, and the turn back: what ends a request.
fn tries(status: &PostgresOpsRequestStatus) -> (i32, bool) {
    let again = status.steps.iter().map(|step| (step.attempts - 1).max(0)).sum();
    (again, super::ledger::find(&status.steps, TURN_BACK).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ops_request::{OpsPhase, Step};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn status(step: &str, attempts: i32) -> PostgresOpsRequestStatus {
        let steps = vec![Step { name: step.to_owned(), attempts, ..Step::default() }];
        PostgresOpsRequestStatus { phase: Some(OpsPhase::Progressing), steps, ..Default::default() }
    }

    fn act(actions: Vec<Action>) -> Decision {
        Decision::Act { step: "Expand".to_owned(), what: String::new(), actions, begins: false }
    }

    fn request() -> PostgresOpsRequest {
        let spec = serde_saphyr::from_str("{type: Restart, databaseRef: {name: pg}}").expect("a spec");
        PostgresOpsRequest::new("restart", spec)
    }

    fn saved(status: &PostgresOpsRequestStatus, decision: &Decision) -> Save {
        save(&request(), Some(&self::status("Pause", 1)), None, status, decision, at(0))
    }

    #[test]
    fn a_quick_step_is_written_with_what_follows_it() {
        let harmless = act(vec![Action::Try]);
        let written = status("Pause", 1);
        assert_eq!(saved(&written, &harmless), Save::Not);
        let Save::Later(draft) = saved(&status("Expand", 1), &harmless) else { panic!("it is written at once") };
        assert!(draft.is_over(Some(&written)) && !draft.is_over(None));
        let next = |second| save(&request(), Some(&written), Some(&draft), &status("Issue", 1), &harmless, at(second));
        assert!(matches!(next(4), Save::Later(later) if later.since == at(0)));
        assert_eq!(next(5), Save::Now);
    }

    #[test]
    fn what_a_later_pgrekey_must_know_is_written_at_once() {
        let harmless = act(vec![Action::Try]);
        let evict = act(vec![Action::Evict { pod: "pg-1".to_owned(), uid: String::new() }]);
        assert_eq!(saved(&status("Restart pg-1", 1), &evict), Save::Now);
        assert_eq!(saved(&status("Pause", 2), &harmless), Save::Now);
        assert_eq!(saved(&status(TURN_BACK, 1), &harmless), Save::Now);
        let ended = PostgresOpsRequestStatus { phase: Some(OpsPhase::Successful), ..status("Pause", 1) };
        assert_eq!(saved(&ended, &Decision::End(crate::plan::Outcome::Successful)), Save::Now);
        let mut timed = request();
        timed.annotations_mut().insert(SETTLE.to_owned(), "90s".to_owned());
        let mut longer = status("Pause", 1);
        longer.steps.push(Step { name: "Expand".to_owned(), attempts: 1, ..Step::default() });
        assert_eq!(save(&timed, Some(&status("Pause", 1)), None, &longer, &harmless, at(0)), Save::Now);
        assert_eq!(save(&request(), None, None, &ended, &harmless, at(0)), Save::Now);
    }
}
