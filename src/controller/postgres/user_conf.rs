//! The settings that come from a Secret, brought to the servers; and what waits for a restart, of
//! whatever settings.
//!
//! # Expected flow
//! The loop of the databases has written Secret `NAME-user-conf`, which every pod mounts. A pod has
//! it as it is once the kubelet has looked at it, which a changed annotation makes it do, and the
//! server has it once it has read its files again. What it cannot take without a restart it says by
//! itself, which becomes condition `RestartPending`. Patroni brings its shared configuration to the
//! servers by itself, a little later; so servers are asked once more then.
//!
//! # Guarantees
//! What a server does not take of the file is left out of it until the user's Secret changes, and
//! told: no server would start with it. No value is read from a server, and none is told to
//! anybody.
//!
//! # Assumptions
//! A pod that is not ready has the file as it is when it starts, or is asked once it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::runtime::events::EventType;
use tracing::debug;

use crate::api::Postgres;
use crate::api::annotations::{LEFT_OUT, REFRESHED_FOR};
use crate::api::condition;
use crate::api::condition::CONFIGURATION_NOT_TAKEN;
use crate::build::patroni::dynamic;
use crate::build::{Cluster, secrets, user_conf};
use crate::cluster::Objects;
use crate::controller::Context;
use crate::controller::execute::Executor;
use crate::controller::observe::cluster::ClusterObjects;
use crate::controller::outcome::{Interrupt, ReconcileResult};
use crate::controller::postgres::status;
use crate::controller::state::{LoadedConf, RefusedSettings};
use crate::database::server_status::mounted_files;
use crate::database::settings::{PendingSettings, settings};
use crate::pki::issued::Cas;
use crate::plan::ClusterAction;
use crate::plan::action::PodRef;
use crate::plan::observed::instance::{is_ready, sha256_hex};
use crate::plan::status::database::types::RESTART_PENDING;
use crate::tls::Posture;

/// How long until servers are asked again that are on their way.
const SOON: Duration = Duration::from_secs(2);

/// A server that has not read its files by then does not: one of them has a name in it that it does
/// not know.
const STUCK: Duration = Duration::from_mins(3);

/// How long Patroni may take to bring its shared configuration to a server: a round of its loop, a
/// reload, and its patience.
const PATRONIS_TIME: Duration = Duration::from_secs(20);

/// How long until servers are asked again that wait for a restart, or that did not answer.
const PENDING: Duration = Duration::from_secs(30);

/// How long until servers are asked again that have everything: somebody may change them by hand.
const RARELY: Duration = Duration::from_mins(10);

/// What is not written for servers, because one of them did not take it: none would start with it.
fn left_out(context: &Context, postgres: &Postgres, cluster: &Cluster) -> BTreeSet<String> {
    let refused = context
        .state(postgres)
        .refused
        .filter(|refused| refused.of == whole(cluster));
    refused.map(|refused| refused.names).unwrap_or_default()
}

/// Writes Secret `NAME-user-conf`, and on it what is left out of it: a server that starts while
/// nobody remembers must not get it.
pub(crate) async fn write(
    context: &Context,
    postgres: &Postgres,
    objects: &Objects,
    cluster: &Cluster,
) -> ReconcileResult<()> {
    let live: Option<Secret> = objects.get(&cluster.names().user_conf_secret()).await?;
    if context.state(postgres).refused.is_none() {
        let written = live
            .as_ref()
            .and_then(|secret| RefusedSettings::read(secret.annotations().get(LEFT_OUT)?));
        context.update_state(postgres, |memory| memory.refused = written);
    }
    let names = left_out(context, postgres, cluster);
    let mut secret = secrets::user_conf(cluster, &names);
    if !names.is_empty() {
        let refused = RefusedSettings {
            of: whole(cluster),
            names,
        };
        secret
            .annotations_mut()
            .insert(LEFT_OUT.to_owned(), refused.written());
    }
    objects.apply_over(live.as_ref(), secret).await?;
    Ok(())
}

fn whole(cluster: &Cluster) -> String {
    sha256_hex(&secrets::user_conf_file(cluster, &BTreeSet::new()))
}

/// What all servers that are ready were seen to have.
#[derive(Debug, Default)]
struct SpreadObservation {
    /// By pod, those that answered.
    seen: BTreeMap<String, PodSettings>,
    /// Whether one did not.
    is_partial: bool,
}

/// What one server was seen to have.
#[derive(Debug, Default)]
struct PodSettings {
    /// Its pod has the file at all: an earlier pgrekey made pods that have not.
    has_file: bool,
    /// The file is as it is to be.
    is_current: bool,
    /// The server has read it since.
    is_loaded: bool,
    said: PendingSettings,
}

/// Brings the settings of a Secret to every server that is ready, and says what waits for a
/// restart. Returns when to look again.
pub(crate) async fn spread(
    context: &Context,
    postgres: &Postgres,
    cluster: &Cluster,
    posture: &Posture,
) -> ReconcileResult<Duration> {
    let mut left_out = left_out(context, postgres, cluster);
    let file = secrets::user_conf_file(cluster, &left_out);
    let pods = context
        .watched
        .workload(postgres)
        .map(|workload| context.watched.pods(postgres, &workload));
    let pods = pods.unwrap_or_default();
    let ready: Vec<String> = pods
        .iter()
        .filter(|pod| is_ready(pod))
        .filter_map(|pod| pod.uid())
        .collect();
    let shared = dynamic::config(cluster, posture).to_string();
    let what = sha256_hex(&[file.as_str(), &shared, &ready.concat()].concat());
    let now = context.now();
    let known = context
        .state(postgres)
        .taken
        .filter(|taken| taken.what == what);
    let pause = match &known {
        Some(taken) if taken.again > now => {
            Duration::try_from(taken.again.duration_since(now)).unwrap_or_default()
        }
        _ if ready.is_empty() => RARELY,
        _ => {
            let site = ClusterObjects::observe(context, postgres, None).await?;
            let look = observe(context, &site, &file).await?;
            tell(context, postgres, waiting(&look.seen, &file)).await?;
            // Who still has another file speaks of that one.
            let current = look.seen.values().filter(|seen| seen.is_current);
            left_out.extend(
                current
                    .flat_map(|seen| names(&seen.said.refused))
                    .map(str::to_owned),
            );
            let first = known.map_or(now, |taken| taken.first);
            let pause = pause(&look, &file, now.duration_since(first).unsigned_abs());
            let taken = LoadedConf {
                what,
                first,
                again: now.checked_add(pause).unwrap_or(now),
            };
            let refused = (!left_out.is_empty()).then(|| RefusedSettings {
                of: whole(cluster),
                names: left_out.clone(),
            });
            context.update_state(postgres, |memory| {
                (memory.taken, memory.refused) = (Some(taken), refused)
            });
            pause
        }
    };
    refused(&left_out).map_or(Ok(pause), |why| {
        Err(Interrupt::Blocked(CONFIGURATION_NOT_TAKEN, why))
    })
}

/// How long until servers are asked again, which were first seen to have all of it so long ago.
fn pause(look: &SpreadObservation, file: &str, known_for: Duration) -> Duration {
    let any = |is: &dyn Fn(&PodSettings) -> bool| look.seen.values().any(is);
    let lags = any(&|seen| seen.has_file && !(seen.is_current && seen.is_loaded));
    if lags && known_for < STUCK {
        SOON
    } else if known_for < PATRONIS_TIME {
        PATRONIS_TIME
    } else if lags || look.is_partial || any(&|seen| seen.waits(file)) {
        PENDING
    } else {
        RARELY
    }
}

/// Asks every server that is ready, and does what brings it on. Who does not answer is asked
/// another time.
async fn observe(
    context: &Context,
    site: &ClusterObjects,
    file: &str,
) -> ReconcileResult<SpreadObservation> {
    let secret: Option<Secret> = site
        .objects
        .get(&site.cluster.names().user_conf_secret())
        .await?;
    // Not a hash of what is in it: that would let others try out what it may be.
    let version = format!(
        "user-conf-{}",
        secret
            .and_then(|secret| secret.resource_version())
            .unwrap_or_default()
    );
    let more_cas = Cas::new();
    let hands = Executor {
        context,
        site,
        wished: &site.cluster,
        issued: None,
        more_cas,
        operation: None,
    };
    let mut look = SpreadObservation::default();
    for pod in site.pods.iter().filter(|pod| is_ready(pod)) {
        let asked = async {
            let seen = ask(&hands, pod, file).await?;
            if let Some(action) = next(pod, &seen, &version) {
                hands.execute(&action).await?;
            }
            Ok(seen)
        };
        match asked.await {
            Ok(seen) => drop(look.seen.insert(pod.name_any(), seen)),
            Err(Interrupt::Wait(what)) => {
                debug!(pod = pod.name_any(), what, "its settings are not known");
                look.is_partial = true;
            }
            Err(stop) => return Err(stop),
        }
    }
    Ok(look)
}

async fn ask(hands: &Executor<'_>, pod: &Pod, file: &str) -> ReconcileResult<PodSettings> {
    let path = user_conf::path();
    let session = hands.log_in(pod).await?;
    let silent = |silence| hands.retry(pod, &silence);
    let mounted = mounted_files(&session, &[&path], &[&path])
        .await
        .map_err(silent)?;
    Ok(PodSettings {
        has_file: user_conf::has_user_conf(pod),
        is_current: mounted.files.get(&path) == Some(&sha256_hex(file)),
        is_loaded: mounted.loaded,
        said: settings(&session, &path).await.map_err(silent)?,
    })
}

/// What brings a server on, if anything does.
fn next(pod: &Pod, seen: &PodSettings, version: &str) -> Option<ClusterAction> {
    let pod_ref = PodRef {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
    };
    if !seen.has_file {
        return None;
    }
    if !seen.is_current {
        let is_told = pod
            .annotations()
            .get(REFRESHED_FOR)
            .is_some_and(|told| told == version);
        return (!is_told).then(|| ClusterAction::Touch {
            pod: pod_ref,
            version: version.to_owned(),
        });
    }
    (!seen.is_loaded).then_some(ClusterAction::ReloadServer(pod_ref))
}

impl PodSettings {
    /// Whether it does not have the file, which says something.
    fn lacks(&self, file: &str) -> bool {
        !self.has_file && file.lines().any(|line| !line.starts_with('#'))
    }

    fn waits(&self, file: &str) -> bool {
        !self.said.pending.is_empty() || self.lacks(file)
    }
}

/// The names that a server gave, as far as they are names.
fn names(given: &BTreeSet<String>) -> impl Iterator<Item = &str> {
    let is_name = |name: &&str| {
        name.len() <= 63
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_.".contains(c))
    };
    given.iter().map(String::as_str).filter(is_name)
}

/// What waits for a restart, and where.
fn waiting(seen: &BTreeMap<String, PodSettings>, file: &str) -> Option<String> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (pod, seen) in seen {
        for name in names(&seen.said.pending)
            .chain(seen.lacks(file).then_some("the settings of the Secret"))
        {
            all.entry(name).or_default().push(pod);
        }
    }
    let all: Vec<String> = all
        .iter()
        .map(|(name, pods)| format!("{name} ({})", pods.join(", ")))
        .collect();
    let what = (!all.is_empty()).then(|| all.join("; "))?;
    Some(format!(
        "what is set waits for a restart: {what}: create a PostgresOpsRequest of type Restart"
    ))
}

/// What servers do not take, in words.
fn refused(left_out: &BTreeSet<String>) -> Option<String> {
    let what = (!left_out.is_empty()).then(|| {
        left_out
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    })?;
    let why =
        "as the Secret sets it: it is left out, because no server would start with it; correct it";
    Some(format!(
        "spec.configuration.secretName: PostgreSQL does not take {what} {why}"
    ))
}

async fn tell(
    context: &Context,
    postgres: &Postgres,
    waiting: Option<String>,
) -> ReconcileResult<()> {
    let known = condition::find(postgres.conditions(), RESTART_PENDING)
        .and_then(|known| known.message.clone());
    if known == waiting {
        return Ok(());
    }
    status::write(context, postgres, |writer| {
        writer.restart_pending(waiting.as_deref())
    })
    .await?;
    if let Some(message) = waiting {
        context
            .publish_event(postgres, EventType::Normal, RESTART_PENDING, message)
            .await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# pgrekey writes this file.\nwork_mem = '1MB'\n";

    fn pod(refreshed: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some("pg-0".to_owned());
        pod.metadata.uid = Some("1".to_owned());
        pod.annotations_mut()
            .insert(REFRESHED_FOR.to_owned(), refreshed.to_owned());
        pod
    }

    fn seen(is_current: bool, is_loaded: bool, pending: &[&str]) -> PodSettings {
        let pending = pending.iter().map(|name| (*name).to_owned()).collect();
        PodSettings {
            has_file: true,
            is_current,
            is_loaded,
            said: PendingSettings {
                pending,
                ..PendingSettings::default()
            },
        }
    }

    #[test]
    fn a_pod_is_touched_once_for_a_changed_secret_and_its_server_reloaded_when_it_has_the_file() {
        let pod_ref = PodRef {
            name: "pg-0".to_owned(),
            uid: "1".to_owned(),
        };
        let touch = ClusterAction::Touch {
            pod: pod_ref.clone(),
            version: "v2".to_owned(),
        };
        let reload = ClusterAction::ReloadServer(pod_ref);
        assert_eq!(next(&pod("v1"), &seen(false, true, &[]), "v2"), Some(touch));
        assert_eq!(next(&pod("v2"), &seen(false, true, &[]), "v2"), None);
        assert_eq!(
            next(&pod("v2"), &seen(true, false, &[]), "v2"),
            Some(reload)
        );
        assert_eq!(
            next(&pod("v2"), &seen(true, true, &["max_connections"]), "v2"),
            None
        );
        assert_eq!(next(&pod("v1"), &PodSettings::default(), "v2"), None);
    }

    #[test]
    fn what_waits_for_a_restart_is_said_by_name_and_pod() {
        let all = |seen: [PodSettings; 2]| {
            ["pg-0", "pg-1"]
                .map(str::to_owned)
                .into_iter()
                .zip(seen)
                .collect()
        };
        assert_eq!(
            waiting(&all([seen(true, true, &[]), seen(true, true, &[])]), FILE),
            None
        );
        let some = all([
            seen(true, true, &["max_connections", "wal_level"]),
            seen(true, true, &["max_connections"]),
        ]);
        let said = waiting(&some, FILE).expect("something waits");
        assert!(
            said.contains("max_connections (pg-0, pg-1); wal_level (pg-0)"),
            "{said}"
        );
        let old = all([seen(true, true, &[]), PodSettings::default()]);
        assert!(
            waiting(&old, FILE)
                .is_some_and(|said| said.contains("the settings of the Secret (pg-1)"))
        );
        assert_eq!(waiting(&old, "# pgrekey writes this file.\n"), None);
        let strange = all([
            seen(true, true, &["a\nb", "'; drop"]),
            seen(true, true, &[]),
        ]);
        assert_eq!(waiting(&strange, FILE), None);
    }

    #[test]
    fn servers_are_asked_again_when_patroni_has_had_its_time_and_rarely_when_nothing_waits() {
        let look = |seen| SpreadObservation {
            seen: [("pg-0".to_owned(), seen)].into(),
            is_partial: false,
        };
        let (fine, waits) = (
            look(seen(true, true, &[])),
            look(seen(true, true, &["max_connections"])),
        );
        assert_eq!(
            pause(&look(seen(true, false, &[])), FILE, PATRONIS_TIME),
            SOON
        );
        assert_eq!(pause(&look(seen(true, false, &[])), FILE, STUCK), PENDING);
        assert_eq!(pause(&waits, FILE, Duration::ZERO), PATRONIS_TIME);
        assert_eq!(pause(&waits, FILE, PATRONIS_TIME), PENDING);
        assert_eq!(
            pause(
                &SpreadObservation {
                    is_partial: true,
                    ..SpreadObservation::default()
                },
                FILE,
                PATRONIS_TIME
            ),
            PENDING
        );
        assert_eq!(pause(&fine, FILE, PATRONIS_TIME), RARELY);
    }

    #[test]
    fn what_servers_do_not_take_is_told_by_name() {
        assert_eq!(refused(&BTreeSet::new()), None);
        let told = refused(&["log_timezone", "timezone"].map(str::to_owned).into());
        assert!(told.is_some_and(|told| {
            told.contains("does not take log_timezone, timezone as the Secret")
        }));
    }
}
