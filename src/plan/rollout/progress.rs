//! The next step of a rollout, as data.

use crate::api::step::StepId;
use crate::plan::action::ClusterAction;
use crate::plan::purpose::Purpose;
use crate::plan::waiting::Waiting;

/// The next step.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// Every pod shows the target on the wire, and was replaced if it had to be.
    Reached,
    /// Execute these actions, then observe again.
    Act {
        /// The step that they belong to.
        step: StepId,
        /// Their purpose.
        purpose: Purpose,
        /// In this order.
        actions: Vec<ClusterAction>,
    },
    /// Observe again later.
    Wait {
        /// The step that waits.
        step: StepId,
        /// What it waits for.
        on: Waiting,
    },
}
