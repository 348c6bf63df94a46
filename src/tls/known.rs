//! A certificate as people know it.

use jiff::Timestamp;
use x509_parser::x509::X509Name;

use super::pair::{certificates_of, read, timestamp};
use super::posture::Fingerprint;

/// A leaf as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// SHA-256 of its DER.
    pub fingerprint: Fingerprint,
    /// Serial number, in hex.
    pub serial: String,
    /// Common name of who signed it, or all of that name.
    pub signer: String,
    /// Start of its life.
    pub not_before: Timestamp,
    /// End of its life.
    pub not_after: Timestamp,
}

/// The first certificate of a chain, PEM; `None` when there is none or it cannot be read.
#[must_use]
pub fn known(chain: &[u8]) -> Option<Known> {
    let chain = certificates_of(chain).ok()?;
    let der = chain.first()?;
    let leaf = read(der, 1).ok()?;
    Some(Known {
        fingerprint: Fingerprint::of(der),
        serial: leaf.raw_serial_as_string().replace(':', ""),
        signer: common_name(leaf.issuer()),
        not_before: timestamp(leaf.validity().not_before).ok()?,
        not_after: timestamp(leaf.validity().not_after).ok()?,
    })
}

fn common_name(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|common| common.as_str().ok());
    common.map_or_else(|| name.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::material::tests::{Authority, issue};
    use super::*;

    #[test]
    fn a_leaf_is_known_by_its_serial_and_its_signer() {
        let ca = Authority::new("one");
        let issued = issue(&ca, &ca);
        let leaf = known(issued.served.server.certificate.as_bytes()).expect("a leaf");
        assert_eq!(leaf.fingerprint, issued.material.server.fingerprint);
        assert_eq!((leaf.signer.as_str(), leaf.not_after), ("one", issued.not_after.server));
        assert!(!leaf.serial.is_empty() && leaf.serial.chars().all(|c| c.is_ascii_hexdigit()), "{}", leaf.serial);
    }

    #[test]
    fn what_is_no_certificate_is_not_known() {
        assert_eq!(known(b""), None);
        assert_eq!(known(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), None);
    }
}
