//! Patroni's own records.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

use crate::build::Cluster;
use crate::build::patroni::dynamic::DynamicConfig;
use crate::cluster::{Error, Objects};
use crate::plan::SwitchoverCandidates;

/// Who leads, by Patroni's own record: ConfigMap `NAME-leader`. A leader that lets go leaves an
/// empty name there.
pub(crate) fn leader_of(record: &ConfigMap) -> Option<&str> {
    record
        .annotations()
        .get("leader")
        .map(String::as_str)
        .filter(|leader| !leader.is_empty())
}

/// To whom Patroni would hand the leadership over. A cluster whose commits wait for nobody has no
/// record of it, and none is asked for.
pub(crate) async fn switchover_candidates(
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

    #[test]
    fn nobody_leads_whose_name_is_empty() {
        let record = |leader: &str| {
            let mut map = ConfigMap::default();
            map.annotations_mut()
                .insert("leader".to_owned(), leader.to_owned());
            map
        };
        assert_eq!(leader_of(&record("pg-1")), Some("pg-1"));
        assert_eq!(leader_of(&record("")), None);
        assert_eq!(leader_of(&ConfigMap::default()), None);
    }
}
