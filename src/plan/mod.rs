//! What to do next: pure functions of one observation and the time.
//!
//! | file | what |
//! |---|---|
//! | [`observed`] | what is known about a request; [`cluster`](observed::cluster): one observation of a database; [`candidates`](observed::candidates): the standbys that Patroni promotes; [`instance`](observed::instance): one server, held against what is written; [`issuance`](observed::issuance): how far cert-manager is |
//! | [`operation`] | the next thing to do about a request; [`goal`](operation::goal): the spec it asks for; [`attempts`](operation::attempts): times and tries of steps |
//! | [`rollout`] | the next thing to do on the way to a posture, for operations and for renewals; [`grace`](rollout::grace): the time that clients get |
//! | [`renewal`] | the posture that a database keeps while no operation is about it |
//! | [`scale_down`] | which pods may go, and which pod must lead first |
//! | [`scale_up`] | which pods may come: those whose names are served |
//! | [`slots`], [`budgets`] | how many operations work at once, and what disruption budgets allow |
//! | [`preview`] | what an operation would do |
//! | [`action`], [`purpose`], [`waiting`] | effects, their purposes, and the reasons to wait, as data |
//! | [`transition`] | a decision, and all that follows from it without a client |
//! | [`status`] | what people are told about a request and about a database, and when it is written |
//! | [`user_conf`] | the settings of a user's Secret on their way to the servers |

pub mod action;
pub mod budgets;
pub mod observed;
pub mod operation;
pub mod preview;
pub mod purpose;
pub mod renewal;
pub mod rollout;
pub mod scale_down;
pub mod scale_up;
pub mod slots;
pub mod status;
pub mod transition;
pub mod user_conf;
pub mod waiting;

pub use crate::plan::action::{Action, ClusterAction, RequestAction};
pub use crate::plan::observed::Observed;
pub use crate::plan::observed::candidates::SwitchoverCandidates;
pub use crate::plan::observed::cluster::ObservedCluster;
pub use crate::plan::operation::{Decision, Outcome, decide};
pub use crate::plan::renewal::steady_state_target;
pub use crate::plan::rollout::{Progress, next_step};
