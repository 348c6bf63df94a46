//! TLS as a value: what a cluster offers and demands, how it gets from one such state to another
//! without refusing anybody, and how a state is written down for PostgreSQL and for Patroni.
//!
//! | file | what |
//! |---|---|
//! | [`posture`](mod@posture) | the state, and which state a spec asks for |
//! | [`walk`](mod@walk) | the states between two states, and what clients should trust on the way |
//! | [`connect`] | whether a client or a standby would get in, by libpq's and `pg_hba`'s rules |
//! | [`hba`], [`settings`], [`dial`] | the three places where a state is written down |
//! | [`layout`] | the files under `/tls/certs` |
//! | [`pair`] | a leaf, its chain and its key, known to belong together |
//! | [`own_ca`] | the CA of pgrekey's own webhooks: what of it is good, and what must be made anew |
//! | [`material`] | what has been issued for a database, checked before it is served |
//! | [`known`] | a certificate as people know it |
//! | [`conf`], [`guc`], [`owned`] | a user's own settings, what PostgreSQL takes of them, and which of them only pgrekey may set |

pub mod conf;
pub mod connect;
pub mod dial;
pub mod guc;
pub mod hba;
pub mod known;
pub mod layout;
pub mod material;
pub mod own_ca;
pub mod owned;
pub mod pair;
pub mod posture;
pub mod settings;
pub mod walk;

#[cfg(test)]
mod law;

pub use crate::api::names::Alias;
pub use connect::{Client, ConnectRefusal, can_connect, can_replicate};
pub use posture::{
    CaId, Files, Fingerprint, HbaMethods, Leaf, Material, Method, PasswordEncryption, Posture,
    ReplicationConninfo, ServerTls, method, posture,
};
pub use walk::{published, walk};
