//! The certificates and keys under `/tls/certs`: parsing, trust bundles, and the CA of a chain.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};

use crate::pki::chain::{
    CertificationPath, MAX_CERTIFICATES, certification_paths, is_root, is_signed_by,
};
use crate::pki::key_pair::{CertificateAndKey, KeyPairProblem};
use crate::pki::parse::{certificates_of, parse_certificate, timestamp};
use crate::pki::{CaId, Fingerprint, Leaf, Material};

use crate::pki::material::PerAlias;

/// Key of the Secret `NAME-tls` with the CAs that servers and standbys trust.
pub const TRUST_KEY: &str = "ca.crt";

/// A chain (leaf first) and the key of the leaf, PEM.
#[derive(Clone, Debug)]
pub struct Pem {
    /// The chain.
    pub certificate: String,
    /// The key.
    pub key: SecretString,
}

impl Pem {
    /// When the chain ends: the earliest end of the leaf and the CAs above it, the root of `cas`
    /// (PEM) included. `None` if the leaf cannot be parsed.
    #[must_use]
    pub fn ends(&self, cas: &str) -> Option<Timestamp> {
        effective_end(self.certificate.as_bytes(), cas.as_bytes())
    }

    /// Parses chain and key, and checks that they belong together.
    pub fn pair(&self) -> Result<CertificateAndKey, KeyPairProblem> {
        CertificateAndKey::parse(
            self.certificate.as_bytes(),
            self.key.expose_secret().as_bytes(),
        )
    }
}

/// The files under `/tls/certs`, PEM.
#[derive(Clone, Debug)]
pub struct ServedMaterial {
    /// The CAs that servers and standbys trust.
    pub trust: String,
    /// For the certificate that servers serve.
    pub server: Pem,
    /// What standbys present.
    pub client: Pem,
    /// For the certificate that the exporter serves.
    pub exporter: Pem,
    /// The CA of the exporter.
    pub exporter_ca: String,
}

impl ServedMaterial {
    /// The same leaves with these CAs as trust bundle. The error is the first CA whose certificate
    /// `cas` lacks.
    ///
    /// The CAs of `material`, which describes these leaves, come first: [`leaf`] finds the first CA
    /// that fits, and a CA that was renewed with its old key fits as well as the old one.
    pub fn trusting(
        self,
        material: &Material,
        trust: &BTreeSet<CaId>,
        cas: &BTreeMap<CaId, String>,
    ) -> Result<Self, CaId> {
        let first = [material.server.ca, material.client.ca]
            .into_iter()
            .filter(|ca| trust.contains(ca));
        let order: Vec<CaId> = first
            .clone()
            .chain(
                trust
                    .iter()
                    .copied()
                    .filter(|ca| !first.clone().any(|f| f == *ca)),
            )
            .collect();
        Ok(Self {
            trust: bundle(order, cas)?,
            ..self
        })
    }

    /// The certificate of the cluster's own clients.
    pub fn client_pair(&self) -> Result<CertificateAndKey, KeyPairProblem> {
        self.client.pair()
    }

    /// Parses every chain with its key.
    fn pairs(&self) -> Result<PerAlias<CertificateAndKey>, KeyPairProblem> {
        Ok(PerAlias {
            server: self.server.pair()?,
            client: self.client.pair()?,
            exporter: self.exporter.pair()?,
        })
    }

    /// When the first chain ends: see [`Pem::ends`]. `None` if one of them cannot be parsed.
    #[must_use]
    pub fn ends(&self) -> Option<Timestamp> {
        Some(
            self.server
                .ends(&self.trust)?
                .min(self.client_ends()?)
                .min(self.exporter.ends(&self.exporter_ca)?),
        )
    }

    /// When the chain of the client certificate ends: see [`Pem::ends`].
    #[must_use]
    pub fn client_ends(&self) -> Option<Timestamp> {
        self.client.ends(&self.trust)
    }

    /// The CAs that servers and standbys trust, DER.
    #[must_use]
    pub fn roots(&self) -> Vec<Vec<u8>> {
        ders(&self.trust)
    }

    /// Every CA in these files.
    #[must_use]
    pub fn cas(&self) -> BTreeMap<CaId, String> {
        [&self.trust, &self.exporter_ca]
            .into_iter()
            .flat_map(|pem| cas(pem.as_bytes()))
            .collect()
    }

    /// The leaves by fingerprint, for a posture. `None` if a chain cannot be parsed, has the key of
    /// another leaf, or leads to no CA in these files.
    ///
    /// The keys are checked because a server does not start with the key of another leaf, and a
    /// fingerprint does not cover the key.
    #[must_use]
    pub fn material(&self) -> Option<Material> {
        let PerAlias {
            server,
            client,
            exporter,
        } = self.pairs().ok()?;
        Some(Material {
            server: leaf_of_chain(server.chain(), &self.trust)?,
            client: leaf_of_chain(client.chain(), &self.trust)?,
            exporter: leaf_of_chain(exporter.chain(), &self.exporter_ca)?,
        })
    }

    /// The leaves in these files; empty if they are not good.
    #[must_use]
    pub fn leaves(&self) -> BTreeSet<Fingerprint> {
        let leaves = self
            .material()
            .map(|all| [all.server, all.client, all.exporter]);
        leaves
            .into_iter()
            .flatten()
            .map(|leaf| leaf.fingerprint)
            .collect()
    }

    /// Takes the files from the data of Secret `NAME-tls`. `None` if a file is missing or empty.
    /// [`ServedMaterial::material`] checks the content.
    ///
    /// `prefix` is empty for the current files, and `previous.` for those before them.
    #[must_use]
    pub fn from_data(data: &BTreeMap<String, ByteString>, prefix: &str) -> Option<Self> {
        let text = |key: &str| {
            let value = data
                .get(&format!("{prefix}{key}"))
                .filter(|value| !value.0.is_empty())?;
            String::from_utf8(value.0.clone()).ok()
        };
        let pem = |certificate, key| {
            Some(Pem {
                certificate: text(certificate)?,
                key: text(key)?.into(),
            })
        };
        Some(Self {
            trust: text(TRUST_KEY)?,
            server: pem("server.crt", "server.key")?,
            client: pem("client.crt", "client.key")?,
            exporter: pem("exporter.crt", "exporter.key")?,
            exporter_ca: text("exporter-ca.crt")?,
        })
    }
}

/// The certificates of these CAs in this order, each once, PEM. The error is the first CA without a
/// certificate.
pub fn bundle(
    order: impl IntoIterator<Item = CaId>,
    cas: &BTreeMap<CaId, String>,
) -> Result<String, CaId> {
    let mut seen = BTreeSet::new();
    order
        .into_iter()
        .filter(|ca| seen.insert(*ca))
        .map(|ca| cas.get(&ca).map(String::as_str).ok_or(ca))
        .collect()
}

/// The certificates in a PEM text, DER. Empty if one cannot be parsed.
#[must_use]
pub fn ders(pem: &str) -> Vec<Vec<u8>> {
    certificates_of(pem.as_bytes())
        .unwrap_or_default()
        .iter()
        .map(|der| der.to_vec())
        .collect()
}

/// The CAs in a bundle, PEM. Empty if one cannot be parsed.
#[must_use]
pub fn cas(bundle: &[u8]) -> BTreeMap<CaId, String> {
    certificates_of(bundle)
        .unwrap_or_default()
        .iter()
        .map(|der| (CaId::from_der(der), pem(der)))
        .collect()
}

/// The leaf of a chain and its CA, for a posture. `cas` are the possible CAs. Both PEM. `None` if
/// the chain leads to none of them.
#[must_use]
pub fn leaf(chain: &str, cas: &str) -> Option<Leaf> {
    leaf_of_chain(&certificates_of(chain.as_bytes()).ok()?, cas)
}

fn leaf_of_chain(chain: &[CertificateDer<'static>], cas: &str) -> Option<Leaf> {
    let cas = certificates_of(cas.as_bytes()).ok()?;
    let path = path_of_chain(chain, &cas)?;
    Some(Leaf {
        fingerprint: Fingerprint::sha256(chain.first()?),
        ca: CaId::from_der(&path.root),
    })
}

/// [`effective_end_der`] of a chain and CAs in PEM.
#[must_use]
pub fn effective_end(chain: &[u8], cas: &[u8]) -> Option<Timestamp> {
    let cas = certificates_of(cas).unwrap_or_default();
    effective_end_der(&certificates_of(chain).ok()?, &cas)
}

/// When a chain ends: the earliest end of the leaf and the CAs above it. `None` if the leaf cannot
/// be parsed. A root that is not in `cas` does not count.
#[must_use]
pub fn effective_end_der(
    chain: &[CertificateDer<'static>],
    cas: &[CertificateDer<'static>],
) -> Option<Timestamp> {
    let own = not_after(chain.first()?)?;
    let path = path_of_chain(chain, cas);
    let above = path
        .iter()
        .flat_map(CertificationPath::cas)
        .filter_map(not_after);
    Some(above.fold(own, Timestamp::min))
}

fn not_after(der: &CertificateDer<'_>) -> Option<Timestamp> {
    timestamp(parse_certificate(der, 1).ok()?.validity().not_after).ok()
}

/// The way from the leaf of a chain to a root of `cas`: over the certificates of the chain if they
/// lead there.
fn path_of_chain(
    chain: &[CertificateDer<'static>],
    cas: &[CertificateDer<'static>],
) -> Option<CertificationPath> {
    let (leaf, intermediates) = chain.split_first()?;
    let top = chain.last()?;
    let signs = |ca: &&CertificateDer<'static>| is_signed_by(top, ca) && is_root(ca);
    if let Some(root) = cas.iter().take(MAX_CERTIFICATES).find(signs) {
        return Some(CertificationPath {
            intermediates: intermediates.to_vec(),
            root: root.clone(),
        });
    }
    let pool = [intermediates, cas].concat();
    certification_paths(leaf, &pool)
        .into_iter()
        .find(|path| cas.contains(&path.root))
}

/// A certificate as PEM.
pub(super) fn pem(der: &[u8]) -> String {
    let lf = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), lf)
}
