//! Types about TLS that `Postgres` and `PostgresOpsRequest` share: issuers, certificates, sslMode,
//! clientAuthMode.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// The API group of cert-manager's issuers.
pub const CERT_MANAGER_GROUP: &str = "cert-manager.io";

/// An issuer of cert-manager's, or one of another API group that signs cert-manager's requests, by
/// name.
#[skip_serializing_none]
#[derive(
    Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord,
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct IssuerRef {
    /// API group of the issuer. `cert-manager.io` if left out. pgrekey cannot look at an issuer of
    /// another group.
    pub api_group: Option<String>,
    /// `Issuer` (in the database's own namespace) or `ClusterIssuer`; in another group, a kind of
    /// that group. `Issuer` if left out.
    pub kind: Option<String>,
    /// Name of the issuer.
    pub name: String,
}

impl IssuerRef {
    /// The kind, `Issuer` if left out.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Issuer")
    }

    /// The API group, cert-manager's if left out.
    #[must_use]
    pub fn group(&self) -> &str {
        self.api_group.as_deref().unwrap_or(CERT_MANAGER_GROUP)
    }

    /// Whether the issuer is one of cert-manager's own.
    #[must_use]
    pub fn is_cert_managers(&self) -> bool {
        self.group() == CERT_MANAGER_GROUP
    }

    /// The issuer with group and kind filled in, as admission does.
    #[must_use]
    pub fn completed(&self) -> Self {
        Self {
            api_group: Some(
                self.api_group
                    .clone()
                    .unwrap_or_else(|| CERT_MANAGER_GROUP.to_owned()),
            ),
            kind: Some(self.kind.clone().unwrap_or_else(|| "Issuer".to_owned())),
            name: self.name.clone(),
        }
    }
}

/// One certificate of a database.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSpec {
    /// Which certificate this is: `server` (of the database), `client` (of the database's own
    /// clients, such as standbys) or `metrics-exporter`.
    pub alias: String,
    /// Issuer of this certificate alone. The issuer beside `certificates` if left out.
    pub issuer_ref: Option<IssuerRef>,
    /// Secret into which cert-manager puts the certificate. `<database>-<alias>-cert` if left out.
    pub secret_name: Option<String>,
    /// X.509 subject without the common name, which pgrekey chooses: the database user in the
    /// client certificate, the Service in the server certificate.
    pub subject: Option<X509Subject>,
    /// Lifetime of the certificate as a Go duration such as `2160h`, at least 1 h. cert-manager's
    /// default (90 days) if left out.
    pub duration: Option<String>,
    /// How long before its end the certificate is renewed, as a Go duration, at least 5 min and
    /// shorter than `duration`. A third of the lifetime if left out. Deprecated by KubeDB in favour
    /// of a rotation by request.
    pub renew_before: Option<String>,
    /// DNS names to add to those of pgrekey. A wildcard may be the first label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// IP addresses (v4 or v6) to add to those of pgrekey.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_addresses: Vec<String>,
    /// URIs, with scheme and host, to put into the certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uris: Vec<String>,
    /// E-mail addresses to put into the certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub email_addresses: Vec<String>,
    /// The private key, and how it is stored.
    pub private_key: Option<PrivateKey>,
}

/// The private key of a certificate.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PrivateKey {
    /// Algorithm of the key: `RSA`, `ECDSA` or `Ed25519`. `RSA` if left out.
    pub algorithm: Option<KeyAlgorithm>,
    /// Encoding of the key in its Secret: `PKCS1` or `PKCS8`. If left out, `PKCS1` for `RSA` and
    /// `ECDSA`; an `Ed25519` key has no other encoding than `PKCS8`.
    pub encoding: Option<KeyEncoding>,
    /// Size of the key in bits: 2048, 3072 or 4096 for `RSA`, 256, 384 or 521 for `ECDSA`. 2048 and
    /// 256 if left out. An `Ed25519` key has one size only.
    #[schemars(range(min = 256, max = 4096))]
    pub size: Option<i32>,
}

impl PrivateKey {
    /// The algorithm, `RSA` if left out.
    #[must_use]
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm.unwrap_or_default()
    }

    /// The encoding that cert-manager writes.
    #[must_use]
    pub fn encoding(&self) -> KeyEncoding {
        match (self.algorithm(), self.encoding) {
            (KeyAlgorithm::Ed25519, _) => KeyEncoding::Pkcs8,
            (_, encoding) => encoding.unwrap_or(KeyEncoding::Pkcs1),
        }
    }

    /// The key after a change. A field that the change leaves out stays; the size of another algorithm's key
    /// does not.
    #[must_use]
    pub fn changed_to(&self, change: &Self) -> Self {
        let algorithm = change.algorithm.or(self.algorithm);
        let keeps_size = algorithm.unwrap_or_default() == self.algorithm();
        Self {
            algorithm,
            encoding: change.encoding.or(self.encoding),
            size: change.size.or(self.size.filter(|_| keeps_size)),
        }
    }
}

/// Algorithm of a private key.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// RSA.
    #[default]
    #[serde(rename = "RSA")]
    Rsa,
    /// ECDSA on a curve of NIST's.
    #[serde(rename = "ECDSA")]
    Ecdsa,
    /// Ed25519.
    Ed25519,
}

impl KeyAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 3] = [Self::Rsa, Self::Ecdsa, Self::Ed25519];

    /// The algorithm as cert-manager writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rsa => "RSA",
            Self::Ecdsa => "ECDSA",
            Self::Ed25519 => "Ed25519",
        }
    }

    /// The sizes that a key may have, in bits, the default first. cert-manager takes every RSA size
    /// from 2048 to 8192, and so do OpenSSL and aws-lc. Issuers commonly allow these three; with
    /// 8192 bits a handshake costs the server tens of times what it costs with 2048. The curves are
    /// all that cert-manager has. Empty for an algorithm with one size.
    #[must_use]
    pub const fn sizes(self) -> &'static [i32] {
        match self {
            Self::Rsa => &[2048, 3072, 4096],
            Self::Ecdsa => &[256, 384, 521],
            Self::Ed25519 => &[],
        }
    }
}

/// Encoding of a private key.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum KeyEncoding {
    /// PKCS#1 (RSA) or SEC 1 (elliptic curves).
    #[serde(rename = "PKCS1")]
    Pkcs1,
    /// PKCS#8.
    #[serde(rename = "PKCS8")]
    Pkcs8,
}

impl KeyEncoding {
    /// The encoding as cert-manager writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pkcs1 => "PKCS1",
            Self::Pkcs8 => "PKCS8",
        }
    }
}

/// X.509 subject of a certificate, without the common name.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct X509Subject {
    /// Organizations (O), at most 64 characters each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub organizations: Vec<String>,
    /// Countries (C), two letters each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub countries: Vec<String>,
    /// Organizational units (OU), at most 64 characters each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub organizational_units: Vec<String>,
    /// Cities (L), at most 128 characters each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub localities: Vec<String>,
    /// States or provinces (ST), at most 128 characters each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provinces: Vec<String>,
    /// Street addresses (STREET), at most 128 characters each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub street_addresses: Vec<String>,
    /// Postal codes, at most 40 characters each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub postal_codes: Vec<String>,
    /// Serial number of the subject (not of the certificate), at most 64 characters.
    pub serial_number: Option<String>,
}

/// libpq's `sslmode`, weakest first. `disable`: no TLS. `allow`, `prefer`: TLS if the server has
/// it. `require`: TLS without checks. `verify-ca`: the server's chain is checked. `verify-full`:
/// its name too.
#[derive(
    Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// Plaintext first, TLS if the server insists.
    Allow,
    /// TLS first, plaintext if the server has none.
    Prefer,
    /// TLS, the server's certificate is not checked.
    Require,
    /// TLS, the server's certificate must come from a trusted CA.
    VerifyCa,
    /// TLS, and the certificate must also name the host.
    VerifyFull,
}

impl SslMode {
    /// Every mode, weakest first.
    pub const ALL: [Self; 6] = [
        Self::Disable,
        Self::Allow,
        Self::Prefer,
        Self::Require,
        Self::VerifyCa,
        Self::VerifyFull,
    ];

    /// The mode as libpq and the API write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// How clients authenticate: `md5` or `scram` by password, `cert` by a client certificate whose
/// common name is the database user.
#[derive(
    Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuthMode {
    /// Password; `pg_hba` method `md5`, which also accepts SCRAM hashes.
    Md5,
    /// Password; `pg_hba` method `scram-sha-256`.
    Scram,
    /// Client certificate; needs TLS.
    Cert,
}

impl ClientAuthMode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Md5, Self::Scram, Self::Cert];

    /// The mode as the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Scram => "scram",
            Self::Cert => "cert",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_they_are_read() {
        for mode in SslMode::ALL {
            assert_eq!(serde_json::json!(mode), mode.as_str());
        }
        for mode in ClientAuthMode::ALL {
            assert_eq!(serde_json::json!(mode), mode.as_str());
        }
        for algorithm in KeyAlgorithm::ALL {
            assert_eq!(serde_json::json!(algorithm), algorithm.as_str());
        }
        for encoding in [KeyEncoding::Pkcs1, KeyEncoding::Pkcs8] {
            assert_eq!(serde_json::json!(encoding), encoding.as_str());
        }
    }

    fn key(yaml: &str) -> PrivateKey {
        serde_saphyr::from_str(yaml).expect("a key")
    }

    #[test]
    fn a_change_of_the_key_keeps_what_it_leaves_out_but_no_size_of_another_algorithm() {
        for (before, change, after) in [
            (
                "{encoding: PKCS8}",
                "{algorithm: ECDSA}",
                "{algorithm: ECDSA, encoding: PKCS8}",
            ),
            (
                "{size: 4096}",
                "{encoding: PKCS8}",
                "{size: 4096, encoding: PKCS8}",
            ),
            (
                "{size: 4096}",
                "{algorithm: RSA}",
                "{algorithm: RSA, size: 4096}",
            ),
            ("{size: 4096}", "{algorithm: ECDSA}", "{algorithm: ECDSA}"),
            (
                "{algorithm: ECDSA, size: 384}",
                "{algorithm: RSA, size: 3072}",
                "{algorithm: RSA, size: 3072}",
            ),
            (
                "{algorithm: ECDSA}",
                "{size: 521}",
                "{algorithm: ECDSA, size: 521}",
            ),
        ] {
            let changed = key(before).changed_to(&key(change));
            assert_eq!(changed, key(after), "{before} {change}");
            assert_eq!(
                changed.changed_to(&key(change)),
                changed,
                "{before} {change}"
            );
        }
    }

    #[test]
    fn an_ed25519_key_is_always_in_pkcs8() {
        for (yaml, encoding) in [
            ("{}", KeyEncoding::Pkcs1),
            ("{algorithm: ECDSA}", KeyEncoding::Pkcs1),
            ("{algorithm: ECDSA, encoding: PKCS8}", KeyEncoding::Pkcs8),
            ("{algorithm: Ed25519}", KeyEncoding::Pkcs8),
            ("{algorithm: Ed25519, encoding: PKCS1}", KeyEncoding::Pkcs8),
        ] {
            assert_eq!(key(yaml).encoding(), encoding, "{yaml}");
        }
    }
}
