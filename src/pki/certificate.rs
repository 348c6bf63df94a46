//! A summary of a certificate for people.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use crate::pki::Fingerprint;
use crate::pki::parse::{certificates_of, parse_certificate, timestamp};
use crate::pki::served::effective_end;

/// A summary of a leaf for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateSummary {
    /// SHA-256 of its DER.
    pub fingerprint: Fingerprint,
    /// Serial number, in hex.
    pub serial: String,
    /// Common name of the issuer; its whole name if it has no common name.
    pub signer: String,
    /// Start of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
    /// End of its use: the earliest end of the leaf and the CAs above it, as far as they are known.
    pub ends: Timestamp,
}

/// Summarizes the first certificate of a chain, PEM. `None` if there is none or it cannot be
/// parsed.
#[must_use]
pub fn summarize_pem(chain: &[u8]) -> Option<CertificateSummary> {
    summarize_der(certificates_of(chain).ok()?.first()?)
}

/// [`summarize_pem`] with the CAs above the leaf, which are in `chain` or in `cas`, PEM.
#[must_use]
pub fn summarize_chain(chain: &[u8], cas: &[u8]) -> Option<CertificateSummary> {
    let leaf = summarize_pem(chain)?;
    Some(CertificateSummary {
        ends: effective_end(chain, cas).unwrap_or(leaf.ends),
        ..leaf
    })
}

/// Summarizes a certificate, DER. `None` if it cannot be parsed.
#[must_use]
pub fn summarize_der(der: &[u8]) -> Option<CertificateSummary> {
    let der = CertificateDer::from(der);
    let leaf = parse_certificate(&der, 1).ok()?;
    let not_after = timestamp(leaf.validity().not_after).ok()?;
    Some(CertificateSummary {
        fingerprint: Fingerprint::sha256(&der),
        serial: leaf.raw_serial_as_string().replace(':', ""),
        signer: in_words(leaf.issuer()),
        not_before: timestamp(leaf.validity().not_before).ok()?,
        not_after,
        ends: not_after,
    })
}

/// The common name in a distinguished name, DER; the whole name if it has none, and `?` if it
/// cannot be parsed.
#[must_use]
pub fn common_name(name: &[u8]) -> String {
    X509Name::from_der(name).map_or_else(|_| "?".to_owned(), |(_, name)| in_words(&name))
}

/// The longest name that is passed on, in characters: whoever made a certificate decides what it says.
const LONGEST_NAME: usize = 200;

fn in_words(name: &X509Name<'_>) -> String {
    let common = name
        .iter_common_name()
        .next()
        .and_then(|common| common.as_str().ok());
    let words = common.map_or_else(|| name.to_string(), str::to_owned);
    words.chars().take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::issued::tests::{Authority, issue};

    #[test]
    fn a_leaf_is_known_by_its_serial_and_its_signer() {
        let ca = Authority::new("one");
        let issued = issue(&ca, &ca);
        let leaf = summarize_pem(issued.served.server.certificate.as_bytes()).expect("a leaf");
        assert_eq!(leaf.fingerprint, issued.material.server.fingerprint);
        assert_eq!(
            (leaf.signer.as_str(), leaf.not_after),
            ("one", issued.ends.server)
        );
        assert!(
            !leaf.serial.is_empty() && leaf.serial.chars().all(|c| c.is_ascii_hexdigit()),
            "{}",
            leaf.serial
        );
    }

    #[test]
    fn bytes_that_are_no_certificate_have_no_summary() {
        assert_eq!(summarize_pem(b""), None);
        assert_eq!(
            summarize_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            None
        );
    }

    #[test]
    fn a_name_is_known_by_its_common_name() {
        let mut name = rcgen::DistinguishedName::new();
        name.push(rcgen::DnType::OrganizationName, "example");
        let all = |name| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name = name;
            let key = rcgen::KeyPair::generate().expect("a key");
            let der = params
                .self_signed(&key)
                .expect("a certificate")
                .der()
                .to_vec();
            let (_, certificate) =
                x509_parser::parse_x509_certificate(&der).expect("a certificate");
            common_name(certificate.subject().as_raw())
        };
        assert_eq!(all(name.clone()), "O=example");
        name.push(rcgen::DnType::CommonName, "ca");
        assert_eq!(all(name), "ca");
        assert_eq!(common_name(b"junk"), "?");
    }
}
