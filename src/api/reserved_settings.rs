//! PostgreSQL settings that only pgrekey may set: other values would break TLS or replication.
//!
//! The rule that warns and the builder that leaves them out use the same table. A second table has
//! settings with a minimum.

use crate::api::bounds::MAX_REPLICAS;

/// A setting that only pgrekey may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservedSetting {
    /// Name of the setting.
    pub name: &'static str,
    /// Where its value comes from, as the end of the sentence "it follows from ...".
    pub follows_from: &'static str,
}

const TLS: &str = "spec.tls";
const LOGIN: &str = "spec.clientAuthMode";
const REPLICATION: &str = "what Patroni decides";
const SYNC: &str = "spec.streamingMode and spec.synchronousReplicationConfig";
const POD: &str = "how pgrekey builds the pod";

/// Every setting that only pgrekey may set, sorted by name.
pub const OWNED: &[ReservedSetting] = &[
    ReservedSetting {
        name: "cluster_name",
        follows_from: REPLICATION,
    },
    ReservedSetting {
        name: "config_file",
        follows_from: POD,
    },
    ReservedSetting {
        name: "data_directory",
        follows_from: POD,
    },
    ReservedSetting {
        name: "external_pid_file",
        follows_from: POD,
    },
    ReservedSetting {
        name: "hba_file",
        follows_from: LOGIN,
    },
    ReservedSetting {
        name: "hot_standby",
        follows_from: REPLICATION,
    },
    ReservedSetting {
        name: "ident_file",
        follows_from: LOGIN,
    },
    ReservedSetting {
        name: "listen_addresses",
        follows_from: POD,
    },
    ReservedSetting {
        name: "password_encryption",
        follows_from: LOGIN,
    },
    ReservedSetting {
        name: "port",
        follows_from: POD,
    },
    ReservedSetting {
        name: "primary_conninfo",
        follows_from: REPLICATION,
    },
    ReservedSetting {
        name: "primary_slot_name",
        follows_from: REPLICATION,
    },
    ReservedSetting {
        name: "promote_trigger_file",
        follows_from: REPLICATION,
    },
    ReservedSetting {
        name: "recovery_target",
        follows_from: REPLICATION,
    },
    ReservedSetting {
        name: "recovery_target_action",
        follows_from: REPLICATION,
    },
    ReservedSetting {
        name: "recovery_target_inclusive",
        follows_from: REPLICATION,
    },
    ReservedSetting {
        name: "recovery_target_lsn",
        follows_from: REPLICATION,
    },
    ReservedSetting {
        name: "recovery_target_name",
        follows_from: REPLICATION,
    },
    ReservedSetting {
        name: "recovery_target_time",
        follows_from: REPLICATION,
    },
    ReservedSetting {
        name: "recovery_target_timeline",
        follows_from: REPLICATION,
    },
    ReservedSetting {
        name: "recovery_target_xid",
        follows_from: REPLICATION,
    },
    ReservedSetting {
        name: "ssl",
        follows_from: TLS,
    },
    ReservedSetting {
        name: "ssl_ca_file",
        follows_from: TLS,
    },
    ReservedSetting {
        name: "ssl_cert_file",
        follows_from: TLS,
    },
    ReservedSetting {
        name: "ssl_crl_dir",
        follows_from: TLS,
    },
    ReservedSetting {
        name: "ssl_crl_file",
        follows_from: TLS,
    },
    ReservedSetting {
        name: "ssl_key_file",
        follows_from: TLS,
    },
    ReservedSetting {
        name: "ssl_passphrase_command",
        follows_from: TLS,
    },
    ReservedSetting {
        name: "ssl_passphrase_command_supports_reload",
        follows_from: TLS,
    },
    ReservedSetting {
        name: "synchronous_standby_names",
        follows_from: SYNC,
    },
    ReservedSetting {
        name: "unix_socket_directories",
        follows_from: POD,
    },
    ReservedSetting {
        name: "unix_socket_group",
        follows_from: POD,
    },
    ReservedSetting {
        name: "unix_socket_permissions",
        follows_from: POD,
    },
    ReservedSetting {
        name: "wal_log_hints",
        follows_from: REPLICATION,
    },
];

/// Connections that stream WAL: one for each possible pod, and ten more for base backups, which
/// take two each, and for others.
///
/// There is room for all of them from the start. If it followed the number of pods, each scaling
/// would need restarts.
const STREAMS: i64 = MAX_REPLICAS as i64 + 10;

/// Settings that users may set to this or more, and not to less.
pub const LEAST: [(&str, i64); 2] = [
    ("max_replication_slots", STREAMS),
    ("max_wal_senders", STREAMS),
];

/// The entry of a setting. `None` if users may set it. The name is in lower case, as
/// [`crate::api::postgresql_conf::parse`] returns it.
#[must_use]
pub fn reserved_setting(name: &str) -> Option<&'static ReservedSetting> {
    OWNED
        .binary_search_by_key(&name, |owned| owned.name)
        .ok()
        .and_then(|at| OWNED.get(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_and_nothing_else() {
        for owned in OWNED {
            assert_eq!(reserved_setting(owned.name), Some(owned));
        }
        assert_eq!(reserved_setting("work_mem"), None);
    }
}
