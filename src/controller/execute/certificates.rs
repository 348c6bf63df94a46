//! What cert-manager is asked for, and what it has issued.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;

use crate::api::cert_manager::Certificate;
use crate::build::Cluster;
use crate::build::certificates::certificates;
use crate::cluster::{Error, Objects};
use crate::controller::Context;
use crate::controller::outcome::{Interrupt, ReconcileResult};
use crate::plan::observed::issuance::{is_foreign, is_issued_for};
use crate::tls::Alias;

/// Asks for the certificates of a database that has TLS: all of them, or none where one of their
/// Secrets is something else.
///
/// cert-manager issues into any Secret that a Certificate names, whatever is in it. Once it is
/// named, it is too late to look.
pub(crate) async fn request_certificates(
    objects: &Objects,
    cluster: &Cluster,
) -> ReconcileResult<()> {
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

fn in_the_way(secret: &str, certificate: &str) -> String {
    format!(
        "Secret {secret} exists and was not issued for Certificate {certificate}, which would overwrite it: name another \
         secretName in spec.tls.certificates, or delete the Secret if nobody needs it"
    )
}

/// Takes away what a database without TLS does not have.
pub(crate) async fn delete_all(
    context: &Context,
    objects: &Objects,
    cluster: &Cluster,
) -> ReconcileResult<()> {
    // One of them holds a key that lets the superuser in.
    delete_certificates(context, objects, cluster, IssuedSecrets::Delete).await?;
    objects.delete::<Secret>(&cluster.tls_secret()).await?;
    objects
        .delete::<ConfigMap>(&cluster.ca_config_map())
        .await?;
    Ok(())
}

/// What becomes of the Secrets that were issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IssuedSecrets {
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
pub(crate) async fn delete_certificates(
    context: &Context,
    objects: &Objects,
    cluster: &Cluster,
    secrets: IssuedSecrets,
) -> Result<(), Error> {
    for alias in Alias::ALL {
        let certificate = cluster.certificate(alias);
        let live = objects.owned::<Certificate>(&certificate).await?;
        let mut names = BTreeSet::from([cluster.certificate_secret(alias)]);
        if let Some(live) = live {
            objects.delete_seen(&live).await?;
            names.insert(live.spec.secret_name);
        }
        names.retain(|_| secrets == IssuedSecrets::Delete);
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
