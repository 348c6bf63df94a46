//! TLS as a value: what a cluster offers and demands (its *posture*), how it gets from one posture
//! to another without refusing anybody (a *walk*), and how a posture is written down for PostgreSQL
//! and for Patroni.
//!
//! | file | what |
//! |---|---|
//! | [`posture`](mod@posture) | the posture, and which one a spec asks for |
//! | [`walk`](mod@walk) | the postures between two postures, and which CAs clients should trust on the way |
//! | [`compat`] | whether a client or a standby can connect, by libpq's and `pg_hba`'s rules |
//! | [`hba`], [`settings`], [`conninfo`] | the three places where a posture is written down |
//! | [`layout`] | the files under `/tls/certs` |

pub mod compat;
pub mod conninfo;
pub mod hba;
pub mod layout;
pub mod posture;
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
pub use crate::tls::walk::{published, walk};
