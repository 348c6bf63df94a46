//! The certificates that cert-manager has issued.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::api::cert_manager::{Certificate, IssuerType};
use crate::api::extra_ca::ExtraCaKind;
use crate::build::Cluster;
use crate::build::certificates::{certificate, requirements};
use crate::cluster::{Error, Objects};
use crate::controller::Context;
use crate::controller::outcome::{Interrupt, Pending, ReconcileResult};
use crate::pki::extra_ca::OfferedCas;
use crate::pki::issued::{
    Issued, IssuedSecret, MaterialProblem, PerAlias, Requirements, check_issued,
};
use crate::pki::{CaId, Fingerprint};
use crate::plan::observed::issuance::{NotServed, is_foreign, not_served};
use crate::rules::ClusterFacts as _;
use crate::tls::Alias;

/// What certificates for this database must have. `trusted` are the CAs that servers trust
/// already, PEM; `in_service` are the leaves that they have already.
pub(crate) async fn fetch_requirements(
    context: &Context,
    objects: &Objects,
    cluster: &Cluster,
    trusted: BTreeMap<CaId, String>,
    in_service: BTreeSet<Fingerprint>,
) -> Result<Requirements, Error> {
    let type_of = |alias| issuer_type(context, cluster, alias).unwrap_or_default();
    Ok(Requirements {
        trusted,
        in_service,
        offered_cas: fetch_offered_cas(objects, cluster).await?,
        issuers: PerAlias {
            server: type_of(Alias::Server),
            client: type_of(Alias::Client),
            exporter: type_of(Alias::MetricsExporter),
        },
        ..requirements(cluster)
    })
}

/// The type of the issuer of a certificate; `None` if it is not known.
fn issuer_type(context: &Context, cluster: &Cluster, alias: Alias) -> Option<IssuerType> {
    let issuer = certificate(cluster, alias)?.spec.issuer_ref;
    let facts = &context.facts;
    issuer
        .is_cert_managers()
        .then(|| facts.issuer_type(cluster.namespace(), issuer.kind(), &issuer.name))?
}

/// The CAs that the user offers.
async fn fetch_offered_cas(objects: &Objects, cluster: &Cluster) -> Result<OfferedCas, Error> {
    let Some(source) = cluster.extra_ca() else {
        return Ok(OfferedCas::NotNamed);
    };
    Ok(match source.kind {
        ExtraCaKind::ConfigMap => {
            let object: Option<ConfigMap> = objects.get(&source.name).await?;
            OfferedCas::of_config_map(source, object.as_ref())
        }
        ExtraCaKind::Secret => {
            let object: Option<Secret> = objects.get(&source.name).await?;
            OfferedCas::of_secret(source, object.as_ref())
        }
    })
}

/// What has been issued, if all of it may be served; else what is wrong with it.
pub(crate) async fn fetch_issued(
    context: &Context,
    objects: &Objects,
    cluster: &Cluster,
    required: &Requirements,
) -> Result<Result<Issued, Vec<MaterialProblem>>, Error> {
    let secrets = PerAlias {
        server: fetch_issued_secret(objects, cluster, Alias::Server).await?,
        client: fetch_issued_secret(objects, cluster, Alias::Client).await?,
        exporter: fetch_issued_secret(objects, cluster, Alias::MetricsExporter).await?,
    };
    Ok(check_issued(&secrets, required, context.now()))
}

async fn fetch_issued_secret(
    objects: &Objects,
    cluster: &Cluster,
    alias: Alias,
) -> Result<Option<IssuedSecret>, Error> {
    let secret = objects
        .get::<Secret>(&cluster.certificate_secret(alias))
        .await?;
    let issued = secret.filter(|secret| !is_foreign(secret, &cluster.names().certificate(alias)));
    let data = issued.and_then(|secret| secret.data);
    Ok(data.as_ref().map(IssuedSecret::from_data))
}

/// Says why nothing that was issued can be served: cert-manager is still issuing, or the user has
/// to do something.
pub(crate) async fn explain_not_issued(
    context: &Context,
    objects: &Objects,
    cluster: &Cluster,
    problems: &[MaterialProblem],
) -> ReconcileResult<Interrupt> {
    let mut certificates = vec![];
    for problem in problems {
        let name = cluster.names().certificate(problem.alias);
        certificates.extend(objects.get::<Certificate>(&name).await?);
    }
    Ok(match not_served(problems, &certificates, context.now()) {
        NotServed::InProgress => Interrupt::Wait(Pending::CertManager),
        NotServed::Problem(why) => Interrupt::Blocked("CertificatesNotServed", why),
    })
}
