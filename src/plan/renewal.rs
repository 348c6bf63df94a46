//! The posture of a database while no operation is about it.

use crate::api::postgres::PostgresSpec;
use crate::pki::Material;
use crate::tls::{Files, Posture, ServerTls, posture};

/// The posture to keep, or to come to, with the issued leaves; `None` where there is nothing to
/// keep.
///
/// Normally only leaves and trusted CAs change here; sslMode and authentication change by requests.
/// Exception: if servers accept plaintext *and* TLS, or pods mount certificates but `ssl` is off, a
/// rollback failed half-way; then the target is that of the spec. Other half-way states look like an
/// edited spec and are left alone.
///
/// `major` is PostgreSQL's major version.
#[must_use]
pub fn steady_state_target(
    applied: &Posture,
    spec: &PostgresSpec,
    major: u32,
    issued: Option<&Material>,
) -> Option<Posture> {
    let accepts_both = applied.serve == ServerTls::Tls && applied.accept.plain.is_some();
    let has_only_files = applied.serve == ServerTls::Plain && applied.files.is_some();
    if accepts_both || has_only_files {
        return posture(spec, major, issued);
    }
    let (method, material) = (applied.accept.tls?, *issued?);
    let target = Posture::tls(applied.conninfo.mode, method, material);
    Some(Posture {
        files: Some(Files::trusting_its_signers(material)),
        conninfo: applied.conninfo,
        ..target
    })
}
