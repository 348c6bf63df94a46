//! X.509: certificates and keys, those that cert-manager issued for a database, and the webhooks'
//! CA.
//!
//! | file | what |
//! |---|---|
//! | [`material`] | the leaves of a database, by fingerprint |
//! | [`key_pair`] | a leaf with its chain and its key, checked to belong together |
//! | [`certificate`] | serial, signer and life of a certificate, for people |
//! | [`issued`] | the issued certificates of a database, checked before they are served |
//! | [`served`] | the files under `/tls/certs`, and the CA of a chain |
//! | [`webhook_ca`] | the CA of pgrekey's own webhooks and its rotation |

pub mod certificate;
pub mod issued;
pub mod key_pair;
pub mod material;
pub mod served;
pub mod webhook_ca;

pub use material::{CaId, Fingerprint, Leaf, Material};
