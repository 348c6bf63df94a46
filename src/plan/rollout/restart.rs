//! Pods are replaced one at a time: standbys by falling ordinal, then the leadership moves, then
//! the old primary.

use crate::api::StepKind;
use crate::api::ops_request::BegunOn;
use crate::api::step::StepId;
use crate::pki::Material;
use crate::plan::action::{ClusterAction, PodRef};
use crate::plan::observed::candidates::SwitchoverCandidates;
use crate::plan::observed::cluster::{ObservedCluster, ObservedPod};
use crate::plan::purpose::Purpose;
use crate::plan::rollout::converge::converge;
use crate::plan::rollout::progress::Progress;
use crate::plan::waiting::{PodEvent, Waiting};
use crate::tls::Posture;

/// Whether it is time to replace pods: when the posture that they will serve is applied. That is
/// with the files that come or go, else before the walk contracts.
pub(super) fn restart_is_due(applied: &Posture, target: &Posture) -> bool {
    let material = |posture: &Posture| -> Option<Material> {
        posture.files.as_ref().map(|files| files.material)
    };
    (applied.serve, material(applied), applied.conninfo)
        == (target.serve, material(target), target.conninfo)
}

/// Whether the primary is away because it is being replaced; [`restart_pods`] waits for it then.
pub(super) fn is_being_replaced(cluster: &ObservedCluster, restart: Option<&BegunOn>) -> bool {
    let mut pods = cluster.pods.iter();
    let primary = pods.find(|pod| cluster.leader.as_ref() == Ok(&pod.name));
    primary.is_none_or(|pod| pod.terminating || !pod.ready)
        && (restart.is_some() || missing_pod(cluster).is_some())
}

/// Whether a pod has to be replaced: it existed when the operation began, or it was made of another
/// template, as far as the volume with certificates is concerned.
pub(super) fn is_to_be_replaced(
    cluster: &ObservedCluster,
    pod: &ObservedPod,
    due: Option<&BegunOn>,
) -> bool {
    due.is_some_and(|begun_on| begun_on.has_pod(&pod.uid))
        || pod.has_files != cluster.template.has_files
}

/// The next replacement; `None` when no pod has to be replaced.
pub(super) fn restart_pods(
    cluster: &ObservedCluster,
    stage: StepKind,
    restart: Option<&BegunOn>,
    due: Option<&BegunOn>,
) -> Option<Progress> {
    let (old, new): (Vec<&ObservedPod>, Vec<&ObservedPod>) = cluster
        .pods
        .iter()
        .partition(|pod| is_to_be_replaced(cluster, pod, due));
    let missing = missing_pod(cluster);
    if old.is_empty() && missing.is_none() {
        return None;
    }
    let wait = |pod: &str, on: Waiting| {
        Some(Progress::Wait {
            step: StepId::restart(pod.to_owned()),
            on,
        })
    };
    let wait_for = |pod: &str, event| wait(pod, Waiting::Pod(pod.to_owned(), event));
    // The pod that was replaced last comes first.
    if let Some(away) = cluster.pods.iter().find(|pod| pod.terminating) {
        return wait_for(&away.name, PodEvent::BeReplaced);
    }
    if let Some(missing) = missing {
        return wait_for(&missing, PodEvent::BeCreated);
    }
    if let Some(progress) = converge(cluster, stage, &new, restart) {
        return Some(progress);
    }
    let is_primary = |pod: &&&ObservedPod| cluster.leader.as_ref() == Ok(&pod.name);
    let standby = old
        .iter()
        .filter(|pod| !is_primary(pod))
        .max_by_key(|pod| (cluster.serves_its_role(pod).is_err(), pod.ordinal));
    let next = match (standby, cluster.replicas) {
        (Some(pod), _) => pod,
        (None, 1) => old.first()?,
        (None, _) => return Some(switch_over(cluster, old.first()?, &new)),
    };
    if let Err(on) = may_be_evicted(cluster, next) {
        return wait(&next.name, on);
    }
    Some(Progress::Act {
        step: StepId::restart(next.name.clone()),
        purpose: Purpose::Evict(next.name.clone()),
        actions: vec![ClusterAction::Evict(PodRef {
            name: next.name.clone(),
            uid: next.uid.clone(),
        })],
    })
}

/// Every other pod serves, no switchover is under way, and the new pod will be made of the new
/// template: else it would come back as it was, and be replaced once more.
fn may_be_evicted(cluster: &ObservedCluster, pod: &ObservedPod) -> Result<(), Waiting> {
    cluster.keeps_data()?;
    let mut others = cluster.pods.iter().filter(|other| other.uid != pod.uid);
    others.try_for_each(|other| cluster.serves_its_role(other))?;
    if cluster.switchover_pending {
        return Err(Waiting::SwitchoverEnd);
    }
    if !cluster.template.is_known {
        return Err(Waiting::Template);
    }
    Ok(())
}

/// The first pod that should exist and does not.
fn missing_pod(cluster: &ObservedCluster) -> Option<String> {
    (0..cluster.replicas)
        .map(|ordinal| format!("{}-{ordinal}", cluster.database))
        .find(|name| cluster.pods.iter().all(|pod| pod.name != *name))
}

fn switch_over(cluster: &ObservedCluster, primary: &ObservedPod, new: &[&ObservedPod]) -> Progress {
    let step = StepId::from(StepKind::SwitchOver);
    let from = primary.name.clone();
    if cluster.switchover_pending {
        let on = Waiting::Handover(from);
        return Progress::Wait { step, on };
    }
    let mut pods = cluster.pods.iter();
    if let Err(on) = pods.try_for_each(|pod| cluster.serves_its_role(pod)) {
        return Progress::Wait { step, on };
    }
    let Some(to) = cluster.candidates(new).first().map(|pod| pod.name.clone()) else {
        let on = match cluster.switchover_candidates {
            SwitchoverCandidates::Any => Waiting::Candidate,
            // Asked for any other standby, Patroni would drop the request and say nothing.
            SwitchoverCandidates::Only(_) => Waiting::SynchronousStandby,
        };
        return Progress::Wait { step, on };
    };
    Progress::Act {
        step,
        purpose: Purpose::SwitchOver {
            from: from.clone(),
            to: to.clone(),
        },
        actions: vec![ClusterAction::SwitchOver { from, to }],
    }
}
