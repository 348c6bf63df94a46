//! From what a look shows to what to do next on the way to a posture.
//!
//! # Expected flow
//! Somebody looks ([`ObservedCluster`]), asks [`next_step`], does what it says, and looks again,
//! until it says [`Progress::Reached`]. The way is computed anew each time, from what is written:
//! there is no other memory of where a walk stands.
//!
//! # Guarantees
//! What is written moves one part at a time, along [`walk()`], and only after every pod has been
//! seen to be what was written before; or back to what was written before that, where some pods
//! never came further. Within one step settings come first, then files, then how standbys dial. A
//! pod is evicted, and a switchover is asked for, only while every other pod serves in its role; of
//! those that were replaced already each was seen to be what is written.
//!
//! # Assumptions
//! Nobody else writes what pgrekey writes. The law of walks (see [`walk()`]) holds for the posture
//! that is written, whichever part of it was written last.
pub mod grace;

use std::fmt;

use crate::api::StepKind;
use crate::api::ops_request::BegunOn;
use crate::pki::Material;
use crate::tls::{Files, Posture, ServerTls, published, walk};

use crate::plan::action::Action;
use crate::plan::observed::candidates::SwitchoverCandidates;
use crate::plan::observed::cluster::{ObservedCluster, ObservedPod, ObservedServer, PodDrift};

/// What part of a walk something belongs to, in the words that users see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Pods get the files.
    MountCertificates,
    /// Servers take both worlds.
    Expand,
    /// The new leaves are served, and standbys dial as the target wants.
    Migrate,
    /// Only the target is accepted and trusted.
    Contract,
    /// This pod is replaced.
    Restart(String),
    /// The leadership moves.
    SwitchOver,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MountCertificates => StepKind::MountCertificates.fmt(f),
            Self::Expand => StepKind::Expand.fmt(f),
            Self::Migrate => StepKind::Migrate.fmt(f),
            Self::Contract => StepKind::Contract.fmt(f),
            Self::Restart(pod) => write!(f, "{} {pod}", StepKind::Restart),
            Self::SwitchOver => StepKind::SwitchOver.fmt(f),
        }
    }
}

impl Stage {
    /// The stage that a walk to `target` is in when it has come to `at`.
    #[must_use]
    pub fn reached_at(at: &Posture, target: &Posture) -> Self {
        let material = |posture: &Posture| posture.files.as_ref().map(|files| files.material);
        let serves_target = at.serve == target.serve
            && material(at) == material(target)
            && at.conninfo == target.conninfo;
        let is_equipped =
            at.files.is_some() && at.serve == ServerTls::Plain && target.serve == ServerTls::Tls;
        if at == target {
            Self::Contract
        } else if is_equipped {
            Self::MountCertificates
        } else if serves_target
            || (target.serve == ServerTls::Plain && at.conninfo == target.conninfo)
        {
            Self::Migrate
        } else {
            Self::Expand
        }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// Every pod is at the target, as seen on the wire, and as new as it was to be.
    Reached,
    /// Do this, then look again.
    Act {
        /// What it belongs to.
        stage: Stage,
        /// What it is for, in words.
        what: String,
        /// In this order.
        actions: Vec<Action>,
    },
    /// Nothing can be done until this has happened.
    Wait {
        /// What it belongs to.
        stage: Stage,
        /// What is waited for, in words.
        on: String,
    },
}

/// What to do next on the way to `target`. With `restart`, every pod that was there when that
/// operation began is replaced once.
#[must_use]
pub fn next_step(scene: &ObservedCluster, target: &Posture, restart: Option<&BegunOn>) -> Progress {
    let here = &scene.applied;
    let route = walk(here, target);
    let stage = Stage::reached_at(here, target);
    let wait = |on: String| Progress::Wait {
        stage: stage.clone(),
        on,
    };
    let act = |what: &str, actions| Progress::Act {
        stage: stage.clone(),
        what: what.to_owned(),
        actions,
    };

    let trust = published(&route, 0);
    if !trust.is_empty() && trust != scene.client_bundle {
        return act(
            "tell clients whom to trust",
            vec![Action::PublishBundle(trust)],
        );
    }
    if let Some(next) = route
        .get(1)
        .filter(|next| would_undo_a_partial_write(scene, next))
    {
        return act(
            "give up what some pods never came to",
            write_next(here, next),
        );
    }
    let all: Vec<&ObservedPod> = scene.pods.iter().collect();
    if scene.has_expired() {
        // Nobody is spared by waiting. And pods are replaced only once standbys stream again.
        let leaves = |posture: &Posture| posture.files.as_ref().map(|files| files.material);
        if let Some(next) = route
            .get(1)
            .filter(|next| leaves(here).is_some() && leaves(next) != leaves(here))
        {
            return act("replace what has expired", write_next(here, next));
        }
        // Who does not answer loads what is there when it starts.
        let answering: Vec<&ObservedPod> = all
            .iter()
            .copied()
            .filter(|pod| pod.server.is_ok() && !pod.terminating)
            .collect();
        if let Some(heading) = converge(scene, &stage, &answering, restart) {
            return heading;
        }
        if let Some(next) = route
            .get(1)
            .filter(|_| leaves(here).is_some() && leaves(target) != leaves(here))
        {
            return act("go on, to replace what has expired", write_next(here, next));
        }
    }
    // Those that are to go, once it is time.
    let due = restart.filter(|_| restart_is_due(here, target));
    if let Err(on) = scene
        .pods
        .iter()
        .try_for_each(|pod| require_settings_unless_replaced(scene, pod, due))
    {
        return wait(on);
    }
    match scene.stored_password_encryption() {
        Err(on) if !is_being_replaced(scene, restart) => return wait(on),
        Ok(hash) if hash != here.hash => {
            return act(
                "store the superuser's password anew",
                vec![Action::SetPassword(here.hash)],
            );
        }
        _ => {}
    }
    if let Some(heading) = restart_pods(scene, &stage, restart, due) {
        return heading;
    }
    if let Some(heading) = converge(scene, &stage, &all, restart) {
        return heading;
    }
    match route.get(1) {
        None => Progress::Reached,
        Some(next) => Progress::Act {
            stage: Stage::reached_at(next, target),
            what: "go on to the next posture".to_owned(),
            actions: write_next(here, next),
        },
    }
}

/// Settings reach every pod that answers; one that is being replaced comes back with them.
fn require_settings_unless_replaced(
    scene: &ObservedCluster,
    pod: &ObservedPod,
    due: Option<&BegunOn>,
) -> Result<(), String> {
    let is_away = pod.terminating || !pod.ready || pod.server.is_err();
    if is_away && (is_to_be_replaced(scene, pod, due) || pod.server.is_err() && !pod.ready) {
        return Ok(());
    }
    scene.has_settings(pod)
}

/// The first part in which the next posture differs: all that is written at a time.
fn write_next(here: &Posture, next: &Posture) -> Vec<Action> {
    if (here.serve, here.accept, here.hash) != (next.serve, next.accept, next.hash) {
        let settings = Posture {
            serve: next.serve,
            accept: next.accept,
            hash: next.hash,
            ..here.clone()
        };
        return vec![Action::WriteSettings(settings)];
    }
    match (&here.files, &next.files) {
        (None, Some(files)) => vec![
            Action::WriteFiles(files.clone()),
            Action::WriteTemplate { files: true },
        ],
        (Some(_), None) => vec![Action::WriteTemplate { files: false }],
        (Some(old), Some(new)) if old != new => vec![Action::WriteFiles(new.clone())],
        _ => vec![Action::WriteConninfo(Posture {
            conninfo: next.conninfo,
            ..here.clone()
        })],
    }
}

/// Whether the part that [`write_next`] would write is the one that was written before: some pods
/// are there still, and all others are where it was to lead. Only a way back leads there.
fn would_undo_a_partial_write(scene: &ObservedCluster, next: &Posture) -> bool {
    let here = &scene.applied;
    let servers = || scene.pods.iter().filter_map(|pod| pod.server.as_ref().ok());
    if servers().next().is_none() {
        return false;
    }
    if (here.serve, here.accept) != (next.serve, next.accept) {
        let stayed = |server: &ObservedServer| server.has_settings(next).is_ok();
        return servers().any(stayed)
            && servers().all(|server| stayed(server) || server.has_settings(here).is_ok());
    }
    if here.hash != next.hash {
        // No server shows how new passwords are to be stored.
        return false;
    }
    match (&here.files, &next.files) {
        (Some(old), Some(new)) if old != new => {
            let with_those_leaves = Files {
                material: new.material,
                ..old.clone()
            };
            let fingerprint = |posture: &Posture| posture.served().map(|leaf| leaf.fingerprint);
            let came = |server: &ObservedServer| {
                server.files_current
                    && server.files_loaded
                    && server.served_leaf == fingerprint(here)
            };
            scene.previous == Some(new.material)
                && *next
                    == Posture {
                        files: Some(with_those_leaves),
                        ..here.clone()
                    }
                && scene.pods.iter().any(|pod| scene.drift(pod).is_some())
                && servers().all(|server| server.served_leaf == fingerprint(next) || came(server))
        }
        (Some(_), Some(_)) | (None, None) => {
            let dials = || servers().filter_map(|server| server.conninfo);
            dials().any(|dial| dial == next.conninfo)
                && dials().all(|dial| dial == next.conninfo || dial == here.conninfo)
        }
        _ => {
            *next
                == Posture {
                    files: next.files.clone(),
                    ..here.clone()
                }
                && scene
                    .pods
                    .iter()
                    .any(|pod| pod.has_files == next.files.is_some())
        }
    }
}

/// The pods are replaced when what they will serve is written: with the files that come or go, else
/// before the walk contracts.
fn restart_is_due(here: &Posture, target: &Posture) -> bool {
    let material = |posture: &Posture| -> Option<Material> {
        posture.files.as_ref().map(|files| files.material)
    };
    (here.serve, material(here), here.conninfo) == (target.serve, material(target), target.conninfo)
}

/// Whether the primary is away because it is being replaced, which is for the roll to wait for.
fn is_being_replaced(scene: &ObservedCluster, restart: Option<&BegunOn>) -> bool {
    let is_primary = |pod: &&ObservedPod| scene.leader.as_ref() == Ok(&pod.name);
    let primary = scene.pods.iter().find(is_primary);
    primary.is_none_or(|pod| pod.terminating || !pod.ready)
        && (restart.is_some() || missing_pod(scene).is_some())
}

/// Whether a pod is one of those that are to go by now, or of an older make than the template, in
/// what this way cares about.
fn is_to_be_replaced(scene: &ObservedCluster, pod: &ObservedPod, due: Option<&BegunOn>) -> bool {
    due.is_some_and(|begun_on| begun_on.has_pod(&pod.uid))
        || pod.has_files != scene.template.has_files
}

/// Replaces pods, one at a time: standbys by falling ordinal, then the leadership moves, then the
/// old primary.
fn restart_pods(
    scene: &ObservedCluster,
    stage: &Stage,
    restart: Option<&BegunOn>,
    due: Option<&BegunOn>,
) -> Option<Progress> {
    let (old, new): (Vec<&ObservedPod>, Vec<&ObservedPod>) = scene
        .pods
        .iter()
        .partition(|pod| is_to_be_replaced(scene, pod, due));
    let restarting = |pod: &str| Stage::Restart(pod.to_owned());
    if old.is_empty() && missing_pod(scene).is_none() {
        return None;
    }
    // Whoever is away is who was replaced last.
    if let Some(away) = scene.pods.iter().find(|pod| pod.terminating) {
        return Some(Progress::Wait {
            stage: restarting(&away.name),
            on: format!("{} to be replaced", away.name),
        });
    }
    if let Some(missing) = missing_pod(scene) {
        return Some(Progress::Wait {
            stage: restarting(&missing),
            on: format!("{missing} to be created"),
        });
    }
    if let Some(heading) = converge(scene, stage, &new, restart) {
        return Some(heading);
    }
    let is_primary = |pod: &&&ObservedPod| scene.leader.as_ref() == Ok(&pod.name);
    let standby = old
        .iter()
        .filter(|pod| !is_primary(pod))
        .max_by_key(|pod| (scene.serves_its_role(pod).is_err(), pod.ordinal));
    let next = match (standby, scene.replicas) {
        (Some(pod), _) => pod,
        (None, 1) => old.first()?,
        (None, _) => return Some(switch_over(scene, old.first()?, &new)),
    };
    let stage = restarting(&next.name);
    if let Err(on) = scene.keeps_data() {
        return Some(Progress::Wait { stage, on });
    }
    let others = || scene.pods.iter().filter(|pod| pod.uid != next.uid);
    if let Err(on) = others().try_for_each(|pod| scene.serves_its_role(pod)) {
        return Some(Progress::Wait { stage, on });
    }
    if scene.switchover_pending {
        return Some(Progress::Wait {
            stage,
            on: "the switchover to end".to_owned(),
        });
    }
    // Else it would come back as it was, and be replaced once more.
    if !scene.template.is_known {
        return Some(Progress::Wait {
            stage,
            on: "the PetSet's controller to see what new pods are made of".to_owned(),
        });
    }
    let actions = vec![Action::Evict {
        pod: next.name.clone(),
        uid: next.uid.clone(),
    }];
    Some(Progress::Act {
        stage,
        what: format!("evict {}", next.name),
        actions,
    })
}

/// The first pod that should be there and is not.
fn missing_pod(scene: &ObservedCluster) -> Option<String> {
    (0..scene.replicas)
        .map(|ordinal| format!("{}-{ordinal}", scene.database))
        .find(|name| scene.pods.iter().all(|pod| pod.name != *name))
}

fn switch_over(scene: &ObservedCluster, primary: &ObservedPod, new: &[&ObservedPod]) -> Progress {
    let stage = Stage::SwitchOver;
    if scene.switchover_pending {
        return Progress::Wait {
            stage,
            on: format!("{} to hand the leadership over", primary.name),
        };
    }
    if let Err(on) = scene
        .pods
        .iter()
        .try_for_each(|pod| scene.serves_its_role(pod))
    {
        return Progress::Wait { stage, on };
    }
    let Some(to) = scene.candidates(new).first().map(|pod| pod.name.clone()) else {
        let on = match scene.switchover_candidates {
            SwitchoverCandidates::Any => "a standby that is up to date, to lead next",
            // Asked for anybody else, it would drop the wish and say nothing.
            SwitchoverCandidates::Only(_) => "Patroni to make a standby synchronous",
        };
        return Progress::Wait {
            stage,
            on: on.to_owned(),
        };
    };
    let what = format!("hand the leadership over from {} to {to}", primary.name);
    Progress::Act {
        stage,
        what,
        actions: vec![Action::SwitchOver {
            from: primary.name.clone(),
            to,
        }],
    }
}

/// Makes these pods what is written: volumes of all, then servers, standbys before the primary,
/// then agents.
fn converge(
    scene: &ObservedCluster,
    stage: &Stage,
    pods: &[&ObservedPod],
    restart: Option<&BegunOn>,
) -> Option<Progress> {
    let lacks: Vec<(&ObservedPod, PodDrift)> = pods
        .iter()
        .filter_map(|pod| Some((*pod, scene.drift(pod)?)))
        .collect();
    // A pod that does not serve yet is still being restarted.
    let is_coming = |pod: &&ObservedPod| {
        restart.is_some_and(|begun_on| !begun_on.has_pod(&pod.uid))
            && scene.serves_its_role(pod).is_err()
    };
    let coming = lacks.iter().map(|(pod, _)| *pod).find(is_coming);
    let stage = coming.map_or(stage.clone(), |pod| Stage::Restart(pod.name.clone()));
    let of = |wanted: &PodDrift| {
        lacks
            .iter()
            .filter(|(_, lack)| lack == wanted)
            .map(|(pod, _)| *pod)
            .collect::<Vec<_>>()
    };
    let act = |what: &str, actions: Vec<Action>| {
        Some(Progress::Act {
            stage: stage.clone(),
            what: what.to_owned(),
            actions,
        })
    };
    // Who does not come up may be held back by what its volumes hold.
    let is_stuck = |pod: &&ObservedPod| {
        restart.is_none()
            && pod.server.is_err()
            && !pod.terminating
            && pod.refreshed_for.as_ref() != Some(&scene.volume_version)
    };
    let stuck = lacks.iter().map(|(pod, _)| *pod).filter(is_stuck);
    let stale: Vec<&ObservedPod> = of(&PodDrift::StaleVolume)
        .into_iter()
        .chain(stuck)
        .collect();
    if !stale.is_empty() {
        let touch = |pod: &&ObservedPod| {
            let ObservedPod { name, uid, .. } = *pod;
            Action::Touch {
                pod: name.clone(),
                uid: uid.clone(),
                version: scene.volume_version.clone(),
            }
        };
        return act(
            "bring the new files to the pods",
            stale.iter().map(touch).collect(),
        );
    }
    if let Some(on) = lacks.iter().find_map(|(_, lack)| match lack {
        PodDrift::Waiting(on) => Some(on.clone()),
        _ => None,
    }) {
        return Some(Progress::Wait {
            stage: stage.clone(),
            on,
        });
    }
    let is_primary = |pod: &&ObservedPod| scene.leader.as_ref() == Ok(&pod.name);
    let (primary, standbys): (Vec<&ObservedPod>, Vec<&ObservedPod>) =
        of(&PodDrift::NotReloaded).into_iter().partition(is_primary);
    let unloaded = if standbys.is_empty() {
        primary
    } else {
        standbys
    };
    if !unloaded.is_empty() {
        let reload = |pod: &&ObservedPod| Action::ReloadServer {
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
        };
        return act("load the new files", unloaded.iter().map(reload).collect());
    }
    if of(&PodDrift::StaleConninfo).is_empty() {
        return None;
    }
    // All of them, the primary first: only a standby shows that its agent has read the file, and
    // when the last of them does, the primary's agent has read it too.
    let mut agents = scene.pods.iter().collect::<Vec<_>>();
    agents.sort_by_key(|pod| !is_primary(pod));
    let reload = |pod: &&ObservedPod| Action::ReloadPatroni {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
    };
    act("dial as is written", agents.iter().map(reload).collect())
}
