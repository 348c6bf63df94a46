//! Patroni's own records of a cluster.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

use crate::build::Cluster;
use crate::build::patroni::dynamic::DynamicConfig;
use crate::cluster::{Error, Objects};
use crate::plan::SwitchoverCandidates;

/// Patroni's records of who leads and who is to lead.
pub(crate) struct PatroniRecords {
    /// ConfigMap `NAME-leader`.
    leader: Option<ConfigMap>,
    /// ConfigMap `NAME-failover`.
    failover: Option<ConfigMap>,
    /// To whom Patroni would hand the leadership over.
    pub(crate) switchover_candidates: SwitchoverCandidates,
}

impl PatroniRecords {
    /// Reads the records. `config` is Patroni's shared configuration, if it can be read.
    pub(crate) async fn fetch(
        objects: &Objects,
        cluster: &Cluster,
        config: Option<&DynamicConfig>,
    ) -> Result<Self, Error> {
        let records = cluster.names().patroni_config_maps();
        let (leader, failover, switchover_candidates) = tokio::try_join!(
            objects.get(&records.leader),
            objects.get(&records.failover),
            fetch_switchover_candidates(objects, cluster, config),
        )?;
        Ok(Self {
            leader,
            failover,
            switchover_candidates,
        })
    }

    /// Name of the pod that leads; `None` if none does.
    pub(crate) fn leader(&self) -> Option<&str> {
        self.leader.as_ref().and_then(leader_name)
    }

    /// Whether a switchover was asked for and is not done.
    pub(crate) fn switchover_pending(&self) -> bool {
        self.failover.as_ref().is_some_and(|record| {
            ["leader", "member"]
                .iter()
                .any(|key| record.annotations().contains_key(*key))
        })
    }
}

/// Name of the pod that leads, by ConfigMap `NAME-leader`; `None` if none does.
pub(crate) async fn fetch_leader(
    objects: &Objects,
    cluster: &Cluster,
) -> Result<Option<String>, Error> {
    let record = cluster.names().patroni_config_maps().leader;
    let record: Option<ConfigMap> = objects.get(&record).await?;
    Ok(record.as_ref().and_then(leader_name).map(str::to_owned))
}

/// A leader that steps down leaves an empty name.
fn leader_name(record: &ConfigMap) -> Option<&str> {
    record
        .annotations()
        .get("leader")
        .map(String::as_str)
        .filter(|leader| !leader.is_empty())
}

/// To whom Patroni would hand the leadership over. It keeps a record of that only where commits
/// wait for standbys, and only then the record is read.
pub(crate) async fn fetch_switchover_candidates(
    objects: &Objects,
    cluster: &Cluster,
    config: Option<&DynamicConfig>,
) -> Result<SwitchoverCandidates, Error> {
    let Some(config) = config.filter(|config| config.is_synchronous()) else {
        return Ok(SwitchoverCandidates::Any);
    };
    let record = cluster.names().patroni_config_maps().sync;
    let record: Option<ConfigMap> = objects.get(&record).await?;
    Ok(SwitchoverCandidates::from_patroni(
        config,
        record.as_ref().map(ConfigMap::annotations),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(annotations: &[(&str, &str)]) -> ConfigMap {
        let mut map = ConfigMap::default();
        let annotations = annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        map.annotations_mut().extend(annotations);
        map
    }

    #[test]
    fn an_empty_name_is_no_leader() {
        assert_eq!(leader_name(&record(&[("leader", "pg-1")])), Some("pg-1"));
        assert_eq!(leader_name(&record(&[("leader", "")])), None);
        assert_eq!(leader_name(&record(&[])), None);
    }

    #[test]
    fn a_switchover_is_pending_while_patroni_has_not_removed_its_annotations() {
        for (failover, expected) in [
            (None, false),
            (Some(record(&[])), false),
            (
                Some(record(&[("leader", "pg-0"), ("member", "pg-1")])),
                true,
            ),
            (Some(record(&[("member", "pg-1")])), true),
        ] {
            let records = PatroniRecords {
                leader: None,
                failover,
                switchover_candidates: SwitchoverCandidates::Any,
            };
            assert_eq!(records.switchover_pending(), expected);
        }
    }
}
