//! Who the superuser is and how pgrekey talks to Patroni: Secrets that are made once, respected,
//! and repaired.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::ResourceExt;

use crate::api::Postgres;
use crate::build::meta::INSTANCE_LABEL;
use crate::build::{Cluster, secrets};
use crate::cluster::random;
use crate::cluster::{Error, Objects};
use crate::controller::Context;
use crate::controller::login::{Login, Unusable};
use crate::controller::observe::superuser::superuser;
use crate::controller::outcome::{Interrupt, ReconcileResult};

/// How the superuser logs in. What is there is respected; what pgrekey made is made again if it can
/// be.
pub(crate) async fn login(
    context: &Context,
    postgres: &Postgres,
    objects: &Objects,
    cluster: &Cluster,
    secret: Option<Secret>,
) -> ReconcileResult<Login> {
    let name = cluster.auth_secret();
    let mine = secret
        .as_ref()
        .is_none_or(|secret| is_labelled(secret, cluster));
    let external = postgres
        .spec
        .auth_secret
        .as_ref()
        .and_then(|secret| secret.externally_managed)
        == Some(true);
    if let Some(owner) = secret
        .as_ref()
        .and_then(|secret| secret.labels().get(INSTANCE_LABEL))
        && owner != cluster.name()
        && !external
    {
        let why = format!(
            "Secret {name} belongs to {owner}: name another one in spec.authSecret, or set externallyManaged"
        );
        return Err(Interrupt::Blocked("AuthSecretOfAnother", why));
    }
    let there = match secret.as_ref().map(Login::read) {
        // What is lost of a Secret of pgrekey's own is repaired below.
        None | Some(Err(Unusable::Missing)) if !external && mine => None,
        None => return Err(unusable(&name, Unusable::Missing)),
        Some(Err(why)) => return Err(unusable(&name, why)),
        Some(Ok(login)) if external || !mine => return Ok(login),
        Some(Ok(login)) => Some(login),
    };
    let known = there.or_else(|| context.state(postgres).login);
    let login = match known {
        Some(login) => login,
        None if is_new(objects, cluster).await? => Login {
            username: superuser(context, postgres, secret.as_ref()),
            password: random::password().map_err(Error::Random)?,
        },
        None => {
            let why = format!(
                "Secret {name} has lost the superuser's name or password, and the data know no other: write them into it again"
            );
            return Err(Interrupt::Blocked("AuthSecretIncomplete", why));
        }
    };
    let since = secret
        .as_ref()
        .and_then(|secret| secret.annotations().get(secrets::ACTIVE_FROM).cloned());
    let since = since.unwrap_or_else(|| context.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    objects
        .apply_over(
            secret.as_ref(),
            secrets::auth(cluster, &login.password, &since),
        )
        .await?;
    Ok(login)
}

fn unusable(name: &str, why: Unusable) -> Interrupt {
    let reason = if why == Unusable::Missing {
        "AuthSecretIncomplete"
    } else {
        "AuthSecretUnusable"
    };
    Interrupt::Blocked(
        reason,
        format!("Secret {name} does not say how to log in: {why}"),
    )
}

/// A Secret that pgrekey made, now or in an earlier life of the database.
fn is_labelled(secret: &Secret, cluster: &Cluster) -> bool {
    cluster
        .selector()
        .iter()
        .all(|(key, value)| secret.labels().get(key) == Some(value))
}

/// Whether there are no data that know a password.
async fn is_new(objects: &Objects, cluster: &Cluster) -> ReconcileResult<bool> {
    let claim = cluster.names().data_claim(0);
    let data = objects
        .get::<PersistentVolumeClaim>(&claim)
        .await?
        .is_some();
    Ok(!data
        && objects
            .get::<crate::api::PetSet>(cluster.name())
            .await?
            .is_none())
}

/// How pgrekey talks to Patroni.
///
/// Pods read it when they start, so a password that is lost is not simply replaced while it is
/// remembered.
pub(crate) async fn agent(
    context: &Context,
    postgres: &Postgres,
    objects: &Objects,
    cluster: &Cluster,
) -> ReconcileResult<()> {
    let secret: Option<Secret> = objects.get(&cluster.names().patroni()).await?;
    let there = secret
        .as_ref()
        .and_then(Login::parse)
        .map(|login| login.password);
    let password = there
        .or_else(|| context.state(postgres).patroni_password)
        .map_or_else(random::password, Ok)
        .map_err(Error::Random)?;
    context.update_state(postgres, |memory| {
        memory.patroni_password = Some(password.clone())
    });
    objects
        .apply_over(secret.as_ref(), secrets::patroni(cluster, &password))
        .await?;
    Ok(())
}
