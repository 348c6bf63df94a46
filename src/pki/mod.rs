//! X.509: certificates and keys, those that cert-manager issued for a database, and the webhooks'
//! CA.
//!
//! | file | what |
//! |---|---|
//! | [`material`] | the leaves of a database, by fingerprint |
//! | [`key_pair`] | a leaf with its chain and its key, checked to belong together |
//! | `chain` | the way from a leaf to its root |
//! | [`certificate`] | serial, signer and life of a certificate, for people |
//! | [`check`] | the checks of one issued certificate |
//! | [`defect`] | why an issued certificate must not be served |
//! | [`extra_ca`] | CAs that the user offers because the issuer does not |
//! | [`issued`] | the issued certificates of a database, checked before they are served |
//! | [`served`] | the files under `/tls/certs`, and the CA of a chain |
//! | [`parse`] | parsing, and why a certificate or a key cannot be used |
//! | [`webhook_ca`] | the CA of pgrekey's own webhooks and its rotation |

pub mod certificate;
mod chain;
pub mod check;
pub mod defect;
pub mod extra_ca;
pub mod issued;
pub mod key_pair;
pub mod material;
pub mod parse;
pub mod served;
pub mod webhook_ca;

pub use material::{CaId, Fingerprint, Leaf, Material};
