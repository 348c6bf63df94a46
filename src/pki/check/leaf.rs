//! A leaf with its chain, as those see it that it is shown to.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use x509_parser::oid_registry::OID_SIG_ED25519;

use crate::pki::chain::CertificationPath;
use crate::pki::defect::Defect;
use crate::pki::key_pair::{CertificateAndKey, KeyPairProblem};
use crate::pki::parse::{parse_certificate, unix_time};

/// Whether libpq can log in by SCRAM at a server with this leaf.
#[must_use]
pub fn has_channel_binding(pair: &CertificateAndKey) -> bool {
    check_channel_binding(pair).is_ok()
}

/// SCRAM's channel binding hashes the server's certificate with the digest of its signature (RFC
/// 5929, 4.1). Ed25519 has none, and libpq and the server then end the login.
pub(super) fn check_channel_binding(pair: &CertificateAndKey) -> Result<(), Defect> {
    let leaf = pair.chain().first().ok_or(Defect::NotIssued)?;
    let leaf = parse_certificate(leaf, 1).map_err(Defect::Pair)?;
    if leaf.signature_algorithm.algorithm == OID_SIG_ED25519 {
        return Err(Defect::NoChannelBinding);
    }
    Ok(())
}

pub(super) fn check_server(
    pair: &CertificateAndKey,
    path: &CertificationPath,
    names: &[String],
    now: Timestamp,
) -> Result<(), Defect> {
    pair.covers(names.iter().map(String::as_str))
        .map_err(Defect::Pair)?;
    pair.trusted_by(std::slice::from_ref(&path.root), now)
        .map_err(Defect::Pair)
}

pub(super) fn check_client(
    pair: &CertificateAndKey,
    path: &CertificationPath,
    superuser: &str,
    now: Timestamp,
) -> Result<(), Defect> {
    let (leaf, issuers) = pair
        .chain()
        .split_first()
        .ok_or(Defect::Pair(KeyPairProblem::NoCertificate))?;
    let read = parse_certificate(leaf, 1).map_err(Defect::Pair)?;
    let found = read
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok())
        .unwrap_or_default();
    if found != superuser {
        return Err(Defect::CommonName {
            found: found.to_owned(),
            wanted: superuser.to_owned(),
        });
    }
    let refused = |why: String| Defect::NotForClients { why };
    // OpenSSL insists on it, and webpki does not look.
    let usage = read.key_usage().ok().flatten().map(|usage| usage.value);
    if usage.is_some_and(|usage| !usage.digital_signature() && !usage.key_agreement()) {
        let why = "its keyUsage lacks digitalSignature";
        return Err(refused(why.to_owned()));
    }
    let mut roots = RootCertStore::empty();
    roots
        .add(path.root.clone())
        .map_err(|e| refused(e.to_string()))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|e| refused(e.to_string()))?;
    verifier
        .verify_client_cert(leaf, issuers, unix_time(now))
        .map(|_| ())
        .map_err(|e| refused(e.to_string()))
}
