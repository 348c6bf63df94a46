//! Pods are brought to the applied posture without a restart: volumes first, then servers, then
//! Patroni.

use crate::api::StepKind;
use crate::api::ops_request::BegunOn;
use crate::api::step::StepId;
use crate::plan::action::{ClusterAction, PodRef};
use crate::plan::observed::cluster::{ObservedCluster, ObservedPod, PodDrift};
use crate::plan::purpose::Purpose;
use crate::plan::rollout::progress::Progress;

/// The next thing that these pods need; `None` when each of them shows the applied posture.
pub(super) fn converge(
    cluster: &ObservedCluster,
    stage: StepKind,
    pods: &[&ObservedPod],
    restart: Option<&BegunOn>,
) -> Option<Progress> {
    let drifts: Vec<(&ObservedPod, PodDrift)> = pods
        .iter()
        .filter_map(|pod| Some((*pod, cluster.drift(pod)?)))
        .collect();
    // A new pod that does not serve yet belongs to its restart.
    let starting = drifts.iter().map(|(pod, _)| *pod).find(|pod| {
        restart.is_some_and(|begun_on| !begun_on.has_pod(&pod.uid))
            && cluster.serves_its_role(pod).is_err()
    });
    let step = starting.map_or(stage.into(), |pod| StepId::restart(pod.name.clone()));
    let act = |purpose, actions| {
        Some(Progress::Act {
            step: step.clone(),
            purpose,
            actions,
        })
    };
    let with = |wanted: &PodDrift| -> Vec<&ObservedPod> {
        let drifts = drifts.iter().filter(|(_, drift)| drift == wanted);
        drifts.map(|(pod, _)| *pod).collect()
    };
    // A pod that does not start may be held back by what its volumes hold.
    let is_stuck = |pod: &&ObservedPod| {
        restart.is_none()
            && pod.server.is_err()
            && !pod.terminating
            && pod.refreshed_for.as_ref() != Some(&cluster.volume_version)
    };
    let stuck = drifts.iter().map(|(pod, _)| *pod).filter(is_stuck);
    let stale: Vec<&ObservedPod> = with(&PodDrift::StaleVolume)
        .into_iter()
        .chain(stuck)
        .collect();
    if !stale.is_empty() {
        let touch = |pod: &&ObservedPod| ClusterAction::Touch {
            pod: pod_ref(pod),
            version: cluster.volume_version.clone(),
        };
        return act(Purpose::RefreshVolumes, stale.iter().map(touch).collect());
    }
    let mut waits = drifts.iter().filter_map(|(_, drift)| match drift {
        PodDrift::Waiting(on) => Some(on.clone()),
        _ => None,
    });
    if let Some(on) = waits.next() {
        return Some(Progress::Wait { step, on });
    }
    let is_primary = |pod: &&ObservedPod| cluster.leader.as_ref() == Ok(&pod.name);
    let (primary, standbys): (Vec<&ObservedPod>, Vec<&ObservedPod>) = with(&PodDrift::NotReloaded)
        .into_iter()
        .partition(is_primary);
    let unloaded = if standbys.is_empty() {
        primary
    } else {
        standbys
    };
    if !unloaded.is_empty() {
        let reload = |pod: &&ObservedPod| ClusterAction::ReloadServer(pod_ref(pod));
        return act(Purpose::LoadFiles, unloaded.iter().map(reload).collect());
    }
    if with(&PodDrift::StaleConninfo).is_empty() {
        return None;
    }
    // All of them, the primary first: only a standby shows that its Patroni has loaded the file.
    // When the last standby shows it, the primary's Patroni has loaded it too.
    let mut all = cluster.pods.iter().collect::<Vec<_>>();
    all.sort_by_key(|pod| !is_primary(pod));
    let reload = |pod: &&ObservedPod| ClusterAction::ReloadPatroni(pod_ref(pod));
    act(Purpose::ReloadPatroni, all.iter().map(reload).collect())
}

fn pod_ref(pod: &ObservedPod) -> PodRef {
    PodRef {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
    }
}
