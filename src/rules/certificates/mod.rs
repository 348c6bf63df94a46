//! The rules about issuers and certificates, which `Postgres` and `PostgresOpsRequest` share.

mod entries;
mod issuers;
mod secrets;
mod table;
mod view;

pub use crate::rules::certificates::table::rules;
pub use crate::rules::certificates::view::{CertificateRequestView, HasTls, TargetTls};
