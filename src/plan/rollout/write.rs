//! What is written to come to the next posture of a walk, and when the last write is undone.

use crate::plan::action::{CertificateVolume, ClusterAction};
use crate::plan::observed::cluster::{ObservedCluster, ObservedServer};
use crate::tls::{Files, Posture};

/// The first part in which the next posture differs from the applied one: only that is written.
pub(super) fn write_next(applied: &Posture, next: &Posture) -> Vec<ClusterAction> {
    if (applied.serve, applied.accept, applied.hash) != (next.serve, next.accept, next.hash) {
        return vec![ClusterAction::WriteSettings(Posture {
            serve: next.serve,
            accept: next.accept,
            hash: next.hash,
            ..applied.clone()
        })];
    }
    match (&applied.files, &next.files) {
        (None, Some(files)) => vec![
            ClusterAction::WriteFiles(files.clone()),
            ClusterAction::WriteTemplate(CertificateVolume::Mounted),
        ],
        (Some(_), None) => vec![ClusterAction::WriteTemplate(CertificateVolume::Absent)],
        (Some(old), Some(new)) if old != new => vec![ClusterAction::WriteFiles(new.clone())],
        _ => vec![ClusterAction::WriteConninfo(Posture {
            conninfo: next.conninfo,
            ..applied.clone()
        })],
    }
}

/// Whether [`write_next`] would undo the previous write, and some pods never received that one. It
/// is undone at once then: no healthy pod should get what another pod did not survive. This happens
/// only during a rollback.
pub(super) fn would_undo_a_partial_write(cluster: &ObservedCluster, next: &Posture) -> bool {
    let applied = &cluster.applied;
    let servers = || {
        let pods = cluster.pods.iter();
        pods.filter_map(|pod| pod.server.as_ref().ok())
    };
    if servers().next().is_none() {
        return false;
    }
    if (applied.serve, applied.accept) != (next.serve, next.accept) {
        let stayed = |server: &ObservedServer| server.has_settings(next).is_ok();
        return servers().any(stayed)
            && servers().all(|server| stayed(server) || server.has_settings(applied).is_ok());
    }
    if applied.hash != next.hash {
        // No server shows how it would store a new password.
        return false;
    }
    match (&applied.files, &next.files) {
        (Some(old), Some(new)) if old != new => {
            let with_the_next_leaves = Posture {
                files: Some(Files {
                    material: new.material,
                    ..old.clone()
                }),
                ..applied.clone()
            };
            let fingerprint = |posture: &Posture| posture.served().map(|leaf| leaf.fingerprint);
            let arrived = |server: &ObservedServer| {
                server.files_current
                    && server.files_loaded
                    && server.served_leaf == fingerprint(applied)
            };
            cluster.previous == Some(new.material)
                && *next == with_the_next_leaves
                && cluster.pods.iter().any(|pod| cluster.drift(pod).is_some())
                && servers()
                    .all(|server| server.served_leaf == fingerprint(next) || arrived(server))
        }
        (Some(_), Some(_)) | (None, None) => {
            let conninfos = || servers().filter_map(|server| server.conninfo);
            conninfos().any(|conninfo| conninfo == next.conninfo)
                && conninfos()
                    .all(|conninfo| conninfo == next.conninfo || conninfo == applied.conninfo)
        }
        _ => {
            let with_the_next_files = Posture {
                files: next.files.clone(),
                ..applied.clone()
            };
            let mut pods = cluster.pods.iter();
            *next == with_the_next_files && pods.any(|pod| pod.has_files == next.files.is_some())
        }
    }
}
