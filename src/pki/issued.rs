//! The certificates that cert-manager issued for a database, checked before any server gets them.
//!
//! # Expected flow
//! cert-manager issues into three Secrets. [`check_issued`] parses and checks them: it returns all
//! that servers need, or every problem.
//!
//! # Guarantees
//! Each key belongs to its leaf. Each chain leads to a self-signed CA, because OpenSSL, and so
//! libpq, insists on one; the CAs are found in `tls.crt` and `ca.crt`, in any order. Every
//! certificate of a chain is valid now, and its effective end is the earliest of them: cert-manager
//! issues leaves that end after their CA. Server and exporter have the required names, and the
//! client's common name is the superuser. libpq can log in under the server's certificate.
//!
//! # Assumptions
//! The clock is right.
//!
//! Keys appear in no `Debug` print and in no problem.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use crate::api::names::Alias;
use crate::pki::check::{CheckedCertificate, check};
use crate::pki::served::pem;
use crate::pki::{CaId, Material};

pub use crate::pki::check::{EarlyCa, IssuedSecret, Requirements};
pub use crate::pki::defect::{CaFault, Defect};
pub use crate::pki::extra_ca::{ExtraCa, OfferedCas};
pub use crate::pki::material::PerAlias;
pub use crate::pki::served::{Pem, ServedMaterial, TRUST_KEY, bundle, cas, ders, leaf};

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
    /// When each chain ends: the earliest end in it.
    pub ends: PerAlias<Timestamp>,
    /// The CA that ends before its leaf, if there is one.
    pub early_ca: PerAlias<Option<EarlyCa>>,
    /// The CAs at the top of the chains that their issuers did not give, each once.
    pub extra_cas: Vec<ExtraCa>,
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

/// Parses and checks the issued certificates at this time. The error lists every problem.
pub fn check_issued(
    sources: &PerAlias<Option<IssuedSecret>>,
    wanted: &Requirements,
    now: Timestamp,
) -> Result<Issued, Vec<MaterialProblem>> {
    let alone = check_each(sources, &PerAlias::default(), wanted, now)?;
    let roots_beside = |alias| {
        let others = Alias::ALL.into_iter().filter(|other| *other != alias);
        others.map(|other| alone.get(other).root.clone()).collect()
    };
    let roots = PerAlias {
        server: roots_beside(Alias::Server),
        client: roots_beside(Alias::Client),
        exporter: roots_beside(Alias::MetricsExporter),
    };
    check_each(sources, &roots, wanted, now).map(combine)
}

/// Checks each certificate. `roots` are, for each, the roots of the others.
fn check_each(
    sources: &PerAlias<Option<IssuedSecret>>,
    roots: &PerAlias<Vec<CertificateDer<'static>>>,
    wanted: &Requirements,
    now: Timestamp,
) -> Result<PerAlias<CheckedCertificate>, Vec<MaterialProblem>> {
    let checked = |alias| {
        check(
            alias,
            sources.get(alias).as_ref(),
            roots.get(alias),
            wanted,
            now,
        )
        .map_err(|defect| MaterialProblem { alias, defect })
    };
    match (
        checked(Alias::Server),
        checked(Alias::Client),
        checked(Alias::MetricsExporter),
    ) {
        (Ok(server), Ok(client), Ok(exporter)) => Ok(PerAlias {
            server,
            client,
            exporter,
        }),
        (server, client, exporter) => Err([server, client, exporter]
            .into_iter()
            .filter_map(Result::err)
            .collect()),
    }
}

fn combine(
    PerAlias {
        server,
        client,
        exporter,
    }: PerAlias<CheckedCertificate>,
) -> Issued {
    let extra_cas = extra_cas(&[&server, &client, &exporter]);
    let material = Material {
        server: server.leaf,
        client: client.leaf,
        exporter: exporter.leaf,
    };
    let ends = PerAlias {
        server: server.ends,
        client: client.ends,
        exporter: exporter.ends,
    };
    let early_ca = PerAlias {
        server: server.early_ca,
        client: client.early_ca,
        exporter: exporter.early_ca,
    };
    let cas = [&server.root, &client.root, &exporter.root]
        .map(|root| (CaId::from_der(root), pem(root)))
        .into();
    let server_root = pem(&server.root);
    let other = if client.leaf.ca == server.leaf.ca {
        String::new()
    } else {
        pem(&client.root)
    };
    let served = ServedMaterial {
        trust: format!("{server_root}{other}"),
        server: server.pem,
        client: client.pem,
        exporter: exporter.pem,
        exporter_ca: pem(&exporter.root),
    };
    Issued {
        material,
        cas,
        served,
        ends,
        early_ca,
        extra_cas,
    }
}

/// The roots that no issuer gave, each once.
fn extra_cas(checked: &[&CheckedCertificate]) -> Vec<ExtraCa> {
    let is_given = |root: &CertificateDer<'static>| {
        let mut below = checked.iter().filter(|one| one.root == *root);
        below.any(|one| one.root_is_given)
    };
    let mut extra = vec![];
    for root in checked
        .iter()
        .map(|one| &one.root)
        .filter(|root| !is_given(root))
    {
        let ca = ExtraCa::from_der(root);
        if !extra.contains(&ca) {
            extra.push(ca);
        }
    }
    extra
}

#[cfg(test)]
pub(crate) mod tests;
