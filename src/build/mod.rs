//! From a `Postgres` to its manifests. Pure; once there is a [`Cluster`], nothing can fail.
//!
//! [`Cluster::build`] is the only function that can refuse a `Postgres`. The same cluster and the
//! same posture give the same manifests, byte for byte.
//!
//! | file | content |
//! |---|---|
//! | [`cluster`], [`unbuildable`] | a `Postgres`, parsed and checked |
//! | [`version`] | which PostgresVersion it is built of |
//! | [`names`], [`meta`] | names, labels and owners of objects |
//! | [`pet_set`], [`pod`], [`exporter`], [`stateful_set`] | the workload |
//! | [`paths`], `container` | volumes, folders and files; what the containers share |
//! | [`session`] | settings of a superuser's session |
//! | [`workload`] | which pods belong to a database |
//! | [`patroni`] | Patroni's two configurations: of the cluster, and of a pod |
//! | [`user_conf`] | the user's own settings, and how each reaches the servers |
//! | [`tls_groups`] | the groups of the TLS key exchange, where the user sets none |
//! | [`services`], [`monitor`] | Services for clients and for Prometheus |
//! | [`certificates`] | Certificates that cert-manager issues |
//! | [`secrets`], [`trust`] | Secrets, and the CA bundle for clients |
//! | [`access`], [`disruption`] | rights of the pods; the PodDisruptionBudget |
//! | [`applied`] | the posture, read back from the objects |
//! | [`current_posture`] | the posture in which a cluster is, also where objects are lost |

pub mod access;
pub mod applied;
pub mod certificates;
pub mod cluster;
mod container;
pub mod current_posture;
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
pub mod tls_groups;
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
