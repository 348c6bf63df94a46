//! What to do next: pure functions of one look at the world and the time.
//!
//! | file | what |
//! |---|---|
//! | [`scene`] | one look at a database, and what a pod lacks to be what was written |
//! | [`mod@steer`] | the next thing to do on the way to a posture; for operations and for renewals |
//! | [`successors`] | to whom Patroni hands the leadership over |
//! | [`ends`] | the spec that a request asks for |
//! | [`mod@upkeep`] | where a database belongs while no operation is about it |
//! | [`settle`] | the time that clients get |
//! | [`preview`] | what an operation would do |
//! | [`observed`] | what is known about a request |
//! | [`mod@decide`] | the next thing to do about it |
//! | [`ledger`] | times and tries of steps |
//! | [`status`] | what people are told |
//! | [`draft`] | when they are told |
//! | [`action`] | effects as data |
//! | [`database_status`] | phase and conditions of a database |

pub mod action;
pub mod budgets;
pub mod database_status;
pub mod decide;
pub mod ends;
pub mod ledger;
pub mod observed;
pub mod pending_status;
pub mod places;
pub mod preview;
pub mod scene;
pub mod settle;
pub mod status;
pub mod steer;
pub mod successors;
pub mod upkeep;

pub use action::Action;
pub use decide::{Decision, Outcome, decide};
pub use observed::Observed;
pub use scene::{Known, ObservedCluster};
pub use steer::{Progress, next_step};
pub use successors::SwitchoverCandidates;
pub use upkeep::steady_state_target;
