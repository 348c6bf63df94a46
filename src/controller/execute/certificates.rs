//! What cert-manager is asked for, and what it has issued.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;

use crate::api::cert_manager::{Certificate, holds};
use crate::build::Cluster;
use crate::build::certificates::{certificates, wanted};
use crate::cluster::{Error, Objects};
use crate::controller::Context;
use crate::controller::postgres::{Interrupt, ReconcileResult};
use crate::pki::issued::{Defect, Issued, IssuedSecret, MaterialProblem, PerAlias, check_issued};
use crate::tls::Alias;

/// How long cert-manager may take before people are told that it is waited for. It takes a second,
/// as a rule.
const PATIENCE: Duration = Duration::from_secs(15);

/// What cert-manager keeps on a Secret about where its content comes from.
const CERTIFICATE_NAME: &str = "cert-manager.io/certificate-name";

/// Asks for the certificates of a database that has TLS: all of them, or none where one of their
/// Secrets is something else.
///
/// cert-manager issues into any Secret that a Certificate names, whatever is in it. Once it is
/// named, it is too late to look.
pub(crate) async fn ask(objects: &Objects, cluster: &Cluster) -> ReconcileResult<()> {
    let mut wishes = vec![];
    for wish in certificates(cluster) {
        let live = objects.get::<Certificate>(&wish.name_any()).await?;
        let (certificate, secret) = (wish.name_any(), &wish.spec.secret_name);
        if live
            .as_ref()
            .is_none_or(|live| live.spec.secret_name != *secret)
            && objects
                .get::<Secret>(secret)
                .await?
                .is_some_and(|secret| is_foreign(&secret, &certificate))
        {
            return Err(Interrupt::Blocked(
                "ObjectInTheWay",
                in_the_way(secret, &certificate),
            ));
        }
        wishes.push((live, wish));
    }
    for (live, wish) in wishes {
        objects.apply_over(live.as_ref(), wish).await?;
    }
    Ok(())
}

/// A Secret that holds what cert-manager did not put there for this Certificate.
pub(crate) fn is_foreign(secret: &Secret, certificate: &str) -> bool {
    !is_issued_for(secret, certificate) && secret.data.as_ref().is_some_and(|data| !data.is_empty())
}

fn is_issued_for(secret: &Secret, certificate: &str) -> bool {
    secret
        .annotations()
        .get(CERTIFICATE_NAME)
        .is_some_and(|name| name == certificate)
}

fn in_the_way(secret: &str, certificate: &str) -> String {
    format!(
        "Secret {secret} exists and was not issued for Certificate {certificate}, which would overwrite it: name another \
         secretName in spec.tls.certificates, or delete the Secret if nobody needs it"
    )
}

/// What has been issued, if all of it may be served.
pub(crate) async fn read(
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
                .map(IssuedSecret::from_data),
        )
    };
    let sources = PerAlias {
        server: of(Alias::Server).await?,
        client: of(Alias::Client).await?,
        exporter: of(Alias::MetricsExporter).await?,
    };
    Ok(check_issued(&sources, &wanted(cluster), context.now()))
}

/// Why nothing that was issued can be served: cert-manager is still at it, or somebody has to do
/// something.
pub(crate) async fn why(
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

/// Takes away what a database without TLS does not have.
pub(crate) async fn forget(
    context: &Context,
    objects: &Objects,
    cluster: &Cluster,
) -> ReconcileResult<()> {
    // One of them holds a key that lets the superuser in.
    delete(context, objects, cluster, Secrets::Delete).await?;
    objects.delete::<Secret>(&cluster.tls_secret()).await?;
    objects
        .delete::<ConfigMap>(&cluster.ca_config_map())
        .await?;
    Ok(())
}

/// What becomes of the Secrets that were issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrets {
    /// They stay.
    Keep,
    /// They go.
    Delete,
}

/// Deletes the Certificates, and what was issued for them: by the name that the spec gives a
/// Secret, and by the one that the Certificate has, for the spec may have forgotten it.
///
/// A Secret goes only where cert-manager says that it was issued for this Certificate, and has
/// given it our labels, which no other Certificate has to give: who can forge that can delete the
/// Secret himself. What an issuer signs with stays whatever it says.
pub(crate) async fn delete(
    context: &Context,
    objects: &Objects,
    cluster: &Cluster,
    secrets: Secrets,
) -> Result<(), Error> {
    for alias in Alias::ALL {
        let certificate = cluster.certificate(alias);
        let live = objects.owned::<Certificate>(&certificate).await?;
        let mut names = BTreeSet::from([cluster.certificate_secret(alias)]);
        if let Some(live) = live {
            objects.delete_seen(&live).await?;
            names.insert(live.spec.secret_name);
        }
        names.retain(|_| secrets == Secrets::Delete);
        for name in names {
            let secret = objects.owned::<Secret>(&name).await?;
            let is_ca = context.facts.signs(cluster.namespace(), &name);
            if let Some(secret) =
                secret.filter(|secret| !is_ca && is_issued_for(secret, &certificate))
            {
                objects.delete_seen(&secret).await?;
            }
        }
    }
    Ok(())
}

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
