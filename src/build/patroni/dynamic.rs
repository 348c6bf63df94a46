//! Patroni's shared configuration: what all pods take at once. Patroni keeps it in annotation
//! `config` of ConfigMap `NAME-config`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Map, Value, json};

use crate::api::bounds;
use crate::api::defaults;
use crate::api::postgres::{CommitLevel, StreamingMode, SyncMode, SynchronousReplicationConfig};
use crate::api::{postgresql_settings, reserved_settings};
use crate::build::Cluster;
use crate::build::user_conf::UserConf;
use crate::tls::{Posture, hba, settings};

/// The annotation that Patroni reads.
pub const ANNOTATION: &str = "config";

/// ConfigMap `NAME-config`. It is there before Patroni is, so that a new cluster starts with it.
///
/// Patroni adds annotations of its own and may write this one again in its own spelling: compare
/// what it means, not its text.
#[must_use]
pub fn config_map(cluster: &Cluster, posture: &Posture) -> ConfigMap {
    let mut metadata = cluster.meta(cluster.names().patroni_config_maps().config);
    metadata.annotations = Some(BTreeMap::from([(
        ANNOTATION.to_owned(),
        config(cluster, posture).to_string(),
    )]));
    ConfigMap {
        metadata,
        ..Default::default()
    }
}

/// What is in it.
#[must_use]
pub fn config(cluster: &Cluster, posture: &Posture) -> Value {
    let leader_election = cluster.spec.leader_election;
    let mut config = json!({
        // Patroni wants loop_wait + 2 * retry_timeout <= ttl. A short loop notices a wished
        // switchover sooner.
        "ttl": 30,
        "loop_wait": 5,
        "retry_timeout": 10,
        "maximum_lag_on_failover": leader_election.map_or(defaults::MAXIMUM_LAG_BEFORE_FAILOVER, |limits| limits.maximum_lag_before_failover),
        // Without it, an API server that is away for longer than ttl takes every primary down with
        // it.
        "failsafe_mode": true,
        "postgresql": {
            "use_pg_rewind": true,
            "use_slots": true,
            "pg_hba": hba::lines(posture),
            "parameters": parameters(cluster, posture),
        },
    });
    if let (Some(synchronous), Value::Object(config)) = (synchronous(cluster), &mut config) {
        // `quorum` counts any standbys, `true` prefers the first.
        let mode = if synchronous.mode == Some(SyncMode::First) {
            json!(true)
        } else {
            json!("quorum")
        };
        config.insert("synchronous_mode".to_owned(), mode);
        config.insert(
            "synchronous_node_count".to_owned(),
            json!(bounds::replicas(
                synchronous
                    .num_sync_replicas
                    .unwrap_or(defaults::SYNC_REPLICAS)
            )),
        );
    }
    config
}

/// PostgreSQL's settings: defaults, over them the user's, over those ours.
///
/// Patroni writes them after the file with the settings of a Secret: a default that such a file
/// sets is left to it.
fn parameters(cluster: &Cluster, posture: &Posture) -> Value {
    let UserConf { inline, .. } = &cluster.user_conf;
    let mut all: Map<String, Value> = Map::new();
    if !cluster.user_conf.file_sets("shared_buffers") {
        all.insert(
            "shared_buffers".to_owned(),
            json!(format!("{}MB", cluster.shared_buffers)),
        );
    }
    all.extend(
        cluster
            .user_conf
            .by_patroni()
            .chain(inline)
            .map(|(name, value)| (name.clone(), json!(value))),
    );
    for (name, least) in reserved_settings::LEAST {
        let wish = all
            .get(name)
            .and_then(Value::as_str)
            .and_then(postgresql_settings::whole_number);
        all.insert(
            name.to_owned(),
            json!(wish.unwrap_or_default().max(least).to_string()),
        );
    }
    all.extend(
        settings::settings(posture)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value))),
    );
    if let Some(synchronous) = synchronous(cluster) {
        let level = synchronous.commit_level.unwrap_or(defaults::COMMIT_LEVEL);
        all.insert("synchronous_commit".to_owned(), json!(commit_level(level)));
    }
    Value::Object(all)
}

/// How commits wait for standbys, if they do.
fn synchronous(cluster: &Cluster) -> Option<SynchronousReplicationConfig> {
    (cluster.spec.streaming_mode == Some(StreamingMode::Synchronous)).then(|| {
        cluster
            .spec
            .synchronous_replication_config
            .clone()
            .unwrap_or_default()
    })
}

const fn commit_level(level: CommitLevel) -> &'static str {
    match level {
        CommitLevel::On => "on",
        CommitLevel::RemoteApply => "remote_apply",
        CommitLevel::RemoteWrite => "remote_write",
        CommitLevel::Local => "local",
        CommitLevel::Off => "off",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::BuildInputs;
    use crate::build::cluster::tests::{cluster, postgres, version};
    use crate::tls::Method;

    fn config_of(spec: &str) -> Value {
        config(&cluster(&postgres(spec)), &Posture::plain(Method::Scram))
    }

    #[test]
    fn a_user_may_set_shared_buffers_but_not_what_is_ours() {
        let config = config_of(
            "{version: '17', configuration: {inline: {user.conf: \"shared_buffers = 64MB\\npassword_encryption = md5\"}}}",
        );
        let parameters = &config["postgresql"]["parameters"];
        assert_eq!(
            (
                &parameters["shared_buffers"],
                &parameters["password_encryption"]
            ),
            (&json!("64MB"), &json!("scram-sha-256"))
        );
    }

    #[test]
    fn a_default_gives_way_to_the_file_and_the_spec_wins_over_it() {
        let of = |text: &str, inline: &str| {
            let spec = format!(
                "{{version: '17', configuration: {{secretName: s, inline: {{user.conf: \"{inline}\"}}}}}}"
            );
            let facts = BuildInputs {
                version: &version("17"),
                superuser: "postgres",
                user_conf: Some(text),
            };
            let cluster = Cluster::build(&postgres(&spec), &facts).expect("a cluster");
            config(&cluster, &Posture::plain(Method::Scram))["postgresql"]["parameters"].clone()
        };
        assert_eq!(of("work_mem = 8MB", "")["shared_buffers"], "256MB");
        assert!(
            of("shared_buffers = 64MB", "")
                .get("shared_buffers")
                .is_none()
        );
        assert_eq!(
            of("shared_buffers = 64MB", "shared_buffers = 32MB")["shared_buffers"],
            "32MB"
        );
        assert_eq!(
            of("max_connections = 50", "max_connections = 60")["max_connections"],
            "60"
        );
        assert_eq!(
            of("password_encryption = md5", "")["password_encryption"],
            "scram-sha-256"
        );
    }

    #[test]
    fn there_is_room_for_the_largest_number_of_pods_whatever_there_are_now() {
        for (conf, senders) in [
            ("", "42"),
            ("max_wal_senders = 5", "42"),
            ("max_wal_senders = lots", "42"),
            ("MAX_WAL_SENDERS = 64", "64"),
        ] {
            let config = config_of(&format!(
                "{{version: '17', configuration: {{inline: {{user.conf: '{conf}'}}}}}}"
            ));
            let parameters = &config["postgresql"]["parameters"];
            assert_eq!(
                (
                    &parameters["max_wal_senders"],
                    &parameters["max_replication_slots"]
                ),
                (&json!(senders), &json!("42"))
            );
        }
    }

    #[test]
    fn commits_wait_for_standbys_as_the_spec_says() {
        let asynchronous = config_of("version: '17'");
        assert_eq!(
            (
                asynchronous.get("synchronous_mode"),
                asynchronous.get("synchronous_node_count")
            ),
            (None, None)
        );
        let default = config_of("{version: '17', streamingMode: Synchronous}");
        assert_eq!(
            (
                &default["synchronous_mode"],
                &default["synchronous_node_count"]
            ),
            (&json!("quorum"), &json!(1))
        );
        assert_eq!(
            default["postgresql"]["parameters"]["synchronous_commit"],
            "remote_write"
        );
        let first = config_of(
            "{version: '17', streamingMode: Synchronous, synchronousReplicationConfig: \
             {mode: First, numSyncReplicas: 2, commitLevel: RemoteApply}}",
        );
        assert_eq!(
            (&first["synchronous_mode"], &first["synchronous_node_count"]),
            (&json!(true), &json!(2))
        );
        assert_eq!(
            first["postgresql"]["parameters"]["synchronous_commit"],
            "remote_apply"
        );
    }

    #[test]
    fn the_limit_of_a_failover_is_the_specs() {
        assert_eq!(
            config_of("version: '17'")["maximum_lag_on_failover"],
            defaults::MAXIMUM_LAG_BEFORE_FAILOVER
        );
        let limited = config_of("{version: '17', leaderElection: {maximumLagBeforeFailover: 7}}");
        assert_eq!(limited["maximum_lag_on_failover"], 7);
    }
}
