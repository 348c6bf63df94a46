//! Fewer pods: which pods may go, and which pod must lead first.

use std::ops::Range;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::Value;

use crate::build::meta::{ROLE_LABEL, STANDBY};
use crate::build::workload::ordinal;

use crate::plan::SwitchoverCandidates;

/// The next step on the way to fewer pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleDown {
    /// The set gets this many pods.
    Resize(i32),
    /// The pod with this ordinal must lead first, because the primary is among those that go.
    SwitchOver(i32),
    /// No pod may go now.
    Wait,
}

/// The pods of a set that gets fewer of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodCounts {
    /// How many pods the set has.
    pub current: i32,
    /// How many it should have.
    pub desired: i32,
}

impl PodCounts {
    /// Whether the primary, with this ordinal, is among the pods that stay.
    #[must_use]
    pub fn keep(&self, primary: i32) -> bool {
        primary < self.desired
    }

    /// The next step where the primary does not stay.
    ///
    /// `primary` is its ordinal; `None` if it is no pod of this set.
    ///
    /// 1. The most advanced candidate that stays is to lead.
    /// 2. Patroni may accept none of those, because the synchronous standbys go as well. Then a
    ///    candidate below the primary leads for a while.
    /// 3. Else only the pods above the primary go.
    ///
    /// Each round leaves the primary fewer standbys to make synchronous, so at last it makes one
    /// synchronous that stays. While no pod that stays streams, no pod goes.
    #[must_use]
    pub fn next_step(&self, primary: Option<i32>, standbys: &[StreamingStandby]) -> ScaleDown {
        let primary = primary.unwrap_or(self.current);
        let most_advanced = |ordinals: Range<i32>| {
            standbys
                .iter()
                .filter(|standby| standby.may_lead && ordinals.contains(&standby.ordinal))
                .max_by_key(|standby| (standby.wal_position, standby.ordinal))
                .map(|standby| standby.ordinal)
        };
        if !standbys.iter().any(|standby| self.keep(standby.ordinal)) {
            return ScaleDown::Wait;
        }
        let next = most_advanced(0..self.desired).or_else(|| most_advanced(self.desired..primary));
        match next {
            Some(next) => ScaleDown::SwitchOver(next),
            None if most_advanced(primary + 1..i32::MAX).is_some() => {
                ScaleDown::Resize(primary + 1)
            }
            None => ScaleDown::Wait,
        }
    }
}

/// A standby that streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamingStandby {
    /// The number at the end of its pod's name.
    pub ordinal: i32,
    /// Replayed, in bytes of WAL.
    pub wal_position: u64,
    /// Patroni would hand the leadership over to it.
    pub may_lead: bool,
}

impl StreamingStandby {
    /// A pod of a database as a standby that streams, by what Patroni writes on it; `None` if it is
    /// none.
    #[must_use]
    pub fn parse(database: &str, pod: &Pod, candidates: &SwitchoverCandidates) -> Option<Self> {
        let status: Value = serde_json::from_str(pod.annotations().get("status")?).ok()?;
        let streams = status["replication_state"] == "streaming" && status["state"] == "running";
        let role = pod.labels().get(ROLE_LABEL)?;
        if !streams || role != STANDBY || pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let name = pod.name_any();
        Some(Self {
            ordinal: ordinal(database, &name)?,
            wal_position: status["xlog_location"].as_u64().unwrap_or_default(),
            may_lead: candidates.include(&name),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, role: &str, status: &Value) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod.labels_mut()
            .insert(ROLE_LABEL.to_owned(), role.to_owned());
        pod.annotations_mut()
            .insert("status".to_owned(), status.to_string());
        pod
    }

    fn standby(ordinal: i32, wal_position: u64, may_lead: bool) -> StreamingStandby {
        StreamingStandby {
            ordinal,
            wal_position,
            may_lead,
        }
    }

    const FOUR_TO_TWO: PodCounts = PodCounts {
        current: 4,
        desired: 2,
    };

    #[test]
    fn only_a_standby_that_streams_may_take_over_and_the_most_advanced_does() {
        let status = |at: u64, replication: &str| json!({"state": "running", "replication_state": replication, "xlog_location": at});
        let mut leaving = pod("pg-5", "standby", &status(9, "streaming"));
        leaving.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let pods = [
            pod("pg-0", "standby", &status(5, "streaming")),
            pod("pg-1", "standby", &status(7, "streaming")),
            pod("pg-2", "standby", &status(9, "in archive recovery")),
            pod("pg-3", "primary", &status(9, "streaming")),
            pod("pg-4", "standby", &json!("?")),
            leaving,
            pod("other-0", "standby", &status(9, "streaming")),
        ];
        let standbys = |candidates: &SwitchoverCandidates| -> Vec<StreamingStandby> {
            pods.iter()
                .filter_map(|pod| StreamingStandby::parse("pg", pod, candidates))
                .collect()
        };
        let all = standbys(&SwitchoverCandidates::Any);
        assert_eq!(all, [standby(0, 5, true), standby(1, 7, true)]);
        let only = standbys(&SwitchoverCandidates::Only(BTreeSet::from([
            "pg-0".to_owned()
        ])));
        assert_eq!(only, [standby(0, 5, true), standby(1, 7, false)]);
        let next = |standbys: &[_]| FOUR_TO_TWO.next_step(Some(3), standbys);
        assert_eq!(next(&all), ScaleDown::SwitchOver(1));
        assert_eq!(next(&only), ScaleDown::SwitchOver(0));
    }

    #[test]
    fn scaling_down_ends_with_a_primary_that_stays_whichever_standby_is_synchronous() {
        for (pods, desired) in (2..6).flat_map(|pods| (1..pods).map(move |desired| (pods, desired)))
        {
            // Patroni makes another standby synchronous whenever the primary changes or the
            // synchronous one goes: here always the one that helps least.
            for (primary, synchronous) in
                (desired..pods).flat_map(|primary| (0..pods).map(move |other| (primary, other)))
            {
                let (mut current, mut primary, mut synchronous) = (pods, primary, synchronous);
                let mut steps = 0;
                while primary >= desired {
                    if synchronous == primary || synchronous >= current {
                        synchronous = (0..current)
                            .rev()
                            .find(|ordinal| *ordinal != primary)
                            .expect("a standby");
                    }
                    let standbys: Vec<StreamingStandby> = (0..current)
                        .filter(|ordinal| *ordinal != primary)
                        .map(|ordinal| standby(ordinal, 1, ordinal == synchronous))
                        .collect();
                    match (PodCounts { current, desired }).next_step(Some(primary), &standbys) {
                        ScaleDown::SwitchOver(next) => {
                            assert_eq!(next, synchronous);
                            primary = next;
                        }
                        ScaleDown::Resize(fewer) => {
                            assert!(fewer < current && fewer > primary, "{fewer} of {current}");
                            current = fewer;
                        }
                        ScaleDown::Wait => panic!("{current} pods, {primary} leads"),
                    }
                    steps += 1;
                    assert!(steps < 20, "it does not end");
                }
            }
        }
    }

    #[test]
    fn no_pod_goes_while_no_pod_that_stays_could_ever_lead() {
        for (primary, standbys, expected) in [
            (Some(3), vec![], ScaleDown::Wait),
            // Those that stay do not stream.
            (Some(3), vec![standby(2, 1, true)], ScaleDown::Wait),
            (Some(2), vec![standby(3, 1, true)], ScaleDown::Wait),
            // No standby is synchronous yet.
            (
                Some(3),
                vec![standby(0, 1, false), standby(2, 1, false)],
                ScaleDown::Wait,
            ),
            // The only synchronous one goes first.
            (
                Some(2),
                vec![standby(0, 1, false), standby(3, 1, true)],
                ScaleDown::Resize(3),
            ),
            // The leader is no pod of this set.
            (None, vec![standby(1, 1, true)], ScaleDown::SwitchOver(1)),
            (
                None,
                vec![standby(1, 1, false), standby(3, 1, true)],
                ScaleDown::SwitchOver(3),
            ),
        ] {
            let case = format!("{primary:?} {standbys:?}");
            assert_eq!(
                FOUR_TO_TWO.next_step(primary, &standbys),
                expected,
                "{case}"
            );
        }
    }
}
