//! From a database to its manifests: pure, and infallible from a [`Cluster`] on.
//!
//! A [`Cluster`] is made from a `Postgres` in one place, which is the only one that can refuse.
//! Everything else here is total: the same cluster and the same posture give the same manifests,
//! byte for byte.
//!
//! | file | what |
//! |---|---|
//! | [`cluster`] | a `Postgres` that can be built, parsed |
//! | [`version`] | which PostgresVersion it is built of |
//! | [`names`], [`meta`] | what objects are called, labelled and owned by |
//! | [`pet_set`], [`pod`], [`exporter`], [`stateful_set`] | the workload |
//! | [`session`] | what a superuser's session starts with |
//! | [`workload`] | which pods it has |
//! | [`patroni`] | Patroni's two configurations: per pod, and of the whole cluster |
//! | [`user_conf`] | a user's own settings, and the way that each goes to the servers |
//! | [`services`], [`monitor`] | ways in, for clients and for Prometheus |
//! | [`certificates`], [`secrets`], [`trust`] | what is issued, what is served, what is published |
//! | [`access`], [`disruption`] | what pods may do, and how many may be missing |
//! | [`applied`] | a posture, read back from the objects |

pub mod access;
pub mod applied;
pub mod certificates;
pub mod cluster;
mod container;
pub mod disruption;
pub mod exporter;
pub mod meta;
pub mod monitor;
pub mod names;
pub mod paths;
pub mod patroni;
pub mod pet_set;
pub mod pod;
pub mod secrets;
pub mod services;
pub mod session;
pub mod stateful_set;
pub mod trust;
pub mod unbuildable;
pub mod user_conf;
pub mod version;
pub mod workload;

#[cfg(test)]
mod snapshots;

pub use crate::build::cluster::{BuildInputs, Cluster};
pub use crate::build::meta::owned_by;
pub use crate::build::unbuildable::Unbuildable;
