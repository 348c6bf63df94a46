//! The settings of a user's Secret, brought to the servers; and the settings of any source that
//! wait for a restart.
//!
//! # Expected flow
//! The reconcile of a database writes Secret `NAME-user-conf`, which every pod mounts. Each server
//! is brought to mount and to load it, step by step ([`crate::plan::user_conf`]). A server says
//! itself which settings wait for a restart; they become condition `RestartPending`. Patroni brings
//! its shared configuration to the servers by itself, a little later, so servers are asked again
//! then.
//!
//! # Guarantees
//! A setting that a server does not accept is left out of the file until the user's Secret changes,
//! and reported: no server would start with it. No value is read from a server, and none is
//! reported.
//!
//! # Assumptions
//! A pod that is not ready mounts the current file when it starts, or is asked once it is ready.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use tracing::debug;

use crate::api::annotations::{LEFT_OUT, REFRESHED_FOR};
use crate::api::condition;
use crate::api::condition::CONFIGURATION_NOT_TAKEN;
use crate::build::patroni::dynamic;
use crate::build::{secrets, user_conf};
use crate::controller::execute::Executor;
use crate::controller::observe::cluster::ClusterObjects;
use crate::controller::outcome::{Interrupt, ReconcileResult, ServerCall};
use crate::controller::postgres::database::ReconciledDatabase;
use crate::controller::postgres::status;
use crate::controller::state::{LoadedConf, RefusedSettings};
use crate::database::server_status::mounted_files;
use crate::database::settings::{PendingSettings, settings};
use crate::plan::action::PodRef;
use crate::plan::observed::instance::{is_ready, sha256_hex};
use crate::plan::status::database::types::RESTART_PENDING;
use crate::plan::user_conf::{
    ObservedSettings, REQUEUE_WHEN_LOADED, ServerSettings, SettingsStep, left_out_message,
};
use crate::tls::Posture;

impl ReconciledDatabase<'_> {
    /// Writes Secret `NAME-user-conf`. The settings that are left out of it are also written on it:
    /// after a restart of pgrekey no server may get them.
    pub(crate) async fn write_user_conf(&self) -> ReconcileResult<()> {
        let live: Option<Secret> = self
            .objects
            .get(&self.cluster.names().user_conf_secret())
            .await?;
        if self.context.state(self.postgres).refused.is_none() {
            let written = live
                .as_ref()
                .and_then(|secret| RefusedSettings::parse(secret.annotations().get(LEFT_OUT)?));
            self.context
                .update_state(self.postgres, |state| state.refused = written);
        }
        let names = self.left_out();
        let mut secret = secrets::user_conf(&self.cluster, &names);
        if !names.is_empty() {
            let refused = RefusedSettings {
                file: self.complete_file(),
                names,
            };
            secret
                .annotations_mut()
                .insert(LEFT_OUT.to_owned(), refused.to_annotation());
        }
        self.objects.apply_over(live.as_ref(), secret).await?;
        Ok(())
    }

    /// Brings the settings of the Secret to every server that is ready, and reports the settings
    /// that wait for a restart. Returns when to do so again.
    pub(crate) async fn spread_user_conf(&self, posture: &Posture) -> ReconcileResult<Duration> {
        let left_out = self.left_out();
        let file = secrets::user_conf_file(&self.cluster, &left_out);
        let ready = self.ready_pods();
        let shared = dynamic::config(&self.cluster, posture).to_string();
        let target = sha256_hex(&[file.as_str(), &shared, &ready.concat()].concat());
        let now = self.context.now();
        let known = self
            .context
            .state(self.postgres)
            .loaded_conf
            .filter(|loaded| loaded.target == target);
        let mut left_out = left_out;
        let next_check = match &known {
            Some(loaded) if loaded.next_check > now => {
                Duration::try_from(loaded.next_check.duration_since(now)).unwrap_or_default()
            }
            _ if ready.is_empty() => REQUEUE_WHEN_LOADED,
            _ => {
                let observed = self.advance_servers(&file).await?;
                self.report_restart_pending(observed.restart_pending(&file))
                    .await?;
                left_out.extend(observed.refused().map(str::to_owned));
                let first_check = known.map_or(now, |loaded| loaded.first_check);
                let asked_for = now.duration_since(first_check).unsigned_abs();
                let pause = observed.next_check(&file, asked_for);
                self.remember(
                    LoadedConf {
                        target,
                        first_check,
                        next_check: now.checked_add(pause).unwrap_or(now),
                    },
                    left_out.clone(),
                );
                pause
            }
        };
        match left_out_message(&left_out) {
            None => Ok(next_check),
            Some(why) => Err(Interrupt::Blocked(CONFIGURATION_NOT_TAKEN, why)),
        }
    }

    /// The settings that are left out of the file because a server did not accept them: no server
    /// would start with them.
    fn left_out(&self) -> BTreeSet<String> {
        let refused = self.context.state(self.postgres).refused;
        refused
            .filter(|refused| refused.file == self.complete_file())
            .map(|refused| refused.names)
            .unwrap_or_default()
    }

    /// Names the file with all settings of the user's Secret.
    fn complete_file(&self) -> String {
        sha256_hex(&secrets::user_conf_file(&self.cluster, &BTreeSet::new()))
    }

    /// The uids of the pods that are ready.
    fn ready_pods(&self) -> Vec<String> {
        let watched = &self.context.watched;
        let Ok(workload) = watched.workload(self.postgres) else {
            return vec![];
        };
        let pods = watched.pods(self.postgres, &workload);
        pods.iter()
            .filter(|pod| is_ready(pod))
            .filter_map(|pod| pod.uid())
            .collect()
    }

    fn remember(&self, loaded: LoadedConf, left_out: BTreeSet<String>) {
        let refused = (!left_out.is_empty()).then(|| RefusedSettings {
            file: self.complete_file(),
            names: left_out,
        });
        self.context.update_state(self.postgres, |state| {
            (state.loaded_conf, state.refused) = (Some(loaded), refused);
        });
    }

    /// Asks every server that is ready, and brings it one step on.
    async fn advance_servers(&self, file: &str) -> ReconcileResult<ObservedSettings> {
        let site = ClusterObjects::observe(self.context, self.postgres, None).await?;
        let secret: Option<Secret> = site
            .objects
            .get(&site.cluster.names().user_conf_secret())
            .await?;
        // Not a hash of the content: others could try out by it what the content may be.
        let version = format!(
            "user-conf-{}",
            secret
                .and_then(|secret| secret.resource_version())
                .unwrap_or_default()
        );
        let executor = Executor::without_operation(self.context, &site, None);
        let mut observed = ObservedSettings::default();
        for pod in site.pods.iter().filter(|pod| is_ready(pod)) {
            match advance_server(&executor, pod, file, &version).await {
                Ok(settings) => drop(observed.pods.insert(pod.name_any(), settings)),
                // It is asked again at the next check.
                Err(Interrupt::Wait(pending)) => {
                    debug!(pod = pod.name_any(), %pending, "its settings are not known");
                    observed.is_partial = true;
                }
                Err(interrupt) => return Err(interrupt),
            }
        }
        Ok(observed)
    }

    async fn report_restart_pending(&self, message: Option<String>) -> ReconcileResult<()> {
        let known = condition::find(self.postgres.conditions(), RESTART_PENDING)
            .and_then(|known| known.message.clone());
        if known == message {
            return Ok(());
        }
        status::write(self.context, self.postgres, |writer| {
            writer.restart_pending(message.as_deref());
        })
        .await?;
        if let Some(message) = message {
            self.publish_event(RESTART_PENDING, message).await;
        }
        Ok(())
    }
}

/// Asks a server which settings it has, and brings it one step on.
async fn advance_server(
    executor: &Executor<'_>,
    pod: &Pod,
    file: &str,
    version: &str,
) -> ReconcileResult<ServerSettings> {
    let settings = read_settings(executor, pod, file).await?;
    let refreshed_for = pod.annotations().get(REFRESHED_FOR).map(String::as_str);
    let pod_ref = PodRef {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
    };
    match settings.next_step(refreshed_for, version) {
        None => {}
        Some(SettingsStep::TouchPod) => executor.touch(&pod_ref, version).await?,
        Some(SettingsStep::Reload) => executor.reload_server(&pod_ref).await?,
    }
    Ok(settings)
}

async fn read_settings(
    executor: &Executor<'_>,
    pod: &Pod,
    file: &str,
) -> ReconcileResult<ServerSettings> {
    let path = user_conf::path();
    let session = executor.observed.log_in(pod).await?;
    let unanswered = |error| executor.unanswered(pod, ServerCall::ReadSettings, error);
    let mounted = mounted_files(&session, &[&path], &[&path])
        .await
        .map_err(unanswered)?;
    let PendingSettings { pending, refused } =
        settings(&session, &path).await.map_err(unanswered)?;
    Ok(ServerSettings {
        has_file: user_conf::has_user_conf(pod),
        is_current: mounted.files.get(&path) == Some(&sha256_hex(file)),
        is_loaded: mounted.loaded,
        pending,
        refused,
    })
}
