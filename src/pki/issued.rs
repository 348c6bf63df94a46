//! The certificates that cert-manager issued for a database, checked before any server gets them.
//!
//! # Expected flow
//! cert-manager issues into three Secrets. [`check_issued`] parses and checks them: it returns all
//! that servers need, or every problem.
//!
//! # Guarantees
//! Each key belongs to its leaf. Each chain leads to a self-signed CA, because OpenSSL, and so
//! libpq, insists on one; a chain is completed with the intermediate CAs that the issuer put into
//! `ca.crt`. Server and exporter have the required names, the client's common name is the
//! superuser, and no leaf outlives a CA above it.
//!
//! # Assumptions
//! The clock is right.
//!
//! Keys appear in no `Debug` print and in no problem.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use secrecy::{ExposeSecret, SecretString};

use crate::api::names::Alias;
use crate::pki::key_pair::{
    CertificateAndKey, KeyPairProblem, certificates_of, parse_certificate, timestamp,
};
use crate::pki::served::{find_root, pem};
use crate::pki::{CaId, Fingerprint, Leaf, Material};

pub use crate::pki::material::PerAlias;
pub use crate::pki::served::{Pem, ServedMaterial, TRUST_KEY, bundle, cas, ders, leaf};

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

/// The names that the leaves must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequiredNames {
    /// DNS names and IP addresses of the server's leaf.
    pub server: Vec<String>,
    /// DNS names and IP addresses of the exporter's leaf.
    pub exporter: Vec<String>,
    /// Common name of the client's leaf.
    pub superuser: String,
}

/// The issued certificates of a database, checked.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The leaves by fingerprint, for a posture.
    pub material: Material,
    /// The CAs that signed them.
    pub cas: BTreeMap<CaId, String>,
    /// The files for servers that trust these CAs and no others. For more trust see
    /// [`ServedMaterial::trusting`].
    pub served: ServedMaterial,
    /// When each leaf expires.
    pub not_after: PerAlias<Timestamp>,
}

/// Why a certificate must not be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaterialProblem {
    /// The certificate.
    pub alias: Alias,
    /// The defect, and its remedy.
    pub defect: Defect,
}

impl fmt::Display for MaterialProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.alias.as_str(), self.defect)
    }
}

/// A defect of an issued certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// There is no Secret, or it is empty. cert-manager is still issuing, or gives the reason in
    /// the Certificate.
    #[error("has not been issued yet: the Certificate's conditions say why if this lasts")]
    NotIssued,
    /// Chain and key do not belong together, or the leaf is not good.
    #[error(transparent)]
    Pair(KeyPairProblem),
    /// The issuer gives no CA certificate.
    #[error(
        "the Secret has no ca.crt, so no client could verify the certificate: use an issuer that gives its CA"
    )]
    NoCa,
    /// `ca.crt` cannot be parsed.
    #[error("ca.crt cannot be used: {0}")]
    Ca(KeyPairProblem),
    /// The chain does not end at a self-signed CA.
    #[error(
        "its chain does not lead to a self-signed CA in ca.crt, which libpq insists on: give the issuer's Secret the root as ca.crt"
    )]
    NoRoot,
    /// A CA expires before the leaf.
    #[error(
        "it is valid until {leaf} and a CA above it only until {ca}: renew the CA first, or ask for a shorter duration"
    )]
    OutlivesCa {
        /// When the leaf expires.
        leaf: Timestamp,
        /// When the CA expires.
        ca: Timestamp,
    },
    /// `cert` login compares the common name with the user.
    #[error(
        "its common name is \"{found}\" and must be the superuser, \"{wanted}\": the issuer must keep the common name"
    )]
    CommonName {
        /// The common name of the leaf.
        found: String,
        /// The required common name.
        wanted: String,
    },
    /// A server would refuse the leaf as a client certificate.
    #[error(
        "a server would not take it from a client ({why}): issue it with the usage `client auth`"
    )]
    NotForClients {
        /// The reason that the verifier gave.
        why: String,
    },
}

/// Parses and checks the issued certificates at this time. The error lists every problem.
pub fn check_issued(
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
        (Ok(server), Ok(client), Ok(exporter)) => Ok(combine(server, client, exporter)),
        (server, client, exporter) => Err([server, client, exporter]
            .into_iter()
            .filter_map(Result::err)
            .collect()),
    }
}

/// One certificate that passed all checks.
struct CheckedCertificate {
    leaf: Leaf,
    root: String,
    pem: Pem,
    not_after: Timestamp,
}

fn combine(
    server: CheckedCertificate,
    client: CheckedCertificate,
    exporter: CheckedCertificate,
) -> Issued {
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
) -> Result<CheckedCertificate, Defect> {
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
    let (chain, root) = find_root(pair.chain().to_vec(), &above).ok_or(Defect::NoRoot)?;
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
        Alias::Server => check_server(&pair, &chain, &root, &wanted.server, now)?,
        Alias::MetricsExporter => check_server(&pair, &chain, &root, &wanted.exporter, now)?,
        Alias::Client => check_client(&chain, &root, &wanted.superuser, now)?,
    }
    Ok(CheckedCertificate {
        leaf: Leaf {
            fingerprint: Fingerprint::sha256(chain.first().map_or(&[], |leaf| leaf)),
            ca: CaId::from_der(&root),
        },
        root: pem(&root),
        pem: Pem {
            certificate: chain.iter().map(|der| pem(der)).collect(),
            key: source.key.clone(),
        },
        not_after: pair.not_after(),
    })
}

fn check_server(
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

fn check_client(
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

#[cfg(test)]
pub(crate) mod tests;
