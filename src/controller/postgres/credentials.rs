//! The logins of a database: the superuser's Secret, and the password of Patroni's REST API. They
//! are made once, respected, and repaired.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::ResourceExt;

use crate::api::PetSet;
use crate::build::meta::INSTANCE_LABEL;
use crate::build::secrets;
use crate::cluster::Error;
use crate::cluster::random;
use crate::controller::login::{Login, Unusable};
use crate::controller::observe::superuser::superuser_name;
use crate::controller::outcome::{Interrupt, ReconcileResult};
use crate::controller::postgres::database::ReconciledDatabase;

impl ReconciledDatabase<'_> {
    /// Makes sure that there is a login for the superuser. A Secret of the user's is respected;
    /// pgrekey's own is made, and made again if it is lost and the password is still known.
    pub(crate) async fn ensure_login(&self, secret: Option<Secret>) -> ReconcileResult<()> {
        let name = self.cluster.auth_secret();
        let auth_secret = self.postgres.spec.auth_secret.as_ref();
        let is_external = auth_secret.and_then(|secret| secret.externally_managed) == Some(true);
        let is_own = secret
            .as_ref()
            .is_none_or(|secret| self.is_labelled(secret));
        if let Some(owner) = secret
            .as_ref()
            .and_then(|secret| secret.labels().get(INSTANCE_LABEL))
            && owner != self.cluster.name()
            && !is_external
        {
            let why = format!(
                "Secret {name} belongs to {owner}: name another one in spec.authSecret, or set externallyManaged"
            );
            return Err(Interrupt::Blocked("AuthSecretOfAnother", why));
        }
        let found = match secret.as_ref().map(Login::parse) {
            // A loss in pgrekey's own Secret is repaired below.
            None | Some(Err(Unusable::Missing)) if !is_external && is_own => None,
            None => return Err(unusable(&name, Unusable::Missing)),
            Some(Err(why)) => return Err(unusable(&name, why)),
            Some(Ok(_)) if is_external || !is_own => return Ok(()),
            Some(Ok(login)) => Some(login),
        };
        let login = match found.or_else(|| self.context.state(self.postgres).login) {
            Some(login) => login,
            None if self.has_no_data().await? => Login {
                username: superuser_name(self.context, self.postgres, secret.as_ref()),
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
        let now = || self.context.now().strftime("%Y-%m-%dT%H:%M:%SZ");
        let since = since.unwrap_or_else(|| now().to_string());
        let desired = secrets::auth(&self.cluster, &login.password, &since);
        self.objects.apply_over(secret.as_ref(), desired).await?;
        Ok(())
    }

    /// Whether pgrekey made a Secret, now or for an earlier database of this name.
    fn is_labelled(&self, secret: &Secret) -> bool {
        self.cluster
            .selector()
            .iter()
            .all(|(key, value)| secret.labels().get(key) == Some(value))
    }

    /// Whether there are no data that hold a password.
    async fn has_no_data(&self) -> ReconcileResult<bool> {
        let claim = self.cluster.names().data_claim(0);
        let claim = self.objects.get::<PersistentVolumeClaim>(&claim).await?;
        if claim.is_some() {
            return Ok(false);
        }
        let set = self.objects.get::<PetSet>(self.cluster.name()).await?;
        Ok(set.is_none())
    }

    /// Makes sure that there is a password for Patroni's REST API.
    ///
    /// Pods read it when they start, so a lost password is replaced by the one in memory before a
    /// new one is made.
    pub(crate) async fn ensure_patroni_password(&self) -> ReconcileResult<()> {
        let secret: Option<Secret> = self.objects.get(&self.cluster.names().patroni()).await?;
        let found = secret.as_ref().and_then(|secret| Login::parse(secret).ok());
        let known = found
            .map(|login| login.password)
            .or_else(|| self.context.state(self.postgres).patroni_password);
        let password = match known {
            Some(password) => password,
            None => random::password().map_err(Error::Random)?,
        };
        self.context.update_state(self.postgres, |state| {
            state.patroni_password = Some(password.clone());
        });
        let desired = secrets::patroni(&self.cluster, &password);
        self.objects.apply_over(secret.as_ref(), desired).await?;
        Ok(())
    }
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
