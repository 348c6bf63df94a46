//! Who the superuser is and how pgrekey talks to Patroni: Secrets that are made once, respected, and repaired.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::ResourceExt;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use secrecy::SecretString;

use super::Context;
use super::postgres::{Step, Stop};
use crate::api::Postgres;
use crate::build::meta::INSTANCE_LABEL;
use crate::build::{Cluster, secrets};
use crate::cluster::Objects;

/// The superuser of a database that names none.
const SUPERUSER: &str = "postgres";

/// A name and a password.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: SecretString,
}

/// Without the password.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Login {
    /// What a Secret of type `kubernetes.io/basic-auth` says, if it says all of it.
    pub(super) fn of(secret: &Secret) -> Option<Self> {
        Some(Self { username: text(secret, "username")?, password: text(secret, "password")?.into() })
    }
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let value = secret.data.as_ref()?.get(key)?;
    String::from_utf8(value.0.clone()).ok().filter(|text| !text.is_empty())
}

/// The name of the Secret of the superuser. A database has one before it is known whether it can be built.
pub(super) fn auth_secret(postgres: &Postgres) -> String {
    postgres.spec.auth_secret_of(&postgres.name_any())
}

/// The superuser's name, as far as it is known: it is in the client certificate.
pub(super) fn superuser(context: &Context, postgres: &Postgres, secret: Option<&Secret>) -> String {
    let written = secret.and_then(|secret| text(secret, "username"));
    written
        .or_else(|| context.recall(postgres).login.map(|login| login.username))
        .unwrap_or_else(|| SUPERUSER.to_owned())
}

/// How the superuser logs in. What is there is respected; what pgrekey made is made again if it can be.
pub(super) async fn login(
    context: &Context,
    postgres: &Postgres,
    objects: &Objects,
    cluster: &Cluster,
    secret: Option<Secret>,
) -> Step<Login> {
    let name = cluster.auth_secret();
    let mine = secret.as_ref().is_none_or(|secret| is_labelled(secret, cluster));
    let external = postgres.spec.auth_secret.as_ref().and_then(|secret| secret.externally_managed) == Some(true);
    if let Some(owner) = secret.as_ref().and_then(|secret| secret.labels().get(INSTANCE_LABEL))
        && owner != cluster.name()
        && !external
    {
        let why =
            format!("Secret {name} belongs to {owner}: name another one in spec.authSecret, or set externallyManaged");
        return Err(Stop::Blocked("AuthSecretOfAnother", why));
    }
    let there = secret.as_ref().and_then(Login::of);
    if external || !mine {
        let why = || format!("Secret {name} must have the keys username and password, and something in them");
        return there.ok_or_else(|| Stop::Blocked("AuthSecretIncomplete", why()));
    }
    let known = there.or_else(|| context.recall(postgres).login);
    let login = match known {
        Some(login) => login,
        None if is_new(objects, cluster).await? => {
            Login { username: superuser(context, postgres, secret.as_ref()), password: password() }
        }
        None => {
            let why = format!(
                "Secret {name} has lost the superuser's name or password, and the data know no other: write them into it again"
            );
            return Err(Stop::Blocked("AuthSecretIncomplete", why));
        }
    };
    let since = secret.as_ref().and_then(|secret| secret.annotations().get(secrets::ACTIVE_FROM).cloned());
    let since = since.unwrap_or_else(|| context.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    objects.apply_over(secret.as_ref(), secrets::auth(cluster, &login.password, &since)).await?;
    Ok(login)
}

/// A Secret that pgrekey made, now or in an earlier life of the database.
fn is_labelled(secret: &Secret, cluster: &Cluster) -> bool {
    cluster.selector().iter().all(|(key, value)| secret.labels().get(key) == Some(value))
}

/// Whether there are no data that know a password.
async fn is_new(objects: &Objects, cluster: &Cluster) -> Step<bool> {
    let claim = format!("{}-{}", crate::build::pod::DATA_VOLUME, cluster.pod(0));
    let data = objects.look::<PersistentVolumeClaim>(&claim).await?.is_some();
    Ok(!data && objects.look::<crate::api::PetSet>(cluster.name()).await?.is_none())
}

/// How pgrekey talks to Patroni.
///
/// Pods read it when they start, so a password that is lost is not simply replaced while it is remembered.
pub(super) async fn agent(context: &Context, postgres: &Postgres, objects: &Objects, cluster: &Cluster) -> Step<()> {
    let secret: Option<Secret> = objects.look(&cluster.patroni()).await?;
    let there = secret.as_ref().and_then(Login::of).map(|login| login.password);
    let password = there.or_else(|| context.recall(postgres).agent).unwrap_or_else(password);
    context.remember(postgres, |memory| memory.agent = Some(password.clone()));
    objects.apply_over(secret.as_ref(), secrets::agent(cluster, &password)).await?;
    Ok(())
}

/// 16 letters and digits, of each kind at least one.
pub(super) fn password() -> SecretString {
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    loop {
        let mut bytes = [0_u8; 64];
        // The source of randomness of TLS itself: were it not to answer, no handshake would be safe either.
        if provider.secure_random.fill(&mut bytes).is_err() {
            continue;
        }
        if let Some(password) = password_of(&bytes) {
            return password.into();
        }
    }
}

/// The first 16 letters and digits among these bytes, if there are so many and of each kind. The rest is thrown away, so that each
/// is as likely as any other.
fn password_of(bytes: &[u8]) -> Option<String> {
    let letters: String =
        bytes.iter().map(|b| char::from(b & 0x7f)).filter(char::is_ascii_alphanumeric).take(16).collect();
    let has = |kind: fn(&char) -> bool| letters.chars().any(|c| kind(&c));
    let all = has(char::is_ascii_uppercase) && has(char::is_ascii_lowercase) && has(char::is_ascii_digit);
    (letters.len() == 16 && all).then_some(letters)
}

/// The Secret of the superuser, if there is one.
pub(super) async fn auth(context: &Context, postgres: &Postgres) -> Step<Option<Secret>> {
    Ok(context.get(&postgres.namespace().unwrap_or_default(), &auth_secret(postgres)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn a_password_has_letters_of_both_kinds_and_digits() {
        for _ in 0..100 {
            let password = password();
            let password = password.expose_secret();
            assert_eq!(password.len(), 16);
            assert!(password.chars().all(|c| c.is_ascii_alphanumeric()));
            assert!(password_of(password.as_bytes()).is_some());
        }
        assert_eq!(password_of(b"abcdefghijklmnopqrstuvwxyz"), None);
        assert_eq!(password_of(b"Ab1"), None);
    }

    #[test]
    fn a_login_is_not_printed() {
        let login = Login { username: "postgres".to_owned(), password: "secret".into() };
        assert_eq!(format!("{login:?}"), r#"Login { username: "postgres", .. }"#);
    }
}
