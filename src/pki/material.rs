//! The leaves of a database, identified by their fingerprints.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::api::names::Alias;

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

impl Fingerprint {
    /// The fingerprint of a certificate, DER.
    #[must_use]
    pub fn sha256(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A CA, identified by the fingerprint of its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaId(pub Fingerprint);

impl CaId {
    /// The CA with this certificate, DER.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Self {
        Self(Fingerprint::sha256(der))
    }
}

impl fmt::Display for CaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One value for each certificate of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerAlias<T> {
    /// For the certificate that servers serve.
    pub server: T,
    /// For the certificate that standbys and the cluster's other clients present.
    pub client: T,
    /// For the certificate that the exporter serves.
    pub exporter: T,
}

impl<T> PerAlias<T> {
    /// The value of this alias.
    pub const fn get(&self, alias: Alias) -> &T {
        match alias {
            Alias::Server => &self.server,
            Alias::Client => &self.client,
            Alias::MetricsExporter => &self.exporter,
        }
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
