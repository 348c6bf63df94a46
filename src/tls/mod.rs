//! TLS as a value: the *posture* of a cluster (what it offers and demands), the *walk* from one
//! posture to another that refuses no client, and the configuration of PostgreSQL and Patroni for a
//! posture.
//!
//! | file | what |
//! |---|---|
//! | [`posture`](mod@posture) | the posture, and the one that a spec asks for |
//! | [`walk`](mod@walk) | the postures between two postures, and the CAs that clients must trust at
//! each |
//! | [`compat`] | whether a client or a standby can connect, by libpq's and `pg_hba`'s rules |
//! | [`hba`], [`settings`], [`conninfo`] | the three parts of the configuration that follow from a
//! posture |
//! | [`layout`] | the files under `/tls/certs` |
//! | [`server_settings`] | whether the TLS settings of users leave clients anything to speak |

pub mod compat;
pub mod conninfo;
pub mod hba;
pub mod layout;
pub mod posture;
pub mod server_settings;
pub mod settings;
pub mod walk;

#[cfg(test)]
mod invariants;

pub use crate::api::names::Alias;
pub use crate::tls::compat::{Client, ConnectRefusal, can_connect, can_replicate};
pub use crate::tls::posture::{
    Files, HbaMethods, Method, PasswordEncryption, Posture, ReplicationConninfo, ServerTls, method,
    posture,
};
pub use crate::tls::walk::{asks_for_password, published, walk};
