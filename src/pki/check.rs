//! Checks of one issued certificate: its key, its chain, its CAs, its names and its usages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use secrecy::{ExposeSecret, SecretString};
use x509_parser::extensions::ExtendedKeyUsage;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::x509::X509Version;

use crate::api::cert_manager::IssuerType;
use crate::api::names::Alias;
use crate::pki::certificate::common_name;
use crate::pki::chain::{CertificationPath, MAX_CERTIFICATES, certification_paths, is_confusable};
use crate::pki::defect::{CaFault, Defect};
use crate::pki::extra_ca::{ExtraCas, MissingRoot, roots_above};
use crate::pki::key_pair::{CertificateAndKey, KeyPairProblem};
use crate::pki::material::PerAlias;
use crate::pki::parse::{certificates_of, parse_certificate, timestamp};
use crate::pki::served::{Pem, pem};
use crate::pki::{CaId, Fingerprint, Leaf};

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
    /// The CAs that the user gives.
    pub extra_cas: ExtraCas,
    /// The types of the issuers.
    pub issuers: PerAlias<IssuerType>,
}

/// A CA that ends before a leaf below it: from then on the leaf is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlyCa {
    /// Its common name, as its issuer wrote it.
    pub name: String,
    /// Its certificate.
    pub id: CaId,
    /// When it ends.
    pub ends: Timestamp,
    /// When the leaf begins.
    pub leaf_begins: Timestamp,
}

impl EarlyCa {
    /// When the leaf should be issued anew: after three quarters of the time in which it can be
    /// used. cert-manager does not look at the CA, and issues a leaf anew after two thirds of its
    /// own life: it goes first if the CA ends little earlier than the leaf.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        let usable = self.ends.as_second() - self.leaf_begins.as_second();
        let at = self.leaf_begins.as_second() + usable / 4 * 3;
        Timestamp::from_second(at).unwrap_or(self.ends)
    }
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

/// This CA, if it ends before its leaf.
fn early_ca(der: &CertificateDer<'static>, leaf: &CertificateAndKey) -> Option<EarlyCa> {
    let ca = parse_certificate(der, 1).ok()?;
    let ends = timestamp(ca.validity().not_after).ok()?;
    (ends < leaf.not_after()).then(|| EarlyCa {
        name: common_name(ca.subject().as_raw()),
        id: CaId::from_der(der),
        ends,
        leaf_begins: leaf.not_before(),
    })
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
    let why = match judged(&[]) {
        // With the roots beside it, because all certificates are to have one form of a CA.
        Some(Ok(good)) => return Ok(judged(roots).and_then(Result::ok).unwrap_or(good)),
        Some(Err(why)) => why,
        None => {
            let missing = MissingRoot {
                issuer: wanted.issuers.get(alias).clone(),
                extra_cas: wanted.extra_cas.clone(),
            };
            if beside.is_empty() {
                Defect::NoCa(missing)
            } else {
                Defect::NoRoot(missing)
            }
        }
    };
    let signed = [std::slice::from_ref(leaf), &given].concat();
    let more = extra_roots(leaf, &signed, wanted);
    match judged(&[roots, &more].concat()) {
        Some(Ok(good)) => Ok(good),
        Some(Err(_)) | None => Err(why),
    }
}

/// The roots of this leaf that the issuer did not give: those that are trusted already, and, for a
/// leaf that is not in service yet, those that the user gives.
fn extra_roots(
    leaf: &CertificateDer<'static>,
    signed: &[CertificateDer<'static>],
    wanted: &Requirements,
) -> Vec<CertificateDer<'static>> {
    let trusted: Vec<_> = trusted_cas(&wanted.trusted).collect();
    let is_in_service = wanted.in_service.contains(&Fingerprint::sha256(leaf));
    let by_user = wanted.extra_cas.roots().filter(|_| !is_in_service);
    roots_above(signed, trusted.iter().chain(by_user))
}

fn trusted_cas(
    trusted: &BTreeMap<CaId, String>,
) -> impl Iterator<Item = CertificateDer<'static>> + '_ {
    trusted
        .values()
        .flat_map(|pem| certificates_of(pem.as_bytes()).unwrap_or_default())
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

/// Checks a CA with this number of CAs below it. OpenSSL insists on all of this, at the root too, and
/// webpki asks nothing of a root. Roots of X.509 version 1 have no extensions, and both take them.
fn check_ca(
    alias: Alias,
    der: &CertificateDer<'static>,
    below: usize,
    now: Timestamp,
) -> Result<(), Defect> {
    let ca = parse_certificate(der, 1).map_err(Defect::Ca)?;
    let time = |time| timestamp(time).map_err(Defect::Ca);
    let (from, until) = (
        time(ca.validity().not_before)?,
        time(ca.validity().not_after)?,
    );
    let constraints = ca.basic_constraints().ok().flatten();
    let constraints = constraints.map(|constraints| constraints.value);
    let longest = constraints.and_then(|constraints| constraints.path_len_constraint);
    let has_no_extensions = ca.version() == X509Version::V1;
    let usage = ca.key_usage().ok().flatten();
    let purposes = ca.extended_key_usage().ok().flatten();
    let serves = |purposes: &ExtendedKeyUsage<'_>| match alias {
        Alias::Client => purposes.client_auth,
        Alias::Server | Alias::MetricsExporter => purposes.server_auth,
    };
    let fault = if !has_no_extensions && !constraints.is_some_and(|constraints| constraints.ca) {
        CaFault::NotCa
    } else if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        CaFault::MayNotSign
    } else if longest.is_some_and(|longest| usize::try_from(longest).is_ok_and(|l| below > l)) {
        CaFault::PathTooLong
    } else if purposes.is_some_and(|purposes| !purposes.value.any && !serves(purposes.value)) {
        CaFault::OtherPurposes
    } else if now < from {
        CaFault::NotYetValid(from)
    } else if now >= until {
        CaFault::Expired(until)
    } else {
        return Ok(());
    };
    Err(Defect::BadCa {
        name: common_name(ca.subject().as_raw()),
        fault,
    })
}

/// Whether libpq can log in by SCRAM at a server with this leaf.
#[must_use]
pub fn has_channel_binding(pair: &CertificateAndKey) -> bool {
    check_channel_binding(pair).is_ok()
}

/// SCRAM's channel binding hashes the server's certificate with the digest of its signature (RFC
/// 5929, 4.1). Ed25519 has none, and libpq and the server then end the login.
fn check_channel_binding(pair: &CertificateAndKey) -> Result<(), Defect> {
    let leaf = pair.chain().first().ok_or(Defect::NotIssued)?;
    let leaf = parse_certificate(leaf, 1).map_err(Defect::Pair)?;
    if leaf.signature_algorithm.algorithm == OID_SIG_ED25519 {
        return Err(Defect::NoChannelBinding);
    }
    Ok(())
}

/// Compares the root with those that are trusted already and those of the database's other
/// certificates: servers and clients will trust all of them together.
fn check_confusable(
    pair: &CertificateAndKey,
    path: &CertificationPath,
    roots: &[CertificateDer<'static>],
    trusted: &BTreeMap<CaId, String>,
) -> Result<(), Defect> {
    let Some(top) = pair.chain().last() else {
        return Ok(());
    };
    let mut others = roots.iter().cloned().chain(trusted_cas(trusted));
    match others.find(|other| is_confusable(top, &path.root, other)) {
        None => Ok(()),
        Some(other) => Err(Defect::ConfusableCa {
            name: parse_certificate(&other, 1)
                .map(|other| common_name(other.subject().as_raw()))
                .unwrap_or_default(),
        }),
    }
}

fn check_server(
    pair: &CertificateAndKey,
    path: &CertificationPath,
    names: &[String],
    now: Timestamp,
) -> Result<(), Defect> {
    pair.covers(names.iter().map(String::as_str))
        .map_err(Defect::Pair)?;
    pair.trusted_by(std::slice::from_ref(&path.root), now)
        .map_err(Defect::Pair)
}

fn check_client(
    pair: &CertificateAndKey,
    path: &CertificationPath,
    superuser: &str,
    now: Timestamp,
) -> Result<(), Defect> {
    let (leaf, issuers) = pair
        .chain()
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
    // OpenSSL insists on it, and webpki does not look.
    let usage = read.key_usage().ok().flatten().map(|usage| usage.value);
    if usage.is_some_and(|usage| !usage.digital_signature() && !usage.key_agreement()) {
        let why = "its keyUsage lacks digitalSignature";
        return Err(refused(why.to_owned()));
    }
    let mut roots = RootCertStore::empty();
    roots
        .add(path.root.clone())
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

#[cfg(test)]
mod tests;
