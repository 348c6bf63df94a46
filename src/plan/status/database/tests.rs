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
fn the_phase_of_a_provisioned_database_shows_its_trouble() {
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
fn a_pause_belongs_to_the_first_request() {
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
fn a_pause_without_a_reason_stays() {
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
