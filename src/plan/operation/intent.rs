//! An intent: a decision before its attempts are counted.

use crate::api::step::{Course, StepId};
use crate::plan::action::Action;
use crate::plan::purpose::Purpose;
use crate::plan::rollout::Progress;
use crate::plan::waiting::{StepProblem, Waiting};

/// The end of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done and proved.
    Successful,
    /// Not done: why.
    Failed(String),
}

/// A decision before its attempts are counted.
pub(super) enum Intent {
    Act {
        step: StepId,
        purpose: Purpose,
        actions: Vec<Action>,
    },
    Wait {
        step: StepId,
        on: Waiting,
    },
    /// The step cannot be done as things are; another try begins with these actions.
    Fail {
        step: StepId,
        problem: StepProblem,
        retry: Vec<Action>,
    },
    End(Outcome),
}

impl Intent {
    pub(super) fn act(
        step: impl Into<StepId>,
        purpose: Purpose,
        action: impl Into<Action>,
    ) -> Self {
        Self::Act {
            step: step.into(),
            purpose,
            actions: vec![action.into()],
        }
    }

    pub(super) fn wait(step: impl Into<StepId>, on: Waiting) -> Self {
        Self::Wait {
            step: step.into(),
            on,
        }
    }

    pub(super) fn fail(step: impl Into<StepId>, problem: StepProblem) -> Self {
        Self::Fail {
            step: step.into(),
            problem,
            retry: vec![],
        }
    }

    /// The progress of a rollout on this course; the other intent once the target is reached.
    pub(super) fn from_progress(
        progress: Progress,
        course: Course,
        reached: impl FnOnce() -> Self,
    ) -> Self {
        match progress {
            Progress::Reached => reached(),
            Progress::Act {
                step,
                purpose,
                actions,
            } => Self::Act {
                step: step.on(course),
                purpose,
                actions: actions.into_iter().map(Action::from).collect(),
            },
            Progress::Wait { step, on } => Self::Wait {
                step: step.on(course),
                on,
            },
        }
    }
}
