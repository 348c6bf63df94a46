//! Parsing of certificates, and why a certificate or a key cannot be used.

use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Why a chain and a key do not belong together, or cannot be used for a purpose.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyPairProblem {
    /// The text has no such PEM section.
    #[error(
        "there is no certificate in it: it must hold the leaf, then its issuers, as PEM (`BEGIN CERTIFICATE`)"
    )]
    NoCertificate,
    /// A PEM section is broken.
    #[error("certificate {position} is not PEM ({why}): is the file complete?")]
    CertificatePem {
        /// Position in the chain; the leaf is 1.
        position: usize,
        /// The reason that the PEM parser gave.
        why: String,
    },
    /// The PEM section holds no valid X.509 certificate.
    #[error("certificate {position} cannot be read ({why}): issue it anew")]
    CertificateContent {
        /// Position in the chain; the leaf is 1.
        position: usize,
        /// The reason that the X.509 parser gave.
        why: String,
    },
    /// The text has no such PEM section.
    #[error(
        "there is no private key in it: it must hold one as PEM (`BEGIN PRIVATE KEY`, `BEGIN EC PRIVATE KEY` or `BEGIN RSA PRIVATE KEY`)"
    )]
    NoKey,
    /// The key is encrypted.
    #[error("the private key is encrypted: store it without a passphrase")]
    KeyEncrypted,
    /// The PEM section of the key is broken. The parser's reason is left out, because it may quote
    /// the key.
    #[error("the private key is not PEM: is the file complete?")]
    KeyPem,
    /// The algorithm of the key is not supported.
    #[error(
        "the private key cannot be used: it must be ECDSA (P-256, P-384 or P-521), Ed25519 or RSA of 2048 bits or more"
    )]
    KeyUnusable,
    /// The key belongs to another certificate.
    #[error(
        "the private key is not the one of the certificate: were the two files replaced together?"
    )]
    KeyOfAnother,
    /// A certificate is not signed by the next one.
    #[error(
        "certificate {position} is not signed by the one after it: put the leaf first, then the issuer of each"
    )]
    ChainBroken {
        /// Position in the chain; the leaf is 1.
        position: usize,
    },
    /// The validity of the leaf has not begun.
    #[error(
        "the certificate is not valid before {from}: issue one that is valid now, or set the clock"
    )]
    NotYetValid {
        /// When it becomes valid.
        from: Timestamp,
    },
    /// The leaf has expired.
    #[error("the certificate expired at {at}: issue it anew")]
    Expired {
        /// When it expired.
        at: Timestamp,
    },
    /// The chain leads to no trusted CA, or the leaf lacks the usage of a server.
    #[error(
        "the certificate is not trusted by the CAs that should trust it ({why}): issue it from one of them"
    )]
    NotTrusted {
        /// The reason that the verifier gave.
        why: String,
    },
    /// The leaf lacks names.
    #[error("the certificate lacks the names {}: issue one with them", .names.join(", "))]
    NamesMissing {
        /// The names that are missing.
        names: Vec<String>,
    },
}

/// All certificates in a PEM text.
pub(crate) fn certificates_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, KeyPairProblem> {
    let mut found = vec![];
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let position = found.len() + 1;
        found.push(certificate.map_err(|e| KeyPairProblem::CertificatePem {
            position,
            why: e.to_string(),
        })?);
    }
    Ok(found)
}

/// Parses one certificate, the `position`th of its chain.
pub(crate) fn parse_certificate<'a>(
    der: &'a CertificateDer<'_>,
    position: usize,
) -> Result<X509Certificate<'a>, KeyPairProblem> {
    let problem = |why: String| KeyPairProblem::CertificateContent { position, why };
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|e| problem(e.to_string()))?;
    if !rest.is_empty() {
        return Err(problem(format!("{} bytes follow it", rest.len())));
    }
    Ok(certificate)
}

/// Converts a time of a certificate. Every such time fits.
pub(crate) fn timestamp(time: x509_parser::time::ASN1Time) -> Result<Timestamp, KeyPairProblem> {
    Timestamp::from_second(time.timestamp()).map_err(|e| KeyPairProblem::CertificateContent {
        position: 1,
        why: e.to_string(),
    })
}

/// Converts a time for the verifiers of connections. No certificate is valid before 1970.
pub(crate) fn unix_time(time: Timestamp) -> UnixTime {
    let since = u64::try_from(time.as_second()).unwrap_or_default();
    UnixTime::since_unix_epoch(Duration::from_secs(since))
}
