//! More pods, or fewer: the primary is never among those that go, and a member that went leaves
//! nothing behind that would hold up the others.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::EventType;
use serde_json::json;

use crate::api::annotations::LEFT_AT;
use crate::api::{Postgres, bounds};
use crate::build::Cluster;
use crate::build::current_posture::PostureObjects;
use crate::build::workload::ordinal;
use crate::cluster::{Error, ObjectName, Objects};
use crate::controller::Context;
use crate::controller::execute::patroni::{SwitchoverRequest, request_switchover};
use crate::controller::observe::patroni::{leader_of, switchover_candidates};
use crate::controller::outcome::ReconcileResult;
use crate::plan::scale_down::{PodCounts, ScaleDown, StreamingStandby};

/// How many pods the set is to have now. Fewer than there are only when the primary is among those
/// that stay.
pub(crate) async fn replicas(
    context: &Context,
    postgres: &Postgres,
    objects: &Objects,
    cluster: &Cluster,
    pieces: &PostureObjects,
) -> ReconcileResult<i32> {
    let wish = cluster.replicas();
    // Anybody who may scale the set may have written any number.
    let now = pieces
        .pet_set
        .as_ref()
        .and_then(|set| set.spec.replicas)
        .map(bounds::clamp_replicas);
    let Some(now) = now else { return Ok(wish) };
    if wish >= now {
        for ordinal in now..wish {
            forget_data(objects, &cluster.names().data_claim(ordinal)).await?;
        }
        return Ok(wish);
    }
    let record: Option<ConfigMap> = objects
        .get(&cluster.names().patroni_config_maps().leader)
        .await?;
    // Nobody leads right now: whoever comes to may be one of those that would go.
    let Some(leader) = record.as_ref().and_then(leader_of) else {
        return Ok(now);
    };
    let counts = PodCounts {
        current: now,
        desired: wish,
    };
    let primary = ordinal(cluster.name(), leader).filter(|ordinal| *ordinal < now);
    let keep = if primary.is_some_and(|primary| counts.keep(primary)) {
        wish
    } else {
        let candidates =
            switchover_candidates(objects, cluster, pieces.shared_config().as_ref()).await?;
        let pods = context
            .watched
            .workload(postgres)
            .map(|workload| context.watched.pods(postgres, &workload));
        let standbys: Vec<StreamingStandby> = pods
            .iter()
            .flatten()
            .filter_map(|pod| StreamingStandby::parse(cluster.name(), pod, &candidates))
            .collect();
        match counts.next_step(primary, &standbys) {
            ScaleDown::Resize(pods) => pods,
            ScaleDown::Wait => now,
            ScaleDown::SwitchOver(next) => {
                let next = cluster.names().pod(next);
                switch_over(context, postgres, objects, cluster, leader, &next).await?;
                now
            }
        }
    };
    for ordinal in keep..now {
        note_left(context, objects, &cluster.names().data_claim(ordinal)).await?;
    }
    Ok(keep)
}

/// Asks Patroni to make one the primary, because the one that leads is to go.
async fn switch_over(
    context: &Context,
    postgres: &Postgres,
    objects: &Objects,
    cluster: &Cluster,
    leader: &str,
    candidate: &str,
) -> ReconcileResult<()> {
    if request_switchover(objects, cluster, leader, candidate).await? == SwitchoverRequest::Already
    {
        return Ok(());
    }
    let note = format!("Switching over from {leader} to {candidate}, because {leader} is to go");
    context
        .publish_event(postgres, EventType::Normal, "SwitchOver", note)
        .await;
    Ok(())
}

/// Notes on the claim of a pod that goes that its data end here. They are kept as long as the pod
/// is away.
async fn note_left(context: &Context, objects: &Objects, name: &str) -> ReconcileResult<()> {
    let Some(claim) = objects.get::<PersistentVolumeClaim>(name).await? else {
        return Ok(());
    };
    if claim.annotations().contains_key(LEFT_AT) {
        return Ok(());
    }
    let since = context.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let patch = json!({"metadata": {"uid": claim.uid(), "annotations": {LEFT_AT: since}}});
    let patched = objects
        .api::<PersistentVolumeClaim>()
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    patched
        .map(|_| ())
        .map_err(|error| Error::classify(ObjectName::new::<PersistentVolumeClaim>(name), error))?;
    Ok(())
}

/// Deletes the data of a pod that was away: the others no longer have the log that would bring them
/// up to date, and a standby that cannot follow would look like one that does not start.
async fn forget_data(objects: &Objects, name: &str) -> ReconcileResult<()> {
    let claim = objects.get::<PersistentVolumeClaim>(name).await?;
    match claim.filter(|claim| claim.annotations().contains_key(LEFT_AT)) {
        None => Ok(()),
        Some(claim) => {
            objects.delete_seen(&claim).await?;
            Err(crate::controller::outcome::Interrupt::Wait(
                "the old claim of a pod that comes back",
            ))
        }
    }
}

/// Replication slots of members that have gone, as the last check of the primary saw them.
pub(crate) fn left_slots(context: &Context, postgres: &Postgres) -> Vec<String> {
    context
        .state(postgres)
        .last_check
        .map(|seen| seen.left_slots)
        .unwrap_or_default()
}

/// The slot that Patroni makes for a member.
pub(crate) fn slot(pod: &str) -> String {
    pod.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_named_as_patroni_names_it() {
        assert_eq!(slot("ha-postgres-2"), "ha_postgres_2");
    }
}
