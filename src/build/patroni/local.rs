//! Patroni's local configuration: `patroni.yml`. Every pod mounts the same file; environment
//! variables hold the differences.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use serde_with::skip_serializing_none;

use crate::api::ports::{PATRONI_PORT, POSTGRES_PORT};
use crate::build::meta::{INSTANCE_LABEL, PRIMARY, ROLE_LABEL, STANDBY};
use crate::build::paths::{
    CONFIG, DATA, INCLUDED, INIT_SCRIPTS, INIT_SH, INITDB_SH, PATRONI_YML, SOCKETS, WEB_YML,
};
use crate::build::patroni::field::{Field, known, ours};
use crate::build::{Cluster, exporter, user_conf};
use crate::tls::{Posture, conninfo};

/// ConfigMap `NAME-patroni`. A pod takes over a change once its volume is refreshed and Patroni has
/// reloaded.
#[must_use]
pub fn config_map(cluster: &Cluster, posture: &Posture) -> ConfigMap {
    let text = config(cluster, posture).to_string();
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

/// Patroni's local configuration, as far as pgrekey writes it.
///
/// Keys that pgrekey does not write are kept in `other`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LocalConfig {
    /// The name by which Patroni knows its cluster.
    scope: Option<Field<String>>,
    kubernetes: Option<Field<KubernetesSection>>,
    restapi: Option<Field<BTreeMap<String, String>>>,
    watchdog: Option<Field<BTreeMap<String, String>>>,
    bootstrap: Option<Field<BootstrapSection>>,
    postgresql: Option<Field<LocalPostgresql>>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// Section `kubernetes`: the ConfigMaps in which Patroni keeps its state, and the labels that it
/// puts on pods.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct KubernetesSection {
    /// The labels of Patroni's ConfigMaps and pods.
    labels: Option<Field<BTreeMap<String, String>>>,
    scope_label: Option<Field<String>>,
    role_label: Option<Field<String>>,
    leader_label_value: Option<Field<String>>,
    follower_label_value: Option<Field<String>>,
    /// Endpoints instead of ConfigMaps.
    use_endpoints: Option<Field<bool>>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// Section `bootstrap`: how an empty data directory is filled.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct BootstrapSection {
    /// Options of `initdb`: a name, or a name and a value.
    initdb: Option<Field<Vec<Value>>>,
    /// A command that runs once, on the first primary.
    post_bootstrap: Option<Field<String>>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// Section `postgresql`: the server of this pod.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct LocalPostgresql {
    listen: Option<Field<String>>,
    data_dir: Option<Field<String>>,
    pgpass: Option<Field<String>>,
    /// The file that PostgreSQL's own `postgresql.conf` includes first.
    custom_conf: Option<Field<String>>,
    use_unix_socket: Option<Field<bool>>,
    use_unix_socket_repl: Option<Field<bool>>,
    parameters: Option<Field<BTreeMap<String, String>>>,
    authentication: Option<Field<AuthenticationSection>>,
    /// Options of `pg_basebackup`.
    basebackup: Option<Field<BTreeMap<String, String>>>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// Section `postgresql.authentication`: libpq's connection parameters, by purpose. Passwords come
/// from the environment.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct AuthenticationSection {
    superuser: Option<Field<BTreeMap<String, String>>>,
    replication: Option<Field<BTreeMap<String, String>>>,
    rewind: Option<Field<BTreeMap<String, String>>>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// Why `patroni.yml` cannot be read: it is no YAML, or no mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoConfig;

impl LocalConfig {
    /// Reads the text of `patroni.yml`.
    pub fn parse(text: &str) -> Result<Self, NoConfig> {
        let value: Value = serde_saphyr::from_str(text).map_err(|_| NoConfig)?;
        serde_json::from_value(value).map_err(|_| NoConfig)
    }

    /// libpq's connection parameters of a standby.
    #[must_use]
    pub fn replication(&self) -> Option<&BTreeMap<String, String>> {
        let postgresql = known(self.postgresql.as_ref())?;
        let authentication = known(postgresql.authentication.as_ref())?;
        known(authentication.replication.as_ref())
    }
}

/// As YAML with sorted keys: the text of `patroni.yml`.
impl fmt::Display for LocalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = json!(self);
        // JSON is YAML too. The writer does not fail on texts, numbers and truth values.
        let text = serde_saphyr::to_string(&value).unwrap_or_else(|_| value.to_string());
        f.write_str(&text)
    }
}

/// The local configuration of a cluster in this posture.
#[must_use]
pub fn config(cluster: &Cluster, posture: &Posture) -> LocalConfig {
    LocalConfig {
        scope: ours(cluster.name()),
        kubernetes: ours(KubernetesSection {
            labels: ours(cluster.selector()),
            scope_label: ours(INSTANCE_LABEL),
            role_label: ours(ROLE_LABEL),
            leader_label_value: ours(PRIMARY),
            follower_label_value: ours(STANDBY),
            use_endpoints: ours(false),
            other: Map::new(),
        }),
        restapi: ours(entry("listen", format!("*:{}", PATRONI_PORT.number))),
        // A pod has no watchdog device. The kubelet's liveness probe is what remains of it.
        watchdog: ours(entry("mode", "off")),
        bootstrap: ours(bootstrap(cluster)),
        postgresql: ours(LocalPostgresql {
            listen: ours(format!("*:{}", POSTGRES_PORT.number)),
            data_dir: ours(format!("{DATA}/data")),
            pgpass: ours("/tmp/pgpass"),
            custom_conf: ours(format!("{CONFIG}/{INCLUDED}")),
            // The socket needs no password and no TLS: Patroni reaches its own server in every
            // posture.
            use_unix_socket: ours(true),
            use_unix_socket_repl: ours(true),
            parameters: ours(entry("unix_socket_directories", SOCKETS)),
            authentication: ours(authentication(cluster, posture)),
            // Without it, a new standby waits for the primary's next checkpoint, which may take
            // minutes.
            basebackup: ours(entry("checkpoint", "fast")),
            other: Map::new(),
        }),
        other: Map::new(),
    }
}

/// A section with one key.
fn entry(key: &str, value: impl Into<String>) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.into())])
}

/// The beginning of `postgresql.conf`. Patroni's own settings follow it, and win.
///
/// The file is in the same ConfigMap as `patroni.yml`, which names it. A server does not start if
/// an included file is missing, so a pod must never have the one without the other.
/// `include_if_exists`: a pod of an earlier pgrekey does not mount the settings of a Secret.
fn included() -> String {
    format!(
        "# What initdb wrote.\ninclude_if_exists '{DATA}/data/postgresql.base.conf'\n\
         # Settings that come from a Secret.\ninclude_if_exists '{}'\n",
        user_conf::path()
    )
}

/// Keeps the settings that `initdb` wrote: the time zone, the locale, the language of text search.
/// If `postgresql.conf` includes another file, Patroni overwrites them. The copy has the name that
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

/// The login of Patroni and of standbys.
fn authentication(cluster: &Cluster, posture: &Posture) -> AuthenticationSection {
    let mut login: BTreeMap<String, String> = conninfo::parameters(posture)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    login.insert("username".to_owned(), cluster.superuser.clone());
    AuthenticationSection {
        superuser: ours(login.clone()),
        replication: ours(login.clone()),
        rewind: ours(login),
        other: Map::new(),
    }
}

/// `initdb` with checksums, which `pg_rewind` needs; then the user's scripts, if there are any.
fn bootstrap(cluster: &Cluster) -> BootstrapSection {
    let run_scripts = format!("sh {CONFIG}/{INIT_SH}");
    BootstrapSection {
        initdb: ours(vec![json!({ "encoding": "UTF8" }), json!("data-checksums")]),
        post_bootstrap: cluster.init.as_ref().and_then(|_| ours(run_scripts)),
        other: Map::new(),
    }
}

/// Runs the user's scripts in the order of their names, and stops at the first that fails. Patroni
/// then starts over with an empty data directory, so that no database is half initialised.
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
    fn a_configuration_is_read_as_it_was_written() {
        let cluster = cluster(&postgres("version: '17'"));
        let posture = Posture::plain(Method::Scram);
        let data = config_map(&cluster, &posture).data.expect("data");
        let read = LocalConfig::parse(&data[PATRONI_YML]);
        assert_eq!(read, Ok(config(&cluster, &posture)));
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
