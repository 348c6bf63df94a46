//! Where a database belongs while no operation is about it.

use crate::api::postgres::PostgresSpec;
use crate::pki::Material;
use crate::tls::{Files, Posture, ServerTls, posture};

/// The posture to keep or to come to, with what has been issued; nothing where there is nothing to
/// keep.
///
/// Only the leaves and the trust in their CAs change: how pods dial and whom they let in is for
/// requests to change. A cluster that takes both plaintext and TLS, or has files and serves
/// plaintext, was left between two specs by an operation that found no way back: it goes on to its
/// own. One that came all the way to the other's accept and never further stays there, as does a
/// change of modes: nothing tells it from what somebody wrote into the spec since.
///
/// `major` is PostgreSQL's major version.
#[must_use]
pub fn steady_state_target(
    written: &Posture,
    spec: &PostgresSpec,
    major: u32,
    issued: Option<&Material>,
) -> Option<Posture> {
    let takes_both = written.serve == ServerTls::Tls && written.accept.plain.is_some();
    let is_equipped = written.serve == ServerTls::Plain && written.files.is_some();
    if takes_both || is_equipped {
        return posture(spec, major, issued);
    }
    let (method, material) = (written.accept.tls?, *issued?);
    let target = Posture::tls(written.conninfo.mode, method, material);
    Some(Posture {
        files: Some(Files::trusting_its_signers(material)),
        conninfo: written.conninfo,
        ..target
    })
}
