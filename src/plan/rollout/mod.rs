//! The next step on the way to a posture, for operations and for renewals.
//!
//! # Expected flow
//! The caller observes the database ([`ObservedCluster`]), asks [`next_step`], executes the actions,
//! and observes again, until it gets [`Progress::Reached`]. The way is computed anew each time from
//! the applied posture: a walk has no other memory.
//!
//! # Guarantees
//! One part of the applied posture changes at a time, along [`walk()`], and only after every pod was
//! seen to show the applied posture; or the last change is undone, where some pods never received
//! it. Within one stage settings come first, then files, then the conninfo of standbys. A pod is
//! evicted, and a switchover is asked for, only while every other pod serves in its role; each pod
//! that was replaced before was seen to show the applied posture.
//!
//! # Assumptions
//! Nothing but pgrekey writes the objects of the applied posture. The invariants of walks (see
//! [`walk()`]) hold for the applied posture, whichever part of it changed last.

mod converge;
pub mod grace;
mod progress;
mod restart;
mod write;

use crate::api::StepKind;
use crate::api::ops_request::BegunOn;
use crate::plan::action::ClusterAction;
use crate::plan::observed::cluster::{ObservedCluster, ObservedPod};
use crate::plan::purpose::Purpose;
use crate::plan::waiting::Waiting;
use crate::tls::{Posture, ServerTls, published, walk};

pub use progress::Progress;

use converge::converge;
use restart::{is_being_replaced, is_to_be_replaced, restart_is_due, restart_pods};
use write::{would_undo_a_partial_write, write_next};

/// The stage of a walk to `target` that ends at the posture `at`.
#[must_use]
pub fn stage_at(at: &Posture, target: &Posture) -> StepKind {
    let material = |posture: &Posture| posture.files.as_ref().map(|files| files.material);
    let serves_target = at.serve == target.serve
        && material(at) == material(target)
        && at.conninfo == target.conninfo;
    let has_only_files =
        at.files.is_some() && at.serve == ServerTls::Plain && target.serve == ServerTls::Tls;
    if at == target {
        StepKind::Contract
    } else if has_only_files {
        StepKind::MountCertificates
    } else if serves_target || (target.serve == ServerTls::Plain && at.conninfo == target.conninfo)
    {
        StepKind::Migrate
    } else {
        StepKind::Expand
    }
}

/// The next step on the way to `target`. With `restart`, every pod that existed when that operation
/// began is replaced once.
#[must_use]
pub fn next_step(
    cluster: &ObservedCluster,
    target: &Posture,
    restart: Option<&BegunOn>,
) -> Progress {
    let applied = &cluster.applied;
    let route = walk(applied, target);
    let next = route.get(1);
    let stage = stage_at(applied, target);
    let wait = |on: Waiting| Progress::Wait {
        step: stage.into(),
        on,
    };
    let act = |purpose: Purpose, actions| Progress::Act {
        step: stage.into(),
        purpose,
        actions,
    };

    let trust = published(&route, 0);
    if !trust.is_empty() && trust != cluster.client_bundle {
        let publish = vec![ClusterAction::PublishBundle(trust)];
        return act(Purpose::PublishBundle, publish);
    }
    if let Some(next) = next
        && would_undo_a_partial_write(cluster, next)
    {
        return act(Purpose::UndoPartialWrite, write_next(applied, next));
    }
    if cluster.has_expired()
        && let Some(progress) = replace_expired(cluster, target, next, restart)
    {
        return progress;
    }
    // The pods that have to go, once it is time.
    let due = restart.filter(|_| restart_is_due(applied, target));
    let mut pods = cluster.pods.iter();
    if let Err(on) = pods.try_for_each(|pod| require_settings_unless_replaced(cluster, pod, due)) {
        return wait(on);
    }
    match cluster.stored_password_encryption() {
        Err(on) if !is_being_replaced(cluster, restart) => return wait(on),
        Ok(hash) if hash != applied.hash => {
            let rehash = vec![ClusterAction::SetPassword(applied.hash)];
            return act(Purpose::RehashPassword(applied.hash), rehash);
        }
        _ => {}
    }
    if let Some(progress) = restart_pods(cluster, stage, restart, due) {
        return progress;
    }
    let all: Vec<&ObservedPod> = cluster.pods.iter().collect();
    if let Some(progress) = converge(cluster, stage, &all, restart) {
        return progress;
    }
    match next {
        None => Progress::Reached,
        Some(next) => {
            let stage = stage_at(next, target);
            Progress::Act {
                step: stage.into(),
                purpose: Purpose::ApplyStage(stage),
                actions: write_next(applied, next),
            }
        }
    }
}

/// Replaces expired leaves before anything else. Waiting would spare no client, and pods are
/// replaced only once standbys stream again.
fn replace_expired(
    cluster: &ObservedCluster,
    target: &Posture,
    next: Option<&Posture>,
    restart: Option<&BegunOn>,
) -> Option<Progress> {
    let applied = &cluster.applied;
    let stage = stage_at(applied, target);
    let leaves = |posture: &Posture| posture.files.as_ref().map(|files| files.material);
    let replace = |purpose, next| Progress::Act {
        step: stage.into(),
        purpose,
        actions: write_next(applied, next),
    };
    let has_leaves = leaves(applied).is_some();
    if let Some(next) = next
        && has_leaves
        && leaves(next) != leaves(applied)
    {
        return Some(replace(Purpose::ReplaceExpired, next));
    }
    // A server that does not answer loads its files when it starts.
    let answering: Vec<&ObservedPod> = cluster
        .pods
        .iter()
        .filter(|pod| pod.server.is_ok() && !pod.terminating)
        .collect();
    if let Some(progress) = converge(cluster, stage, &answering, restart) {
        return Some(progress);
    }
    let next = next?;
    (has_leaves && leaves(target) != leaves(applied))
        .then(|| replace(Purpose::ContinueToReplaceExpired, next))
}

/// Settings reach every pod that answers; a pod that is being replaced comes back with them.
fn require_settings_unless_replaced(
    cluster: &ObservedCluster,
    pod: &ObservedPod,
    due: Option<&BegunOn>,
) -> Result<(), Waiting> {
    let is_away = pod.terminating || !pod.ready || pod.server.is_err();
    if is_away && (is_to_be_replaced(cluster, pod, due) || pod.server.is_err() && !pod.ready) {
        return Ok(());
    }
    cluster.has_settings(pod)
}
