//! The steps of an operation, their times and tries: all that is remembered, and only in
//! `status.steps`.
//!
//! Whether a step is done is for the world to show. The ledger says since when it is being tried
//! and how often, so that a step that takes too long is tried again, and given up, also across
//! restarts of pgrekey. It only grows.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::StepKind;
use crate::api::bounds::{MAX_RETRIES, MAX_TIMEOUT};
use crate::api::duration;
use crate::api::duration::after;
use crate::api::ops_request::Step;

/// Name of the step that says that the operation was given up and the way leads back.
pub const ROLLBACK: &str = StepKind::Rollback.as_str();

/// How long a step may take, if the request does not say.
const TIMEOUT: Duration = Duration::from_mins(10);

/// A step that failed is tried again after this long; twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// How much patience a request has.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// How long one try of a step may take.
    pub timeout: Duration,
    /// How often a step is tried again.
    pub retries: i32,
}

impl RetryPolicy {
    /// What the request says, or 10 minutes; within what a request may say, whoever let it in.
    #[must_use]
    pub fn from_request(timeout: Option<&str>, retries: i32) -> Self {
        let timeout = timeout.and_then(|text| duration::parse(text).ok());
        let timeout = timeout
            .filter(|timeout| !timeout.is_zero())
            .unwrap_or(TIMEOUT);
        Self {
            timeout: timeout.min(MAX_TIMEOUT),
            retries: retries.clamp(0, MAX_RETRIES),
        }
    }
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptState {
    /// It is being tried, until then.
    Trying(Timestamp),
    /// It has just failed, or the first try begins: a new try begins now.
    Begins,
    /// It failed, and is tried again then.
    Pausing(Timestamp),
    /// It has been tried often enough.
    Exhausted,
}

/// Where the step of this name stands; `failing` if it cannot be done as things are.
#[must_use]
pub fn attempt_state(
    steps: &[Step],
    name: &str,
    failing: bool,
    patience: RetryPolicy,
    now: Timestamp,
) -> AttemptState {
    let Some(step) = find_step(steps, name) else {
        return AttemptState::Begins;
    };
    let Some(Time(started)) = step.started_at else {
        return AttemptState::Begins;
    };
    if step.finished_at.is_some() {
        // It was done, and the world has changed since.
        return if failing {
            AttemptState::Begins
        } else {
            AttemptState::Trying(after(now, patience.timeout))
        };
    }
    let ends = if failing {
        after(started, backoff(step.attempts))
    } else {
        after(started, patience.timeout)
    };
    if now < ends {
        return if failing {
            AttemptState::Pausing(ends)
        } else {
            AttemptState::Trying(ends)
        };
    }
    if step.attempts > patience.retries {
        AttemptState::Exhausted
    } else {
        AttemptState::Begins
    }
}

fn backoff(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts.clamp(1, 10) - 1).unwrap_or_default();
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}

/// The step of this name.
#[must_use]
pub fn find_step<'a>(steps: &'a [Step], name: &str) -> Option<&'a Step> {
    steps.iter().find(|step| step.name == name)
}

/// Notes that this step is what happens now: the steps before it are done, and a new try is counted
/// if one begins.
pub fn record_attempt(
    steps: &mut Vec<Step>,
    name: &str,
    begins: bool,
    message: &str,
    now: Timestamp,
) {
    finish_steps(steps, Some(name), now);
    let at = steps
        .iter()
        .position(|step| step.name == name)
        .unwrap_or_else(|| {
            steps.push(Step {
                name: name.to_owned(),
                ..Step::default()
            });
            steps.len() - 1
        });
    let step = &mut steps[at];
    if begins {
        step.attempts += 1;
    }
    if begins || step.finished_at.is_some() {
        step.started_at = Some(Time(now));
        step.finished_at = None;
    }
    step.message = Some(message.to_owned());
}

/// Notes that every step but this one is done.
pub fn finish_steps(steps: &mut [Step], but: Option<&str>, now: Timestamp) {
    for step in steps
        .iter_mut()
        .filter(|step| but != Some(&step.name) && step.finished_at.is_none())
    {
        step.finished_at = Some(Time(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: RetryPolicy = RetryPolicy {
        timeout: Duration::from_mins(1),
        retries: 1,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn stands(steps: &[Step], failing: bool, second: i64) -> AttemptState {
        attempt_state(steps, "Expand", failing, PATIENCE, at(second))
    }

    #[test]
    fn a_step_that_takes_too_long_is_tried_again_and_then_given_up() {
        let mut steps = vec![];
        assert_eq!(stands(&steps, false, 0), AttemptState::Begins);
        record_attempt(&mut steps, "Expand", true, "", at(0));
        assert_eq!(stands(&steps, false, 59), AttemptState::Trying(at(60)));
        assert_eq!(stands(&steps, false, 60), AttemptState::Begins);
        record_attempt(&mut steps, "Expand", true, "", at(60));
        assert_eq!(stands(&steps, false, 119), AttemptState::Trying(at(120)));
        assert_eq!(stands(&steps, false, 120), AttemptState::Exhausted);
    }

    #[test]
    fn a_step_that_fails_pauses_longer_each_time() {
        let mut steps = vec![];
        record_attempt(&mut steps, "Expand", true, "no", at(0));
        assert_eq!(stands(&steps, true, 4), AttemptState::Pausing(at(5)));
        assert_eq!(stands(&steps, true, 5), AttemptState::Begins);
        record_attempt(&mut steps, "Expand", true, "no", at(5));
        assert_eq!(stands(&steps, true, 14), AttemptState::Pausing(at(15)));
        assert_eq!(stands(&steps, true, 15), AttemptState::Exhausted);
        assert_eq!(backoff(99), LONGEST_PAUSE);
    }

    #[test]
    fn a_new_step_ends_those_before_it_and_nothing_is_forgotten() {
        let mut steps = vec![];
        record_attempt(&mut steps, "Pause", true, "a", at(0));
        record_attempt(&mut steps, "Expand", true, "b", at(1));
        record_attempt(&mut steps, "Expand", false, "c", at(2));
        let seen: Vec<_> = steps
            .iter()
            .map(|s| {
                (
                    s.name.as_str(),
                    s.attempts,
                    s.finished_at.clone().map(|t| t.0),
                )
            })
            .collect();
        assert_eq!(seen, [("Pause", 1, Some(at(1))), ("Expand", 1, None)]);
        assert_eq!(steps[1].message.as_deref(), Some("c"));
    }

    #[test]
    fn patience_is_what_the_request_says_within_bounds() {
        let seconds = |text: Option<&str>| RetryPolicy::from_request(text, 0).timeout.as_secs();
        assert_eq!(
            [seconds(Some("5m")), seconds(None), seconds(Some("soon"))],
            [300, 600, 600]
        );
        assert_eq!(seconds(Some("100000h")), 24 * 3600);
        assert_eq!(
            [-1, 3, i32::MAX].map(|retries| RetryPolicy::from_request(None, retries).retries),
            [0, 3, 10]
        );
    }
}
