//! Who the superuser is and how pgrekey talks to Patroni: Secrets that are made once, respected,
//! and repaired.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::ResourceExt;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use secrecy::{ExposeSecret, SecretString};

use crate::api::Postgres;
use crate::build::meta::INSTANCE_LABEL;
use crate::build::{Cluster, secrets};
use crate::cluster::Objects;
use crate::controller::Context;
use crate::controller::postgres::{Interrupt, ReconcileResult};

/// The superuser of a database that names none.
const SUPERUSER: &str = "postgres";

/// A name and a password.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) password: SecretString,
}

/// Without the password.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Login {
    /// What a Secret of type `kubernetes.io/basic-auth` says, if it says all of it in a way that
    /// everybody can use.
    pub(crate) fn parse(secret: &Secret) -> Option<Self> {
        Self::read(secret).ok()
    }

    /// The same, or why not.
    fn read(secret: &Secret) -> Result<Self, Unusable> {
        let login = Self {
            username: text(secret, "username")?,
            password: text(secret, "password")?.into(),
        };
        let length = login.password.expose_secret().len();
        if length > LONGEST {
            Err(Unusable::TooLong)
        } else {
            Ok(login)
        }
    }
}

/// The longest password, in bytes. PostgreSQL's programs read longer ones since version 14 only (a
/// line of a password file had 320 bytes before), and nobody needs them.
const LONGEST: usize = 256;

/// Why a Secret does not say how to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unusable {
    /// There is nothing under this key.
    Missing,
    /// What is under this key ends the line: `initdb` reads a password up to there, and a password
    /// file has one in each line.
    LineBreak(&'static str),
    /// There is a character under this key that is not printable ASCII. Patroni fails to make a
    /// role with a name or password that has one (Patroni 4.0.7 with psycopg2, `quote_literal`),
    /// and a variable cannot hold NUL.
    Character(&'static str),
    TooLong,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(
                f,
                "it must have the keys username and password, and something in them"
            ),
            Self::LineBreak(key) => write!(
                f,
                "its key {key} has a line break in it or at its end, which PostgreSQL's programs do not read: write it without, as \
                 `printf %s` or `echo -n` do"
            ),
            Self::Character(key) => {
                write!(
                    f,
                    "its key {key} has a character that is not printable ASCII, which Patroni cannot set: write it without"
                )
            }
            Self::TooLong => write!(
                f,
                "its key password has more than {LONGEST} bytes: write a shorter one"
            ),
        }
    }
}

fn text(secret: &Secret, key: &'static str) -> Result<String, Unusable> {
    let value = secret
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .filter(|value| !value.0.is_empty());
    let value = &value.ok_or(Unusable::Missing)?.0;
    if value.contains(&b'\n') || value.contains(&b'\r') {
        return Err(Unusable::LineBreak(key));
    }
    let text = std::str::from_utf8(value)
        .ok()
        .filter(|text| text.chars().all(|c| matches!(c, ' '..='~')));
    text.map(str::to_owned).ok_or(Unusable::Character(key))
}

/// The name of the Secret of the superuser. A database has one before it is known whether it can be
/// built.
pub(crate) fn auth_secret(postgres: &Postgres) -> String {
    postgres.spec.auth_secret_of(&postgres.name_any())
}

/// The superuser's name, as far as it is known: it is in the client certificate.
pub(crate) fn superuser(context: &Context, postgres: &Postgres, secret: Option<&Secret>) -> String {
    let written = secret.and_then(|secret| text(secret, "username").ok());
    written
        .or_else(|| context.state(postgres).login.map(|login| login.username))
        .unwrap_or_else(|| SUPERUSER.to_owned())
}

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
            password: password(),
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
        .unwrap_or_else(password);
    context.update_state(postgres, |memory| {
        memory.patroni_password = Some(password.clone())
    });
    objects
        .apply_over(secret.as_ref(), secrets::patroni(cluster, &password))
        .await?;
    Ok(())
}

/// 16 letters and digits, of each kind at least one.
pub(crate) fn password() -> SecretString {
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    loop {
        let mut bytes = [0_u8; 64];
        // The source of randomness of TLS itself: were it not to answer, no handshake would be safe
        // either.
        if provider.secure_random.fill(&mut bytes).is_err() {
            continue;
        }
        if let Some(password) = password_of(&bytes) {
            return password.into();
        }
    }
}

/// The first 16 letters and digits among these bytes, if there are so many and of each kind. The
/// rest is thrown away, so that each is as likely as any other.
fn password_of(bytes: &[u8]) -> Option<String> {
    let letters: String = bytes
        .iter()
        .map(|b| char::from(b & 0x7f))
        .filter(char::is_ascii_alphanumeric)
        .take(16)
        .collect();
    let has = |kind: fn(&char) -> bool| letters.chars().any(|c| kind(&c));
    let all =
        has(char::is_ascii_uppercase) && has(char::is_ascii_lowercase) && has(char::is_ascii_digit);
    (letters.len() == 16 && all).then_some(letters)
}

/// The Secret of the superuser, if there is one.
pub(crate) async fn auth(
    context: &Context,
    postgres: &Postgres,
) -> ReconcileResult<Option<Secret>> {
    Ok(context
        .get(
            &postgres.namespace().unwrap_or_default(),
            &auth_secret(postgres),
        )
        .await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

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

    fn secret(username: &[u8], password: &[u8]) -> Secret {
        let data = [("username", username), ("password", password)];
        let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.to_vec())));
        Secret {
            data: Some(data.into()),
            ..Secret::default()
        }
    }

    #[test]
    fn odd_characters_are_a_password_and_what_no_program_reads_is_refused_with_the_reason() {
        for good in [
            "p",
            r#"a:b\c 'd"%e$f"#,
            " p ",
            "$(HOME)`id`;#",
            "{x}",
            &"x".repeat(LONGEST),
        ] {
            assert!(
                Login::read(&secret(b"postgres", good.as_bytes())).is_ok(),
                "{good:?}"
            );
        }
        let long = "x".repeat(LONGEST + 1);
        let cases: [(&[u8], Unusable); 9] = [
            (b"", Unusable::Missing),
            (b"p\n", Unusable::LineBreak("password")),
            (b"p\nq", Unusable::LineBreak("password")),
            (b"p\r", Unusable::LineBreak("password")),
            (b"p\0", Unusable::Character("password")),
            (b"p\tq", Unusable::Character("password")),
            (b"\xff", Unusable::Character("password")),
            ("ü".as_bytes(), Unusable::Character("password")),
            (long.as_bytes(), Unusable::TooLong),
        ];
        for (bad, why) in cases {
            assert_eq!(
                Login::read(&secret(b"postgres", bad)).err(),
                Some(why),
                "{bad:?}"
            );
        }
        let name = Login::read(&secret(b"postgres\n", b"p")).expect_err("a line break");
        assert!(
            name.to_string().contains("key username has a line break"),
            "{name}"
        );
        assert_eq!(
            Login::read(&Secret::default()).err(),
            Some(Unusable::Missing)
        );
    }

    #[test]
    fn a_login_is_not_printed() {
        let login = Login {
            username: "postgres".to_owned(),
            password: "secret".into(),
        };
        assert_eq!(
            format!("{login:?}"),
            r#"Login { username: "postgres", .. }"#
        );
    }
}
