//! Patroni: which pod leads, which may lead next, and which standbys are synchronous.

use std::collections::BTreeSet;

use pgrekey::plan::SwitchoverCandidates;

use super::World;
use super::pods::SimPod;

/// Every so many seconds Patroni's primary chooses the synchronous standbys.
const LOOP_WAIT: i64 = 5;

/// Patroni's record of the synchronous standbys.
#[derive(Clone, Debug)]
pub(super) struct Synchronous {
    /// So many standbys should be synchronous.
    pub(super) count: usize,
    pub(super) standbys: BTreeSet<String>,
    /// Switchovers that Patroni has dropped.
    pub(super) dropped: u32,
}

impl World {
    /// Patroni's part of one second: switchover, failover, synchronous standbys.
    pub(super) fn run_patroni(&mut self) {
        let second = self.second;
        if let Some((to, _)) = self.switching.take_if(|(_, at)| *at <= second) {
            self.hand_over(to);
        }
        if self.leader_pod().is_none_or(|pod| !self.is_up(pod)) {
            self.fail_over();
        }
        if second % LOOP_WAIT == 0 {
            self.choose_synchronous();
        }
    }

    /// Commits wait for so many standbys.
    pub(crate) fn synchronise(&mut self, count: usize) {
        self.synchronous = Some(Synchronous {
            count,
            standbys: BTreeSet::new(),
            dropped: 0,
        });
        self.choose_synchronous();
    }

    /// How many switchovers Patroni has dropped, because they named a standby that is not
    /// synchronous.
    pub(crate) fn dropped(&self) -> u32 {
        self.synchronous
            .as_ref()
            .map_or(0, |synchronous| synchronous.dropped)
    }

    /// Patroni promotes a standby that streamed, if there is one.
    pub(crate) fn fail_over(&mut self) {
        let may_lead = |pod: &&SimPod| {
            self.is_up(pod) && pod.name != self.leader && self.successors().include(&pod.name)
        };
        let next = self.pods.iter().find(may_lead).map(|pod| pod.name.clone());
        if let Some(next) = next {
            self.lead(next);
            self.switching = None;
        }
    }

    /// Patroni hands the leadership over to a synchronous standby, and drops a switchover to any
    /// other.
    fn hand_over(&mut self, to: String) {
        match &mut self.synchronous {
            Some(synchronous) if !synchronous.standbys.contains(&to) => synchronous.dropped += 1,
            _ => self.lead(to),
        }
    }

    /// A new primary begins without synchronous standbys.
    fn lead(&mut self, pod: String) {
        self.leader = pod;
        if let Some(synchronous) = &mut self.synchronous {
            synchronous.standbys.clear();
        }
    }

    pub(super) fn successors(&self) -> SwitchoverCandidates {
        self.synchronous
            .as_ref()
            .map_or(SwitchoverCandidates::Any, |known| {
                SwitchoverCandidates::Only(known.standbys.clone())
            })
    }

    /// Patroni's primary keeps those that stream and takes others for those that do not, whichever
    /// it finds first.
    fn choose_synchronous(&mut self) {
        if self.leader_pod().is_none_or(|leader| !self.is_up(leader)) {
            return;
        }
        let streaming = self
            .pods
            .iter()
            .filter(|pod| pod.name != self.leader && self.is_up(pod) && self.streams(pod));
        let streaming: Vec<String> = streaming.map(|pod| pod.name.clone()).collect();
        let Some(Synchronous {
            count, standbys, ..
        }) = &mut self.synchronous
        else {
            return;
        };
        standbys.retain(|name| streaming.contains(name));
        for name in streaming.into_iter().rev() {
            if standbys.len() < *count {
                standbys.insert(name);
            }
        }
    }
}
