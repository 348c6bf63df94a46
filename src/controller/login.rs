//! How the superuser logs in, as a Secret says it.

use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use secrecy::{ExposeSecret, SecretString};

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
    /// Reads a Secret of type `kubernetes.io/basic-auth`.
    ///
    /// # Errors
    /// [`Unusable`] if some program that has to use it could not.
    pub(crate) fn parse(secret: &Secret) -> Result<Self, Unusable> {
        let login = Self {
            username: read_key(secret, "username")?,
            password: read_key(secret, "password")?.into(),
        };
        let length = login.password.expose_secret().len();
        if length > MAX_PASSWORD_LENGTH {
            Err(Unusable::TooLong)
        } else {
            Ok(login)
        }
    }
}

/// The longest password, in bytes. PostgreSQL's programs accept longer ones only since version 14: a
/// line of a password file had 320 bytes before.
const MAX_PASSWORD_LENGTH: usize = 256;

/// Why a Secret does not say how to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// A key is missing or empty.
    Missing,
    /// The value of this key has a line break: `initdb` reads a password up to it, and a password
    /// file has one in each line.
    LineBreak(&'static str),
    /// The value of this key has a character that is not printable ASCII. Patroni fails to make a
    /// role with a name or password that has one (Patroni 4.0.7 with psycopg2, `quote_literal`),
    /// and a variable cannot hold NUL.
    Character(&'static str),
    /// The password is longer than [`MAX_PASSWORD_LENGTH`].
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
                "its key password has more than {MAX_PASSWORD_LENGTH} bytes: write a shorter one"
            ),
        }
    }
}

/// The value of a key, if every program can use it.
pub(crate) fn read_key(secret: &Secret, key: &'static str) -> Result<String, Unusable> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(username: &[u8], password: &[u8]) -> Secret {
        let data = [("username", username), ("password", password)];
        let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.to_vec())));
        Secret {
            data: Some(data.into()),
            ..Secret::default()
        }
    }

    #[test]
    fn odd_characters_are_a_password_and_unreadable_ones_are_refused_with_the_reason() {
        for good in [
            "p",
            r#"a:b\c 'd"%e$f"#,
            " p ",
            "$(HOME)`id`;#",
            "{x}",
            &"x".repeat(MAX_PASSWORD_LENGTH),
        ] {
            assert!(
                Login::parse(&secret(b"postgres", good.as_bytes())).is_ok(),
                "{good:?}"
            );
        }
        let long = "x".repeat(MAX_PASSWORD_LENGTH + 1);
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
                Login::parse(&secret(b"postgres", bad)).err(),
                Some(why),
                "{bad:?}"
            );
        }
        let name = Login::parse(&secret(b"postgres\n", b"p")).expect_err("a line break");
        assert!(
            name.to_string().contains("key username has a line break"),
            "{name}"
        );
        assert_eq!(
            Login::parse(&Secret::default()).err(),
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
