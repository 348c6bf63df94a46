//! The values that a `Postgres` has where its spec leaves them out. They are KubeDB's.

use crate::api::postgres::{
    CommitLevel, DeletionPolicy, PostgresSpec, StandbyMode, StorageType, SyncMode, TlsConfig,
};
use crate::api::tls::{ClientAuthMode, SslMode};

pub use crate::api::postgres::MAXIMUM_LAG_BEFORE_FAILOVER;

/// `spec.replicas`.
pub const REPLICAS: i32 = 1;
/// `spec.standbyMode`.
pub const STANDBY_MODE: StandbyMode = StandbyMode::Hot;
/// `spec.storageType`.
pub const STORAGE_TYPE: StorageType = StorageType::Durable;

/// `spec.sslMode` of a database with TLS.
pub const SSL_MODE_WITH_TLS: SslMode = SslMode::VerifyFull;

/// `spec.healthChecker.periodSeconds`.
pub const CHECK_PERIOD_SECONDS: i32 = 10;
/// `spec.healthChecker.timeoutSeconds`.
pub const CHECK_TIMEOUT_SECONDS: i32 = 10;
/// `spec.healthChecker.failureThreshold`.
pub const CHECK_FAILURE_THRESHOLD: i32 = 1;

/// `spec.synchronousReplicationConfig.mode`.
pub const SYNC_MODE: SyncMode = SyncMode::Any;
/// `spec.synchronousReplicationConfig.numSyncReplicas`.
pub const SYNC_REPLICAS: i32 = 1;
/// `spec.synchronousReplicationConfig.commitLevel`.
pub const COMMIT_LEVEL: CommitLevel = CommitLevel::RemoteWrite;

impl PostgresSpec {
    /// Number of pods: the one in the spec, else the default.
    #[must_use]
    pub fn desired_replicas(&self) -> i32 {
        self.replicas.unwrap_or(REPLICAS)
    }
}

/// The first major version of PostgreSQL that warns about md5.
const MD5_IS_DEPRECATED: u32 = 18;

/// `spec.sslMode` of a database with this `spec.tls`.
#[must_use]
pub const fn ssl_mode(tls: Option<&TlsConfig>) -> SslMode {
    match tls {
        Some(_) => SSL_MODE_WITH_TLS,
        None => SslMode::Disable,
    }
}

/// `spec.clientAuthMode` of a database of this major version, which is `None` if it is unknown.
#[must_use]
pub fn client_auth_mode(major: Option<u32>) -> ClientAuthMode {
    if major.is_some_and(|major| major >= MD5_IS_DEPRECATED) {
        ClientAuthMode::Scram
    } else {
        ClientAuthMode::Md5
    }
}

/// `spec.deletionPolicy` of a database with this `spec.halted`.
#[must_use]
pub fn deletion_policy(halted: Option<bool>) -> DeletionPolicy {
    if halted == Some(true) {
        DeletionPolicy::Halt
    } else {
        DeletionPolicy::Delete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_is_the_default_before_postgresql_18() {
        for (major, mode) in [
            (None, ClientAuthMode::Md5),
            (Some(17), ClientAuthMode::Md5),
            (Some(18), ClientAuthMode::Scram),
            (Some(19), ClientAuthMode::Scram),
        ] {
            assert_eq!(client_auth_mode(major), mode, "{major:?}");
        }
    }

    #[test]
    fn a_database_with_tls_is_dialled_by_its_name_and_another_in_plaintext() {
        assert_eq!(ssl_mode(Some(&TlsConfig::default())), SslMode::VerifyFull);
        assert_eq!(ssl_mode(None), SslMode::Disable);
    }
}
