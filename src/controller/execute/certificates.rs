//! The Certificates of a database: asks cert-manager for them, and deletes them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;

use crate::api::cert_manager::Certificate;
use crate::api::names::Names;
use crate::build::Cluster;
use crate::build::certificates::certificates;
use crate::cluster::{Error, Objects};
use crate::controller::Context;
use crate::controller::outcome::{Interrupt, ReconcileResult};
use crate::plan::observed::issuance::{is_foreign, is_issued_for};
use crate::plan::observed::trial::is_trial_of;
use crate::tls::Alias;

/// Applies the Certificates of a database that has TLS: all of them, or none if one of their Secrets
/// exists and holds something else.
///
/// The Secrets are read first, because cert-manager overwrites any Secret that a Certificate names.
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

/// Deletes the Certificates, Secrets and client bundle of a database without TLS.
pub(crate) async fn delete_all(
    context: &Context,
    objects: &Objects,
    cluster: &Cluster,
) -> ReconcileResult<()> {
    // One of them holds a key that lets the superuser in.
    delete_certificates(context, objects, cluster, IssuedSecrets::Delete).await?;
    objects
        .delete::<Secret>(&cluster.names().tls_secret())
        .await?;
    objects
        .delete::<ConfigMap>(&cluster.names().ca_config_map())
        .await?;
    Ok(())
}

/// The fate of the Secrets into which cert-manager issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IssuedSecrets {
    /// They stay.
    Keep,
    /// They go.
    Delete,
}

/// Deletes the Certificates and their Secrets: those that the spec names, and those that the live
/// Certificates name, because the spec may have changed. A trial stays.
pub(crate) async fn delete_certificates(
    context: &Context,
    objects: &Objects,
    cluster: &Cluster,
    secrets: IssuedSecrets,
) -> Result<(), Error> {
    for alias in Alias::ALL {
        let (certificate, secret) = (
            cluster.names().certificate(alias),
            cluster.certificate_secret(alias),
        );
        delete_certificate(context, objects, &certificate, &secret, secrets).await?;
    }
    Ok(())
}

/// Deletes the trial of a database, with the keys that were made for it. With an operation: unless
/// it is another one's.
pub(crate) async fn delete_trial(
    context: &Context,
    objects: &Objects,
    database: &str,
    operation: Option<&str>,
) -> Result<(), Error> {
    for alias in Alias::ALL {
        let name = Names::new(database).trial_certificate(alias);
        let live = objects.owned::<Certificate>(&name).await?;
        let is_of_another = live
            .zip(operation)
            .is_some_and(|(live, operation)| !is_trial_of(&live, operation));
        if !is_of_another {
            delete_certificate(context, objects, &name, &name, IssuedSecrets::Delete).await?;
        }
    }
    Ok(())
}

/// Deletes a Certificate, and the Secrets of this name and of the name in its spec.
///
/// A Secret is deleted only if cert-manager says that it issued the content for this Certificate and
/// gave it the database's labels, which no other Certificate has: an attacker who can forge both can
/// delete the Secret anyway. A Secret with which an issuer signs is never deleted.
pub(crate) async fn delete_certificate(
    context: &Context,
    objects: &Objects,
    certificate: &str,
    secret: &str,
    secrets: IssuedSecrets,
) -> Result<(), Error> {
    let mut names = BTreeSet::from([secret.to_owned()]);
    if let Some(live) = objects.owned::<Certificate>(certificate).await? {
        objects.delete_seen(&live).await?;
        names.insert(live.spec.secret_name);
    }
    names.retain(|_| secrets == IssuedSecrets::Delete);
    for name in names {
        let secret = objects.owned::<Secret>(&name).await?;
        let is_ca = context.facts.signs(objects.namespace(), &name);
        if let Some(secret) = secret.filter(|secret| !is_ca && is_issued_for(secret, certificate)) {
            objects.delete_seen(&secret).await?;
        }
    }
    Ok(())
}
