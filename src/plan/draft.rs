//! When a status is written: what a later pgrekey must know at once, what only people read a little
//! later.
//!
//! An operation changes its status dozens of times, in steps that take a fraction of a second. The
//! API server is spared what is old before anybody has read it; events tell of each step when it
//! begins. Written at once are the beginning, with the database and the pods that it is about,
//! every further try, the turn back and the end.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::duration::after;
use crate::api::ops_request::PostgresOpsRequestStatus;

use super::ledger::TURN_BACK;

/// A status that is not written yet. Whoever loses it loses the times of the last steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// What it is to be written over.
    over: Option<PostgresOpsRequestStatus>,
    /// The status.
    pub status: PostgresOpsRequestStatus,
    /// Since when the two differ.
    pub since: Timestamp,
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

/// How soon a status is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How late it may tell of a step that went well.
    pub delay: Duration,
    /// Clients are given time, counted from a step on: steps are written at once.
    pub settles: bool,
}

/// What the API server has, and since when there is something newer.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The status.
    pub status: Option<PostgresOpsRequestStatus>,
    /// Since when there has been a newer one; nothing if there is none.
    pub since: Option<Timestamp>,
}

impl Stored {
    /// What becomes of a newer status.
    #[must_use]
    pub fn save(&self, newer: &PostgresOpsRequestStatus, pace: Pace, now: Timestamp) -> Save {
        if self.status.as_ref() == Some(newer) {
            return Save::Not;
        }
        let since = self.since.unwrap_or(now);
        let is_due = after(since, pace.delay) <= now
            || self.status.as_ref().is_none_or(|status| {
                let is_timed = pace.settles && status.steps.len() != newer.steps.len();
                is_timed
                    || status.phase != newer.phase
                    || status.begun_on != newer.begun_on
                    || tries(status) != tries(newer)
            });
        if is_due {
            return Save::Now;
        }
        Save::Later(Box::new(Draft {
            over: self.status.clone(),
            status: newer.clone(),
            since,
        }))
    }
}

/// How often steps were tried again, and the turn back: what ends a request.
fn tries(status: &PostgresOpsRequestStatus) -> (i32, bool) {
    let again = status
        .steps
        .iter()
        .map(|step| (step.attempts - 1).max(0))
        .sum();
    (
        again,
        super::ledger::find(&status.steps, TURN_BACK).is_some(),
    )
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

    fn stored(status: PostgresOpsRequestStatus) -> Stored {
        Stored {
            status: Some(status),
            since: None,
        }
    }

    const PACE: Pace = Pace {
        delay: Duration::from_secs(30),
        settles: false,
    };

    fn saved(newer: &PostgresOpsRequestStatus) -> Save {
        stored(status("Pause", 1)).save(newer, PACE, at(0))
    }

    #[test]
    fn a_quick_step_is_written_with_what_follows_it() {
        let written = status("Pause", 1);
        assert_eq!(saved(&written), Save::Not);
        let Save::Later(draft) = saved(&status("Expand", 1)) else {
            panic!("it is written at once")
        };
        assert!(draft.is_over(Some(&written)) && !draft.is_over(None));
        let stored = Stored {
            status: Some(written),
            since: Some(draft.since),
        };
        let next = |second| stored.save(&status("Issue", 1), PACE, at(second));
        assert!(matches!(next(29), Save::Later(later) if later.since == at(0)));
        assert_eq!(next(30), Save::Now);
    }

    #[test]
    fn what_a_later_pgrekey_must_know_is_written_at_once() {
        assert_eq!(saved(&status("Pause", 2)), Save::Now);
        let begun = PostgresOpsRequestStatus {
            begun_on: Some(BegunOn::default()),
            ..status("Pause", 1)
        };
        assert_eq!(saved(&begun), Save::Now);
        assert_eq!(saved(&status(TURN_BACK, 1)), Save::Now);
        let ended = PostgresOpsRequestStatus {
            phase: Some(OpsPhase::Successful),
            ..status("Pause", 1)
        };
        assert_eq!(saved(&ended), Save::Now);
        assert_eq!(
            Stored {
                status: None,
                since: None
            }
            .save(&ended, PACE, at(0)),
            Save::Now
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
        let save =
            |settles| stored(status("Pause", 1)).save(&longer, Pace { settles, ..PACE }, at(0));
        assert_eq!(save(true), Save::Now);
        assert!(matches!(save(false), Save::Later(_)));
    }
}
