//! To whom Patroni hands the leadership over when it is asked.

use std::collections::{BTreeMap, BTreeSet};

use crate::build::patroni::DynamicConfig;

/// The standbys that a switchover may name.
///
/// Where commits wait for standbys, Patroni (4.0 and 4.1) takes only one that is in its record of
/// who is synchronous: its `Ha.get_failover_candidates` leaves out everybody else, and
/// `Ha.process_manual_failover_from_leader` then drops the wish and says so nowhere but in its log.
/// That goes for `synchronous_mode: true` and for `quorum` alike. In `quorum` every standby that
/// streams comes into the record, but only at one of the primary's next looks: after `loop_wait`,
/// more right after a promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwitchoverCandidates {
    /// Commits wait for nobody, or the primary has not begun to keep the record.
    Any,
    /// These.
    Only(BTreeSet<String>),
}

impl SwitchoverCandidates {
    /// By Patroni's dynamic configuration, and by its record: the annotations of ConfigMap
    /// `NAME-sync`.
    ///
    /// The record counts once there is a leader in it (`Ha.sync_mode_is_active`). Its
    /// `sync_standby` are names with commas between them (`SyncState.voters`), and the annotation
    /// is away when there is none.
    #[must_use]
    pub fn from_patroni(config: &DynamicConfig, record: Option<&BTreeMap<String, String>>) -> Self {
        let is_kept = |record: &&BTreeMap<String, String>| {
            record
                .get("leader")
                .is_some_and(|leader| !leader.is_empty())
        };
        let Some(record) = record.filter(|_| config.is_synchronous()).filter(is_kept) else {
            return Self::Any;
        };
        let names = record
            .get("sync_standby")
            .into_iter()
            .flat_map(|names| names.split(','));
        Self::Only(
            names
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
        )
    }

    /// Whether the pod of this name is one of them.
    #[must_use]
    pub fn include(&self, pod: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names.contains(pod),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn config(mode: &Value) -> DynamicConfig {
        DynamicConfig::parse(&json!({"synchronous_mode": mode}).to_string()).expect("JSON")
    }

    fn of(mode: &Value, record: &[(&str, &str)]) -> SwitchoverCandidates {
        let record = record
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        SwitchoverCandidates::from_patroni(&config(mode), Some(&record))
    }

    fn only(names: &[&str]) -> SwitchoverCandidates {
        SwitchoverCandidates::Only(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn only_a_standby_in_the_sync_record_may_lead_next() {
        let record = [
            ("leader", "pg-0"),
            ("sync_standby", "pg-2,pg-1"),
            ("quorum", "1"),
        ];
        for mode in [json!(true), json!("quorum")] {
            let successors = of(&mode, &record);
            assert_eq!(successors, only(&["pg-1", "pg-2"]), "{mode}");
            assert!(
                successors.include("pg-1") && !successors.include("pg-3"),
                "{mode}"
            );
        }
    }

    #[test]
    fn without_a_synchronous_standby_no_pod_may_lead_next() {
        for record in [
            &[("leader", "pg-0")][..],
            &[("leader", "pg-0"), ("sync_standby", "")],
        ] {
            assert_eq!(of(&json!(true), record), only(&[]), "{record:?}");
        }
    }

    #[test]
    fn anybody_may_lead_next_where_there_is_no_record_or_it_is_of_the_past() {
        let record = [("leader", "pg-0"), ("sync_standby", "pg-1")];
        for (mode, record) in [
            (json!(null), &record[..]),
            (json!(false), &record),
            (json!(true), &record[1..]),
            (json!(true), &[("leader", ""), ("sync_standby", "")]),
            (json!(true), &[]),
        ] {
            assert_eq!(
                of(&mode, record),
                SwitchoverCandidates::Any,
                "{mode} {record:?}"
            );
        }
        assert_eq!(
            SwitchoverCandidates::from_patroni(&config(&json!(true)), None),
            SwitchoverCandidates::Any
        );
        assert!(SwitchoverCandidates::Any.include("pg-1"));
    }
}
