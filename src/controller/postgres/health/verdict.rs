//! The verdict of a check: whether a database accepts connections and is ready.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::api::Postgres;
use crate::controller::postgres::scale::slot_name;
use crate::database::ProbeError;
use crate::database::server_status::ServerStatus;
use crate::plan::status::database::HealthVerdict;

/// The answer of one server.
#[derive(Debug)]
pub(super) struct CheckAnswer {
    pub(super) status: ServerStatus,
    /// Whether it accepts writes, if it was asked.
    pub(super) writes: Result<(), ProbeError>,
    /// Its replication slots without a standby.
    pub(super) idle_slots: Vec<String>,
}

/// The answers of all servers, by the names of their pods.
pub(super) struct CheckAnswers(pub(super) BTreeMap<String, Result<CheckAnswer, ProbeError>>);

impl CheckAnswers {
    /// Whether any server answered.
    pub(super) fn any(&self) -> bool {
        self.0.values().any(Result::is_ok)
    }

    /// The primary: of two that think they are, the one that was promoted last.
    pub(super) fn primary(&self) -> Option<(&String, &CheckAnswer)> {
        let answered = self.0.iter();
        answered
            .filter_map(|(name, answer)| Some((name, answer.as_ref().ok()?)))
            .filter(|(_, answer)| !answer.status.in_recovery)
            .max_by_key(|(_, answer)| answer.status.timeline)
    }

    /// The verdict, where so many servers are desired.
    pub(super) fn verdict(&self, desired: i32) -> HealthVerdict {
        let Some((name, primary)) = self.primary() else {
            let silent = self
                .0
                .iter()
                .find_map(|(name, answer)| Some(format!("{name} {}", answer.as_ref().err()?)));
            let why = silent.unwrap_or_else(|| "no server is the primary".to_owned());
            return HealthVerdict {
                accepting: Err(why.clone()),
                ready: Err(why),
            };
        };
        HealthVerdict {
            accepting: Ok(()),
            ready: self.readiness(desired, name, primary),
        }
    }

    /// Ready: the primary accepts writes, every standby streams, and there are enough servers.
    fn readiness(&self, desired: i32, name: &str, primary: &CheckAnswer) -> Result<(), String> {
        primary
            .writes
            .as_ref()
            .map_err(|error| format!("{name} takes no writes: {error}"))?;
        for (standby, answer) in self.0.iter().filter(|(standby, _)| *standby != name) {
            answer
                .as_ref()
                .map_err(|error| format!("{standby} {error}"))?;
            let stream = primary.status.standbys.get(standby);
            if stream.is_none_or(|stream| stream.state != "streaming") {
                return Err(format!("{standby} does not stream from {name}"));
            }
        }
        let found = i32::try_from(self.0.len()).unwrap_or(i32::MAX);
        if found < desired {
            Err(format!("{found} of {desired} servers are there"))
        } else {
            Ok(())
        }
    }
}

/// The slots of members that are not to come back: their ordinals are beyond the last pod, and they
/// have no pod.
pub(super) fn left_slots(postgres: &Postgres, pods: &[Arc<Pod>], idle: &[String]) -> Vec<String> {
    let prefix = format!("{}_", slot_name(&postgres.name_any()));
    let replicas = postgres.spec.desired_replicas();
    let alive: BTreeSet<String> = pods.iter().map(|pod| slot_name(&pod.name_any())).collect();
    let ordinal = |slot: &str| slot.strip_prefix(&prefix)?.parse::<i32>().ok();
    let is_left = |slot: &&String| {
        ordinal(slot).is_some_and(|ordinal| ordinal >= replicas) && !alive.contains(slot.as_str())
    };
    idle.iter().filter(is_left).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::server_status::{Lsn, StatReplication};

    fn answer(in_recovery: bool, standbys: &[(&str, &str)]) -> CheckAnswer {
        let stream = |state: &str| StatReplication {
            state: state.to_owned(),
            replayed: Lsn(1),
            ssl: false,
            client_dn: None,
        };
        CheckAnswer {
            status: ServerStatus {
                in_recovery,
                timeline: 1,
                position: Lsn(1),
                ssl: false,
                hba: vec![],
                standbys: standbys
                    .iter()
                    .map(|(name, state)| ((*name).to_owned(), stream(state)))
                    .collect(),
            },
            writes: Ok(()),
            idle_slots: vec![],
        }
    }

    fn verdict(
        answers: Vec<(&str, Result<CheckAnswer, ProbeError>)>,
        desired: i32,
    ) -> (bool, Option<String>) {
        let answers = answers
            .into_iter()
            .map(|(name, answer)| (name.to_owned(), answer))
            .collect();
        let HealthVerdict { accepting, ready } = CheckAnswers(answers).verdict(desired);
        (accepting.is_ok(), ready.err())
    }

    #[test]
    fn a_database_is_ready_when_all_of_it_is() {
        let both = [("pg-1", "streaming")];
        assert_eq!(
            verdict(
                vec![
                    ("pg-0", Ok(answer(false, &both))),
                    ("pg-1", Ok(answer(true, &[])))
                ],
                2
            ),
            (true, None)
        );
        for (answers, desired, why) in [
            (
                vec![("pg-0", Ok(answer(false, &[])))],
                2,
                "1 of 2 servers are there",
            ),
            (
                vec![
                    ("pg-0", Ok(answer(false, &[]))),
                    ("pg-1", Ok(answer(true, &[]))),
                ],
                2,
                "pg-1 does not stream from pg-0",
            ),
            (
                vec![
                    ("pg-0", Ok(answer(false, &[("pg-1", "catchup")]))),
                    ("pg-1", Ok(answer(true, &[]))),
                ],
                2,
                "pg-1 does not stream from pg-0",
            ),
            (
                vec![
                    ("pg-0", Ok(answer(false, &both))),
                    ("pg-1", Err(ProbeError::TooSlow)),
                ],
                2,
                "pg-1 did not answer within 3 s",
            ),
            (
                vec![(
                    "pg-0",
                    Ok(CheckAnswer {
                        writes: Err(ProbeError::Query("no".into())),
                        ..answer(false, &[])
                    }),
                )],
                1,
                "pg-0 takes no writes: query failed: no",
            ),
        ] {
            assert_eq!(verdict(answers, desired), (true, Some(why.to_owned())));
        }
    }

    #[test]
    fn without_a_primary_no_connection_is_accepted() {
        let standby = || Ok(answer(true, &[]));
        assert_eq!(
            verdict(vec![("pg-0", standby())], 1),
            (false, Some("no server is the primary".to_owned()))
        );
        let refused = Err(ProbeError::Refused("starting up".into()));
        let why = "pg-1 refuses the login: starting up".to_owned();
        assert_eq!(
            verdict(vec![("pg-0", standby()), ("pg-1", refused)], 2),
            (false, Some(why))
        );
        assert!(!verdict(vec![], 1).0);
    }

    #[test]
    fn of_two_servers_that_think_they_are_the_primary_the_one_promoted_last_is() {
        let mut newer = answer(false, &[]);
        newer.status.timeline = 2;
        let answers: BTreeMap<_, _> = [
            ("pg-0".to_owned(), Ok(newer)),
            ("pg-1".to_owned(), Ok(answer(false, &[]))),
        ]
        .into();
        assert_eq!(
            CheckAnswers(answers)
                .primary()
                .map(|(name, _)| name.as_str()),
            Some("pg-0")
        );
    }

    #[test]
    fn only_the_slots_of_members_that_stay_away_are_left() {
        let mut postgres = Postgres::new(
            "ha-pg",
            serde_saphyr::from_str("{version: '17', replicas: 2}").expect("a spec"),
        );
        postgres.metadata.namespace = Some("demo".to_owned());
        let mut leaving = Pod::default();
        leaving.metadata.name = Some("ha-pg-2".to_owned());
        let idle = ["ha_pg_1", "ha_pg_2", "ha_pg_3", "ha_pg_x", "mine"].map(str::to_owned);
        assert_eq!(
            left_slots(&postgres, &[Arc::new(leaving)], &idle),
            ["ha_pg_3"]
        );
    }
}
