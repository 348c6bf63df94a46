//! The attempts of steps: the only memory of an operation, in `status.steps`.
//!
//! The observed world shows whether a step is done. The record says since when a step is tried and
//! how often, so that a step which takes too long is tried again, and given up, also across restarts
//! of pgrekey. The record only grows.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::bounds::{MAX_RETRIES, MAX_TIMEOUT};
use crate::api::duration::{self, after};
use crate::api::ops_request::Step;
use crate::api::step::StepId;

/// How long a step may take if the request does not say.
const TIMEOUT: Duration = Duration::from_mins(10);

/// The pause after the first failure of a step; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// How long a step is tried, and how often.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// The time of one try.
    pub timeout: Duration,
    /// The number of further tries.
    pub retries: i32,
}

impl RetryPolicy {
    /// The policy that a request sets, within its bounds; 10 minutes if it sets no timeout.
    #[must_use]
    pub fn from_request(timeout: Option<&str>, retries: i32) -> Self {
        let timeout = timeout.and_then(|text| duration::parse(text).ok());
        let timeout = match timeout {
            Some(timeout) if !timeout.is_zero() => timeout,
            _ => TIMEOUT,
        };
        Self {
            timeout: timeout.min(MAX_TIMEOUT),
            retries: retries.clamp(0, MAX_RETRIES),
        }
    }
}

/// Whether a step can be done as things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feasibility {
    /// It is under way.
    Possible,
    /// It cannot be done now.
    Impossible,
}

/// Whether a decision begins a try of its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptStart {
    /// A try begins.
    Begins,
    /// The try before goes on, or none has begun.
    GoesOn,
}

/// The state of a step's attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptState {
    /// A try is under way, until then.
    Trying(Timestamp),
    /// A try begins now: the first, or the next after a failure.
    Begins,
    /// The last try failed; the next begins then.
    Pausing(Timestamp),
    /// Every try is used up.
    Exhausted,
}

/// The state of the attempts of this step.
#[must_use]
pub fn attempt_state(
    steps: &[Step],
    step: &StepId,
    feasibility: Feasibility,
    policy: RetryPolicy,
    now: Timestamp,
) -> AttemptState {
    let Some(step) = find_step(steps, step) else {
        return AttemptState::Begins;
    };
    let Some(Time(started)) = step.started_at else {
        return AttemptState::Begins;
    };
    let is_done = step.finished_at.is_some();
    let (ends, state): (_, fn(Timestamp) -> AttemptState) = match feasibility {
        // It was done, and the world has changed since.
        Feasibility::Impossible if is_done => return AttemptState::Begins,
        Feasibility::Possible if is_done => {
            return AttemptState::Trying(after(now, policy.timeout));
        }
        Feasibility::Impossible => (
            after(started, backoff(step.attempts)),
            AttemptState::Pausing,
        ),
        Feasibility::Possible => (after(started, policy.timeout), AttemptState::Trying),
    };
    if now < ends {
        state(ends)
    } else if step.attempts > policy.retries {
        AttemptState::Exhausted
    } else {
        AttemptState::Begins
    }
}

fn backoff(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts.clamp(1, 10) - 1).unwrap_or_default();
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}

/// The record of this step.
#[must_use]
pub fn find_step<'a>(steps: &'a [Step], id: &StepId) -> Option<&'a Step> {
    let name = id.to_string();
    steps.iter().find(|step| step.name == name)
}

/// Records that this step is what happens now: the steps before it are done.
pub fn record_attempt(
    steps: &mut Vec<Step>,
    id: &StepId,
    attempt: AttemptStart,
    message: &str,
    now: Timestamp,
) {
    finish_steps(steps, Some(id), now);
    let name = id.to_string();
    let at = steps.iter().position(|step| step.name == name);
    let at = at.unwrap_or_else(|| {
        steps.push(Step {
            name,
            ..Step::default()
        });
        steps.len() - 1
    });
    let step = &mut steps[at];
    if attempt == AttemptStart::Begins {
        step.attempts += 1;
    }
    if attempt == AttemptStart::Begins || step.finished_at.is_some() {
        step.started_at = Some(Time(now));
        step.finished_at = None;
    }
    step.message = Some(message.to_owned());
}

/// Records that every step but this one is done.
pub fn finish_steps(steps: &mut [Step], but: Option<&StepId>, now: Timestamp) {
    let but = but.map(ToString::to_string);
    for step in steps.iter_mut() {
        if but.as_ref() != Some(&step.name) && step.finished_at.is_none() {
            step.finished_at = Some(Time(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::StepKind;

    const POLICY: RetryPolicy = RetryPolicy {
        timeout: Duration::from_mins(1),
        retries: 1,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn state(steps: &[Step], feasibility: Feasibility, second: i64) -> AttemptState {
        let expand = StepKind::Expand.into();
        attempt_state(steps, &expand, feasibility, POLICY, at(second))
    }

    fn record(
        steps: &mut Vec<Step>,
        kind: StepKind,
        attempt: AttemptStart,
        message: &str,
        second: i64,
    ) {
        record_attempt(steps, &kind.into(), attempt, message, at(second));
    }

    #[test]
    fn a_step_that_takes_too_long_is_tried_again_and_then_given_up() {
        use Feasibility::Possible;
        let mut steps = vec![];
        assert_eq!(state(&steps, Possible, 0), AttemptState::Begins);
        record(&mut steps, StepKind::Expand, AttemptStart::Begins, "", 0);
        assert_eq!(state(&steps, Possible, 59), AttemptState::Trying(at(60)));
        assert_eq!(state(&steps, Possible, 60), AttemptState::Begins);
        record(&mut steps, StepKind::Expand, AttemptStart::Begins, "", 60);
        assert_eq!(state(&steps, Possible, 119), AttemptState::Trying(at(120)));
        assert_eq!(state(&steps, Possible, 120), AttemptState::Exhausted);
    }

    #[test]
    fn a_step_that_fails_pauses_longer_each_time() {
        use Feasibility::Impossible;
        let mut steps = vec![];
        record(&mut steps, StepKind::Expand, AttemptStart::Begins, "no", 0);
        assert_eq!(state(&steps, Impossible, 4), AttemptState::Pausing(at(5)));
        assert_eq!(state(&steps, Impossible, 5), AttemptState::Begins);
        record(&mut steps, StepKind::Expand, AttemptStart::Begins, "no", 5);
        assert_eq!(state(&steps, Impossible, 14), AttemptState::Pausing(at(15)));
        assert_eq!(state(&steps, Impossible, 15), AttemptState::Exhausted);
        assert_eq!(backoff(99), LONGEST_PAUSE);
    }

    #[test]
    fn a_step_that_has_not_been_tried_has_its_whole_time() {
        let mut steps = vec![];
        record(
            &mut steps,
            StepKind::Expand,
            AttemptStart::GoesOn,
            "waits",
            0,
        );
        assert_eq!(
            state(&steps, Feasibility::Possible, 9_000),
            AttemptState::Begins
        );
        assert_eq!((steps[0].attempts, &steps[0].started_at), (0, &None));
    }

    #[test]
    fn a_new_step_ends_those_before_it_and_nothing_is_forgotten() {
        let mut steps = vec![];
        record(&mut steps, StepKind::Pause, AttemptStart::Begins, "a", 0);
        record(&mut steps, StepKind::Expand, AttemptStart::Begins, "b", 1);
        record(&mut steps, StepKind::Expand, AttemptStart::GoesOn, "c", 2);
        let recorded: Vec<_> = steps
            .iter()
            .map(|step| {
                let finished = step.finished_at.as_ref().map(|time| time.0);
                (step.name.as_str(), step.attempts, finished)
            })
            .collect();
        assert_eq!(recorded, [("Pause", 1, Some(at(1))), ("Expand", 1, None)]);
        assert_eq!(steps[1].message.as_deref(), Some("c"));
    }

    #[test]
    fn the_retry_policy_of_a_request_stays_within_bounds() {
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
