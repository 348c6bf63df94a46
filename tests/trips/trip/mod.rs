//! An operation under way: the product decides and the simulated cluster obeys, until the request
//! rests.

mod fault;
mod transcript;

use std::collections::BTreeSet;
use std::sync::Arc;

use pgrekey::api::PostgresOpsRequest;
use pgrekey::api::ops_request::{OpsPhase, PostgresOpsRequestStatus};
use pgrekey::controller::STATUS_DELAY;
use pgrekey::plan::status::write_policy::{PendingStatus, StatusWrite};
use pgrekey::plan::transition::{Transition, transition};
use pgrekey::plan::{Decision, decide};

use crate::world::World;
pub(crate) use fault::Fault;

/// A trip under way.
pub(crate) struct Trip {
    pub(crate) world: World,
    /// The status that pgrekey remembers and has not written; it goes when pgrekey dies.
    pub(crate) draft: Option<PendingStatus>,
    fault: Fault,
    pub(crate) effects: usize,
    /// The effects that are not the first ones of their actions.
    within_actions: BTreeSet<usize>,
    /// How often something was written to the API server: status, and everything.
    pub(crate) writes: (usize, usize),
    failing: Option<&'static str>,
    /// Second until which no status can be written.
    mute_until: i64,
    pub(crate) log: String,
    /// The way leads back.
    has_turned: bool,
    /// The events, as people read them.
    events: Vec<String>,
    last: String,
    /// How often the last line was repeated: after a minute of the same, time passes faster.
    repeated: u32,
}

/// More seconds than any trip takes, faults and all.
const LONGEST: i64 = 20_000;

impl Trip {
    pub(crate) fn new(mut world: World, fault: Fault) -> Self {
        if matches!(fault, Fault::Forever(_) | Fault::Hopeless(_)) {
            // Seconds that nothing happens in prove nothing.
            world.set_timeout("2m");
        }
        Self {
            world,
            draft: None,
            fault,
            effects: 0,
            within_actions: BTreeSet::new(),
            writes: (0, 0),
            failing: None,
            mute_until: 0,
            log: String::new(),
            has_turned: false,
            events: vec![],
            last: String::new(),
            repeated: 0,
        }
    }

    /// Goes on until the request rests.
    pub(crate) fn run(self) -> Self {
        self.run_with(|_, _| {})
    }

    /// The same, with a test that disturbs the world before each observation, knowing the log.
    pub(crate) fn run_with(mut self, disturb: impl Fn(&mut World, &str)) -> Self {
        while self.world.second() < LONGEST {
            disturb(&mut self.world, &self.log);
            if self.step() {
                return self;
            }
        }
        panic!("{:?} never ends:\n{}", self.fault, self.log);
    }

    /// The same, until so many effects have happened.
    pub(crate) fn run_until(mut self, effects: usize) -> Self {
        while self.effects < effects && !self.step() {}
        self
    }

    /// The effects with which statuses are written and actions begin.
    pub(crate) fn first_effects(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.effects).filter(|at| !self.within_actions.contains(at))
    }

    /// The other ones: a fault at one leaves an action half done. How many pods there are does not
    /// matter to it.
    pub(crate) fn later_effects(&self) -> impl Iterator<Item = usize> + '_ {
        self.within_actions.iter().copied()
    }

    /// One reconcile: observes, derives the transition, records it and executes its actions. Says
    /// whether the request rests.
    pub(crate) fn step(&mut self) -> bool {
        let mut seen = self.world.observe();
        let now = self.world.now();
        if let Some(draft) = &self.draft {
            Arc::make_mut(&mut seen.request).status = Some(draft.status.clone());
            seen.stored.since = Some(draft.since);
        }
        let transition = transition(&seen, STATUS_DELAY, now);
        let Transition {
            decision,
            status,
            write,
            events,
            ..
        } = &transition;
        if matches!(decision, Decision::Rest(_)) {
            return true;
        }
        if self.fault == Fault::None {
            assert_eq!(
                *decision,
                decide(&seen, now),
                "the same observation leads to another decision"
            );
        }
        self.note_decision(decision);
        self.must_remember(&seen.request, status);
        self.note_events(events);
        match write {
            StatusWrite::Unchanged => {}
            StatusWrite::Deferred(draft) => self.draft = Some(draft.as_ref().clone()),
            StatusWrite::Immediate => {
                let write = |world: &mut World| world.request.status = Some(status.clone());
                if !self.effect("Status", 1, write) {
                    return false;
                }
                self.draft = None;
            }
        }
        for action in transition.actions() {
            for (nth, write) in self.world.writes(&action).iter().enumerate() {
                if nth > 0 {
                    self.within_actions.insert(self.effects);
                }
                if !self.effect(action.name(), write.count(), |world| world.write(write)) {
                    return false;
                }
            }
        }
        self.pass(if self.repeated > 60 { 20 } else { 1 });
        false
    }

    /// The record of the steps only grows.
    fn must_remember(&self, request: &PostgresOpsRequest, status: &PostgresOpsRequestStatus) {
        let known = request.status.iter().flat_map(|status| &status.steps);
        for (old, new) in known.zip(&status.steps) {
            assert!(
                old.name == new.name && old.attempts <= new.attempts,
                "the record forgets {}\n{}",
                old.name,
                self.log
            );
        }
    }

    /// One effect; false if it is not known to have happened, and the rest of the decision is left.
    fn effect(
        &mut self,
        kind: &'static str,
        writes: usize,
        happen: impl FnOnce(&mut World),
    ) -> bool {
        let at = self.effects;
        self.effects += 1;
        self.disturb(at, kind);
        if self.fails(kind) {
            self.pass(1);
            return false;
        }
        self.writes = (
            self.writes.0 + usize::from(kind == "Status"),
            self.writes.1 + writes,
        );
        match self.fault {
            Fault::CrashBefore(when) if at == when => {
                self.draft = None;
                self.pass(10);
                false
            }
            Fault::Once(when) if at == when => {
                self.pass(1);
                false
            }
            Fault::CrashAfter(when) if at == when => {
                self.draft = None;
                happen(&mut self.world);
                self.pass(10);
                false
            }
            Fault::Unheard(when) if at == when => {
                happen(&mut self.world);
                self.pass(1);
                false
            }
            _ => {
                happen(&mut self.world);
                true
            }
        }
    }

    /// The world's part of the fault of this trip, before the `at`th effect.
    fn disturb(&mut self, at: usize, kind: &'static str) {
        match self.fault {
            Fault::Forever(first) | Fault::Hopeless(first)
                if at == first
                    && !self.has_turned
                    && !matches!(
                        kind,
                        "Status" | "AddFinalizer" | "RemoveFinalizer" | "Resume"
                    ) =>
            {
                self.failing = Some(kind);
            }
            Fault::PodDies(when) if at == when => self.world.kill(at),
            Fault::FailsOver(when) if at == when => self.world.fail_over(),
            Fault::Mute(when) if at == when => self.mute_until = self.world.second() + 30,
            Fault::Blind(when) if at == when => {
                self.world.trouble.blind_until = self.world.second() + 30;
            }
            _ => {}
        }
    }

    /// Whether the API server refuses an effect of this kind now.
    fn fails(&self, kind: &str) -> bool {
        let is_over = self.has_turned && !matches!(self.fault, Fault::Hopeless(_));
        let is_mute = kind == "Status" && self.world.second() < self.mute_until;
        self.failing == Some(kind) && !is_over || is_mute
    }

    fn pass(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.world.pass();
            // A walk that stopped half-way may refuse clients until it is walked again.
            if matches!(self.fault, Fault::Hopeless(_)) && self.world.request.is_finished() {
                continue;
            }
            // Once forth, and once back.
            let restarts = 1 + u32::from(self.has_turned);
            if let Err(why) = self.world.law(self.fault.disturbs(), restarts) {
                panic!(
                    "{:?} at {} s: {why}\n{}",
                    self.fault,
                    self.world.second(),
                    self.log
                );
            }
        }
    }

    pub(crate) fn phase(&self) -> Option<OpsPhase> {
        self.world
            .request
            .status
            .as_ref()
            .and_then(|status| status.phase)
    }

    /// The request has succeeded, and the database is well.
    pub(crate) fn must_have_succeeded(&mut self, what: &str) {
        assert_eq!(
            self.phase(),
            Some(OpsPhase::Successful),
            "{what}\n{}",
            self.log
        );
        self.must_be_well(what);
    }

    /// The request has ended, one way or the other, and the database is well.
    pub(crate) fn must_be_well(&mut self, what: &str) {
        // A pod that died at the very end comes back, certificates with a defect are issued again, and
        // clients get their time.
        self.world.trouble.bad_leaf = None;
        for _ in 0..300 {
            if self.world.is_well().is_ok() {
                break;
            }
            self.world.provision();
            self.pass(1);
        }
        assert!(
            matches!(self.phase(), Some(OpsPhase::Successful | OpsPhase::Failed)),
            "{what}\n{}",
            self.log
        );
        if let Err(why) = self.world.is_well() {
            panic!(
                "{what}: {why}\n{:#?}\n{}",
                self.world.observed_cluster().applied,
                self.log
            );
        }
    }
}
