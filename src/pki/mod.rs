//! X.509: keys and certificates, what has been issued for a database, and the webhooks' own CA.
//!
//! | file | what |
//! |---|---|
//! | [`material`] | the leaves of a database, by their fingerprints |
//! | [`key_pair`] | a leaf, its chain and its key, known to belong together |
//! | [`certificate`] | a certificate as people know it |
//! | [`issued`] | what has been issued for a database, checked before it is served |
//! | [`webhook_ca`] | the CA of pgrekey's own webhooks: what of it is good, and what must be made anew |

pub mod certificate;
pub mod issued;
pub mod key_pair;
pub mod material;
pub mod webhook_ca;

pub use material::{CaId, Fingerprint, Leaf, Material};
