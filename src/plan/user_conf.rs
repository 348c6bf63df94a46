//! The settings of a user's Secret on their way to the servers.
//!
//! Every pod mounts Secret `NAME-user-conf`. The kubelet writes a changed Secret into a pod when an
//! annotation of the pod changes; the server has it once it has read its files again; and some
//! settings take effect at a restart only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long until servers are asked again that are being brought up to date.
pub const REQUEUE_WHILE_SPREADING: Duration = Duration::from_secs(2);

/// A server that has not read its files by then never does: a file has a name in it that the server
/// does not know.
const STUCK_AFTER: Duration = Duration::from_mins(3);

/// How long Patroni may take to bring its shared configuration to a server: one round of its loop,
/// one reload, and its own timeout.
const PATRONI_RELOAD_TIME: Duration = Duration::from_secs(20);

/// How long until servers are asked again that wait for a restart or did not answer.
const REQUEUE_WHILE_PENDING: Duration = Duration::from_secs(30);

/// How long until servers are asked again that have all settings: an administrator may change them
/// by hand.
pub const REQUEUE_WHEN_LOADED: Duration = Duration::from_mins(10);

/// The settings of all servers that are ready.
#[derive(Debug, Default)]
pub struct ObservedSettings {
    /// The servers that answered, by pod.
    pub pods: BTreeMap<String, ServerSettings>,
    /// Some server did not answer.
    pub is_partial: bool,
}

/// The settings of one server.
#[derive(Debug, Default)]
pub struct ServerSettings {
    /// Its pod mounts the file. Pods that an older pgrekey made do not.
    pub has_file: bool,
    /// The file that it mounts is the one that is written.
    pub is_current: bool,
    /// It has read its files since.
    pub is_loaded: bool,
    /// Names of settings that wait for a restart.
    pub pending: BTreeSet<String>,
    /// Names of settings in the file that it does not accept.
    pub refused: BTreeSet<String>,
}

/// What brings one server up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingsStep {
    /// Change an annotation of its pod, so that the kubelet refreshes the file.
    TouchPod,
    /// Let the server read its files.
    Reload,
}

impl ServerSettings {
    /// What brings the server up to date; `None` if it is, or if it takes a restart.
    ///
    /// `version` names the file that is written, `refreshed_for` the one for which the kubelet was
    /// last asked to refresh the volumes of this pod.
    #[must_use]
    pub fn next_step(&self, refreshed_for: Option<&str>, version: &str) -> Option<SettingsStep> {
        if !self.has_file {
            return None;
        }
        if !self.is_current {
            return (refreshed_for != Some(version)).then_some(SettingsStep::TouchPod);
        }
        (!self.is_loaded).then_some(SettingsStep::Reload)
    }

    fn is_behind(&self) -> bool {
        self.has_file && !(self.is_current && self.is_loaded)
    }

    /// Whether the pod does not mount the file although the file sets something.
    fn lacks(&self, file: &str) -> bool {
        !self.has_file && file.lines().any(|line| !line.starts_with('#'))
    }
}

impl ObservedSettings {
    /// The settings that servers do not accept. A server that mounts an older file speaks of that
    /// one and does not count.
    pub fn refused(&self) -> impl Iterator<Item = &str> {
        self.pods
            .values()
            .filter(|settings| settings.is_current)
            .flat_map(|settings| valid_names(&settings.refused))
    }

    /// The settings that wait for a restart, and the pods, as a message for the user; `None` if
    /// there are none.
    #[must_use]
    pub fn restart_pending(&self, file: &str) -> Option<String> {
        let mut pods_by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (pod, settings) in &self.pods {
            let lacks = settings.lacks(file).then_some("the settings of the Secret");
            for name in valid_names(&settings.pending).chain(lacks) {
                pods_by_name.entry(name).or_default().push(pod);
            }
        }
        if pods_by_name.is_empty() {
            return None;
        }
        let lines: Vec<String> = pods_by_name
            .iter()
            .map(|(name, pods)| format!("{name} ({})", pods.join(", ")))
            .collect();
        Some(format!(
            "what is set waits for a restart: {}: create a PostgresOpsRequest of type Restart",
            lines.join("; ")
        ))
    }

    /// How long until servers are asked again, which were asked about this file for so long already.
    #[must_use]
    pub fn next_check(&self, file: &str, asked_for: Duration) -> Duration {
        let is_behind = self.pods.values().any(ServerSettings::is_behind);
        let is_pending =
            |settings: &ServerSettings| !settings.pending.is_empty() || settings.lacks(file);
        if is_behind && asked_for < STUCK_AFTER {
            REQUEUE_WHILE_SPREADING
        } else if asked_for < PATRONI_RELOAD_TIME {
            PATRONI_RELOAD_TIME
        } else if is_behind || self.is_partial || self.pods.values().any(is_pending) {
            REQUEUE_WHILE_PENDING
        } else {
            REQUEUE_WHEN_LOADED
        }
    }
}

/// The names that a server gave, without those that cannot be names of settings.
fn valid_names(names: &BTreeSet<String>) -> impl Iterator<Item = &str> {
    let is_valid = |name: &&str| {
        name.len() <= 63
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_.".contains(c))
    };
    names.iter().map(String::as_str).filter(is_valid)
}

/// The settings that are left out of the file because servers do not accept them, as a message for
/// the user; `None` if there are none.
#[must_use]
pub fn left_out_message(names: &BTreeSet<String>) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Some(format!(
        "spec.configuration.secretName: PostgreSQL does not take {} as the Secret sets it: it is \
         left out, because no server would start with it; correct it",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# pgrekey writes this file.\nwork_mem = '1MB'\n";

    fn settings(is_current: bool, is_loaded: bool, pending: &[&str]) -> ServerSettings {
        ServerSettings {
            has_file: true,
            is_current,
            is_loaded,
            pending: pending.iter().map(|name| (*name).to_owned()).collect(),
            refused: BTreeSet::new(),
        }
    }

    fn observed<const N: usize>(pods: [ServerSettings; N]) -> ObservedSettings {
        let pods = pods.into_iter().enumerate();
        ObservedSettings {
            pods: pods
                .map(|(ordinal, settings)| (format!("pg-{ordinal}"), settings))
                .collect(),
            is_partial: false,
        }
    }

    #[test]
    fn a_pod_is_touched_once_for_a_changed_secret_and_its_server_reloaded_when_it_has_the_file() {
        let (touch, reload) = (Some(SettingsStep::TouchPod), Some(SettingsStep::Reload));
        for (refreshed_for, settings, expected) in [
            (None, settings(false, true, &[]), touch),
            (Some("v1"), settings(false, true, &[]), touch),
            (Some("v2"), settings(false, true, &[]), None),
            (Some("v2"), settings(true, false, &[]), reload),
            (Some("v2"), settings(true, true, &["max_connections"]), None),
            (Some("v1"), ServerSettings::default(), None),
        ] {
            let next = settings.next_step(refreshed_for, "v2");
            assert_eq!(next, expected, "{refreshed_for:?} {settings:?}");
        }
    }

    #[test]
    fn settings_that_wait_for_a_restart_are_listed_by_name_and_pod() {
        let none = observed([settings(true, true, &[]), settings(true, true, &[])]);
        assert_eq!(none.restart_pending(FILE), None);
        let some = observed([
            settings(true, true, &["max_connections", "wal_level"]),
            settings(true, true, &["max_connections"]),
        ]);
        let message = some.restart_pending(FILE).expect("something waits");
        assert!(
            message.contains("max_connections (pg-0, pg-1); wal_level (pg-0)"),
            "{message}"
        );
        let old = observed([settings(true, true, &[]), ServerSettings::default()]);
        let message = old.restart_pending(FILE).expect("something waits");
        assert!(
            message.contains("the settings of the Secret (pg-1)"),
            "{message}"
        );
        assert_eq!(old.restart_pending("# pgrekey writes this file.\n"), None);
        let strange = observed([settings(true, true, &["a\nb", "'; drop"])]);
        assert_eq!(strange.restart_pending(FILE), None);
    }

    #[test]
    fn servers_are_asked_again_after_patronis_reload_and_rarely_when_nothing_waits() {
        let behind = || settings(true, false, &[]);
        let silent = ObservedSettings {
            is_partial: true,
            ..ObservedSettings::default()
        };
        let waits = observed([settings(true, true, &["max_connections"])]);
        let done = observed([settings(true, true, &[])]);
        for (observed, asked_for, expected) in [
            (
                &observed([behind()]),
                PATRONI_RELOAD_TIME,
                REQUEUE_WHILE_SPREADING,
            ),
            (&observed([behind()]), STUCK_AFTER, REQUEUE_WHILE_PENDING),
            (&waits, Duration::ZERO, PATRONI_RELOAD_TIME),
            (&waits, PATRONI_RELOAD_TIME, REQUEUE_WHILE_PENDING),
            (&silent, PATRONI_RELOAD_TIME, REQUEUE_WHILE_PENDING),
            (&done, PATRONI_RELOAD_TIME, REQUEUE_WHEN_LOADED),
        ] {
            let case = format!("{observed:?} {asked_for:?}");
            assert_eq!(observed.next_check(FILE, asked_for), expected, "{case}");
        }
    }

    #[test]
    fn a_refusal_counts_if_the_server_mounts_the_file_that_is_written() {
        let refuses = |is_current, name: &str| ServerSettings {
            refused: BTreeSet::from([name.to_owned()]),
            ..settings(is_current, true, &[])
        };
        let observed = observed([
            refuses(true, "timezone"),
            refuses(false, "work_mem"),
            refuses(true, "no name"),
        ]);
        assert_eq!(observed.refused().collect::<Vec<_>>(), ["timezone"]);
    }

    #[test]
    fn settings_that_are_left_out_are_named() {
        assert_eq!(left_out_message(&BTreeSet::new()), None);
        let names = ["log_timezone", "timezone"].map(str::to_owned).into();
        let message = left_out_message(&names).expect("a message");
        assert!(
            message.contains("does not take log_timezone, timezone as the Secret"),
            "{message}"
        );
    }
}
