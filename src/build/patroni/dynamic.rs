//! Patroni's dynamic configuration, which all pods share. Patroni keeps it in annotation `config`
//! of ConfigMap `NAME-config`.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use serde_with::skip_serializing_none;

use crate::api::bounds;
use crate::api::defaults;
use crate::api::postgres::{CommitLevel, StreamingMode, SyncMode, SynchronousReplicationConfig};
use crate::api::{postgresql_settings, reserved_settings};
use crate::build::Cluster;
use crate::build::patroni::field::{Field, known, ours};
use crate::build::user_conf::UserConf;
use crate::tls::{Posture, hba};

/// The annotation that Patroni reads.
pub const ANNOTATION: &str = "config";

/// Patroni's dynamic configuration, as far as pgrekey writes it.
///
/// Keys that pgrekey does not write are kept in `other`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DynamicConfig {
    /// Seconds for which the leader's lease is good.
    ttl: Option<Field<u32>>,
    /// Seconds between two rounds of Patroni.
    loop_wait: Option<Field<u32>>,
    /// Seconds for which Patroni retries a call to the API server or to PostgreSQL.
    retry_timeout: Option<Field<u32>>,
    /// How many bytes of WAL a standby may be behind and still be promoted.
    maximum_lag_on_failover: Option<Field<i64>>,
    /// Whether a primary goes on while the API server is away, if all standbys answer.
    failsafe_mode: Option<Field<bool>>,
    /// Seconds for which the slot of a member that went is kept. Patroni's default is 30 minutes.
    member_slots_ttl: Option<Field<u32>>,
    synchronous_mode: Option<Field<SynchronousMode>>,
    /// How many standbys a commit waits for.
    synchronous_node_count: Option<Field<i32>>,
    postgresql: Option<Field<DynamicPostgresql>>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// Section `postgresql` of [`DynamicConfig`].
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct DynamicPostgresql {
    use_pg_rewind: Option<Field<bool>>,
    use_slots: Option<Field<bool>>,
    /// The lines of `pg_hba.conf`.
    pg_hba: Option<Field<Vec<String>>>,
    /// PostgreSQL's settings.
    parameters: Option<Field<Map<String, Value>>>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// `synchronous_mode`: `true`, `false` or `quorum`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum SynchronousMode {
    /// Commits wait for the first standbys of the list, or for none.
    First(bool),
    /// Commits wait for any standbys.
    Quorum(Quorum),
}

/// The word `quorum`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Quorum {
    Quorum,
}

impl DynamicConfig {
    /// Reads the JSON of [`ANNOTATION`].
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The configuration in ConfigMap `NAME-config`, if it can be read.
    #[must_use]
    pub fn from_config_map(config_map: &ConfigMap) -> Option<Self> {
        let text = config_map.annotations().get(ANNOTATION)?;
        Self::parse(text).ok()
    }

    /// Whether Patroni makes standbys synchronous. Only then it keeps a record of them. Whether a
    /// commit waits for them is for `synchronous_commit` to say.
    #[must_use]
    pub fn is_synchronous(&self) -> bool {
        matches!(
            known(self.synchronous_mode.as_ref()),
            Some(SynchronousMode::First(true) | SynchronousMode::Quorum(_))
        )
    }

    /// The lines of `pg_hba.conf`, if they are a list of texts.
    #[must_use]
    pub fn pg_hba(&self) -> Option<&[String]> {
        known(self.section()?.pg_hba.as_ref()).map(Vec::as_slice)
    }

    /// The value of a PostgreSQL setting, if it is a text.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        known(self.section()?.parameters.as_ref())?
            .get(name)?
            .as_str()
    }

    /// Makes Patroni drop the slots of members that are not there at once. By default it keeps them
    /// for half an hour, with all the WAL that the member would need.
    pub fn drop_left_slots(&mut self) {
        self.member_slots_ttl = ours(0_u32);
    }

    fn section(&self) -> Option<&DynamicPostgresql> {
        known(self.postgresql.as_ref())
    }
}

/// As JSON with sorted keys: the text of [`ANNOTATION`].
impl fmt::Display for DynamicConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        json!(self).fmt(f)
    }
}

/// ConfigMap `NAME-config`. It is there before Patroni is, so that a new cluster starts with it.
///
/// Patroni adds annotations of its own and may write this one again in its own spelling: compare
/// [`DynamicConfig`]s, not texts.
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

/// The dynamic configuration of a cluster in this posture.
#[must_use]
pub fn config(cluster: &Cluster, posture: &Posture) -> DynamicConfig {
    let leader_election = cluster.spec.leader_election;
    let maximum_lag = leader_election.map_or(defaults::MAXIMUM_LAG_BEFORE_FAILOVER, |limits| {
        limits.maximum_lag_before_failover
    });
    let synchronous = synchronous(cluster);
    DynamicConfig {
        // Patroni wants loop_wait + 2 * retry_timeout <= ttl. A short loop notices a switchover
        // request sooner.
        ttl: ours(30_u32),
        loop_wait: ours(5_u32),
        retry_timeout: ours(10_u32),
        maximum_lag_on_failover: ours(maximum_lag),
        // Without it, every primary steps down when the API server is away for longer than ttl.
        failsafe_mode: ours(true),
        member_slots_ttl: None,
        synchronous_mode: synchronous.as_ref().and_then(|synchronous| {
            ours(match synchronous.mode.unwrap_or(defaults::SYNC_MODE) {
                SyncMode::First => SynchronousMode::First(true),
                SyncMode::Any => SynchronousMode::Quorum(Quorum::Quorum),
            })
        }),
        synchronous_node_count: synchronous.as_ref().and_then(|synchronous| {
            let wished = synchronous.num_sync_replicas;
            ours(bounds::clamp_replicas(
                wished.unwrap_or(defaults::SYNC_REPLICAS),
            ))
        }),
        postgresql: ours(DynamicPostgresql {
            use_pg_rewind: ours(true),
            use_slots: ours(true),
            pg_hba: ours(hba::lines(posture)),
            parameters: ours(parameters(cluster, posture)),
            other: Map::new(),
        }),
        other: Map::new(),
    }
}

/// PostgreSQL's settings: defaults, over them the user's, but at least
/// [`LEAST`](reserved_settings::LEAST), over those ours; last the commit level of the spec.
///
/// Patroni writes them after the file with the settings of a Secret. A default is left out if that
/// file sets it.
fn parameters(cluster: &Cluster, posture: &Posture) -> Map<String, Value> {
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
        cluster
            .tls_settings(posture)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value))),
    );
    if let Some(synchronous) = synchronous(cluster) {
        let level = synchronous.commit_level.unwrap_or(defaults::COMMIT_LEVEL);
        all.insert("synchronous_commit".to_owned(), json!(commit_level(level)));
    }
    all
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
mod tests;
