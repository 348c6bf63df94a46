//! A certificate chain and the private key of its leaf, checked to belong together.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{InconsistentKeys, RootCertStore};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::pki::chain::{MAX_CERTIFICATES, is_signed_by};
use crate::pki::parse::{certificates_of, parse_certificate, timestamp, unix_time};

pub use crate::pki::parse::KeyPairProblem;

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

impl CertificateAndKey {
    /// Parses a chain (leaf first) and the key of the leaf, both PEM. Other PEM sections are
    /// skipped.
    pub fn parse(certificates: &[u8], key: &[u8]) -> Result<Self, KeyPairProblem> {
        let chain = certificates_of(certificates)?;
        if chain.is_empty() {
            return Err(KeyPairProblem::NoCertificate);
        }
        let pair = Self::from_ders(chain, key_of(key)?)?;
        check_order(&pair.chain)?;
        Ok(pair)
    }

    /// The leaf of this key, and the other certificates of the text, both PEM. Issuers write them in
    /// any order.
    ///
    /// If the key is that of no certificate, the error is that of the first one.
    pub(super) fn find_leaf(
        certificates: &[u8],
        key: &[u8],
    ) -> Result<(Self, Vec<CertificateDer<'static>>), KeyPairProblem> {
        let all = certificates_of(certificates)?;
        let first = all.first().ok_or(KeyPairProblem::NoCertificate)?;
        let key = key_of(key)?;
        let with_key =
            |der: &CertificateDer<'static>| Self::from_ders(vec![der.clone()], Arc::clone(&key));
        let found = all
            .iter()
            .take(MAX_CERTIFICATES)
            .enumerate()
            .find_map(|(at, der)| Some((at, with_key(der).ok()?)));
        let Some((at, leaf)) = found else {
            return with_key(first).map(|leaf| (leaf, vec![]));
        };
        let mut others = all;
        others.remove(at);
        Ok((leaf, others))
    }

    /// A chain whose order the caller checks.
    fn from_ders(
        chain: Vec<CertificateDer<'static>>,
        key: Arc<dyn SigningKey>,
    ) -> Result<Self, KeyPairProblem> {
        let leaf = chain.first().ok_or(KeyPairProblem::NoCertificate)?.clone();
        let leaf = parse_certificate(&leaf, 1)?;
        let certified = CertifiedKey::new(chain, key);
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
        verifier
            .verify_server_cert(leaf, issuers, &name, &[], unix_time(now))
            .map_err(|e| not_trusted(e.to_string()))?;
        Ok(())
    }
}

impl fmt::Debug for CertificateAndKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAndKey")
            .field("names", &self.names().collect::<Vec<_>>())
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .field("certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
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

fn check_order(chain: &[CertificateDer<'static>]) -> Result<(), KeyPairProblem> {
    for (below, pair) in chain.windows(2).enumerate() {
        let [lower, upper] = pair else { continue };
        parse_certificate(lower, below + 1)?;
        parse_certificate(upper, below + 2)?;
        if !is_signed_by(lower, upper) {
            return Err(KeyPairProblem::ChainBroken {
                position: below + 1,
            });
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
