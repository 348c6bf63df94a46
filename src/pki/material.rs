//! The leaves of a database, identified by their fingerprints.

use std::fmt;

/// The leaves of a database. Pods get all three together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Material {
    /// The leaf that servers serve.
    pub server: Leaf,
    /// The leaf that standbys and the cluster's other clients present.
    pub client: Leaf,
    /// The leaf that the metrics exporter serves.
    pub exporter: Leaf,
}

/// A leaf certificate and its CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Identifies the certificate.
    pub fingerprint: Fingerprint,
    /// The CA at the top of its chain.
    pub ca: CaId,
}

/// SHA-256 of a certificate's DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A CA, identified by the fingerprint of its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaId(pub Fingerprint);

impl fmt::Display for CaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_written_as_hex() {
        assert_eq!(Fingerprint([0x0a; 32]).to_string(), "0a".repeat(32));
    }
}
