//! Checks of one issued certificate: its key, its chain, its CAs, its names and its usages.

mod ca;
mod leaf;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};

use crate::api::cert_manager::IssuerType;
use crate::api::names::Alias;
use crate::pki::chain::{CertificationPath, MAX_CERTIFICATES, certification_paths};
use crate::pki::check::ca::{certificates_in, check_ca, check_confusable, early_ca};
use crate::pki::check::leaf::{check_channel_binding, check_client, check_server};
use crate::pki::defect::Defect;
use crate::pki::extra_ca::{MissingRoot, OfferedCas, roots_above};
use crate::pki::key_pair::CertificateAndKey;
use crate::pki::material::PerAlias;
use crate::pki::parse::{certificates_of, parse_certificate, timestamp};
use crate::pki::served::{Pem, pem};
use crate::pki::{CaId, Fingerprint, Leaf};

pub use crate::pki::check::ca::EarlyCa;
pub use crate::pki::check::leaf::has_channel_binding;

/// One Secret of cert-manager. Missing keys are empty.
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
    /// Takes the three keys from the data of a Secret.
    #[must_use]
    pub fn from_data(data: &BTreeMap<String, ByteString>) -> Self {
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

/// What the issued certificates must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// DNS names and IP addresses of the server's leaf.
    pub server: Vec<String>,
    /// DNS names and IP addresses of the exporter's leaf.
    pub exporter: Vec<String>,
    /// Common name of the client's leaf.
    pub superuser: String,
    /// Clients log in with a password, now or on the way. Where a role's is stored as SCRAM's hash,
    /// libpq computes channel binding; `md5` takes such a password too.
    pub password: bool,
    /// The CAs that servers trust already, PEM.
    pub trusted: BTreeMap<CaId, String>,
    /// The leaves that are in service already.
    pub in_service: BTreeSet<Fingerprint>,
    /// The CAs that the user offers.
    pub offered_cas: OfferedCas,
    /// The types of the issuers.
    pub issuers: PerAlias<IssuerType>,
}

/// One certificate that passed all checks.
#[derive(Clone, Debug)]
pub struct CheckedCertificate {
    /// The leaf, for a posture.
    pub leaf: Leaf,
    /// The CA at the top of its chain.
    pub root: CertificateDer<'static>,
    /// The issuer gave that CA.
    pub root_is_given: bool,
    /// Chain and key, as they are served.
    pub pem: Pem,
    /// When the chain ends.
    pub ends: Timestamp,
    /// The CA that ends before the leaf.
    pub early_ca: Option<EarlyCa>,
}

impl CheckedCertificate {
    /// `given` are the CAs that the issuer gave with it.
    fn new(
        pair: &CertificateAndKey,
        path: CertificationPath,
        key: &SecretString,
        given: &[CertificateDer<'static>],
    ) -> Self {
        let chain = pair.chain();
        let early_ca = path.cas().filter_map(|ca| early_ca(ca, pair));
        let early_ca = early_ca.min_by_key(|ca| ca.ends);
        Self {
            leaf: Leaf {
                fingerprint: Fingerprint::sha256(chain.first().map_or(&[], |leaf| leaf)),
                ca: CaId::from_der(&path.root),
            },
            pem: Pem {
                certificate: chain.iter().map(|der| pem(der)).collect(),
                key: key.clone(),
            },
            ends: early_ca.as_ref().map_or(pair.not_after(), |ca| ca.ends),
            early_ca,
            root_is_given: given.contains(&path.root),
            root: path.root,
        }
    }
}

/// Parses and checks one issued certificate at this time. `roots` are those of the database's other
/// certificates: a CA that was renewed with its old key may be there in two forms, and all
/// certificates are to have the same one.
pub fn check(
    alias: Alias,
    source: Option<&IssuedSecret>,
    roots: &[CertificateDer<'static>],
    wanted: &Requirements,
    now: Timestamp,
) -> Result<CheckedCertificate, Defect> {
    let Some(source) = source.filter(|source| !source.certificate.is_empty()) else {
        return Err(Defect::NotIssued);
    };
    let key = source.key.expose_secret().as_bytes();
    let (pair, others) =
        CertificateAndKey::find_leaf(&source.certificate, key).map_err(Defect::Pair)?;
    pair.valid_at(now).map_err(Defect::Pair)?;
    let beside = certificates_of(&source.ca).map_err(Defect::Ca)?;
    let found = 1 + others.len() + beside.len();
    if found > MAX_CERTIFICATES {
        return Err(Defect::TooManyCertificates {
            found,
            most: MAX_CERTIFICATES,
        });
    }
    let leaf = pair.chain().first().ok_or(Defect::NotIssued)?;
    let given = [others.as_slice(), &beside].concat();
    let judged = |more: &[CertificateDer<'static>]| {
        let pool = pool(&given, more, now);
        let paths = certification_paths(leaf, &pool).into_iter();
        best(paths.map(|path| {
            let chain = check_path(alias, &pair, &path, roots, wanted, now)?;
            Ok(CheckedCertificate::new(&chain, path, &source.key, &given))
        }))
    };
    let of_issuer = judged(&[]);
    if let Some(Ok(good)) = of_issuer {
        if roots.iter().all(|root| given.contains(root)) {
            return Ok(good);
        }
        // With the roots beside it, because all certificates are to have one form of a CA.
        return Ok(judged(roots).and_then(Result::ok).unwrap_or(good));
    }
    let signed = [std::slice::from_ref(leaf), &given].concat();
    let more = extra_roots(leaf, &signed, wanted);
    match (of_issuer, judged(&[roots, &more].concat())) {
        (_, Some(Ok(good))) => Ok(good),
        (Some(Err(why)), _) | (_, Some(Err(why))) => Err(why),
        _ => {
            let missing = MissingRoot {
                issuer: wanted.issuers.get(alias).clone(),
                offered_cas: wanted.offered_cas.clone(),
            };
            Err(if beside.is_empty() {
                Defect::NoCa(missing)
            } else {
                Defect::NoRoot(missing)
            })
        }
    }
}

/// The roots of this leaf that the issuer did not give: for a leaf in service those that are trusted
/// already, and for another one those that the user offers.
fn extra_roots(
    leaf: &CertificateDer<'static>,
    signed: &[CertificateDer<'static>],
    wanted: &Requirements,
) -> Vec<CertificateDer<'static>> {
    if wanted.in_service.contains(&Fingerprint::sha256(leaf)) {
        let trusted: Vec<_> = certificates_in(&wanted.trusted).collect();
        return roots_above(signed, &trusted);
    }
    roots_above(signed, wanted.offered_cas.certificates())
}

/// The certificates among which paths are looked for, each once. Those that can be used come first:
/// the number of paths is bounded.
fn pool(
    given: &[CertificateDer<'static>],
    more: &[CertificateDer<'static>],
    now: Timestamp,
) -> Vec<CertificateDer<'static>> {
    let mut pool = [given, more].concat();
    pool.sort_by_key(|ca| validity(ca).is_none_or(|(from, until)| now < from || now >= until));
    let mut seen = BTreeSet::new();
    pool.retain(|ca| seen.insert(ca.to_vec()));
    pool
}

/// The certificate on the path that lasts longest; of equal ones, the one whose root does. `None`
/// if there is no path; else the first defect if no path is good.
fn best(
    judged: impl Iterator<Item = Result<CheckedCertificate, Defect>>,
) -> Option<Result<CheckedCertificate, Defect>> {
    let (good, bad): (Vec<_>, Vec<_>) = judged.partition(Result::is_ok);
    let lasts = |certificate: &CheckedCertificate| {
        let end_of_root = validity(&certificate.root).map(|(_, until)| until);
        (certificate.ends, end_of_root, certificate.leaf.ca)
    };
    let good = good.into_iter().filter_map(Result::ok).max_by_key(lasts);
    good.map(Ok).or_else(|| bad.into_iter().next())
}

/// When a certificate begins and ends; `None` if it cannot be parsed.
fn validity(der: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let certificate = parse_certificate(der, 1).ok()?;
    let validity = certificate.validity();
    let times = (
        timestamp(validity.not_before),
        timestamp(validity.not_after),
    );
    Some((times.0.ok()?, times.1.ok()?))
}

/// Checks one path from the leaf to a root, and returns the leaf with its chain on that path.
fn check_path(
    alias: Alias,
    pair: &CertificateAndKey,
    path: &CertificationPath,
    roots: &[CertificateDer<'static>],
    wanted: &Requirements,
    now: Timestamp,
) -> Result<CertificateAndKey, Defect> {
    for (below, ca) in path.cas().enumerate() {
        check_ca(alias, ca, below, now)?;
    }
    let leaf = pair.chain().first().ok_or(Defect::NotIssued)?;
    let chain = pair.clone().with_chain(path.chain_from(leaf));
    match alias {
        Alias::Server => {
            if wanted.password {
                check_channel_binding(&chain)?;
            }
            check_server(&chain, path, &wanted.server, now)?;
        }
        Alias::MetricsExporter => check_server(&chain, path, &wanted.exporter, now)?,
        Alias::Client => check_client(&chain, path, &wanted.superuser, now)?,
    }
    check_confusable(&chain, path, roots, &wanted.trusted)?;
    Ok(chain)
}

#[cfg(test)]
mod tests;
