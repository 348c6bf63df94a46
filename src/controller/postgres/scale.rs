//! More pods, or fewer: the primary is never among those that go, and a member that went leaves
//! nothing behind that would hold up the others.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::api::annotations::LEFT_AT;
use crate::api::bounds;
use crate::build::current_posture::{CurrentPosture, PostureObjects};
use crate::build::patroni::DynamicConfig;
use crate::build::workload::ordinal;
use crate::cluster::{Error, ObjectName};
use crate::controller::execute::patroni::{SwitchoverRequest, request_switchover};
use crate::controller::observe::patroni::{fetch_leader, fetch_switchover_candidates};
use crate::controller::outcome::{Interrupt, Pending, ReconcileResult};
use crate::controller::postgres::database::ReconciledDatabase;
use crate::plan::scale_down::{PodCounts, ScaleDown, StreamingStandby};
use crate::plan::scale_up::next_size;

impl ReconciledDatabase<'_> {
    /// How many pods the set gets now. They become more when the certificate that is served has
    /// their names, and fewer only when the primary is among those that stay.
    pub(crate) async fn next_replicas(
        &self,
        current_posture: &CurrentPosture,
        posture: &PostureObjects,
    ) -> ReconcileResult<i32> {
        let desired = self.cluster.replicas();
        let set = posture.pet_set.as_ref();
        // A user who may scale the set may have written any number.
        let current = set
            .and_then(|set| set.spec.replicas)
            .map(bounds::clamp_replicas);
        let Some(current) = current else {
            return Ok(next_size(&self.cluster, 0, current_posture));
        };
        if desired >= current {
            let next = next_size(&self.cluster, current, current_posture);
            for ordinal in current..next {
                self.delete_old_data(ordinal).await?;
            }
            return Ok(next);
        }
        let counts = PodCounts { current, desired };
        let next = self.scale_down(counts, posture).await?;
        for ordinal in next..current {
            self.mark_left(ordinal).await?;
        }
        Ok(next)
    }

    /// Does the next step towards fewer pods; returns how many pods the set gets now.
    async fn scale_down(
        &self,
        counts: PodCounts,
        posture: &PostureObjects,
    ) -> ReconcileResult<i32> {
        // Without a leader, a pod that would go may become the next one.
        let Some(leader) = fetch_leader(&self.objects, &self.cluster).await? else {
            return Ok(counts.current);
        };
        let primary =
            ordinal(self.cluster.name(), &leader).filter(|ordinal| *ordinal < counts.current);
        if primary.is_some_and(|primary| counts.keep(primary)) {
            return Ok(counts.desired);
        }
        match counts.next_step(primary, &self.streaming_standbys(posture).await?) {
            ScaleDown::Resize(pods) => Ok(pods),
            ScaleDown::Wait => Ok(counts.current),
            ScaleDown::SwitchOver(next) => {
                self.switch_over(&leader, &self.cluster.names().pod(next))
                    .await?;
                Ok(counts.current)
            }
        }
    }

    async fn streaming_standbys(
        &self,
        posture: &PostureObjects,
    ) -> ReconcileResult<Vec<StreamingStandby>> {
        let config = posture.shared_config();
        let candidates =
            fetch_switchover_candidates(&self.objects, &self.cluster, config.as_ref()).await?;
        let watched = &self.context.watched;
        let Ok(workload) = watched.workload(self.postgres) else {
            return Ok(vec![]);
        };
        let pods = watched.pods(self.postgres, &workload);
        Ok(pods
            .iter()
            .filter_map(|pod| StreamingStandby::parse(self.cluster.name(), pod, &candidates))
            .collect())
    }

    /// Asks Patroni for a switchover, because the primary is among the pods that go.
    async fn switch_over(&self, leader: &str, candidate: &str) -> ReconcileResult<()> {
        let request = request_switchover(&self.objects, &self.cluster, leader, candidate).await?;
        if request == SwitchoverRequest::Now {
            let note =
                format!("Switching over from {leader} to {candidate}, because {leader} is to go");
            self.publish_event("SwitchOver", note).await;
        }
        Ok(())
    }

    /// Notes on the claim of a pod that goes when it went. The data are kept while the pod is away.
    async fn mark_left(&self, ordinal: i32) -> ReconcileResult<()> {
        let name = self.cluster.names().data_claim(ordinal);
        let Some(claim) = self.objects.get::<PersistentVolumeClaim>(&name).await? else {
            return Ok(());
        };
        if claim.annotations().contains_key(LEFT_AT) {
            return Ok(());
        }
        let now = self.context.now().strftime("%Y-%m-%dT%H:%M:%SZ");
        let patch =
            json!({"metadata": {"uid": claim.uid(), "annotations": {LEFT_AT: now.to_string()}}});
        self.objects
            .api::<PersistentVolumeClaim>()
            .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map_err(|error| {
                Error::classify(ObjectName::new::<PersistentVolumeClaim>(&name), error)
            })?;
        Ok(())
    }

    /// Deletes the data of a pod that was away. The other servers no longer have the WAL that would
    /// bring it up to date, and a standby that cannot catch up looks like one that does not start.
    async fn delete_old_data(&self, ordinal: i32) -> ReconcileResult<()> {
        let claim = self
            .objects
            .get::<PersistentVolumeClaim>(&self.cluster.names().data_claim(ordinal))
            .await?;
        match claim.filter(|claim| claim.annotations().contains_key(LEFT_AT)) {
            None => Ok(()),
            Some(claim) => {
                self.objects.delete_seen(&claim).await?;
                Err(Interrupt::Wait(Pending::OldClaim))
            }
        }
    }

    /// Tells Patroni to drop the replication slots of members that have gone, if the last check saw
    /// such slots. By itself Patroni keeps a slot for half an hour, with all the WAL that the member
    /// would need.
    pub(crate) fn drop_left_slots(&self, config: &mut DynamicConfig) {
        let last_check = self.context.state(self.postgres).last_check;
        if last_check.is_some_and(|check| !check.left_slots.is_empty()) {
            config.drop_left_slots();
        }
    }
}

/// The slot that Patroni makes for a member.
pub(crate) fn slot_name(pod: &str) -> String {
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
        assert_eq!(slot_name("ha-postgres-2"), "ha_postgres_2");
    }
}
