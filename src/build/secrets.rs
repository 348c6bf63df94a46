//! The Secrets that pgrekey writes. Passwords and keys come in as arguments.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use secrecy::{ExposeSecret, SecretString};

use crate::api::postgres::USER_CONF;
use crate::build::Cluster;

pub use crate::pki::issued::{Pem, ServedMaterial};

/// The user of Patroni's REST API, for unsafe calls such as a reload. Probes need no user.
pub const PATRONI_USER: &str = "pgrekey";

/// Annotation of Secret `NAME-auth`: since when the password is in use, as RFC 3339.
pub const ACTIVE_FROM: &str = "kubedb.com/auth-active-from";

/// Secret `NAME-auth`: the superuser's name and password.
#[must_use]
pub fn auth(cluster: &Cluster, password: &SecretString, active_from: &str) -> Secret {
    let mut secret = basic_auth(cluster, cluster.auth_secret(), &cluster.superuser, password);
    secret.metadata.annotations = Some(BTreeMap::from([(
        ACTIVE_FROM.to_owned(),
        active_from.to_owned(),
    )]));
    secret
}

/// Secret `NAME-patroni`: name and password of Patroni's REST API.
#[must_use]
pub fn patroni(cluster: &Cluster, password: &SecretString) -> Secret {
    basic_auth(cluster, cluster.names().patroni(), PATRONI_USER, password)
}

fn basic_auth(cluster: &Cluster, name: String, username: &str, password: &SecretString) -> Secret {
    Secret {
        metadata: cluster.meta(name),
        type_: Some("kubernetes.io/basic-auth".to_owned()),
        data: Some(data([
            ("username", username),
            ("password", password.expose_secret()),
        ])),
        ..Default::default()
    }
}

/// Secret `NAME-tls`: the certificates and keys that pods mount. Its keys are those of
/// [`crate::tls::layout::FILES`].
///
/// `previous` is stored under the same keys with the prefix `previous.`, and no pod mounts it. An
/// operation that fails goes back to it.
#[must_use]
pub fn tls(cluster: &Cluster, now: &ServedMaterial, previous: Option<&ServedMaterial>) -> Secret {
    let mut all = files(now);
    all.extend(
        previous
            .into_iter()
            .flat_map(files)
            .map(|(key, value)| (format!("previous.{key}"), value)),
    );
    Secret {
        metadata: cluster.meta(cluster.names().tls_secret()),
        type_: Some("Opaque".to_owned()),
        data: Some(all),
        ..Default::default()
    }
}

/// Secret `NAME-user-conf`: the settings that come from the user's Secret, as a file that every
/// server includes. The settings `left_out` are not in it. The file is empty if there are none.
#[must_use]
pub fn user_conf(cluster: &Cluster, left_out: &BTreeSet<String>) -> Secret {
    Secret {
        metadata: cluster.meta(cluster.names().user_conf_secret()),
        type_: Some("Opaque".to_owned()),
        data: Some(data([(USER_CONF, &*user_conf_file(cluster, left_out))])),
        ..Default::default()
    }
}

/// The text of that file.
#[must_use]
pub fn user_conf_file(cluster: &Cluster, left_out: &BTreeSet<String>) -> String {
    cluster.user_conf.file(left_out)
}

fn files(served: &ServedMaterial) -> BTreeMap<String, ByteString> {
    data([
        ("ca.crt", served.trust.as_str()),
        ("server.crt", &served.server.certificate),
        ("server.key", served.server.key.expose_secret()),
        ("client.crt", &served.client.certificate),
        ("client.key", served.client.key.expose_secret()),
        ("exporter-ca.crt", &served.exporter_ca),
        ("exporter.crt", &served.exporter.certificate),
        ("exporter.key", served.exporter.key.expose_secret()),
    ])
}

fn data<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, ByteString> {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::cluster::tests::{cluster, postgres};
    use crate::tls::layout;

    fn served(name: &str) -> ServedMaterial {
        let pem = |kind: &str| Pem {
            certificate: format!("{name} {kind}"),
            key: format!("{name} {kind} key").into(),
        };
        ServedMaterial {
            trust: format!("{name} ca"),
            server: pem("server"),
            client: pem("client"),
            exporter: pem("exporter"),
            exporter_ca: format!("{name} ca"),
        }
    }

    #[test]
    fn every_file_that_is_mounted_is_in_the_secret() {
        let data = tls(&cluster(&postgres("version: '17'")), &served("new"), None)
            .data
            .expect("data");
        for (key, path) in layout::FILES {
            assert!(data.contains_key(*key), "{path}");
        }
        assert_eq!(data.len(), 8);
    }

    #[test]
    fn the_previous_material_is_kept_and_not_mounted() {
        let data = tls(
            &cluster(&postgres("version: '17'")),
            &served("new"),
            Some(&served("old")),
        )
        .data
        .expect("data");
        assert_eq!(data["server.key"].0, b"new server key");
        assert_eq!(data["previous.server.key"].0, b"old server key");
        assert!(
            layout::FILES
                .iter()
                .all(|(key, _)| !key.starts_with("previous."))
        );
    }

    #[test]
    fn a_key_is_not_printed() {
        assert!(!format!("{:?}", served("new")).contains("server key"));
    }

    #[test]
    fn the_superusers_secret_says_since_when() {
        let secret = auth(
            &cluster(&postgres("version: '17'")),
            &"secret".into(),
            "2026-01-01T00:00:00Z",
        );
        assert_eq!(secret.metadata.name.as_deref(), Some("pg-auth"));
        assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/basic-auth"));
        assert!(
            secret
                .metadata
                .annotations
                .is_some_and(|all| all.contains_key(ACTIVE_FROM))
        );
    }
}
