//! The way from a leaf over intermediate CAs to a self-signed root.
//!
//! Certificates come from strangers: in any order, with CAs that belong to other chains, and with
//! two CAs that both fit (cross-signed, or renewed with the old key). Lengths and work are bounded.

use std::collections::BTreeMap;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{AuthorityKeyIdentifier, ParsedExtension};

use crate::pki::parse::parse_certificate;

/// Certificates in one Secret that are looked at. Real ones hold four at most.
pub(super) const MAX_CERTIFICATES: usize = 32;

/// CAs above a leaf, the root included.
const MAX_DEPTH: usize = 8;

/// Paths that are returned: more than one exist only where CAs are cross-signed or were renewed.
const MAX_PATHS: usize = 8;

/// The CAs above a leaf: its certification path (RFC 5280, 6.1) without the leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertificationPath {
    /// Each signed the one before it; the first signed the leaf.
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    /// Signed the last of them.
    pub(super) root: CertificateDer<'static>,
}

impl CertificationPath {
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

/// Every path from this leaf to a root of `pool`, at most [`MAX_PATHS`]. Short ones come first, else
/// the order is that of `pool`. Each pair of certificates is verified once at most.
pub(super) fn certification_paths(
    leaf: &CertificateDer<'static>,
    pool: &[CertificateDer<'static>],
) -> Vec<CertificationPath> {
    let pool = &pool[..pool.len().min(MAX_CERTIFICATES)];
    let is_root: Vec<bool> = pool.iter().map(is_root).collect();
    let mut known = BTreeMap::new();
    // `None` is the leaf.
    let mut signs = |above: usize, below: Option<usize>| {
        *known.entry((above, below)).or_insert_with(|| {
            let below = below.map_or(leaf, |at| &pool[at]);
            is_signed_by(below, &pool[above])
        })
    };
    let mut found = vec![];
    // Breadth first: all paths of one length before a longer one.
    let mut open: Vec<Vec<usize>> = vec![vec![]];
    for _ in 0..MAX_DEPTH {
        let mut longer = vec![];
        for path in open {
            for at in 0..pool.len() {
                if path.contains(&at) || !signs(at, path.last().copied()) {
                    continue;
                }
                if is_root[at] {
                    found.push(CertificationPath {
                        intermediates: path.iter().map(|at| pool[*at].clone()).collect(),
                        root: pool[at].clone(),
                    });
                } else {
                    longer.push([path.as_slice(), &[at]].concat());
                }
            }
        }
        longer.truncate(MAX_PATHS);
        open = longer;
    }
    found.truncate(MAX_PATHS);
    found
}

/// Whether a certificate is self-issued, and so can be a trust anchor. A wrong signature of its own
/// rules it out, and an old one, such as SHA-1's, does not: neither OpenSSL nor webpki verifies the
/// signature of a trust anchor.
pub(super) fn is_root(der: &CertificateDer<'static>) -> bool {
    is_issuer(der, der) && signature(der, der) != Signature::Wrong
}

/// Whether a certificate is a root by its own signature: whoever made it has its key.
pub(super) fn is_proven_root(der: &CertificateDer<'static>) -> bool {
    is_signed_by(der, der)
}

/// Whether `above` has signed `below`.
pub(super) fn is_signed_by(
    below: &CertificateDer<'static>,
    above: &CertificateDer<'static>,
) -> bool {
    is_issuer(above, below) && signature(above, below) == Signature::Good
}

/// Whether two certificates are of one CA: they have one name and one key, as a CA that was renewed
/// with its old key.
pub(super) fn are_of_one_ca(one: &CertificateDer<'_>, other: &CertificateDer<'_>) -> bool {
    let (Ok(one), Ok(other)) = (parse_certificate(one, 1), parse_certificate(other, 1)) else {
        return false;
    };
    one.subject().as_raw() == other.subject().as_raw()
        && one.public_key().raw == other.public_key().raw
}

/// Whether `above` may be the issuer of `below` by names and key identifiers, as OpenSSL compares
/// them (`X509_check_issued`).
fn is_issuer(above: &CertificateDer<'_>, below: &CertificateDer<'_>) -> bool {
    let (Ok(above), Ok(below)) = (parse_certificate(above, 1), parse_certificate(below, 1)) else {
        return false;
    };
    if below.issuer().as_raw() != above.subject().as_raw() {
        return false;
    }
    let Some(authority) = authority_key(&below) else {
        return true;
    };
    let has_key = match (&authority.key_identifier, subject_key(&above)) {
        (Some(key), Some(own)) => key.0 == own,
        _ => true,
    };
    let has_serial = authority
        .authority_cert_serial
        .is_none_or(|serial| serial == above.raw_serial());
    has_key && has_serial
}

/// What became of verifying a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signature {
    Good,
    Wrong,
    /// No algorithm of a connection verifies it.
    Unsupported,
}

/// Verifies the signature by the algorithms with which rustls verifies those of a connection, so
/// that no certificate passes here and fails there.
fn signature(above: &CertificateDer<'_>, below: &CertificateDer<'_>) -> Signature {
    let (Some(key_algorithm), Some((tbs, signature_algorithm))) =
        (key_algorithm(above), signed_part(below))
    else {
        return Signature::Wrong;
    };
    let (Ok(above), Ok(below)) = (parse_certificate(above, 1), parse_certificate(below, 1)) else {
        return Signature::Wrong;
    };
    let provider = aws_lc_rs::default_provider();
    let all = provider.signature_verification_algorithms.all;
    let mut fitting = all
        .iter()
        .filter(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == key_algorithm
                && algorithm.signature_alg_id().as_ref() == signature_algorithm
        })
        .peekable();
    if fitting.peek().is_none() {
        return Signature::Unsupported;
    }
    let key = &above.public_key().subject_public_key.data;
    let is_good = fitting.any(|algorithm| {
        let signature = &below.signature_value.data;
        algorithm.verify_signature(key, tbs, signature).is_ok()
    });
    if is_good {
        Signature::Good
    } else {
        Signature::Wrong
    }
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
/// second one when the signature is wrong.
///
/// `ca` has signed `below`, the certificate under it.
pub(super) fn is_confusable(
    below: &CertificateDer<'_>,
    ca: &CertificateDer<'_>,
    other: &CertificateDer<'_>,
) -> bool {
    let (Ok(parsed), Ok(own), Ok(its)) = (
        parse_certificate(below, 1),
        parse_certificate(ca, 1),
        parse_certificate(other, 1),
    ) else {
        return false;
    };
    if own.subject().as_raw() != its.subject().as_raw() || are_of_one_ca(ca, other) {
        return false;
    }
    let has_key = authority_key(&parsed).is_some_and(|key| key.key_identifier.is_some());
    let differ = matches!((subject_key(&own), subject_key(&its)), (Some(a), Some(b)) if a != b);
    !(has_key && differ)
}

fn subject_key<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        })
}

fn authority_key<'a>(
    certificate: &'a X509Certificate<'_>,
) -> Option<&'a AuthorityKeyIdentifier<'a>> {
    certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => Some(id),
            _ => None,
        })
}
