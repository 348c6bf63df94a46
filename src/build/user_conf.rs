//! The user's own PostgreSQL settings, and how each reaches the servers.
//!
//! Settings in the spec are no secret: they go into Patroni's dynamic configuration, and Patroni
//! brings them to all pods. Settings in a Secret stay in a Secret: PostgreSQL includes them as a
//! file, before all that Patroni writes. A few of them have no effect in a file, because Patroni
//! sets them itself. These go into the dynamic configuration too; they are only numbers and words
//! of a list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use crate::api::bounds::MAX_CONF;
use crate::api::postgres::{PostgresSpec, USER_CONF};
use crate::api::{postgresql_conf, postgresql_settings, reserved_settings};
use crate::build::paths::{USER_CONF_FOLDER, USER_CONF_VOLUME};
use crate::build::unbuildable::{Unbuildable, unbuildable};
use crate::tls::server_settings::{Obstacle, ServerFacts, obstacles};
use k8s_openapi::api::core::v1::Pod;

/// The field that names the Secret.
pub const SECRET_NAME: &str = "spec.configuration.secretName";

/// Settings that Patroni writes itself, on the command line or after the included file, and that
/// can be changed by the dynamic configuration only (Patroni 4.0.7, `CMDLINE_OPTIONS` in
/// `postgresql/config.py`). Those that are pgrekey's are not in the list.
const BY_PATRONI: [&str; 9] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_wal_senders",
    "max_worker_processes",
    "track_commit_timestamp",
    "wal_keep_size",
    "wal_level",
];

/// The user's settings, with names in lower case. Settings that are pgrekey's are left out.
#[derive(Clone, Default)]
pub(super) struct UserConf {
    /// Settings of the spec, which win.
    pub(super) inline: BTreeMap<String, String>,
    secret: BTreeMap<String, String>,
}

/// Leaves out the settings: some come from a Secret.
impl fmt::Debug for UserConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserConf").finish_non_exhaustive()
    }
}

impl UserConf {
    pub(super) fn parse(
        spec: &PostgresSpec,
        secret_text: Option<&str>,
        major: u32,
    ) -> Result<Self, Unbuildable> {
        let Some(configuration) = &spec.configuration else {
            return Ok(Self::default());
        };
        let mut inline = BTreeMap::new();
        for (key, text) in configuration.inline.iter().flatten() {
            let field = format!("spec.configuration.inline[{key}]");
            if key != USER_CONF {
                return unbuildable(
                    field,
                    "there is no such file",
                    "write the settings under the key user.conf",
                );
            }
            match postgresql_conf::parse(text) {
                Ok(settings) => inline = settings,
                Err(bad) => {
                    return unbuildable(
                        field,
                        bad.to_string(),
                        "write one setting a line, as in postgresql.conf",
                    );
                }
            }
        }
        let secret = configuration
            .secret_name
            .as_deref()
            .map(|name| secret(name, secret_text, major))
            .transpose()?;
        let mut all = Self {
            inline,
            secret: secret.unwrap_or_default(),
        };
        for settings in [&mut all.inline, &mut all.secret] {
            settings.retain(|name, _| reserved_settings::reserved_setting(name).is_none());
        }
        Ok(all)
    }

    /// Whether the file has this setting.
    pub(super) fn file_sets(&self, name: &str) -> bool {
        self.secret.contains_key(name)
    }

    /// Whether the user sets this setting anywhere.
    pub(super) fn sets(&self, name: &str) -> bool {
        self.inline.contains_key(name) || self.file_sets(name)
    }

    /// The settings of the Secret that the dynamic configuration needs.
    pub(super) fn by_patroni(&self) -> impl Iterator<Item = (&String, &String)> {
        self.secret
            .iter()
            .filter(|(name, _)| BY_PATRONI.contains(&name.as_str()))
    }

    /// The file that servers include. The settings `left_out` are not in it.
    pub(super) fn file(&self, left_out: &BTreeSet<String>) -> String {
        let mut text = "# pgrekey writes this file.\n".to_owned();
        for (name, value) in self
            .secret
            .iter()
            .filter(|(name, _)| !left_out.contains(*name))
        {
            text.push_str(name);
            text.push_str(" = '");
            value.chars().for_each(|c| push_escaped(&mut text, c));
            text.push_str("'\n");
        }
        text
    }
}

impl UserConf {
    /// Refuses TLS settings of the Secret with which clients have nothing in common with this server,
    /// or no server with TLS starts. Inline settings win, and the rules judge them alone.
    pub(super) fn check_tls(&self, server: &ServerFacts) -> Result<(), Unbuildable> {
        let mut settings = self.secret.clone();
        settings.extend(self.inline.clone());
        let of_inline = obstacles(&self.inline, server);
        let of_secret = obstacles(&settings, server)
            .into_iter()
            .find(|obstacle| !of_inline.contains(obstacle));
        match of_secret {
            None => Ok(()),
            // The value may be secret.
            Some(Obstacle {
                setting,
                problem,
                remedy,
                ..
            }) => unbuildable(
                SECRET_NAME,
                format!("with the Secret's settings, {setting} {problem}"),
                remedy,
            ),
        }
    }
}

/// Appends a character of a quoted value (PostgreSQL 17, `guc-file.l`, `DeescapeQuotedString`).
fn push_escaped(text: &mut String, c: char) {
    match c {
        '\'' => text.push_str("''"),
        '\\' => text.push_str(r"\\"),
        // An ASCII character needs at most three octal digits. Writing into a string does not fail.
        c if c.is_ascii_control() => drop(write!(text, "\\{:03o}", u32::from(c))),
        c => text.push(c),
    }
}

/// The settings in a Secret. A refusal has the number of the line and none of its text, which is
/// secret.
fn secret(
    name: &str,
    text: Option<&str>,
    major: u32,
) -> Result<BTreeMap<String, String>, Unbuildable> {
    let Some(text) = text else {
        let problem = format!("Secret {name} has no key user.conf with text in it");
        return unbuildable(SECRET_NAME, problem, "write the settings under that key");
    };
    if text.len() > MAX_CONF {
        let problem = format!("Secret {name}, key user.conf has more than 64 KiB");
        return unbuildable(SECRET_NAME, problem, "write less");
    }
    let mut all = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let refuse = |problem: &str, remedy: &str| {
            unbuildable(
                SECRET_NAME,
                format!("Secret {name}, key user.conf, line {}: {problem}", at + 1),
                remedy,
            )
        };
        let settings = match postgresql_conf::parse(line) {
            Ok(settings) => settings,
            Err(bad) => {
                return refuse(
                    bad.problem,
                    "write one setting a line, as in postgresql.conf",
                );
            }
        };
        // Settings that are pgrekey's are left out later, whatever their value.
        for (setting, value) in settings
            .iter()
            .filter(|(setting, _)| reserved_settings::reserved_setting(setting).is_none())
        {
            if let Err(problem) = postgresql_settings::check(major, setting, value) {
                return refuse(problem, "correct it: with it, no server would start");
            }
        }
        all.extend(settings);
    }
    Ok(all)
}

/// Whether a pod mounts the file with the settings of the Secret. Pods of an earlier pgrekey do
/// not.
#[must_use]
pub fn has_user_conf(pod: &Pod) -> bool {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .into_iter()
        .any(|volume| volume.name == USER_CONF_VOLUME)
}

/// Path of that file in a pod.
#[must_use]
pub fn path() -> String {
    format!("{USER_CONF_FOLDER}/{USER_CONF}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::DEFAULT_CLUSTER_DOMAIN;
    use crate::api::postgres::TlsConfig;
    use crate::build::cluster::tests::{postgres, version};
    use crate::build::patroni::dynamic;
    use crate::build::{BuildInputs, Cluster};
    use crate::tls::{Method, Posture};
    use proptest::prelude::*;

    const SPEC: &str = "{version: '17', configuration: {secretName: s}}";

    fn with(spec: &str, text: &str) -> Result<Cluster, Unbuildable> {
        let facts = BuildInputs {
            version: &version("17"),
            superuser: "postgres",
            user_conf: Some(text),
            live_pods: 0,
            cluster_domain: DEFAULT_CLUSTER_DOMAIN,
        };
        Cluster::build(&postgres(spec), &facts)
    }

    fn shared_of(cluster: &Cluster) -> serde_json::Value {
        serde_json::json!(dynamic::config(cluster, &Posture::plain(Method::Scram)))
    }

    #[test]
    fn a_secrets_settings_are_in_the_file_and_those_that_patroni_sets_are_shared_too() {
        let text = "log_line_prefix = 'hush '\nmax_connections = 200\nwal_keep_size = 1GB\nssl = off\nprimary_conninfo = ''";
        let cluster = with(SPEC, text).expect("a cluster");
        let file = "# pgrekey writes this file.\nlog_line_prefix = 'hush '\nmax_connections = '200'\nwal_keep_size = '1GB'\n";
        assert_eq!(cluster.user_conf.file(&BTreeSet::new()), file);
        let shared = shared_of(&cluster);
        let parameters = &shared["postgresql"]["parameters"];
        assert_eq!(
            (&parameters["max_connections"], &parameters["wal_keep_size"]),
            (&"200".into(), &"1GB".into())
        );
        assert!(!shared.to_string().contains("hush"));
        let left_out = ["log_line_prefix".to_owned(), "wal_keep_size".to_owned()].into();
        assert_eq!(
            cluster.user_conf.file(&left_out),
            "# pgrekey writes this file.\nmax_connections = '200'\n"
        );
    }

    #[test]
    fn the_file_is_there_for_every_database() {
        for spec in [
            "version: '17'",
            "{version: '17', configuration: {inline: {user.conf: work_mem = 1MB}}}",
        ] {
            assert_eq!(
                with(spec, "")
                    .expect("a cluster")
                    .user_conf
                    .file(&BTreeSet::new()),
                "# pgrekey writes this file.\n"
            );
        }
    }

    #[test]
    fn a_line_that_no_server_starts_with_is_refused_by_its_number_alone() {
        for line in [
            "wrok_mem = 1MB",
            "work_mem = hush",
            "hush",
            "max_connections = hush",
            "log_line_prefix = 'hush",
        ] {
            let refused = with(SPEC, &format!("work_mem = 1MB\n\n{line}")).expect_err(line);
            let said = refused.to_string();
            assert!(
                said.contains("Secret s, key user.conf, line 3: ") && refused.field == SECRET_NAME,
                "{said}"
            );
            assert!(
                !said.contains("hush") && !said.contains("wrok_mem"),
                "{said}"
            );
        }
    }

    #[test]
    fn tls_settings_of_a_secret_that_shut_clients_out_are_refused_without_their_values() {
        let judged = |spec: &str, text: &str| {
            let cluster = with(spec, text).expect("a cluster");
            cluster.check_tls_settings(cluster.spec().tls.as_ref(), BTreeSet::new())
        };
        let text = "ssl_max_protocol_version = 'TLSv1.2'\nssl_ciphers = 'AES256-SHA256'";
        let refused = judged(SPEC, text).expect_err("no suite in common");
        let said = refused.to_string();
        assert_eq!(refused.field, SECRET_NAME);
        assert!(
            said.contains("with the Secret's settings, ssl_ciphers has no suite"),
            "{said}"
        );
        assert!(!said.contains("AES256-SHA256"), "{said}");
        let inline = |conf: &str| {
            format!(
                "{{version: '17', configuration: {{secretName: s, inline: {{user.conf: \"{conf}\"}}}}}}"
            )
        };
        assert_eq!(judged(&inline("ssl_ciphers = HIGH"), text), Ok(()));
        let old = inline("ssl_max_protocol_version = 'TLSv1.1'");
        assert_eq!(
            judged(&old, "work_mem = 1MB"),
            Ok(()),
            "no fault of the Secret's"
        );
        let together = judged(&inline("ssl_ciphers = AES256-SHA256"), text);
        assert_eq!(
            together.map_err(|why| why.field),
            Err(SECRET_NAME.to_owned())
        );
    }

    #[test]
    fn ciphers_of_a_secret_have_to_suit_the_key_that_a_request_asks_for() {
        let text =
            "ssl_max_protocol_version = 'TLSv1.2'\nssl_ciphers = 'ECDHE-RSA-AES256-GCM-SHA384'";
        let cluster = with(SPEC, text).expect("a cluster");
        let with_key = |key: &str| {
            let certificates = format!("{{certificates: [{{alias: server, privateKey: {key}}}]}}");
            let tls: TlsConfig = serde_saphyr::from_str(&certificates).expect("TLS");
            cluster
                .check_tls_settings(Some(&tls), BTreeSet::new())
                .is_ok()
        };
        assert!(with_key("{size: 4096}"));
        assert!(!with_key("{algorithm: ECDSA}"));
    }

    #[test]
    fn postgresql_reads_the_file_as_it_was_meant() {
        // `postgresql_conf::parse` refuses some characters. The quoting is right for every
        // character.
        let odd = "it's a \\ and\ta\nbreak, \u{7f}ü";
        let conf = UserConf {
            secret: [("x.y".to_owned(), odd.to_owned())].into(),
            ..UserConf::default()
        };
        let file = conf.file(&BTreeSet::new());
        assert_eq!(
            file.lines().nth(1),
            Some(r"x.y = 'it''s a \\ and\011a\012break, \177ü'")
        );
    }

    proptest! {
        /// The dynamic configuration never has the text of a secret, whatever setting holds it.
        #[test]
        fn no_secret_is_shared(
            name in prop::sample::select(vec!["log_line_prefix", "archive_command", "my.key", "max_connections", "wal_level",
                "shared_preload_libraries", "track_commit_timestamp", "primary_conninfo", "cluster_name", "wal_keep_size"]),
            value in "hush[ -&(-\\[\\]-~]{0,20}",
        ) {
            if let Ok(cluster) = with(SPEC, &format!("{name} = '{value}'")) {
                prop_assert!(!shared_of(&cluster).to_string().contains("hush"));
            }
        }
    }
}
