//! What the status of a `Postgres` says: KubeDB's conditions with its reasons and messages, and the
//! phase that follows from them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::api::PostgresOpsRequest;
use crate::api::condition;
use crate::api::condition::{Condition, find, holds};
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
mod tests {
    use super::*;
    use crate::api::ops_request::OpsPhase;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    fn at(seconds: i64) -> Time {
        Time(Timestamp::from_second(seconds).expect("a time in range"))
    }

    fn write_at(
        seconds: i64,
        conditions: &mut Vec<Condition>,
        write: impl FnOnce(&mut DatabaseStatusWriter),
    ) {
        let (conditions_so_far, now) = (std::mem::take(conditions), at(seconds));
        let database = "demo/pg".to_owned();
        let mut writer = DatabaseStatusWriter {
            conditions: conditions_so_far,
            database,
            generation: Some(1),
            now,
        };
        write(&mut writer);
        *conditions = writer.conditions;
    }

    fn write(conditions: &mut Vec<Condition>, write: impl FnOnce(&mut DatabaseStatusWriter)) {
        write_at(1, conditions, write);
    }

    fn ready() -> HealthVerdict {
        HealthVerdict {
            accepting: Ok(()),
            ready: Ok(()),
        }
    }

    fn types(conditions: &[Condition]) -> Vec<(&str, &str)> {
        conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str()))
            .collect()
    }

    fn request(uid: &str, phase: Option<OpsPhase>) -> PostgresOpsRequest {
        let object = json!({
            "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest", "metadata": {"name": "add-tls", "uid": uid},
            "spec": {"type": "Restart", "databaseRef": {"name": "pg"}}, "status": {"phase": phase},
        });
        serde_json::from_value(object).expect("a request")
    }

    #[test]
    fn a_pause_is_abandoned_when_its_request_has_gone_or_ended() {
        let paused_by = |words: &str| {
            let mut conditions = vec![];
            write(&mut conditions, |writer| writer.paused(words));
            conditions
        };
        let at_it = request("1", Some(OpsPhase::Progressing));
        let conditions = paused_by(&pause_of(&at_it));
        let paused = PausedBy::find(&conditions).expect("a request has paused it");
        assert_eq!(
            (paused.words, paused.name),
            (pause_of(&at_it).as_str(), "add-tls")
        );
        assert!(!paused.is_abandoned(Some(&at_it)));
        for other in [
            None,
            Some(request("1", Some(OpsPhase::Failed))),
            Some(request("2", None)),
        ] {
            assert!(paused.is_abandoned(other.as_ref()), "{other:?}");
        }
        for words in ["Paused by hand", "Paused by PostgresOpsRequest", ""] {
            assert_eq!(PausedBy::find(&paused_by(words)), None);
        }
        assert_eq!(PausedBy::find(&[]), None);
    }

    #[test]
    fn a_database_that_comes_up_goes_through_the_phases_in_order() {
        let mut conditions = vec![];
        assert_eq!(phase(&conditions), None);
        write(&mut conditions, DatabaseStatusWriter::started);
        assert_eq!(phase(&conditions), Some(DatabasePhase::Provisioning));
        write(&mut conditions, |w| {
            w.replicas(Replicas {
                desired: 3,
                ready: 3,
            });
        });
        write(&mut conditions, |w| {
            w.checked(&HealthVerdict {
                accepting: Ok(()),
                ready: Err("no".to_owned()),
            });
        });
        assert_eq!(phase(&conditions), Some(DatabasePhase::Provisioning));
        write(&mut conditions, |w| w.checked(&ready()));
        assert_eq!(phase(&conditions), Some(DatabasePhase::Ready));
        let expected = [
            "ProvisioningStarted",
            "ReplicaReady",
            "AcceptingConnection",
            "Ready",
            "Provisioned",
        ];
        assert_eq!(types(&conditions), expected.map(|type_| (type_, "True")));
        let reasons: Vec<_> = conditions
            .iter()
            .filter_map(|c| c.reason.as_deref())
            .collect();
        assert_eq!(
            reasons,
            [
                "DatabaseProvisioningStartedSuccessfully",
                "AllReplicasReady",
                "DatabaseAcceptingConnectionRequest",
                "ReadinessCheckSucceeded",
                "DatabaseSuccessfullyProvisioned"
            ]
        );
    }

    #[test]
    fn what_ails_a_provisioned_database_is_in_its_phase() {
        let mut conditions = vec![];
        write(&mut conditions, |w| {
            w.started();
            w.replicas(Replicas {
                desired: 2,
                ready: 2,
            });
            w.checked(&ready());
        });
        let after = |change: &dyn Fn(&mut DatabaseStatusWriter)| {
            let mut conditions = conditions.clone();
            write(&mut conditions, change);
            phase(&conditions)
        };
        let no = || Err("no".to_owned());
        assert_eq!(
            after(&|w| w.replicas(Replicas {
                desired: 2,
                ready: 1
            })),
            Some(DatabasePhase::Critical)
        );
        assert_eq!(
            after(&|w| w.checked(&HealthVerdict {
                ready: no(),
                ..ready()
            })),
            Some(DatabasePhase::Critical)
        );
        assert_eq!(
            after(&|w| w.checked(&HealthVerdict {
                accepting: no(),
                ready: no()
            })),
            Some(DatabasePhase::NotReady)
        );
        assert_eq!(
            after(&|w| w.blocked("ObjectInTheWay", "x")),
            Some(DatabasePhase::Ready)
        );
        assert_eq!(
            after(&DatabaseStatusWriter::halted),
            Some(DatabasePhase::Halted)
        );
    }

    #[test]
    fn phases_of_features_that_others_bring_are_known() {
        let with = |type_: &str, status: bool| Condition::new(type_, at(1)).with_status(status);
        let ready = [with(PROVISIONED, true), with(READY, true)];
        for (more, expected) in [
            (vec![], DatabasePhase::Ready),
            (vec![with("Paused", true)], DatabasePhase::Ready),
            (
                vec![with(HEALTH_CHECK_PAUSED, true)],
                DatabasePhase::Unknown,
            ),
            (
                vec![with(DATA_RESTORE_STARTED, true)],
                DatabasePhase::DataRestoring,
            ),
            (
                vec![with(DATA_RESTORE_STARTED, true), with(DATA_RESTORED, false)],
                DatabasePhase::NotReady,
            ),
            (
                vec![with(DATA_RESTORE_STARTED, true), with(DATA_RESTORED, true)],
                DatabasePhase::Ready,
            ),
        ] {
            let all: Vec<_> = ready.iter().cloned().chain(more).collect();
            assert_eq!(phase(&all), Some(expected), "{all:?}");
        }
    }

    #[test]
    fn a_halted_database_comes_back() {
        let mut conditions = vec![];
        write(&mut conditions, |w| {
            w.started();
            w.replicas(Replicas {
                desired: 1,
                ready: 1,
            });
            w.checked(&ready());
            w.halted();
            w.not_halted();
        });
        assert_eq!(phase(&conditions), Some(DatabasePhase::NotReady));
        write(&mut conditions, |w| w.checked(&ready()));
        assert_eq!(phase(&conditions), Some(DatabasePhase::Ready));
    }

    #[test]
    fn a_pause_belongs_to_whoever_came_first() {
        let mut conditions = vec![];
        write(&mut conditions, |w| w.paused("mine"));
        write_at(2, &mut conditions, |w| w.paused("yours"));
        assert!(is_paused_in(&conditions, "mine") && !is_paused_in(&conditions, "yours"));
        write(&mut conditions, |w| w.resumed("yours"));
        assert!(is_paused_in(&conditions, "mine"));
        write(&mut conditions, |w| w.resumed("mine"));
        assert!(conditions.is_empty());
    }

    #[test]
    fn a_pause_that_somebody_made_without_a_word_stays() {
        let mut conditions = vec![Condition::new(PAUSED, at(1))];
        let before = conditions.clone();
        write(&mut conditions, |w| w.paused("mine"));
        write(&mut conditions, |w| w.resumed("mine"));
        assert_eq!(conditions, before);
    }

    #[test]
    fn a_pause_that_was_taken_back_can_be_had() {
        let mut conditions = vec![Condition::new(PAUSED, at(1)).with_status(false)];
        write(&mut conditions, |w| w.paused("mine"));
        assert!(is_paused_in(&conditions, "mine"));
    }

    #[test]
    fn saying_the_same_again_changes_nothing() {
        let mut conditions = vec![];
        let say = |w: &mut DatabaseStatusWriter| {
            w.started();
            w.replicas(Replicas {
                desired: 3,
                ready: 2,
            });
            w.checked(&ready());
            w.blocked("ObjectInTheWay", "x");
        };
        write(&mut conditions, say);
        let before = conditions.clone();
        write_at(99, &mut conditions, say);
        assert_eq!(conditions, before);
    }
}
