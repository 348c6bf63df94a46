//! A certificate chain and the private key of its leaf, checked to belong together.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{InconsistentKeys, RootCertStore};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// A leaf, the certificates above it, and the leaf's private key.
///
/// *Guarantees*: there is a leaf, it can be parsed, the key belongs to it, and each certificate of
/// the chain is signed by the next one. Validity, trust and names depend on the caller: methods
/// check them.
///
/// The key appears in no `Debug` print.
#[derive(Clone)]
pub struct CertificateAndKey {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
    not_before: Timestamp,
    not_after: Timestamp,
    dns_names: Vec<String>,
    addresses: Vec<IpAddr>,
}

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

impl CertificateAndKey {
    /// Parses a chain (leaf first) and the key of the leaf, both PEM. Other PEM sections are
    /// skipped.
    pub fn parse(certificates: &[u8], key: &[u8]) -> Result<Self, KeyPairProblem> {
        let chain = certificates_of(certificates)?;
        let leaf = chain.first().ok_or(KeyPairProblem::NoCertificate)?.clone();
        let leaf = parse_certificate(&leaf, 1)?;
        let certified = CertifiedKey::new(chain, key_of(key)?);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                return Err(KeyPairProblem::KeyOfAnother);
            }
            Err(error) => {
                return Err(KeyPairProblem::CertificateContent {
                    position: 1,
                    why: error.to_string(),
                });
            }
        }
        let CertifiedKey {
            cert: chain, key, ..
        } = certified;
        check_order(&chain)?;
        let (dns_names, addresses) = names(&leaf);
        Ok(Self {
            not_before: timestamp(leaf.validity().not_before)?,
            not_after: timestamp(leaf.validity().not_after)?,
            dns_names,
            addresses,
            key,
            chain,
        })
    }

    /// The leaf, then its issuers.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The same leaf and key with another chain, which the caller has checked.
    pub(crate) fn with_chain(self, chain: Vec<CertificateDer<'static>>) -> Self {
        Self { chain, ..self }
    }

    /// Start of the leaf's validity.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// End of the leaf's validity.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The leaf's DNS names, then its IP addresses.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.dns_names
            .iter()
            .cloned()
            .chain(self.addresses.iter().map(ToString::to_string))
    }

    /// The pair for rustls.
    #[must_use]
    pub fn certified_key(&self) -> CertifiedKey {
        CertifiedKey::new(self.chain.clone(), Arc::clone(&self.key))
    }

    /// Checks the leaf's validity at this time.
    pub fn valid_at(&self, now: Timestamp) -> Result<(), KeyPairProblem> {
        if now < self.not_before {
            return Err(KeyPairProblem::NotYetValid {
                from: self.not_before,
            });
        }
        if now >= self.not_after {
            return Err(KeyPairProblem::Expired { at: self.not_after });
        }
        Ok(())
    }

    /// Checks that the leaf has all of these names: DNS names, which a wildcard may cover, and IP
    /// addresses.
    pub fn covers<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), KeyPairProblem> {
        let missing: Vec<String> = names
            .into_iter()
            .filter(|name| !self.has(name))
            .map(str::to_owned)
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(KeyPairProblem::NamesMissing { names: missing })
        }
    }

    fn has(&self, name: &str) -> bool {
        // A wildcard is no server name: the leaf must have it literally.
        if name.starts_with("*.") {
            return self
                .dns_names
                .iter()
                .any(|own| own.eq_ignore_ascii_case(name));
        }
        let (Some(leaf), Ok(name)) = (self.chain.first(), ServerName::try_from(name)) else {
            return false;
        };
        ParsedCertificate::try_from(leaf)
            .and_then(|leaf| verify_server_name(&leaf, &name))
            .is_ok()
    }

    /// Checks that a TLS client that trusts these CAs accepts the chain at this time.
    ///
    /// The name is not checked, since the client asks for the leaf's first name: see
    /// [`CertificateAndKey::covers`].
    pub fn trusted_by(
        &self,
        cas: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<(), KeyPairProblem> {
        let not_trusted = |why: String| KeyPairProblem::NotTrusted { why };
        let Some((leaf, issuers)) = self.chain.split_first() else {
            return Err(KeyPairProblem::NoCertificate);
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(cas.iter().cloned().map(CertificateDer::into_owned));
        let name = self
            .names()
            .next()
            .ok_or_else(|| not_trusted("it has no names".to_owned()))?;
        // A wildcard is no server name; any name below it is.
        let name = ServerName::try_from(name.replacen('*', "any", 1))
            .map_err(|e| not_trusted(e.to_string()))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| not_trusted(e.to_string()))?;
        let since = u64::try_from(now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(since));
        verifier
            .verify_server_cert(leaf, issuers, &name, &[], now)
            .map_err(|e| not_trusted(e.to_string()))?;
        Ok(())
    }
}

impl fmt::Debug for CertificateAndKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("names", &self.names().collect::<Vec<_>>())
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .field("certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
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

fn key_of(pem: &[u8]) -> Result<Arc<dyn SigningKey>, KeyPairProblem> {
    let has = |word: &[u8]| pem.windows(word.len()).any(|w| w == word);
    if has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
        return Err(KeyPairProblem::KeyEncrypted);
    }
    let der = PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => KeyPairProblem::NoKey,
        _ => KeyPairProblem::KeyPem,
    })?;
    aws_lc_rs::sign::any_supported_type(&der).map_err(|_| KeyPairProblem::KeyUnusable)
}

fn check_order(chain: &[CertificateDer<'_>]) -> Result<(), KeyPairProblem> {
    for (below, above) in chain.windows(2).enumerate() {
        let position = below + 1;
        let [lower, upper] = above else { continue };
        let (lower, upper) = (
            parse_certificate(lower, position)?,
            parse_certificate(upper, position + 1)?,
        );
        let follows = lower.issuer().as_raw() == upper.subject().as_raw();
        if !follows || lower.verify_signature(Some(upper.public_key())).is_err() {
            return Err(KeyPairProblem::ChainBroken { position });
        }
    }
    Ok(())
}

fn names(leaf: &X509Certificate<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let (mut dns_names, mut addresses) = (vec![], vec![]);
    let extension = leaf.subject_alternative_name().ok().flatten();
    for name in extension.iter().flat_map(|e| &e.value.general_names) {
        match name {
            GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                addresses.extend(v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)));
            }
            _ => {}
        }
    }
    (dns_names, addresses)
}

#[cfg(test)]
mod tests;
