//! The PostgreSQL settings that only pgrekey may set: with other values TLS or replication would
//! break.
//!
//! One table, for the rule that warns of them and for the builder that leaves them out; and one of
//! those that are raised.

use crate::api::bounds::MAX_REPLICAS;

/// Why a setting is pgrekey's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
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
pub const OWNED: &[Owned] = &[
    Owned {
        name: "cluster_name",
        follows_from: REPLICATION,
    },
    Owned {
        name: "config_file",
        follows_from: POD,
    },
    Owned {
        name: "data_directory",
        follows_from: POD,
    },
    Owned {
        name: "external_pid_file",
        follows_from: POD,
    },
    Owned {
        name: "hba_file",
        follows_from: LOGIN,
    },
    Owned {
        name: "hot_standby",
        follows_from: REPLICATION,
    },
    Owned {
        name: "ident_file",
        follows_from: LOGIN,
    },
    Owned {
        name: "listen_addresses",
        follows_from: POD,
    },
    Owned {
        name: "password_encryption",
        follows_from: LOGIN,
    },
    Owned {
        name: "port",
        follows_from: POD,
    },
    Owned {
        name: "primary_conninfo",
        follows_from: REPLICATION,
    },
    Owned {
        name: "primary_slot_name",
        follows_from: REPLICATION,
    },
    Owned {
        name: "promote_trigger_file",
        follows_from: REPLICATION,
    },
    Owned {
        name: "recovery_target",
        follows_from: REPLICATION,
    },
    Owned {
        name: "recovery_target_action",
        follows_from: REPLICATION,
    },
    Owned {
        name: "recovery_target_inclusive",
        follows_from: REPLICATION,
    },
    Owned {
        name: "recovery_target_lsn",
        follows_from: REPLICATION,
    },
    Owned {
        name: "recovery_target_name",
        follows_from: REPLICATION,
    },
    Owned {
        name: "recovery_target_time",
        follows_from: REPLICATION,
    },
    Owned {
        name: "recovery_target_timeline",
        follows_from: REPLICATION,
    },
    Owned {
        name: "recovery_target_xid",
        follows_from: REPLICATION,
    },
    Owned {
        name: "ssl",
        follows_from: TLS,
    },
    Owned {
        name: "ssl_ca_file",
        follows_from: TLS,
    },
    Owned {
        name: "ssl_cert_file",
        follows_from: TLS,
    },
    Owned {
        name: "ssl_crl_dir",
        follows_from: TLS,
    },
    Owned {
        name: "ssl_crl_file",
        follows_from: TLS,
    },
    Owned {
        name: "ssl_key_file",
        follows_from: TLS,
    },
    Owned {
        name: "ssl_passphrase_command",
        follows_from: TLS,
    },
    Owned {
        name: "ssl_passphrase_command_supports_reload",
        follows_from: TLS,
    },
    Owned {
        name: "synchronous_standby_names",
        follows_from: SYNC,
    },
    Owned {
        name: "unix_socket_directories",
        follows_from: POD,
    },
    Owned {
        name: "unix_socket_group",
        follows_from: POD,
    },
    Owned {
        name: "unix_socket_permissions",
        follows_from: POD,
    },
    Owned {
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
/// [`super::conf::parse`] gives it.
#[must_use]
pub fn by_pgrekey(name: &str) -> Option<&'static Owned> {
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
            assert_eq!(by_pgrekey(owned.name), Some(owned));
        }
        assert_eq!(by_pgrekey("work_mem"), None);
    }
}
