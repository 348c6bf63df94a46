//! What has been issued for a database, checked before any server sees it.
//!
//! # Expected flow
//! cert-manager issues into three Secrets; [`issued`] reads them and gives either everything that
//! servers can be given, or every reason why they must not be given it.
//!
//! # Guarantees
//! Each key is the key of its leaf. Each chain leads to a self-signed CA, which is what OpenSSL,
//! and so libpq, insists on, and is completed where the issuer kept a part of it in `ca.crt`.
//! Server and exporter have the names that are asked for, the client's common name is the
//! superuser, and no leaf outlives a CA above it.
//!
//! # Assumptions
//! The time is right. Keys are in no `Debug` print and in no problem.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;

use crate::api::names::Alias;
use crate::pki::certificate::summarize_pem;
use crate::pki::key_pair::{
    CertificateAndKey, KeyPairProblem, certificates_of, parse_certificate, timestamp,
};
use crate::pki::{CaId, Fingerprint, Leaf, Material};

/// Key of the Secret `NAME-tls` with the CAs that servers and standbys trust.
pub const TRUST_KEY: &str = "ca.crt";

/// One of each certificate of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerAlias<T> {
    /// What servers serve.
    pub server: T,
    /// What standbys and other clients of the cluster's own present.
    pub client: T,
    /// What the exporter serves.
    pub exporter: T,
}

impl<T> PerAlias<T> {
    /// The one of this alias.
    pub const fn get(&self, alias: Alias) -> &T {
        match alias {
            Alias::Server => &self.server,
            Alias::Client => &self.client,
            Alias::MetricsExporter => &self.exporter,
        }
    }
}

/// A chain, leaf first, and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Pem {
    /// The chain.
    pub certificate: String,
    /// The key.
    pub key: SecretString,
}

impl Pem {
    /// When the certificate expires; nothing where it cannot be read.
    #[must_use]
    pub fn ends(&self) -> Option<Timestamp> {
        Some(summarize_pem(self.certificate.as_bytes())?.not_after)
    }

    /// The two, read: they belong together.
    pub fn pair(&self) -> Result<CertificateAndKey, KeyPairProblem> {
        CertificateAndKey::parse(
            self.certificate.as_bytes(),
            self.key.expose_secret().as_bytes(),
        )
    }
}

/// What is under `/tls/certs`, as PEM.
#[derive(Clone, Debug)]
pub struct ServedMaterial {
    /// The CAs that servers and standbys trust.
    pub trust: String,
    /// What servers serve.
    pub server: Pem,
    /// What standbys present.
    pub client: Pem,
    /// What the exporter serves.
    pub exporter: Pem,
    /// The CA of the exporter.
    pub exporter_ca: String,
}

/// CAs and their certificates, PEM.
pub type Cas = BTreeMap<CaId, String>;

/// What one Secret of cert-manager holds; what it lacks is empty.
#[derive(Clone, Debug, Default)]
pub struct IssuedSecret {
    /// Key `tls.crt`.
    pub certificate: Vec<u8>,
    /// Key `tls.key`.
    pub key: SecretString,
    /// Key `ca.crt`.
    pub ca: Vec<u8>,
}

impl IssuedSecret {
    /// Reads the data of a Secret.
    #[must_use]
    pub fn of(data: &BTreeMap<String, ByteString>) -> Self {
        let key = |name: &str| {
            data.get(name)
                .map(|value| value.0.clone())
                .unwrap_or_default()
        };
        Self {
            certificate: key("tls.crt"),
            key: String::from_utf8_lossy(&key("tls.key")).into_owned().into(),
            ca: key("ca.crt"),
        }
    }
}

/// What leaves must say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequiredNames {
    /// Names (DNS, IP addresses) that the server's leaf must have.
    pub server: Vec<String>,
    /// Names that the exporter's leaf must have.
    pub exporter: Vec<String>,
    /// The client's common name.
    pub superuser: String,
}

/// What has been issued, checked.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The leaves, as a posture names them.
    pub material: Material,
    /// The CAs that signed them.
    pub cas: Cas,
    /// What servers get when they trust these CAs and no others. For more trust see
    /// [`ServedMaterial::trusting`].
    pub served: ServedMaterial,
    /// When each leaf expires.
    pub not_after: PerAlias<Timestamp>,
}

/// Why a certificate must not be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaterialProblem {
    /// Which certificate.
    pub alias: Alias,
    /// What is wrong, and what to do.
    pub defect: Defect,
}

impl fmt::Display for MaterialProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.alias.as_str(), self.defect)
    }
}

/// What is wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// There is no Secret, or it is empty: cert-manager is at it, or says in the Certificate why it
    /// is not.
    #[error("has not been issued yet: the Certificate's conditions say why if this lasts")]
    NotIssued,
    /// Chain and key are no pair, or not a good one.
    #[error(transparent)]
    Pair(KeyPairProblem),
    /// The issuer does not say who it is.
    #[error(
        "the Secret has no ca.crt, so nobody could check the certificate: use an issuer that gives its CA"
    )]
    NoCa,
    /// `ca.crt` cannot be read.
    #[error("ca.crt cannot be used: {0}")]
    Ca(KeyPairProblem),
    /// Nothing self-signed at the end.
    #[error(
        "its chain does not lead to a self-signed CA in ca.crt, which libpq insists on: give the issuer's Secret the root as ca.crt"
    )]
    NoRoot,
    /// A CA ends first.
    #[error(
        "it is valid until {leaf} and a CA above it only until {ca}: renew the CA first, or ask for a shorter duration"
    )]
    OutlivesCa {
        /// When the leaf expires.
        leaf: Timestamp,
        /// When the CA does.
        ca: Timestamp,
    },
    /// `cert` login compares the common name with the user.
    #[error(
        "its common name is \"{found}\" and must be the superuser, \"{wanted}\": the issuer must keep the common name"
    )]
    CommonName {
        /// What it says.
        found: String,
        /// What it must say.
        wanted: String,
    },
    /// A server would not take it from a client.
    #[error(
        "a server would not take it from a client ({why}): issue it with the usage `client auth`"
    )]
    NotForClients {
        /// What the verifier said.
        why: String,
    },
}

impl Fingerprint {
    /// The fingerprint of a certificate, from its DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl CaId {
    /// The CA with this certificate, DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Fingerprint::of(der))
    }
}

impl ServedMaterial {
    /// The same material, trusting these CAs, of which `cas` must have the certificates: the first
    /// that it lacks is the error.
    ///
    /// The CAs of `material`, which is what these leaves are, come first: [`leaf`] reads back the
    /// first CA that fits, and a CA that was renewed with its old key fits as well as the old one.
    pub fn trusting(
        self,
        material: &Material,
        trust: &BTreeSet<CaId>,
        cas: &Cas,
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

    /// How the cluster's own clients show who they are.
    pub fn client_pair(&self) -> Result<CertificateAndKey, KeyPairProblem> {
        self.client.pair()
    }

    /// Every chain with its key.
    fn pairs(&self) -> Result<PerAlias<CertificateAndKey>, KeyPairProblem> {
        Ok(PerAlias {
            server: self.server.pair()?,
            client: self.client.pair()?,
            exporter: self.exporter.pair()?,
        })
    }

    /// When the first of them expires; nothing where one of them cannot be read.
    #[must_use]
    pub fn ends(&self) -> Option<Timestamp> {
        Some(
            self.server
                .ends()?
                .min(self.client.ends()?)
                .min(self.exporter.ends()?),
        )
    }

    /// The CAs that servers and standbys trust, DER.
    #[must_use]
    pub fn roots(&self) -> Vec<Vec<u8>> {
        ders(&self.trust)
    }

    /// Every CA that is written down here.
    #[must_use]
    pub fn cas(&self) -> Cas {
        [&self.trust, &self.exporter_ca]
            .into_iter()
            .flat_map(|pem| cas(pem.as_bytes()))
            .collect()
    }

    /// The leaves as a posture names them; `None` when something of them cannot be read, has the
    /// key of another, or leads to no CA that is written down.
    ///
    /// A fingerprint says nothing of the key beside it, and a server that starts with the key of
    /// another does not come up.
    #[must_use]
    pub fn material(&self) -> Option<Material> {
        let PerAlias {
            server,
            client,
            exporter,
        } = self.pairs().ok()?;
        Some(Material {
            server: named(server.chain(), &self.trust)?,
            client: named(client.chain(), &self.trust)?,
            exporter: named(exporter.chain(), &self.exporter_ca)?,
        })
    }

    /// Reads the data of Secret `NAME-tls` back; `None` when a file is missing or empty.
    /// [`ServedMaterial::material`] judges the content.
    ///
    /// `prefix` is empty for what is served, and `previous.` for what was served before.
    #[must_use]
    pub fn of(data: &BTreeMap<String, ByteString>, prefix: &str) -> Option<Self> {
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

/// These CAs in this order, each once, PEM; the error is the first whose certificate is not known.
pub fn bundle(order: impl IntoIterator<Item = CaId>, cas: &Cas) -> Result<String, CaId> {
    let mut seen = BTreeSet::new();
    order
        .into_iter()
        .filter(|ca| seen.insert(*ca))
        .map(|ca| cas.get(&ca).map(String::as_str).ok_or(ca))
        .collect()
}

/// The certificates in a PEM text, DER; what is no certificate is left out.
#[must_use]
pub fn ders(pem: &str) -> Vec<Vec<u8>> {
    certificates_of(pem.as_bytes())
        .unwrap_or_default()
        .iter()
        .map(|der| der.to_vec())
        .collect()
}

/// The certificates of a bundle, PEM; none when it cannot be read.
#[must_use]
pub fn cas(bundle: &[u8]) -> Cas {
    certificates_of(bundle)
        .unwrap_or_default()
        .iter()
        .map(|der| (CaId::of(der), pem(der)))
        .collect()
}

/// What a chain, PEM, is called in a posture, given the CAs, PEM, that may have signed it. `None`
/// when it leads to none of them.
#[must_use]
pub fn leaf(chain: &str, cas: &str) -> Option<Leaf> {
    named(&certificates_of(chain.as_bytes()).ok()?, cas)
}

fn named(chain: &[CertificateDer<'static>], cas: &str) -> Option<Leaf> {
    let fingerprint = Fingerprint::of(chain.first()?);
    let (_, root) = lead_up(chain.to_vec(), &certificates_of(cas.as_bytes()).ok()?)?;
    Some(Leaf {
        fingerprint,
        ca: CaId::of(&root),
    })
}

/// Reads and checks what has been issued, at this time. Every problem is listed, not just the
/// first.
pub fn issued(
    sources: &PerAlias<Option<IssuedSecret>>,
    wanted: &RequiredNames,
    now: Timestamp,
) -> Result<Issued, Vec<MaterialProblem>> {
    let checked = |alias| {
        check(alias, sources.get(alias).as_ref(), wanted, now)
            .map_err(|defect| MaterialProblem { alias, defect })
    };
    match (
        checked(Alias::Server),
        checked(Alias::Client),
        checked(Alias::MetricsExporter),
    ) {
        (Ok(server), Ok(client), Ok(exporter)) => Ok(together(server, client, exporter)),
        (server, client, exporter) => Err([server, client, exporter]
            .into_iter()
            .filter_map(Result::err)
            .collect()),
    }
}

/// One certificate that may be served.
struct Good {
    leaf: Leaf,
    root: String,
    pem: Pem,
    not_after: Timestamp,
}

fn together(server: Good, client: Good, exporter: Good) -> Issued {
    let material = Material {
        server: server.leaf,
        client: client.leaf,
        exporter: exporter.leaf,
    };
    let not_after = PerAlias {
        server: server.not_after,
        client: client.not_after,
        exporter: exporter.not_after,
    };
    let cas = [&server, &client, &exporter]
        .map(|good| (good.leaf.ca, good.root.clone()))
        .into();
    let others = if client.leaf.ca == server.leaf.ca {
        ""
    } else {
        &client.root
    };
    let served = ServedMaterial {
        trust: format!("{}{others}", server.root),
        server: server.pem,
        client: client.pem,
        exporter: exporter.pem,
        exporter_ca: exporter.root,
    };
    Issued {
        material,
        cas,
        served,
        not_after,
    }
}

fn check(
    alias: Alias,
    source: Option<&IssuedSecret>,
    wanted: &RequiredNames,
    now: Timestamp,
) -> Result<Good, Defect> {
    let Some(source) = source.filter(|source| !source.certificate.is_empty()) else {
        return Err(Defect::NotIssued);
    };
    let pair = CertificateAndKey::parse(&source.certificate, source.key.expose_secret().as_bytes())
        .map_err(Defect::Pair)?;
    pair.valid_at(now).map_err(Defect::Pair)?;
    let above = certificates_of(&source.ca).map_err(Defect::Ca)?;
    if above.is_empty() {
        return Err(Defect::NoCa);
    }
    let (chain, root) = lead_up(pair.chain().to_vec(), &above).ok_or(Defect::NoRoot)?;
    for (at, ca) in chain.iter().chain([&root]).enumerate().skip(1) {
        let ca = timestamp(
            parse_certificate(ca, at + 1)
                .map_err(Defect::Ca)?
                .validity()
                .not_after,
        )
        .map_err(Defect::Ca)?;
        if pair.not_after() > ca {
            return Err(Defect::OutlivesCa {
                leaf: pair.not_after(),
                ca,
            });
        }
    }
    match alias {
        Alias::Server => serves(&pair, &chain, &root, &wanted.server, now)?,
        Alias::MetricsExporter => serves(&pair, &chain, &root, &wanted.exporter, now)?,
        Alias::Client => presents(&chain, &root, &wanted.superuser, now)?,
    }
    Ok(Good {
        leaf: Leaf {
            fingerprint: Fingerprint::of(chain.first().map_or(&[], |leaf| leaf)),
            ca: CaId::of(&root),
        },
        root: pem(&root),
        pem: Pem {
            certificate: chain.iter().map(|der| pem(der)).collect(),
            key: source.key.clone(),
        },
        not_after: pair.not_after(),
    })
}

/// The chain, completed from `cas`, and the self-signed certificate among them that it leads to.
fn lead_up<'a>(
    mut chain: Vec<CertificateDer<'static>>,
    cas: &'a [CertificateDer<'static>],
) -> Option<(Vec<CertificateDer<'static>>, CertificateDer<'static>)> {
    // A chain that brings its root along leaves it at home: who must be told it would not trust it.
    let signed_by_itself =
        |der: &CertificateDer<'_>| parse_certificate(der, 1).is_ok_and(|c| signed(&c, &c));
    if chain.len() > 1 && chain.last().is_some_and(&signed_by_itself) {
        let root = chain.pop()?;
        return cas.contains(&root).then_some((chain, root));
    }
    for _ in 0..=cas.len() {
        let top = chain.last()?.clone();
        let top = parse_certificate(&top, 1).ok()?;
        let signs = |ca: &&'a CertificateDer<'static>| {
            parse_certificate(ca, 1).is_ok_and(|ca| signed(&top, &ca))
        };
        let above = cas
            .iter()
            .filter(|ca| signed_by_itself(ca))
            .find(signs)
            .or_else(|| cas.iter().find(signs))?;
        if signed_by_itself(above) {
            return Some((chain, above.clone()));
        }
        chain.push(above.clone());
    }
    None
}

fn signed(below: &X509Certificate<'_>, above: &X509Certificate<'_>) -> bool {
    below.issuer().as_raw() == above.subject().as_raw()
        && below.verify_signature(Some(above.public_key())).is_ok()
}

fn serves(
    pair: &CertificateAndKey,
    chain: &[CertificateDer<'static>],
    root: &CertificateDer<'static>,
    names: &[String],
    now: Timestamp,
) -> Result<(), Defect> {
    pair.covers(names.iter().map(String::as_str))
        .map_err(Defect::Pair)?;
    pair.clone()
        .with_chain(chain.to_vec())
        .trusted_by(std::slice::from_ref(root), now)
        .map_err(Defect::Pair)
}

fn presents(
    chain: &[CertificateDer<'static>],
    root: &CertificateDer<'static>,
    superuser: &str,
    now: Timestamp,
) -> Result<(), Defect> {
    let (leaf, issuers) = chain
        .split_first()
        .ok_or(Defect::Pair(KeyPairProblem::NoCertificate))?;
    let read = parse_certificate(leaf, 1).map_err(Defect::Pair)?;
    let found = read
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok())
        .unwrap_or_default();
    if found != superuser {
        return Err(Defect::CommonName {
            found: found.to_owned(),
            wanted: superuser.to_owned(),
        });
    }
    let refused = |why: String| Defect::NotForClients { why };
    let mut roots = RootCertStore::empty();
    roots
        .add(root.clone())
        .map_err(|e| refused(e.to_string()))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|e| refused(e.to_string()))?;
    let since = u64::try_from(now.as_second()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(since));
    verifier
        .verify_client_cert(leaf, issuers, now)
        .map(|_| ())
        .map_err(|e| refused(e.to_string()))
}

/// A certificate as PEM.
fn pem(der: &[u8]) -> String {
    let lf = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), lf)
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
        IsCa, KeyPair, KeyUsagePurpose,
    };

    use super::*;

    /// A CA that is valid from 2026 to 2036.
    pub(crate) struct Authority {
        ca: CertifiedIssuer<'static, KeyPair>,
        /// The CAs above it, and it.
        ca_crt: String,
        /// What it puts above its leaves.
        chain: String,
    }

    fn ca_params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2036, 1, 1);
        params
    }

    impl Authority {
        pub(crate) fn new(name: &str) -> Self {
            let ca = CertifiedIssuer::self_signed(ca_params(name), KeyPair::generate().unwrap())
                .unwrap();
            let ca_crt = ca.pem();
            Self {
                ca,
                ca_crt,
                chain: String::new(),
            }
        }

        /// A CA that another one signed, and that puts itself into the chain, or into `ca.crt`.
        fn below(&self, name: &str, in_chain: bool) -> Self {
            let ca =
                CertifiedIssuer::signed_by(ca_params(name), KeyPair::generate().unwrap(), &self.ca)
                    .unwrap();
            let (chain, beside) = if in_chain {
                (ca.pem(), String::new())
            } else {
                (String::new(), ca.pem())
            };
            Self {
                ca_crt: format!("{beside}{}", self.ca.pem()),
                ca,
                chain,
            }
        }

        fn sign(&self, alias: Alias, change: impl FnOnce(&mut CertificateParams)) -> IssuedSecret {
            let names = if alias == Alias::Client {
                vec![]
            } else {
                vec![NAME.to_owned(), "10.0.0.1".to_owned()]
            };
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name.push(
                DnType::CommonName,
                if alias == Alias::Client { USER } else { NAME },
            );
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            if alias != Alias::Client {
                params
                    .extended_key_usages
                    .push(ExtendedKeyUsagePurpose::ServerAuth);
            }
            params.not_before = rcgen::date_time_ymd(2026, 1, 1);
            params.not_after = rcgen::date_time_ymd(2027, 1, 1);
            change(&mut params);
            let key = KeyPair::generate().unwrap();
            let leaf = params.signed_by(&key, &self.ca).unwrap().pem();
            IssuedSecret {
                certificate: format!("{leaf}{}", self.chain).into_bytes(),
                key: key.serialize_pem().into(),
                ca: self.ca_crt.clone().into_bytes(),
            }
        }
    }

    const NAME: &str = "pg.demo.svc";
    const USER: &str = "postgres";

    fn wanted() -> RequiredNames {
        let names = vec![NAME.to_owned(), "10.0.0.1".to_owned()];
        RequiredNames {
            server: names.clone(),
            exporter: names,
            superuser: USER.to_owned(),
        }
    }

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    fn sources(server: &Authority, client: &Authority) -> PerAlias<Option<IssuedSecret>> {
        PerAlias {
            server: Some(server.sign(Alias::Server, |_| ())),
            client: Some(client.sign(Alias::Client, |_| ())),
            exporter: Some(server.sign(Alias::MetricsExporter, |_| ())),
        }
    }

    /// Leaves of these CAs: server and exporter of the first, client of the second.
    pub(crate) fn issue(server: &Authority, client: &Authority) -> Issued {
        issued(&sources(server, client), &wanted(), now()).unwrap()
    }

    fn defects(sources: &PerAlias<Option<IssuedSecret>>) -> Vec<(Alias, Defect)> {
        let problems = issued(sources, &wanted(), now()).map(|_| ()).unwrap_err();
        problems
            .into_iter()
            .map(|problem| (problem.alias, problem.defect))
            .collect()
    }

    fn defect_of(alias: Alias, source: IssuedSecret) -> Defect {
        let ca = Authority::new("ca");
        let mut all = sources(&ca, &ca);
        match alias {
            Alias::Server => all.server = Some(source),
            Alias::Client => all.client = Some(source),
            Alias::MetricsExporter => all.exporter = Some(source),
        }
        let [(of, defect)] = <[_; 1]>::try_from(defects(&all)).unwrap();
        assert_eq!(of, alias);
        defect
    }

    #[test]
    fn what_is_good_is_named_by_its_fingerprints() {
        let (one, other) = (Authority::new("one"), Authority::new("other"));
        let issued = issue(&one, &other);
        let (one, other) = (CaId::of(one.ca.der()), CaId::of(other.ca.der()));
        assert_eq!(
            [
                issued.material.server.ca,
                issued.material.client.ca,
                issued.material.exporter.ca
            ],
            [one, other, one]
        );
        assert_eq!(
            issued.cas.keys().copied().collect::<BTreeSet<_>>(),
            BTreeSet::from([one, other])
        );
        assert_eq!(issued.served.material(), Some(issued.material));
        assert_eq!(issued.served.cas(), issued.cas);
        assert_eq!(
            issued.not_after.client,
            "2027-01-01T00:00:00Z".parse().unwrap()
        );
    }

    #[test]
    fn a_fingerprint_is_the_sha_256_of_the_der() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Fingerprint::of(b"abc").to_string(), abc);
    }

    #[test]
    fn every_certificate_that_is_missing_is_named() {
        let nothing = PerAlias::default();
        assert_eq!(
            defects(&nothing),
            Alias::ALL.map(|alias| (alias, Defect::NotIssued))
        );
        let empty = PerAlias {
            server: Some(IssuedSecret::default()),
            client: None,
            exporter: None,
        };
        assert_eq!(
            defects(&empty),
            Alias::ALL.map(|alias| (alias, Defect::NotIssued))
        );
    }

    #[test]
    fn what_must_not_be_served_is_refused_with_its_reason() {
        let ca = Authority::new("ca");
        let sign = |change: fn(&mut CertificateParams)| ca.sign(Alias::Server, change);
        let good = sign(|_| ());
        let names = sign(|params| params.subject_alt_names.clear());
        assert!(matches!(
            defect_of(Alias::Server, names),
            Defect::Pair(KeyPairProblem::NamesMissing { .. })
        ));
        let expired = sign(|params| params.not_after = rcgen::date_time_ymd(2026, 5, 1));
        assert!(matches!(
            defect_of(Alias::Server, expired),
            Defect::Pair(KeyPairProblem::Expired { .. })
        ));
        let outlives = sign(|params| params.not_after = rcgen::date_time_ymd(2040, 1, 1));
        assert!(matches!(
            defect_of(Alias::Server, outlives),
            Defect::OutlivesCa { .. }
        ));
        let usage =
            sign(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
        assert!(matches!(
            defect_of(Alias::Server, usage),
            Defect::Pair(KeyPairProblem::NotTrusted { .. })
        ));
        let key = IssuedSecret {
            key: sign(|_| ()).key,
            ..good.clone()
        };
        assert_eq!(
            defect_of(Alias::Server, key),
            Defect::Pair(KeyPairProblem::KeyOfAnother)
        );
        assert_eq!(
            defect_of(
                Alias::Server,
                IssuedSecret {
                    ca: vec![],
                    ..good.clone()
                }
            ),
            Defect::NoCa
        );
        let half = IssuedSecret {
            ca: good.ca[..good.ca.len() / 2].to_vec(),
            ..good.clone()
        };
        assert!(matches!(defect_of(Alias::Server, half), Defect::Ca(_)));
        let stranger = IssuedSecret {
            ca: Authority::new("ca").ca_crt.into_bytes(),
            ..good
        };
        assert_eq!(defect_of(Alias::Server, stranger), Defect::NoRoot);
    }

    #[test]
    fn a_client_must_be_the_superuser_and_a_client() {
        let ca = Authority::new("ca");
        let other = ca.sign(Alias::Client, |params| {
            params.distinguished_name.push(DnType::CommonName, "app")
        });
        let found = Defect::CommonName {
            found: "app".to_owned(),
            wanted: USER.to_owned(),
        };
        assert_eq!(defect_of(Alias::Client, other), found);
        let server = |params: &mut CertificateParams| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]
        };
        let usage = ca.sign(Alias::Client, server);
        assert!(matches!(
            defect_of(Alias::Client, usage),
            Defect::NotForClients { .. }
        ));
    }

    #[test]
    fn a_ca_below_another_is_served_and_the_one_above_is_trusted() {
        let root = Authority::new("root");
        for in_chain in [true, false] {
            let below = root.below("below", in_chain);
            let issued = issue(&below, &below);
            assert_eq!(issued.material.server.ca, CaId::of(root.ca.der()));
            let chain = certificates_of(issued.served.server.certificate.as_bytes()).unwrap();
            assert_eq!((chain.len(), &chain[1]), (2, below.ca.der()), "{in_chain}");
            assert_eq!(issued.served.trust, pem(root.ca.der()));
        }
        let mut orphan = root.below("orphan", true);
        orphan.ca_crt = orphan.ca.pem();
        assert_eq!(
            defects(&sources(&orphan, &orphan)),
            Alias::ALL.map(|alias| (alias, Defect::NoRoot))
        );
    }

    #[test]
    fn a_root_that_comes_with_the_chain_is_not_served() {
        let mut root = Authority::new("root");
        root.chain = root.ca.pem();
        let issued = issue(&root, &root);
        assert_eq!(
            certificates_of(issued.served.server.certificate.as_bytes())
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn more_can_be_trusted_and_ones_own_ca_comes_first() {
        let (one, other) = (Authority::new("one"), Authority::new("other"));
        let (own, old) = (issue(&one, &one), issue(&other, &other));
        let all: Cas = own.cas.clone().into_iter().chain(old.cas).collect();
        let wider = own
            .served
            .clone()
            .trusting(&own.material, &all.keys().copied().collect(), &all)
            .unwrap();
        assert_eq!(
            wider.trust,
            format!("{}{}", pem(one.ca.der()), pem(other.ca.der()))
        );
        assert_eq!(wider.material(), Some(own.material));
        let stranger = CaId(Fingerprint([0; 32]));
        assert_eq!(
            own.served
                .trusting(&own.material, &[stranger].into(), &all)
                .map(|_| ()),
            Err(stranger)
        );
    }

    type KeyOf = fn(&mut ServedMaterial) -> &mut SecretString;

    #[test]
    fn leaves_with_the_key_of_another_are_no_material() {
        let ca = Authority::new("ca");
        let Issued {
            material, served, ..
        } = issue(&ca, &ca);
        assert_eq!(served.material(), Some(material));
        let (server, client) = (served.server.key.clone(), served.client.key.clone());
        let broken: [(&str, KeyOf, &SecretString); 3] = [
            ("server", |served| &mut served.server.key, &client),
            ("client", |served| &mut served.client.key, &server),
            ("exporter", |served| &mut served.exporter.key, &server),
        ];
        for (what, key, other) in broken {
            for other in [other.clone(), "no key".into()] {
                let mut served = served.clone();
                *key(&mut served) = other;
                assert_eq!(served.material(), None, "{what}");
            }
        }
    }

    #[test]
    fn nothing_that_is_printed_shows_a_key() {
        let ca = Authority::new("ca");
        let source = ca.sign(Alias::Server, |_| ());
        let body = source
            .key
            .expose_secret()
            .lines()
            .nth(1)
            .unwrap()
            .to_owned();
        let printed = format!(
            "{source:?} {:?} {:?}",
            issue(&ca, &ca),
            defects(&PerAlias {
                server: Some(source.clone()),
                ..PerAlias::default()
            })
        );
        assert!(
            !printed.contains(&body) && !printed.contains("PRIVATE KEY"),
            "{printed}"
        );
    }
}
