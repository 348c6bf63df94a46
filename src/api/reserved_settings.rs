//! The PostgreSQL settings that only pgrekey may set: with other values TLS or replication would
//! break.
//!
//! One table, for the rule that warns of them and for the builder that leaves them out; and one of
//! those that are raised.

use crate::api::bounds::MAX_REPLICAS;

/// Why a setting is pgrekey's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservedSetting {
    /// Name of the setting.
    pub name: &'static str,
    /// What decides it, as the end of the sentence "it follows from ...".
    pub follows_from: &'static str,
}

const TLS: &str = "spec.tls";
const LOGIN: &str = "spec.clientAuthMode";
const REPLICATION: &str = "what Patroni decides";
const SYNC: &str = "spec.streamingMode and spec.synchronousReplicationConfig";
const POD: &str = "how pgrekey builds the pod";

/// Every setting that is pgrekey's, in the order of their names.
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

/// How many pods a database may have at most, and ten more for base backups, which take two each,
/// and for whoever else streams.
///
/// Room for all of them is there from the start: if it followed the number of pods, each scaling
/// would want restarts.
const STREAMS: i64 = MAX_REPLICAS as i64 + 10;

/// What users may set to more than this, and not to less.
pub const LEAST: [(&str, i64); 2] = [
    ("max_replication_slots", STREAMS),
    ("max_wal_senders", STREAMS),
];

/// The entry of this setting, if only pgrekey may set it. The name is in lower case, as
/// [`crate::api::postgresql_conf::parse`] gives it.
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
