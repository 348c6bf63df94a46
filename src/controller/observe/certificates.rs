//! What cert-manager has issued.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use crate::api::cert_manager::{Certificate, holds};
use crate::build::Cluster;
use crate::build::certificates::wanted;
use crate::cluster::{Error, Objects};
use crate::controller::Context;
use crate::controller::outcome::{Interrupt, ReconcileResult};
use crate::pki::issued::{Defect, Issued, IssuedSecret, MaterialProblem, PerAlias, issued};
use crate::tls::Alias;

/// What has been issued, if all of it may be served.
pub(crate) async fn fetch_issued(
    context: &Context,
    objects: &Objects,
    cluster: &Cluster,
) -> Result<Result<Issued, Vec<MaterialProblem>>, Error> {
    let of = async |alias| {
        let secret = objects
            .get::<Secret>(&cluster.certificate_secret(alias))
            .await?;
        let secret = secret.filter(|secret| !is_foreign(secret, &cluster.certificate(alias)));
        Ok::<_, Error>(
            secret
                .and_then(|secret| secret.data)
                .as_ref()
                .map(IssuedSecret::of),
        )
    };
    let sources = PerAlias {
        server: of(Alias::Server).await?,
        client: of(Alias::Client).await?,
        exporter: of(Alias::MetricsExporter).await?,
    };
    Ok(issued(&sources, &wanted(cluster), context.now()))
}

/// Why nothing that was issued can be served: cert-manager is still at it, or somebody has to do
/// something.
pub(crate) async fn explain_not_issued(
    context: &Context,
    objects: &Objects,
    cluster: &Cluster,
    problems: &[MaterialProblem],
) -> ReconcileResult<Interrupt> {
    let mut lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    if problems
        .iter()
        .all(|problem| problem.defect == Defect::NotIssued)
    {
        let mut late = false;
        for problem in problems {
            let certificate = objects
                .get::<Certificate>(&cluster.certificate(problem.alias))
                .await?;
            late |= certificate
                .as_ref()
                .is_some_and(|certificate| is_late(context, certificate));
            lines.extend(certificate.as_ref().and_then(said));
        }
        if !late {
            return Ok(Interrupt::Wait("cert-manager"));
        }
    }
    Ok(Interrupt::Blocked(
        "CertificatesNotServed",
        lines.join("; "),
    ))
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
    let said = conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")?
        .message
        .as_deref()?;
    Some(format!("cert-manager says about {name}: {said}"))
}

/// How long cert-manager may take before people are told that it is waited for. It takes a second,
/// as a rule.
const PATIENCE: Duration = Duration::from_secs(15);

/// A Secret that holds what cert-manager did not put there for this Certificate.
pub(crate) fn is_foreign(secret: &Secret, certificate: &str) -> bool {
    !is_issued_for(secret, certificate) && secret.data.as_ref().is_some_and(|data| !data.is_empty())
}

pub(crate) fn is_issued_for(secret: &Secret, certificate: &str) -> bool {
    secret
        .annotations()
        .get(CERTIFICATE_NAME)
        .is_some_and(|name| name == certificate)
}

/// What cert-manager keeps on a Secret about where its content comes from.
pub(crate) const CERTIFICATE_NAME: &str = "cert-manager.io/certificate-name";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_that_holds_something_else_is_foreign() {
        let is_foreign = |annotations: serde_json::Value, data: serde_json::Value| {
            let secret = json!({"metadata": {"annotations": annotations}, "data": data});
            is_foreign(
                &serde_json::from_value(secret).expect("a Secret"),
                "pg-server-cert",
            )
        };
        let key = || json!({"tls.key": "a2V5"});
        assert!(is_foreign(json!({}), key()), "of an Ingress");
        assert!(
            is_foreign(json!({CERTIFICATE_NAME: "postgres-ca"}), key()),
            "of another Certificate"
        );
        assert!(
            !is_foreign(json!({CERTIFICATE_NAME: "pg-server-cert"}), key()),
            "its own"
        );
        assert!(!is_foreign(json!({}), json!({})), "nothing is lost");
    }
}
