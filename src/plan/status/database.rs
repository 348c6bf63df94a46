//! What the status of a `Postgres` says: KubeDB's conditions with its reasons and messages, and the
//! phase that follows from them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::api::PostgresOpsRequest;
use crate::api::condition;
use crate::api::condition::{CA_ENDS_EARLY, Condition, find, holds};
use crate::api::postgres::DatabasePhase;

/// The conditions of a `Postgres`.
pub mod types {
    /// pgrekey has seen the database.
    pub const PROVISIONING_STARTED: &str = "ProvisioningStarted";
    /// As many pods are ready as there should be.
    pub const REPLICA_READY: &str = "ReplicaReady";
    /// The primary lets clients in.
    pub const ACCEPTING_CONNECTION: &str = "AcceptingConnection";
    /// The primary takes writes and every standby follows it.
    pub const READY: &str = "Ready";
    /// The database has been ready once.
    pub const PROVISIONED: &str = "Provisioned";
    /// Somebody asked pgrekey to leave the database alone.
    pub const PAUSED: &str = "Paused";
    /// The database is stopped, as its spec asks.
    pub const HALTED: &str = "Halted";
    /// Something keeps pgrekey from making the database what its spec says. pgrekey's own, and gone
    /// when that is.
    pub const BLOCKED: &str = "Blocked";
    /// Settings wait for a restart of servers. pgrekey's own, and gone when none does.
    pub const RESTART_PENDING: &str = "RestartPending";
    /// Nobody checks the database.
    pub const HEALTH_CHECK_PAUSED: &str = "HealthCheckPaused";
    /// Data are being restored.
    pub const DATA_RESTORE_STARTED: &str = "DataRestoreStarted";
    /// Data have been restored, or could not be.
    pub const DATA_RESTORED: &str = "DataRestored";
}

use types::{
    ACCEPTING_CONNECTION, BLOCKED, DATA_RESTORE_STARTED, DATA_RESTORED, HALTED,
    HEALTH_CHECK_PAUSED, PAUSED, PROVISIONED, PROVISIONING_STARTED, READY, REPLICA_READY,
    RESTART_PENDING,
};

/// The phase that follows from the conditions: the first rule that matches. `None`: nothing is
/// known yet.
#[must_use]
pub fn phase(conditions: &[Condition]) -> Option<DatabasePhase> {
    let is = |type_| holds(conditions, type_);
    let is_not =
        |type_| find(conditions, type_).is_some_and(|condition| condition.status == "False");
    let provisioned = is(PROVISIONED);
    let rules = [
        (is(HEALTH_CHECK_PAUSED), DatabasePhase::Unknown),
        (is(HALTED), DatabasePhase::Halted),
        (
            is(DATA_RESTORE_STARTED) && find(conditions, DATA_RESTORED).is_none(),
            DatabasePhase::DataRestoring,
        ),
        (is_not(DATA_RESTORED), DatabasePhase::NotReady),
        (
            provisioned && is_not(ACCEPTING_CONNECTION),
            DatabasePhase::NotReady,
        ),
        (
            provisioned && is_not(REPLICA_READY),
            DatabasePhase::Critical,
        ),
        (provisioned && is_not(READY), DatabasePhase::Critical),
        (provisioned && is(READY), DatabasePhase::Ready),
        (is(PROVISIONING_STARTED), DatabasePhase::Provisioning),
    ];
    rules
        .into_iter()
        .find_map(|(matches, phase)| matches.then_some(phase))
}

/// The words in which a request pauses a database, by which it knows them again.
#[must_use]
pub fn pause_of(request: &PostgresOpsRequest) -> String {
    format!(
        "{PAUSED_BY}{} ({})",
        request.name_any(),
        request.uid().unwrap_or_default()
    )
}

const PAUSED_BY: &str = "Paused by PostgresOpsRequest ";

/// Whether the pause of a database is the one in these words.
#[must_use]
pub fn is_paused_in(conditions: &[Condition], words: &str) -> bool {
    find(conditions, PAUSED)
        .is_some_and(|paused| paused.holds() && paused.message.as_deref() == Some(words))
}

/// The request that a database is paused by, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PausedBy<'a> {
    /// These words.
    pub words: &'a str,
    /// Its name, in the database's namespace.
    pub name: &'a str,
    uid: &'a str,
}

impl<'a> PausedBy<'a> {
    /// Nothing where the database is not paused, or somebody else has paused it.
    #[must_use]
    pub fn find(conditions: &'a [Condition]) -> Option<Self> {
        let words = find(conditions, PAUSED)
            .filter(|paused| paused.holds())?
            .message
            .as_deref()?;
        let (name, uid) = words
            .strip_prefix(PAUSED_BY)?
            .strip_suffix(')')?
            .split_once(" (")?;
        Some(Self { words, name, uid })
    }

    /// Whether nobody is left who would resume the database: the request of this name, if there is
    /// one, is another or has ended.
    #[must_use]
    pub fn is_abandoned(&self, request: Option<&PostgresOpsRequest>) -> bool {
        request.is_none_or(|request| {
            request.uid().as_deref() != Some(self.uid) || request.is_finished()
        })
    }
}

/// The conditions of one database at one time, being written.
#[derive(Debug)]
pub struct DatabaseStatusWriter {
    /// The conditions so far.
    pub conditions: Vec<Condition>,
    /// `NAMESPACE/NAME`.
    pub database: String,
    /// The `metadata.generation` that is spoken of.
    pub generation: Option<i64>,
    /// The time.
    pub now: Time,
}

/// How many pods of a set are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// As many as there should be.
    pub desired: i32,
    /// As many as are ready.
    pub ready: i32,
}

/// What a check of the servers found; an error says what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthVerdict {
    /// Whether the primary lets clients in.
    pub accepting: Result<(), String>,
    /// Whether the primary takes writes and every standby follows it.
    pub ready: Result<(), String>,
}

impl DatabaseStatusWriter {
    /// pgrekey has seen the database.
    pub fn started(&mut self) {
        if find(&self.conditions, PROVISIONING_STARTED).is_none() {
            let message = format!(
                "The KubeDB operator has started the provisioning of Postgres: {}",
                self.database
            );
            let condition = Condition::new(PROVISIONING_STARTED, self.now.clone());
            condition::set(
                &mut self.conditions,
                condition.because("DatabaseProvisioningStartedSuccessfully", message),
            );
        }
    }

    /// So many pods are ready.
    pub fn replicas(&mut self, Replicas { desired, ready }: Replicas) {
        if desired == ready {
            return self.put(
                REPLICA_READY,
                true,
                "AllReplicasReady",
                "All desired replicas are ready.".to_owned(),
            );
        }
        let message = format!(
            "All desired replicas are not ready. For PetSet: {} desired replicas: {desired}, ready replicas: {ready}.",
            self.database
        );
        self.put(REPLICA_READY, false, "SomeReplicasNotReady", message);
    }

    /// The servers were checked. Whether the database has been ready once follows.
    pub fn checked(&mut self, verdict: &HealthVerdict) {
        let database = self.database.clone();
        match &verdict.accepting {
            Ok(()) => {
                let message = format!("The PostgreSQL: {database} is accepting client requests.");
                self.put(
                    ACCEPTING_CONNECTION,
                    true,
                    "DatabaseAcceptingConnectionRequest",
                    message,
                );
            }
            Err(why) => {
                let message = format!(
                    "The PostgreSQL: {database} is not accepting client requests. error: {why}"
                );
                self.put(
                    ACCEPTING_CONNECTION,
                    false,
                    "DatabaseNotAcceptingConnectionRequest",
                    message,
                );
            }
        }
        match &verdict.ready {
            Ok(()) => {
                let message = "DB is ready because of server getting Online and Running state";
                self.put(READY, true, "ReadinessCheckSucceeded", message.to_owned());
            }
            Err(why) => {
                let message = format!("The PostgreSQL: {database} is not ready. error: {why}");
                self.put(READY, false, "ReadinessCheckFailed", message);
            }
        }
        if [REPLICA_READY, ACCEPTING_CONNECTION, READY]
            .iter()
            .all(|type_| holds(&self.conditions, type_))
        {
            let message = format!("The PostgreSQL: {database} is successfully provisioned.");
            self.put(
                PROVISIONED,
                true,
                "DatabaseSuccessfullyProvisioned",
                message,
            );
        }
    }

    /// The database is stopped, as its spec asks.
    pub fn halted(&mut self) {
        const REASON: &str = "DatabaseHaltedSuccessfully";
        let message = format!("PostgreSQL {} successfully halted.", self.database);
        self.put(HALTED, true, REASON, message.clone());
        self.put(ACCEPTING_CONNECTION, false, REASON, message.clone());
        self.put(READY, false, REASON, message);
    }

    /// The database is to run.
    pub fn not_halted(&mut self) {
        condition::remove(&mut self.conditions, HALTED);
    }

    /// Somebody wants the database to be left alone, in these words. Whoever came first has it: a
    /// pause is a lock.
    pub fn paused(&mut self, words: &str) {
        if !holds(&self.conditions, PAUSED) {
            self.put(PAUSED, true, PAUSED, words.to_owned());
        }
    }

    /// Who said these words has done with the database. Others keep it paused.
    pub fn resumed(&mut self, words: &str) {
        if is_paused_in(&self.conditions, words) {
            condition::remove(&mut self.conditions, PAUSED);
        }
    }

    /// This is in the way.
    pub fn blocked(&mut self, reason: &str, message: &str) {
        self.put(BLOCKED, true, reason, message.to_owned());
    }

    /// Nothing is in the way.
    pub fn free(&mut self) {
        condition::remove(&mut self.conditions, BLOCKED);
    }

    /// This waits for a restart, or nothing does.
    pub fn restart_pending(&mut self, what: Option<&str>) {
        match what {
            Some(what) => self.put(RESTART_PENDING, true, "SettingsChanged", what.to_owned()),
            None => drop(condition::remove(&mut self.conditions, RESTART_PENDING)),
        }
    }

    /// This CA ends before a certificate below it, or none does.
    pub fn ca_ends_early(&mut self, which: Option<&str>) {
        match which {
            Some(which) => self.put(
                CA_ENDS_EARLY,
                true,
                "CAEndsBeforeCertificate",
                which.to_owned(),
            ),
            None => drop(condition::remove(&mut self.conditions, CA_ENDS_EARLY)),
        }
    }

    fn put(&mut self, type_: &str, holds: bool, reason: &str, message: String) {
        let condition = Condition::new(type_, self.now.clone())
            .with_status(holds)
            .because(reason, message);
        condition::set(
            &mut self.conditions,
            condition.of_generation(self.generation),
        );
    }
}

#[cfg(test)]
mod tests;
