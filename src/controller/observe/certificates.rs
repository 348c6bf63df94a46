//! The certificates that cert-manager has issued.

use k8s_openapi::api::core::v1::Secret;

use crate::api::cert_manager::Certificate;
use crate::build::Cluster;
use crate::cluster::{Error, Objects};
use crate::controller::Context;
use crate::controller::outcome::{Interrupt, Pending, ReconcileResult};
use crate::pki::issued::{
    Issued, IssuedSecret, MaterialProblem, PerAlias, Requirements, check_issued,
};
use crate::plan::observed::issuance::{NotServed, is_foreign, not_served};
use crate::tls::Alias;

/// What has been issued, if all of it may be served; else what is wrong with it.
pub(crate) async fn fetch_issued(
    context: &Context,
    objects: &Objects,
    cluster: &Cluster,
    requirements: &Requirements,
) -> Result<Result<Issued, Vec<MaterialProblem>>, Error> {
    let secrets = PerAlias {
        server: fetch_issued_secret(objects, cluster, Alias::Server).await?,
        client: fetch_issued_secret(objects, cluster, Alias::Client).await?,
        exporter: fetch_issued_secret(objects, cluster, Alias::MetricsExporter).await?,
    };
    Ok(check_issued(&secrets, requirements, context.now()))
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
