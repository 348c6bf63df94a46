//! When a status is written: at once where a later pgrekey needs it, a little later where only
//! people read it.
//!
//! An operation changes its status dozens of times, in steps that take a fraction of a second. The
//! API server is spared a status that the next one replaces before it is read; an event says when
//! each step begins. Written at once are the beginning, with the database and its pods, every
//! further try, the rollback and the end.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::StepKind;
use crate::api::duration::after;
use crate::api::ops_request::PostgresOpsRequestStatus;
use crate::plan::operation::attempts::find_step;

/// A status that is not written yet. Losing it loses the times of the last steps.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingStatus {
    /// The status that the API server had.
    based_on: Option<PostgresOpsRequestStatus>,
    /// The status.
    pub status: PostgresOpsRequestStatus,
    /// When the two began to differ.
    pub since: Timestamp,
}

impl PendingStatus {
    /// Whether the API server still has the status that this one is based on.
    #[must_use]
    pub fn still_applies_to(&self, written: Option<&PostgresOpsRequestStatus>) -> bool {
        self.based_on.as_ref() == written
    }
}

/// When a status is written.
#[derive(Clone, Debug, PartialEq)]
pub enum StatusWrite {
    /// Not at all: the API server has it.
    Unchanged,
    /// Later.
    Deferred(Box<PendingStatus>),
    /// Now, before the actions are executed.
    Immediate,
}

/// How soon a status has to be written.
#[derive(Clone, Copy, Debug)]
pub struct WritePolicy {
    /// How late it may show a step that succeeded.
    pub delay: Duration,
    /// A client grace period is counted from the end of steps: each step is written at once.
    pub has_grace_period: bool,
}

/// The status that the API server has.
#[derive(Clone, Debug, Default)]
pub struct StoredStatus {
    /// The status.
    pub status: Option<PostgresOpsRequestStatus>,
    /// Since when this process has a newer one; `None` if it has none.
    pub since: Option<Timestamp>,
}

impl StoredStatus {
    /// When a newer status is written.
    #[must_use]
    pub fn plan_write(
        &self,
        newer: &PostgresOpsRequestStatus,
        policy: WritePolicy,
        now: Timestamp,
    ) -> StatusWrite {
        if self.status.as_ref() == Some(newer) {
            return StatusWrite::Unchanged;
        }
        let since = self.since.unwrap_or(now);
        let is_due = after(since, policy.delay) <= now
            || self.status.as_ref().is_none_or(|status| {
                let is_timed = policy.has_grace_period && status.steps.len() != newer.steps.len();
                is_timed
                    || status.phase != newer.phase
                    || status.begun_on != newer.begun_on
                    || tries(status) != tries(newer)
            });
        if is_due {
            return StatusWrite::Immediate;
        }
        StatusWrite::Deferred(Box::new(PendingStatus {
            based_on: self.status.clone(),
            status: newer.clone(),
            since,
        }))
    }
}

/// The number of further tries, and whether the operation rolls back: these end a request.
fn tries(status: &PostgresOpsRequestStatus) -> (i32, bool) {
    let further = status.steps.iter().map(|step| (step.attempts - 1).max(0));
    let rolls_back = find_step(&status.steps, &StepKind::Rollback.into()).is_some();
    (further.sum(), rolls_back)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ops_request::{BegunOn, OpsPhase, Step};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn status(step: &str, attempts: i32) -> PostgresOpsRequestStatus {
        let steps = vec![Step {
            name: step.to_owned(),
            attempts,
            ..Step::default()
        }];
        PostgresOpsRequestStatus {
            phase: Some(OpsPhase::Progressing),
            steps,
            ..Default::default()
        }
    }

    fn stored(status: PostgresOpsRequestStatus) -> StoredStatus {
        StoredStatus {
            status: Some(status),
            since: None,
        }
    }

    const PACE: WritePolicy = WritePolicy {
        delay: Duration::from_secs(30),
        has_grace_period: false,
    };

    fn saved(newer: &PostgresOpsRequestStatus) -> StatusWrite {
        stored(status("Pause", 1)).plan_write(newer, PACE, at(0))
    }

    #[test]
    fn a_quick_step_is_written_with_the_next_one() {
        let written = status("Pause", 1);
        assert_eq!(saved(&written), StatusWrite::Unchanged);
        let StatusWrite::Deferred(draft) = saved(&status("Expand", 1)) else {
            panic!("it is written at once")
        };
        assert!(draft.still_applies_to(Some(&written)) && !draft.still_applies_to(None));
        let stored = StoredStatus {
            status: Some(written),
            since: Some(draft.since),
        };
        let next = |second| stored.plan_write(&status("Issue", 1), PACE, at(second));
        assert!(matches!(next(29), StatusWrite::Deferred(later) if later.since == at(0)));
        assert_eq!(next(30), StatusWrite::Immediate);
    }

    #[test]
    fn facts_that_a_later_pgrekey_needs_are_written_at_once() {
        assert_eq!(saved(&status("Pause", 2)), StatusWrite::Immediate);
        let begun = PostgresOpsRequestStatus {
            begun_on: Some(BegunOn::default()),
            ..status("Pause", 1)
        };
        assert_eq!(saved(&begun), StatusWrite::Immediate);
        assert_eq!(saved(&status("Rollback", 1)), StatusWrite::Immediate);
        let ended = PostgresOpsRequestStatus {
            phase: Some(OpsPhase::Successful),
            ..status("Pause", 1)
        };
        assert_eq!(saved(&ended), StatusWrite::Immediate);
        assert_eq!(
            StoredStatus {
                status: None,
                since: None
            }
            .plan_write(&ended, PACE, at(0)),
            StatusWrite::Immediate
        );
    }

    #[test]
    fn a_step_from_which_clients_are_given_time_is_written_at_once() {
        let mut longer = status("Pause", 1);
        longer.steps.push(Step {
            name: "Expand".to_owned(),
            attempts: 1,
            ..Step::default()
        });
        let save = |settles| {
            stored(status("Pause", 1)).plan_write(
                &longer,
                WritePolicy {
                    has_grace_period: settles,
                    ..PACE
                },
                at(0),
            )
        };
        assert_eq!(save(true), StatusWrite::Immediate);
        assert!(matches!(save(false), StatusWrite::Deferred(_)));
    }
}
