//! What cert-manager is asked for, and what it has issued.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::Context;
use super::postgres::{Step, Stop};
use crate::api::cert_manager::{Certificate, holds};
use crate::build::Cluster;
use crate::build::certificates::{certificates, wanted};
use crate::cluster::{Error, Objects};
use crate::tls::Alias;
use crate::tls::material::{Defect, Each, Issued, Problem, Source, issued};

/// How long cert-manager may take before people are told that it is waited for. It takes a second, as a rule.
const PATIENCE: Duration = Duration::from_secs(15);

/// Asks for the certificates of a database that has TLS.
pub(super) async fn ask(objects: &Objects, cluster: &Cluster) -> Step<()> {
    for certificate in certificates(cluster) {
        objects.apply(certificate).await?;
    }
    Ok(())
}

/// What has been issued, if all of it may be served.
pub(super) async fn read(
    context: &Context,
    objects: &Objects,
    cluster: &Cluster,
) -> Result<Result<Issued, Vec<Problem>>, Error> {
    let of = async |alias| {
        let secret = objects.look::<Secret>(&cluster.certificate_secret(alias)).await?;
        Ok::<_, Error>(secret.and_then(|secret| secret.data).as_ref().map(Source::of))
    };
    let sources = Each {
        server: of(Alias::Server).await?,
        client: of(Alias::Client).await?,
        exporter: of(Alias::MetricsExporter).await?,
    };
    Ok(issued(&sources, &wanted(cluster), context.now()))
}

/// Why nothing that was issued can be served: cert-manager is still at it, or somebody has to do something.
pub(super) async fn why(context: &Context, objects: &Objects, cluster: &Cluster, problems: &[Problem]) -> Step<Stop> {
    let mut lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    if problems.iter().all(|problem| problem.defect == Defect::NotIssued) {
        let mut late = false;
        for problem in problems {
            let certificate = objects.look::<Certificate>(&cluster.certificate(problem.alias)).await?;
            late |= certificate.as_ref().is_some_and(|certificate| is_late(context, certificate));
            lines.extend(certificate.as_ref().and_then(said));
        }
        if !late {
            return Ok(Stop::Wait("cert-manager"));
        }
    }
    Ok(Stop::Blocked("CertificatesNotServed", lines.join("; ")))
}

fn is_late(context: &Context, certificate: &Certificate) -> bool {
    let asked = certificate.metadata.creation_timestamp.as_ref();
    let patience = i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX);
    asked.is_some_and(|asked| context.now().as_second() - asked.0.as_second() > patience)
}

/// What cert-manager says about a certificate that is not ready.
fn said(certificate: &Certificate) -> Option<String> {
    let conditions = &certificate.status.as_ref()?.conditions;
    if holds(conditions, "Ready") {
        return None;
    }
    let name = certificate.metadata.name.as_deref().unwrap_or_default();
    let said = conditions.iter().find(|condition| condition.type_ == "Ready")?.message.as_deref()?;
    Some(format!("cert-manager says about {name}: {said}"))
}

/// Takes away what a database without TLS does not have.
pub(super) async fn forget(objects: &Objects, cluster: &Cluster) -> Step<()> {
    for alias in Alias::ALL {
        objects.delete::<Certificate>(&cluster.certificate(alias)).await?;
    }
    objects.delete::<Secret>(&cluster.tls_secret()).await?;
    objects.delete::<ConfigMap>(&cluster.ca_config_map()).await?;
    Ok(())
}
