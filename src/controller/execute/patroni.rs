//! Asks Patroni for a switchover.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::build::Cluster;
use crate::cluster::{Error, ObjectName, Objects};

/// When Patroni was asked for a switchover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SwitchoverRequest {
    Already,
    Now,
}

/// Asks Patroni for a switchover from `leader` to `candidate`, unless it was asked already.
pub(crate) async fn request_switchover(
    objects: &Objects,
    cluster: &Cluster,
    leader: &str,
    candidate: &str,
) -> Result<SwitchoverRequest, Error> {
    let failover = cluster.names().patroni_config_maps().failover;
    let live: Option<ConfigMap> = objects.get(&failover).await?;
    let wish = json!({"leader": leader, "member": candidate});
    let asked = |key: &str| {
        live.as_ref().is_some_and(|live| {
            live.annotations()
                .get(key)
                .is_some_and(|v| wish[key] == **v)
        })
    };
    if asked("leader") && asked("member") {
        return Ok(SwitchoverRequest::Already);
    }
    // Patroni removes these annotations, so pgrekey must not own them: a merge patch, no apply.
    let body = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": failover, "labels": cluster.selector(), "annotations": wish},
    });
    let api = objects.api::<ConfigMap>();
    let what = ObjectName::new::<ConfigMap>(&failover);
    let outcome = if live.is_some() {
        api.patch(&failover, &PatchParams::default(), &Patch::Merge(&body))
            .await
            .map(|_| ())
    } else {
        let map = serde_json::from_value(body).map_err(|e| Error::Bug {
            what: what.clone(),
            why: e.to_string(),
        })?;
        api.create(&kube::api::PostParams::default(), &map)
            .await
            .map(|_| ())
    };
    outcome.map_err(|error| Error::classify(what, error))?;
    Ok(SwitchoverRequest::Now)
}
