//! The way from a leaf over intermediate CAs to a self-signed root.
//!
//! Certificates come from strangers: in any order, with CAs that belong to other chains, and with
//! two CAs that both fit (cross-signed, or renewed with the old key). Lengths and work are bounded.

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

use crate::pki::parse::parse_certificate;

/// Certificates in one Secret that are looked at. Real ones hold four at most.
pub(super) const MAX_CERTIFICATES: usize = 32;

/// CAs above a leaf, the root included.
const MAX_DEPTH: usize = 8;

/// Ways that are returned: more than one exist only where CAs are cross-signed or were renewed.
const MAX_PATHS: usize = 8;

/// Signatures that are verified for one leaf.
const MAX_VERIFICATIONS: usize = 512;

/// The CAs above a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// Each signed the one before it; the first signed the leaf.
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    /// Signed the last of them, and itself.
    pub(super) root: CertificateDer<'static>,
}

impl Path {
    /// The intermediate CAs, then the root.
    pub(super) fn cas(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.intermediates.iter().chain([&self.root])
    }

    /// The chain that a server sends for this leaf: without the root, which a client that does not
    /// know it would not trust anyway.
    pub(super) fn chain_from(
        &self,
        leaf: &CertificateDer<'static>,
    ) -> Vec<CertificateDer<'static>> {
        [std::slice::from_ref(leaf), &self.intermediates].concat()
    }
}

/// Every way from this leaf to a self-signed certificate of `pool`, at most [`MAX_PATHS`]. Short
/// ways come first, else the order is that of `pool`.
pub(super) fn paths(leaf: &CertificateDer<'static>, pool: &[CertificateDer<'static>]) -> Vec<Path> {
    let pool = &pool[..pool.len().min(MAX_CERTIFICATES)];
    let mut left = MAX_VERIFICATIONS;
    let mut signs = |above: &CertificateDer<'static>, below: &CertificateDer<'static>| {
        is_issuer(above, below) && {
            left = left.saturating_sub(1);
            left > 0 && has_signed(above, below)
        }
    };
    let is_root: Vec<bool> = pool.iter().map(|ca| signs(ca, ca)).collect();
    let mut found = vec![];
    // Breadth first: all ways of one length before a longer one.
    let mut open = vec![vec![]];
    for _ in 0..MAX_DEPTH {
        let mut longer = vec![];
        for way in open {
            let top = way.last().map_or(leaf, |at: &usize| &pool[*at]);
            for (at, ca) in pool.iter().enumerate() {
                if way.contains(&at) || !signs(ca, top) {
                    continue;
                }
                if is_root[at] {
                    found.push(Path {
                        intermediates: way.iter().map(|at| pool[*at].clone()).collect(),
                        root: ca.clone(),
                    });
                } else {
                    longer.push([way.as_slice(), &[at]].concat());
                }
            }
        }
        longer.truncate(MAX_PATHS);
        open = longer;
    }
    found.truncate(MAX_PATHS);
    found
}

/// Whether a certificate has signed itself.
pub(super) fn is_self_signed(der: &CertificateDer<'static>) -> bool {
    is_issuer(der, der) && has_signed(der, der)
}

/// Whether `above` has signed `below`.
pub(super) fn is_signed_by(
    below: &CertificateDer<'static>,
    above: &CertificateDer<'static>,
) -> bool {
    is_issuer(above, below) && has_signed(above, below)
}

fn is_issuer(above: &CertificateDer<'_>, below: &CertificateDer<'_>) -> bool {
    let (Ok(above), Ok(below)) = (parse_certificate(above, 1), parse_certificate(below, 1)) else {
        return false;
    };
    below.issuer().as_raw() == above.subject().as_raw()
}

/// Verifies the signature by the algorithms with which rustls verifies those of a connection, so
/// that no certificate passes here and fails there.
fn has_signed(above: &CertificateDer<'_>, below: &CertificateDer<'_>) -> bool {
    let (Some(key_algorithm), Some((tbs, signature_algorithm))) =
        (key_algorithm(above), signed_part(below))
    else {
        return false;
    };
    let (Ok(above), Ok(below)) = (parse_certificate(above, 1), parse_certificate(below, 1)) else {
        return false;
    };
    aws_lc_rs::default_provider()
        .signature_verification_algorithms
        .all
        .iter()
        .filter(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == key_algorithm
                && algorithm.signature_alg_id().as_ref() == signature_algorithm
        })
        .any(|algorithm| {
            algorithm
                .verify_signature(
                    &above.public_key().subject_public_key.data,
                    tbs,
                    &below.signature_value.data,
                )
                .is_ok()
        })
}

/// The content of the AlgorithmIdentifier of a certificate's public key (RFC 5280, 4.1.2.7).
fn key_algorithm<'a>(certificate: &'a CertificateDer<'_>) -> Option<&'a [u8]> {
    let parsed: X509Certificate<'a> = parse_certificate(certificate, 1).ok()?;
    let (_, key) = Any::from_der(parsed.tbs_certificate.subject_pki.raw).ok()?;
    let (_, algorithm) = Any::from_der(key.data).ok()?;
    Some(algorithm.data)
}

/// The signed bytes of a certificate, and the content of the AlgorithmIdentifier of its signature
/// (RFC 5280, 4.1.1).
fn signed_part<'a>(certificate: &'a CertificateDer<'_>) -> Option<(&'a [u8], &'a [u8])> {
    let (_, whole) = Any::from_der(certificate).ok()?;
    let (rest, _) = Any::from_der(whole.data).ok()?;
    let tbs = whole.data.get(..whole.data.len() - rest.len())?;
    let (_, algorithm) = Any::from_der(rest).ok()?;
    Some((tbs, algorithm.data))
}

/// Whether OpenSSL could take `other` for the CA that has signed `below`, or the other way round:
/// it looks for an issuer by name and key identifiers, takes the first that fits, and tries no
/// second one when the signature is wrong (`X509_check_issued`).
///
/// `ca` has signed `below`, the certificate under it.
pub(super) fn is_confusable(
    below: &CertificateDer<'_>,
    ca: &CertificateDer<'_>,
    other: &CertificateDer<'_>,
) -> bool {
    let (Ok(below), Ok(ca), Ok(other)) = (
        parse_certificate(below, 1),
        parse_certificate(ca, 1),
        parse_certificate(other, 1),
    ) else {
        return false;
    };
    if ca.subject().as_raw() != other.subject().as_raw()
        || ca.public_key().raw == other.public_key().raw
    {
        return false;
    }
    let told_apart = authority_key(&below).is_some()
        && matches!((subject_key(&ca), subject_key(&other)), (Some(own), Some(its)) if own != its);
    !told_apart
}

fn subject_key<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        })
}

fn authority_key<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => Some(id.key_identifier.as_ref()?.0),
            _ => None,
        })
}
