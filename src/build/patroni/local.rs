//! Patroni's local configuration: `patroni.yml`, the same for every pod; what differs comes from
//! the environment.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use crate::api::ports::{PATRONI_PORT, POSTGRES_PORT};
use crate::build::meta::{INSTANCE_LABEL, PRIMARY, ROLE_LABEL, STANDBY};
use crate::build::paths::{
    CONFIG, DATA, INCLUDED, INIT_SCRIPTS, INIT_SH, INITDB_SH, PATRONI_YML, SOCKETS, WEB_YML,
};
use crate::build::{Cluster, exporter, user_conf};
use crate::tls::{Posture, conninfo};

/// ConfigMap `NAME-patroni`. A pod takes a change when its volume is refreshed and its agent is
/// told to reload.
#[must_use]
pub fn config_map(cluster: &Cluster, posture: &Posture) -> ConfigMap {
    // JSON is YAML, should the text not come out; it is made of strings, numbers and truth values,
    // so it does.
    let local = config(cluster, posture);
    let text = serde_saphyr::to_string(&local).unwrap_or_else(|_| local.to_string());
    let init = cluster
        .init
        .as_ref()
        .map(|_| (INIT_SH, init_script(cluster)));
    let web = cluster.monitor().map(|_| (WEB_YML, exporter::web_config()));
    ConfigMap {
        metadata: ObjectMeta {
            annotations: Some([cluster.built_of().annotation()].into()),
            ..cluster.meta(cluster.names().patroni())
        },
        data: Some(
            [
                (PATRONI_YML, text),
                (INCLUDED, included()),
                (INITDB_SH, initdb_script()),
            ]
            .into_iter()
            .chain(init)
            .chain(web)
            .map(|(key, text)| (key.to_owned(), text))
            .collect::<BTreeMap<_, _>>(),
        ),
        ..Default::default()
    }
}

/// What is in `patroni.yml`.
#[must_use]
pub fn config(cluster: &Cluster, posture: &Posture) -> Value {
    json!({
        "scope": cluster.name(),
        "kubernetes": {
            "labels": cluster.selector(),
            "scope_label": INSTANCE_LABEL,
            "role_label": ROLE_LABEL,
            "leader_label_value": PRIMARY,
            "follower_label_value": STANDBY,
            "use_endpoints": false,
        },
        "restapi": { "listen": format!("*:{}", PATRONI_PORT.number) },
        // There is no watchdog device in a pod; the kubelet's liveness probe is what is left of it.
        "watchdog": { "mode": "off" },
        "bootstrap": bootstrap(cluster),
        "postgresql": {
            "listen": format!("*:{}", POSTGRES_PORT.number),
            "data_dir": format!("{DATA}/data"),
            "pgpass": "/tmp/pgpass",
            "custom_conf": format!("{CONFIG}/{INCLUDED}"),
            // The socket needs no password and no TLS: Patroni sees its own server whatever the
            // posture.
            "use_unix_socket": true,
            "use_unix_socket_repl": true,
            "parameters": { "unix_socket_directories": SOCKETS },
            "authentication": authentication(cluster, posture),
            // Without it, a new standby waits for the primary's next checkpoint, which may take
            // minutes.
            "basebackup": { "checkpoint": "fast" },
        },
    })
}

/// What `postgresql.conf` begins with; what Patroni writes comes after it, and wins.
///
/// It lies beside `patroni.yml`, which names it, because a server does not start when what its
/// configuration includes is missing: whoever has the one has the other. A pod that an earlier
/// pgrekey made has no file with settings of a Secret.
fn included() -> String {
    format!(
        "# What initdb wrote.\ninclude_if_exists '{DATA}/data/postgresql.base.conf'\n\
         # Settings that come from a Secret.\ninclude_if_exists '{}'\n",
        user_conf::path()
    )
}

/// Where `postgresql.conf` includes something else, Patroni overwrites what `initdb` wrote there:
/// the time zone, the locale, the language of text search. So that is kept, under the name that
/// Patroni itself would give it.
fn initdb_script() -> String {
    format!(
        r#"#!/bin/sh
# Makes the data, and keeps what initdb has set: Patroni overwrites postgresql.conf.
set -eu
PATH="${{PATRONI_POSTGRESQL_BIN_DIR:+$PATRONI_POSTGRESQL_BIN_DIR:}}$PATH"
initdb "$@"
cp '{DATA}/data/postgresql.conf' '{DATA}/data/postgresql.base.conf'
"#
    )
}

/// Who Patroni is, and how it dials. Passwords come from the environment.
fn authentication(cluster: &Cluster, posture: &Posture) -> Value {
    let mut login: Map<String, Value> = conninfo::parameters(posture)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    login.insert("username".to_owned(), json!(cluster.superuser));
    json!({ "superuser": login, "replication": login, "rewind": login })
}

/// What happens to an empty data directory. Checksums are what lets `pg_rewind` work.
fn bootstrap(cluster: &Cluster) -> Value {
    let mut bootstrap = json!({ "initdb": [{ "encoding": "UTF8" }, "data-checksums"] });
    if let (Some(_), Value::Object(bootstrap)) = (&cluster.init, &mut bootstrap) {
        bootstrap.insert(
            "post_bootstrap".to_owned(),
            json!(format!("sh {CONFIG}/{INIT_SH}")),
        );
    }
    bootstrap
}

/// Runs the user's scripts in the order of their names and stops at the first that fails: Patroni
/// then starts over with an empty data directory, so that a database is never half initialised.
fn init_script(cluster: &Cluster) -> String {
    let path = cluster
        .init
        .as_ref()
        .and_then(|script| script.script_path.as_deref())
        .unwrap_or_default();
    let folder = [INIT_SCRIPTS, path.trim_matches('/')].join("/");
    format!(
        r#"#!/bin/sh
# Runs the database's init scripts, once, on its first primary.
set -eu
for script in '{folder}'/*; do
  case "$script" in
    *.sql) echo "init: $script"; psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --file "$script" ;;
    *.sh) echo "init: $script"; if [ -x "$script" ]; then "$script"; else sh "$script"; fi ;;
  esac
done
"#,
        folder = folder.trim_end_matches('/').replace('\'', r"'\''"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::cluster::tests::{cluster, postgres};
    use crate::tls::Method;

    #[test]
    fn the_text_means_what_was_meant() {
        let cluster = cluster(&postgres("version: '17'"));
        let posture = Posture::plain(Method::Scram);
        let data = config_map(&cluster, &posture).data.expect("data");
        let read: Value = serde_saphyr::from_str(&data[PATRONI_YML]).expect("YAML");
        assert_eq!(read, config(&cluster, &posture));
    }

    #[test]
    fn a_folder_of_scripts_cannot_become_a_command() {
        let cluster = cluster(&postgres(
            "{version: '17', init: {script: {scriptPath: \"a'; reboot; '\", configMap: {name: c}}}}",
        ));
        assert!(
            init_script(&cluster)
                .contains(r"for script in '/var/initdb/a'\''; reboot; '\'''/*; do")
        );
    }
}
