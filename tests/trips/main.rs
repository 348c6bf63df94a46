//! Operations in a simulated cluster: golden trips, and each of them again with a crash and a fault
//! at every point.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod world;

use std::fmt::Write;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use pgrekey::api::ops_request::{Apply, OpsPhase};
use pgrekey::api::postgres::DatabasePhase;
use pgrekey::api::{PostgresOpsRequest, StepKind};
use pgrekey::controller::STATUS_DELAY;
use pgrekey::plan::observed::{Observed, Paused};
use pgrekey::plan::preview::PodStrategy;
use pgrekey::plan::status::request::Severity;
use pgrekey::plan::status::write_policy::{PendingStatus, StatusWrite};
use pgrekey::plan::transition::{Transition, transition};
use pgrekey::plan::waiting::Waiting;
use pgrekey::plan::{Action, ClusterAction, Decision, Outcome, RequestAction, decide};
use pgrekey::tls::Alias;
use world::{SCENARIOS, Scenario, Told, Trouble, World};

/// What goes wrong with one effect, the `at`th of a trip. Effects are status writes and actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing does.
    None,
    /// pgrekey dies before it, and starts again 10 s later.
    CrashBefore(usize),
    /// pgrekey dies after it, and starts again 10 s later.
    CrashAfter(usize),
    /// It fails, once.
    Once(usize),
    /// It happens, and the answer is lost.
    Unheard(usize),
    /// Every effect of this kind fails from then on, until the operation turns back.
    Forever(usize),
    /// The same, also on the way back: until the end.
    Hopeless(usize),
    /// A pod dies then.
    PodDies(usize),
    /// The primary hands over by itself then.
    FailsOver(usize),
    /// Nothing is known about pods, certificates and the budget for half a minute from then on.
    Blind(usize),
    /// No status can be written for half a minute from then on.
    Mute(usize),
    /// No effect fails: the test itself disturbs the world.
    Elsewhere,
}

impl Fault {
    /// Whether pods may go for other reasons than ours.
    fn disturbs(self) -> bool {
        matches!(
            self,
            Self::PodDies(_) | Self::FailsOver(_) | Self::Elsewhere
        )
    }
}

/// A trip under way.
struct Trip {
    world: World,
    /// What pgrekey remembers, until it dies.
    draft: Option<PendingStatus>,
    fault: Fault,
    effects: usize,
    /// How often something was written to the API server: status, and everything.
    writes: (usize, usize),
    failing: Option<&'static str>,
    /// Second until which no status can be written.
    mute_until: i64,
    log: String,
    /// The way leads back.
    has_turned: bool,
    /// The events, as people read them.
    told: Vec<String>,
    last: String,
    /// How often the last line was repeated: after a minute of the same, time passes faster.
    repeated: u32,
}

/// More seconds than any trip takes, faults and all.
const LONGEST: i64 = 20_000;

impl Trip {
    fn new(mut world: World, fault: Fault) -> Self {
        if matches!(fault, Fault::Forever(_) | Fault::Hopeless(_)) {
            // Seconds that nothing happens in prove nothing.
            world.hurry("2m");
        }
        Self {
            world,
            draft: None,
            fault,
            effects: 0,
            writes: (0, 0),
            failing: None,
            mute_until: 0,
            log: String::new(),
            has_turned: false,
            told: vec![],
            last: String::new(),
            repeated: 0,
        }
    }

    /// Goes on until the request rests.
    fn run(self) -> Self {
        self.run_with(|_, _| {})
    }

    /// The same, while somebody meddles with the world before each look, knowing the log.
    fn run_with(mut self, meddle: impl Fn(&mut World, &str)) -> Self {
        while self.world.second() < LONGEST {
            meddle(&mut self.world, &self.log);
            if self.step() {
                return self;
            }
        }
        panic!("{:?} never ends:\n{}", self.fault, self.log);
    }

    /// The same, until so many effects have happened.
    fn run_until(mut self, effects: usize) -> Self {
        while self.effects < effects && !self.step() {}
        self
    }

    /// One reconcile: observes, derives the transition, records it and executes its actions. Says
    /// whether the request rests.
    fn step(&mut self) -> bool {
        let mut seen = self.world.look();
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
        self.note(decision);
        let known = seen.request.status.iter().flat_map(|status| &status.steps);
        for (old, new) in known.zip(&status.steps) {
            assert!(
                old.name == new.name && old.attempts <= new.attempts,
                "the record forgets {}\n{}",
                old.name,
                self.log
            );
        }
        self.told.extend(events.iter().map(|event| {
            let kind = match event.severity {
                Severity::Normal => "Normal",
                Severity::Warning => "Warning",
            };
            format!("{kind} {}: {}", event.reason, event.message)
        }));
        match write {
            StatusWrite::Unchanged => {}
            StatusWrite::Deferred(draft) => self.draft = Some(draft.as_ref().clone()),
            StatusWrite::Immediate => {
                let write = |world: &mut World| world.request.status = Some(status.clone());
                if !self.effect(None, write) {
                    return false;
                }
                self.draft = None;
            }
        }
        for action in transition.actions() {
            if !self.effect(Some(&action), |world| world.perform(&action)) {
                return false;
            }
        }
        self.pass(if self.repeated > 60 { 20 } else { 1 });
        false
    }

    /// One effect; false if it is not known to have happened, and the rest of the decision is left.
    fn effect(&mut self, action: Option<&Action>, happen: impl FnOnce(&mut World)) -> bool {
        let at = self.effects;
        self.effects += 1;
        let kind = action.map_or("Status", Action::name);
        let turned = self.has_turned;
        match self.fault {
            Fault::Forever(first) | Fault::Hopeless(first)
                if at == first
                    && !turned
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
        if self.failing == Some(kind) && (!turned || matches!(self.fault, Fault::Hopeless(_))) {
            self.pass(1);
            return false;
        }
        if kind == "Status" && self.world.second() < self.mute_until {
            self.pass(1);
            return false;
        }
        let writes = action.map_or(1, writes);
        self.writes = (
            self.writes.0 + usize::from(action.is_none()),
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

    fn pass(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.world.pass();
            // What was left half-way may have to be passed through again, by clients too.
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

    fn note(&mut self, decision: &Decision) {
        self.has_turned |= matches!(decision, Decision::RollBack { .. });
        let line = match decision {
            Decision::Act {
                step,
                purpose,
                actions,
                ..
            } => {
                let actions: Vec<String> = actions.iter().map(short).collect();
                format!("{step}: {purpose} [{}]", actions.join(", "))
            }
            Decision::Wait {
                step: Some(step),
                on,
                ..
            } => format!("{step}: wait for {on}"),
            Decision::Wait { step: None, on, .. } => format!("-: wait for {on}"),
            Decision::RollBack { cause } => format!("roll back: {cause}"),
            Decision::Finish(actions) => format!("after the end: {actions:?}"),
            Decision::Complete(outcome) => format!("end: {outcome:?}"),
            Decision::Rest(_) => return,
        };
        if line == self.last {
            self.repeated += 1;
            return;
        }
        let _ = writeln!(self.log, "{:>4} s  {line}", self.world.second());
        (self.last, self.repeated) = (line, 0);
    }

    /// What people are told: the conditions at the end, and every event.
    fn told(&self) -> String {
        let status = self.world.request.status.clone().unwrap_or_default();
        let conditions = status.conditions.iter().map(|condition| {
            let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            format!(
                "{} {} {}: {}",
                condition.type_,
                condition.status,
                text(&condition.reason),
                text(&condition.message)
            )
        });
        let pods = status.pods.iter().map(|pod| {
            let role = pod.role.as_deref().unwrap_or("away");
            format!(
                "{} {role}, behind: {:?}, restarted: {}",
                pod.name, pod.lag, pod.restarted
            )
        });
        let lines =
            |title: &str, lines: Vec<String>| format!("{title}\n  {}\n", lines.join("\n  "));
        lines("conditions", conditions.collect())
            + &lines("pods", pods.collect())
            + &lines("events", self.told.clone())
    }

    fn phase(&self) -> Option<OpsPhase> {
        self.world
            .request
            .status
            .as_ref()
            .and_then(|status| status.phase)
    }

    /// It has ended, one way or the other, and left the database well.
    fn must_be_well(&mut self, what: &str) {
        // A pod that died at the very end comes back, what was issued in vain is issued again, and
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
                self.world.scene().applied,
                self.log
            );
        }
    }
}

/// How many objects of the API server an action writes. Servers and agents are asked directly.
fn writes(action: &Action) -> usize {
    match action {
        Action::Cluster(
            ClusterAction::ReloadServer(_)
            | ClusterAction::ReloadPatroni(_)
            | ClusterAction::SetPassword(_),
        ) => 0,
        Action::Cluster(ClusterAction::RequestCertificates(_)) => Alias::ALL.len(),
        _ => 1,
    }
}

/// An action as transcripts have it: a leaf of the simulated world is known by its serial.
fn short(action: &Action) -> String {
    match action {
        Action::Cluster(ClusterAction::WriteFiles(files)) => {
            format!(
                "WriteFiles {} of {} CAs",
                files.material.server.fingerprint.0[0],
                files.trust.len()
            )
        }
        action => action.to_string(),
    }
}

/// With one pod, with a primary and a standby, with a majority, and with more standbys than one.
const REPLICAS: [u32; 4] = [1, 2, 3, 5];

fn each(replicas: &[u32], visit: impl Fn(&'static Scenario, u32, PodStrategy) + Sync) {
    std::thread::scope(|scope| {
        for strategy in [PodStrategy::Restart, PodStrategy::Reload] {
            let visit = &visit;
            scope.spawn(move || {
                for (trip, replicas) in SCENARIOS
                    .iter()
                    .flat_map(|trip| replicas.iter().map(move |replicas| (trip, *replicas)))
                {
                    visit(trip, replicas, strategy);
                }
            });
        }
    });
}

#[test]
fn golden_trips() {
    each(&REPLICAS, |trip, replicas, strategy| {
        let name = format!("{}-{replicas}-{strategy:?}", trip.name);
        let mut done = Trip::new(World::new(trip, replicas, strategy), Fault::None).run();
        assert_eq!(
            done.phase(),
            Some(OpsPhase::Successful),
            "{name}\n{}",
            done.log
        );
        done.must_be_well(&name);
        let rolls = strategy == PodStrategy::Restart
            || matches!(trip.name, "add" | "add-scram" | "remove" | "restart");
        assert!(
            done.world
                .evictions()
                .iter()
                .all(|n| *n == u32::from(rolls)),
            "{name}\n{}",
            done.log
        );
        assert_eq!(
            done.told().contains("ReloadTLS"),
            !rolls && trip.name != "restart",
            "{name}"
        );
        let (of_status, writes) = done.writes;
        assert!(
            writes <= 18 + 3 * replicas as usize,
            "{name}: {writes} writes\n{}",
            done.log
        );
        let _ = writeln!(
            done.log,
            "{writes} writes, {of_status} of them of the status"
        );
        if replicas == 3 {
            insta::assert_snapshot!(format!("{name}-told"), done.told());
        }
        insta::assert_snapshot!(name, done.log);
    });
}

#[test]
fn a_crash_at_any_point_changes_nothing_in_the_outcome() {
    each(&REPLICAS, |trip, replicas, strategy| {
        let world = World::new(trip, replicas, strategy);
        let effects = Trip::new(world.clone(), Fault::None).run().effects;
        for at in 0..effects {
            for fault in [Fault::CrashBefore(at), Fault::CrashAfter(at)] {
                let mut done = Trip::new(world.clone(), fault).run();
                let name = format!("{} {replicas} {strategy:?} {fault:?}", trip.name);
                assert_eq!(
                    done.phase(),
                    Some(OpsPhase::Successful),
                    "{name}\n{}",
                    done.log
                );
                done.must_be_well(&name);
            }
        }
    });
}

#[test]
fn a_fault_at_any_point_leaves_the_database_well() {
    // What goes wrong with two pods, or five, goes wrong with three.
    each(&[1, 3], |trip, replicas, strategy| {
        let world = World::new(trip, replicas, strategy);
        let effects = Trip::new(world.clone(), Fault::None).run().effects;
        for at in 0..effects {
            let mut faults = vec![
                Fault::Once(at),
                Fault::Unheard(at),
                Fault::Forever(at),
                Fault::PodDies(at),
                Fault::Blind(at),
            ];
            faults.push(Fault::Mute(at));
            if replicas > 1 {
                faults.push(Fault::FailsOver(at));
            }
            for fault in faults {
                let mut done = Trip::new(world.clone(), fault).run();
                done.must_be_well(&format!("{} {replicas} {strategy:?} {fault:?}", trip.name));
                let passes = matches!(
                    fault,
                    Fault::Once(_) | Fault::Unheard(_) | Fault::Blind(_) | Fault::Mute(_)
                );
                assert!(
                    !passes || done.phase() == Some(OpsPhase::Successful),
                    "{} {fault:?}\n{}",
                    trip.name,
                    done.log
                );
            }
        }
    });
}

#[test]
fn a_way_back_that_leads_nowhere_ends_resumed_and_the_database_goes_on_to_its_spec() {
    // Modes that were left half-way stay: whoever wants others asks for them.
    for trip in SCENARIOS
        .iter()
        .filter(|trip| !trip.name.starts_with("change-") || trip.name == "change-issuer")
    {
        let world = World::new(trip, 3, PodStrategy::Restart);
        let effects = Trip::new(world.clone(), Fault::None).run().effects;
        for at in 0..effects {
            let mut done = Trip::new(world.clone(), Fault::Hopeless(at)).run();
            done.must_be_well(&format!("{} hopeless at {at}", trip.name));
        }
    }
}

#[test]
fn a_server_that_does_not_load_the_new_leaves_turns_the_walk_back() {
    for trip in SCENARIOS
        .iter()
        .filter(|trip| matches!(trip.name, "change-issuer" | "update" | "rotate"))
    {
        let mut world = World::new(trip, 3, PodStrategy::Reload);
        world.trouble.leaves_are_refused = true;
        let spec = world.database.spec.clone();
        let mut done = Trip::new(world, Fault::None).run();
        assert_eq!(
            (done.phase(), &done.world.database.spec),
            (Some(OpsPhase::Failed), &spec),
            "{}",
            done.log
        );
        assert!(!done.log.contains("the rollback failed"), "{}", done.log);
        done.world.trouble.leaves_are_refused = false;
        done.must_be_well(trip.name);
    }
}

#[test]
fn a_request_that_waits_for_its_turn_writes_once() {
    let ahead = |seen: &mut Observed| {
        let mut first = PostgresOpsRequest::clone(&seen.request);
        first.metadata.name = Some("first".to_owned());
        first.metadata.uid = Some("first".to_owned());
        first.metadata.creation_timestamp = Some(Time(jiff::Timestamp::MIN));
        seen.siblings.push(Arc::new(first));
    };
    let crowded = |seen: &mut Observed| seen.free_slots = 0;
    let paused = |seen: &mut Observed| seen.paused = Paused::ByOther("by hand".to_owned());
    let waits: [&dyn Fn(&mut Observed); 3] = [&ahead, &crowded, &paused];
    for (at, because) in waits.into_iter().enumerate() {
        let mut world = World::new(&SCENARIOS[0], 3, PodStrategy::Restart);
        let mut saved = vec![];
        for _ in 0..100 {
            let mut seen = world.look();
            because(&mut seen);
            let transition = transition(&seen, STATUS_DELAY, world.now());
            assert!(
                matches!(transition.decision, Decision::Wait { step: None, .. }),
                "{at}: {:?}",
                transition.decision
            );
            if transition.write != StatusWrite::Unchanged {
                saved.push(world.second());
                world.request.status = Some(transition.status);
            }
            world.pass();
        }
        assert_eq!(saved, [0], "{at}");
    }
}

#[test]
fn what_cannot_be_issued_fails_and_touches_no_pod() {
    let troubles = [
        Trouble {
            issuer_is_never_ready: true,
            ..Trouble::default()
        },
        Trouble {
            trial_fails: true,
            ..Trouble::default()
        },
        Trouble {
            bad_leaf: Some("the leaf has the wrong name"),
            ..Trouble::default()
        },
    ];
    for trip in SCENARIOS
        .iter()
        .filter(|trip| matches!(trip.name, "add" | "change-issuer" | "update" | "rotate"))
    {
        for trouble in &troubles {
            let mut world = World::new(trip, 3, PodStrategy::Restart);
            world.trouble = trouble.clone();
            let spec = world.database.spec.clone();
            let mut done = Trip::new(world, Fault::None).run();
            let name = format!("{} {trouble:?}", trip.name);
            assert_eq!(done.phase(), Some(OpsPhase::Failed), "{name}\n{}", done.log);
            assert_eq!(
                (done.world.evictions(), &done.world.database.spec),
                (vec![0, 0, 0], &spec),
                "{name}"
            );
            done.must_be_well(&name);
        }
    }
}

#[test]
fn clients_get_the_time_that_the_request_gives_them() {
    let trip = SCENARIOS
        .iter()
        .find(|trip| trip.name == "change-issuer")
        .expect("the trip");
    // What the request says goes before what the database does, for all of its requests.
    for (of_the_request, of_the_database) in [
        (Some("30m"), None),
        (None, Some("30m")),
        (Some("30m"), Some("1s")),
    ] {
        let mut world = World::new(trip, 3, PodStrategy::Reload);
        let settle = |text: Option<&str>| {
            text.map(|text| {
                (
                    "pgrekey.dev/client-grace-period".to_owned(),
                    text.to_owned(),
                )
            })
        };
        world
            .request
            .annotations_mut()
            .extend(settle(of_the_request));
        world
            .database
            .annotations_mut()
            .extend(settle(of_the_database));
        let mut done = Trip::new(world, Fault::None).run();
        assert_eq!(
            done.phase(),
            Some(OpsPhase::Successful),
            "that is longer than a step may take\n{}",
            done.log
        );
        done.must_be_well("settle");
        let steps = done.world.request.status.clone().unwrap_or_default().steps;
        let at = |name: &str| {
            steps
                .iter()
                .find(|step| step.name == name)
                .and_then(|step| step.started_at.clone())
                .expect("a step")
                .0
        };
        let waits = [
            at("Migrate").duration_since(at("Expand")),
            at("Contract").duration_since(at("Migrate")),
        ];
        assert!(
            waits.iter().all(|wait| wait.as_secs() >= 1800),
            "{waits:?}\n{}",
            done.log
        );
    }
}

#[test]
fn a_database_that_is_gone_ends_its_requests_and_nothing_is_done_to_another_of_its_name() {
    for trip in SCENARIOS {
        let under_way =
            Trip::new(World::new(trip, 3, PodStrategy::Restart), Fault::None).run_until(6);
        let mut seen = under_way.world.look();
        // Another database of the same name is not shown to the plan.
        seen.database = None;
        let decision = decide(&seen, under_way.world.now());
        assert!(
            matches!(decision, Decision::Complete(Outcome::Failed(_))),
            "{}: {decision:?}",
            trip.name
        );
    }
}

#[test]
fn certificates_that_have_expired_are_replaced_also_where_standbys_no_longer_stream() {
    let troubles = [
        Trouble {
            leaves_end_at: Some(0),
            ..Trouble::default()
        },
        Trouble {
            client_is_expired: true,
            ..Trouble::default()
        },
    ];
    for trip in SCENARIOS
        .iter()
        .filter(|trip| matches!(trip.name, "change-issuer" | "update" | "rotate"))
    {
        for (strategy, trouble) in [PodStrategy::Restart, PodStrategy::Reload]
            .into_iter()
            .flat_map(|s| troubles.iter().map(move |t| (s, t)))
        {
            let mut world = World::new(trip, 3, strategy);
            world.trouble = trouble.clone();
            world.always();
            let mut done = Trip::new(world, Fault::None).run();
            assert_eq!(
                done.phase(),
                Some(OpsPhase::Successful),
                "{} {strategy:?} {trouble:?}\n{}",
                trip.name,
                done.log
            );
            done.must_be_well(trip.name);
        }
    }
}

#[test]
fn a_request_that_came_without_the_webhooks_is_held_when_it_begins() {
    for trip in SCENARIOS {
        let mut world = World::new(trip, 3, PodStrategy::Restart);
        world.take_finalizer();
        let effects = Trip::new(world.clone(), Fault::None).run().effects;
        for fault in (0..effects).map(Fault::CrashAfter) {
            let mut done = Trip::new(world.clone(), fault).run();
            let outcome = (done.phase(), done.log.contains("start [AddFinalizer]"));
            assert_eq!(
                outcome,
                (Some(OpsPhase::Successful), true),
                "{} {fault:?}\n{}",
                trip.name,
                done.log
            );
            done.must_be_well(trip.name);
        }
    }
}

#[test]
fn the_only_copy_of_the_data_is_not_evicted() {
    for trip in SCENARIOS {
        let mut world = World::new(trip, 1, PodStrategy::Restart);
        world.trouble.is_ephemeral = true;
        let mut done = Trip::new(world, Fault::None).run();
        assert_eq!(
            (done.phase(), done.world.evictions()),
            (Some(OpsPhase::Failed), vec![0]),
            "{}",
            done.log
        );
        assert!(done.log.contains("only copy of the data"), "{}", done.log);
        done.must_be_well(trip.name);
    }
}

#[test]
fn a_request_that_is_deleted_before_its_turn_is_let_go() {
    let mut world = World::new(&SCENARIOS[0], 3, PodStrategy::Restart);
    world.request.metadata.deletion_timestamp = Some(Time(world.now()));
    let decide = |world: &World| decide(&world.look(), world.now());
    assert_eq!(
        decide(&world),
        Decision::Finish(vec![RequestAction::RemoveFinalizer])
    );
    world.perform(&RequestAction::RemoveFinalizer.into());
    assert_eq!(decide(&world), Decision::Rest(None));
}

#[test]
fn a_request_that_is_replaced_by_its_manifest_on_the_way_goes_on() {
    for (trip, at) in SCENARIOS
        .iter()
        .flat_map(|trip| [5, 15, 25].map(|at| (trip, at)))
    {
        let mut under_way =
            Trip::new(World::new(trip, 3, PodStrategy::Restart), Fault::None).run_until(at);
        under_way.world.take_finalizer();
        let mut done = under_way.run();
        assert_eq!(
            done.phase(),
            Some(OpsPhase::Successful),
            "{} at {at}\n{}",
            trip.name,
            done.log
        );
        done.must_be_well(trip.name);
    }
}

#[test]
fn a_request_that_has_lost_what_it_began_on_goes_on() {
    for (trip, at) in SCENARIOS
        .iter()
        .flat_map(|trip| [5, 8, 11].map(|at| (trip, at)))
    {
        // Pods that were replaced before may be replaced again: nobody knows any more.
        let mut under_way =
            Trip::new(World::new(trip, 3, PodStrategy::Restart), Fault::Elsewhere).run_until(at);
        let status = under_way.world.request.status.as_mut().expect("a status");
        status.begun_on = None;
        under_way.draft = None;
        let mut done = under_way.run();
        assert_eq!(
            done.phase(),
            Some(OpsPhase::Successful),
            "{} at {at}\n{}",
            trip.name,
            done.log
        );
        done.must_be_well(trip.name);
    }
}

/// A database that nothing is asked of, while cert-manager has renewed its certificates.
fn renewed(by_another_key: bool) -> World {
    let trip = SCENARIOS
        .iter()
        .find(|trip| trip.name == "rotate")
        .expect("the trip");
    let mut world = World::new(trip, 3, PodStrategy::Reload);
    if by_another_key {
        world.rekey("the next key");
    }
    world.renew();
    world
}

fn go_on(world: &mut World, seconds: usize) {
    for _ in 0..seconds {
        world.pass();
        world.provision();
    }
}

#[test]
fn a_renewal_replaces_what_has_expired_also_while_a_standby_is_away() {
    for (by_another_key, is_one_away) in [(false, true), (true, false), (true, true)] {
        let mut world = renewed(by_another_key);
        world.trouble.leaves_end_at = Some(0);
        if is_one_away {
            world.lose(2);
        }
        go_on(&mut world, 60);
        assert!(
            world.primary_serves_what_was_issued(),
            "another key: {by_another_key}, one away: {is_one_away}"
        );
    }
}

/// A client whose volumes are behind: the kubelet brings a changed ConfigMap or Secret to a pod
/// within about a minute.
struct SlowClient {
    told: Vec<(i64, Told)>,
}

impl SlowClient {
    fn of(world: &World) -> Self {
        Self {
            told: vec![(i64::MIN, world.told())],
        }
    }

    fn must_get_in(&mut self, world: &World, what: &str) {
        self.told.push((world.second(), world.told()));
        let seen = self
            .told
            .iter()
            .rfind(|(second, _)| *second <= world.second() - 90)
            .expect("the first one");
        world
            .lets_in(seen.1.clone())
            .unwrap_or_else(|why| panic!("{what}, after {} s: {why}", world.second()));
    }
}

#[test]
fn a_renewal_by_a_new_key_of_the_ca_refuses_no_client_whose_volumes_are_behind() {
    let mut world = renewed(true);
    let mut client = SlowClient::of(&world);
    for _ in 0..360 {
        go_on(&mut world, 1);
        client.must_get_in(&world, "a renewal");
    }
    assert!(world.primary_serves_what_was_issued() && world.trusts_only_who_signs());
}

#[test]
fn a_database_says_how_long_clients_get_of_a_renewal() {
    for (settle, is_done) in [("0s", true), ("10s", true), ("90s", false)] {
        let mut world = renewed(true);
        world.database.annotations_mut().insert(
            "pgrekey.dev/client-grace-period".to_owned(),
            settle.to_owned(),
        );
        go_on(&mut world, 60);
        assert_eq!(world.trusts_only_who_signs(), is_done, "{settle}");
    }
}

#[test]
fn a_renewal_does_not_wait_until_what_is_served_has_expired() {
    let mut world = renewed(true);
    world.database.annotations_mut().insert(
        "pgrekey.dev/client-grace-period".to_owned(),
        "24h".to_owned(),
    );
    world.trouble.leaves_end_at = Some(300);
    go_on(&mut world, 230);
    assert!(
        !world.primary_serves_what_was_issued(),
        "clients get what time there is"
    );
    go_on(&mut world, 50);
    assert!(world.primary_serves_what_was_issued());
}

#[test]
fn an_operation_amid_a_renewal_does_not_wait_until_what_is_served_has_expired() {
    let mut world = renewed(true);
    world.database.annotations_mut().insert(
        "pgrekey.dev/client-grace-period".to_owned(),
        "24h".to_owned(),
    );
    world.trouble.leaves_end_at = Some(300);
    world.always();
    go_on(&mut world, 60);
    let mut done = Trip::new(world, Fault::None);
    while !done.world.primary_serves_what_was_issued() {
        assert!(!done.step() && done.world.second() < 300, "{}", done.log);
    }
    assert!(
        done.world.second() > 200,
        "clients get what time there is\n{}",
        done.log
    );
}

#[test]
fn an_operation_amid_a_renewal_takes_no_time_from_clients() {
    // While clients learn of the new CA, and while they take over its certificates.
    for (trip, begins) in ["rotate", "restart"]
        .iter()
        .flat_map(|trip| [60, 180].map(|begins| (*trip, begins)))
    {
        let what = format!("{trip} after {begins} s");
        let mut world = renewed(true);
        let trip = SCENARIOS
            .iter()
            .find(|known| known.name == trip)
            .expect("the trip");
        world.request = World::new(trip, 3, PodStrategy::Restart).request;
        world.database.annotations_mut().insert(
            "pgrekey.dev/client-grace-period".to_owned(),
            "2m".to_owned(),
        );
        let mut client = SlowClient::of(&world);
        for _ in 0..begins {
            go_on(&mut world, 1);
            client.must_get_in(&world, &what);
        }
        let mut done = Trip::new(world, Fault::None);
        while !done.step() {
            client.must_get_in(&done.world, &what);
        }
        assert_eq!(
            done.phase(),
            Some(OpsPhase::Successful),
            "{what}\n{}",
            done.log
        );
        for _ in 0..300 {
            go_on(&mut done.world, 1);
            client.must_get_in(&done.world, &what);
        }
        done.must_be_well(&what);
    }
}

#[test]
fn what_is_not_known_is_waited_for() {
    for trip in SCENARIOS {
        let effects = Trip::new(World::new(trip, 3, PodStrategy::Restart), Fault::None)
            .run()
            .effects;
        for at in 2..effects {
            let mut under_way =
                Trip::new(World::new(trip, 3, PodStrategy::Restart), Fault::None).run_until(at);
            under_way.world.trouble.blind_until = i64::MAX;
            let seen = under_way.world.look();
            let decision = decide(&seen, under_way.world.now());
            let is_over = seen.request.is_finished();
            assert!(
                is_over || matches!(decision, Decision::Wait { .. }),
                "{} {at}: {decision:?}",
                trip.name
            );
        }
    }
}

#[test]
fn a_database_that_is_being_deleted_ends_its_requests() {
    let under_way = Trip::new(
        World::new(&SCENARIOS[0], 3, PodStrategy::Restart),
        Fault::None,
    )
    .run_until(12);
    let mut seen = under_way.world.look();
    let database = seen
        .database
        .as_mut()
        .map(Arc::make_mut)
        .expect("a database");
    database.metadata.deletion_timestamp = Some(Time(under_way.world.now()));
    assert!(matches!(
        decide(&seen, under_way.world.now()),
        Decision::Complete(Outcome::Failed(_))
    ));
}

#[test]
fn a_database_that_is_not_ready_is_waited_for_unless_the_request_says_always() {
    let world = World::new(&SCENARIOS[0], 3, PodStrategy::Restart);
    let mut seen = world.look();
    let database = seen
        .database
        .as_mut()
        .map(Arc::make_mut)
        .expect("a database");
    database.status.get_or_insert_default().phase = Some(DatabasePhase::Critical);
    let Decision::Wait { on, .. } = decide(&seen, world.now()) else {
        panic!("it does not wait")
    };
    assert_eq!(on, Waiting::DatabaseReady(Some(DatabasePhase::Critical)));
    Arc::make_mut(&mut seen.request).spec.apply = Apply::Always;
    assert!(
        matches!(decide(&seen, world.now()), Decision::Act { step, .. } if step == StepKind::Begin.into())
    );
}

#[test]
fn roles_whose_passwords_would_not_be_taken_are_named_and_nothing_is_touched() {
    let trip = SCENARIOS
        .iter()
        .find(|trip| trip.name == "change-modes")
        .expect("the trip");
    let mut world = World::new(trip, 3, PodStrategy::Restart);
    world.md5_roles = vec!["app".to_owned(), "report".to_owned()];
    let mut done = Trip::new(world, Fault::None).run();
    assert_eq!(
        (done.phase(), done.world.evictions()),
        (Some(OpsPhase::Failed), vec![0, 0, 0]),
        "{}",
        done.log
    );
    assert!(
        done.log
            .contains("the passwords of app, report are stored as MD5"),
        "{}",
        done.log
    );
    assert!(!done.log.contains("[Pause]"), "{}", done.log);
    done.must_be_well(trip.name);
}

/// Trips of a cluster whose commits wait for so many of its standbys: one, or all.
fn synchronous(visit: impl Fn(World, &str)) {
    for trip in SCENARIOS
        .iter()
        .filter(|trip| matches!(trip.name, "restart" | "change-issuer"))
    {
        for (replicas, count) in [(2, 1), (3, 1), (3, 2), (5, 1), (5, 4)] {
            let mut world = World::new(trip, replicas, PodStrategy::Restart);
            world.synchronise(count);
            visit(
                world,
                &format!("{} of {replicas}, {count} of them synchronous", trip.name),
            );
        }
    }
}

#[test]
fn the_leadership_goes_to_a_standby_that_is_synchronous() {
    synchronous(|world, name| {
        let mut done = Trip::new(world, Fault::None).run();
        assert_eq!(
            done.phase(),
            Some(OpsPhase::Successful),
            "{name}\n{}",
            done.log
        );
        assert_eq!(done.world.dropped(), 0, "{name}\n{}", done.log);
        assert!(
            done.world.evictions().iter().all(|times| *times == 1),
            "{name}\n{}",
            done.log
        );
        done.must_be_well(name);
    });
}

#[test]
fn a_synchronous_cluster_is_well_after_any_fault() {
    synchronous(|world, name| {
        let effects = Trip::new(world.clone(), Fault::None).run().effects;
        for at in 0..effects {
            for fault in [
                Fault::CrashAfter(at),
                Fault::PodDies(at),
                Fault::FailsOver(at),
            ] {
                Trip::new(world.clone(), fault)
                    .run()
                    .must_be_well(&format!("{name}, {fault:?}"));
            }
        }
    });
}

#[test]
fn while_no_standby_is_synchronous_the_leadership_stays() {
    let trip = SCENARIOS
        .iter()
        .find(|trip| trip.name == "restart")
        .expect("the trip");
    let mut world = World::new(trip, 3, PodStrategy::Restart);
    world.synchronise(0);
    let mut done = Trip::new(world, Fault::None).run();
    assert!(
        done.log
            .contains("SwitchOver: wait for Patroni to make a standby synchronous"),
        "{}",
        done.log
    );
    assert_eq!(
        (done.phase(), done.world.dropped()),
        (Some(OpsPhase::Failed), 0),
        "{}",
        done.log
    );
    done.must_be_well("nobody is synchronous");
}

#[test]
fn no_pod_is_replaced_while_a_standby_is_behind() {
    for trip in SCENARIOS {
        let mut under_way = Trip::new(World::new(trip, 3, PodStrategy::Restart), Fault::None);
        let behind = under_way.world.second() + 300;
        let mut done = {
            while !under_way.log.contains("evict pg-2") && !under_way.step() {}
            under_way.world.trouble.behind_until = behind;
            while under_way.world.second() < behind {
                assert!(!under_way.step(), "{}", under_way.log);
            }
            assert_eq!(under_way.world.evictions(), [0, 0, 1], "{}", under_way.log);
            let pods = under_way.draft.as_ref().map(|draft| draft.status.clone());
            let pods = pods
                .or_else(|| under_way.world.request.status.clone())
                .unwrap_or_default()
                .pods;
            assert!(
                pods.iter().any(|pod| pod.lag.as_deref() == Some("8Mi")),
                "{pods:?}"
            );
            under_way.run()
        };
        assert_eq!(
            done.phase(),
            Some(OpsPhase::Successful),
            "{}\n{}",
            trip.name,
            done.log
        );
        done.must_be_well(trip.name);
    }
}

#[test]
fn a_budget_that_closes_on_the_way_turns_the_walk_back_and_is_never_overruled() {
    for trip in SCENARIOS {
        let mut under_way = Trip::new(World::new(trip, 3, PodStrategy::Restart), Fault::None);
        while !under_way.log.contains("evict pg-2") && !under_way.step() {}
        under_way.world.trouble.budget_closed_until = under_way.world.second() + 3600;
        let mut done = under_way.run();
        assert_eq!(
            done.phase(),
            Some(OpsPhase::Failed),
            "{}\n{}",
            trip.name,
            done.log
        );
        assert!(
            done.world.evictions().iter().sum::<u32>() <= 2,
            "{}\n{}",
            trip.name,
            done.log
        );
        // What may go then goes, and the database comes to what its spec says.
        done.world.trouble.budget_closed_until = 0;
        done.must_be_well(trip.name);
    }
}

#[test]
fn a_closed_budget_is_waited_for_and_never_overruled() {
    for trip in SCENARIOS {
        let mut world = World::new(trip, 3, PodStrategy::Restart);
        world.trouble.budget_closed_until = 3600;
        let mut done = Trip::new(world, Fault::None).run();
        done.must_be_well(trip.name);
        assert_eq!(
            (done.phase(), done.world.evictions()),
            (Some(OpsPhase::Failed), vec![0, 0, 0]),
            "{}\n{}",
            trip.name,
            done.log
        );
    }
}

#[test]
fn a_second_budget_is_waited_for_before_anything_is_touched() {
    for trip in SCENARIOS {
        for (until, ends) in [(100, OpsPhase::Successful), (i64::MAX, OpsPhase::Failed)] {
            let mut world = World::new(trip, 3, PodStrategy::Restart);
            world.trouble.second_budget_until = until;
            let mut done = Trip::new(world, Fault::None).run_with(|world, log| {
                assert!(
                    !world.paused || world.second() >= until,
                    "{}\n{log}",
                    trip.name
                );
            });
            done.must_be_well(trip.name);
            assert_eq!(done.phase(), Some(ends), "{}\n{}", trip.name, done.log);
            assert!(
                done.log
                    .contains("PodDisruptionBudget demo/extra to be deleted"),
                "{}\n{}",
                trip.name,
                done.log
            );
        }
    }
}

#[test]
fn who_waits_for_a_place_loses_no_patience() {
    for trip in SCENARIOS {
        let mut world = World::new(trip, 3, PodStrategy::Restart);
        world.hurry("2m");
        // From when it has begun until long after its patience would have ended.
        world.trouble.crowded = 1..3600;
        let mut done = Trip::new(world, Fault::None).run_with(|world, log| {
            assert!(
                !world.paused || world.second() >= 3600,
                "{}\n{log}",
                trip.name
            );
        });
        done.must_be_well(trip.name);
        assert_eq!(
            done.phase(),
            Some(OpsPhase::Successful),
            "{}\n{}",
            trip.name,
            done.log
        );
    }
}

#[test]
fn a_canary_that_does_not_come_back_turns_the_walk_back() {
    for trip in SCENARIOS {
        let mut world = World::new(trip, 3, PodStrategy::Restart);
        world.trouble.new_pods_fail = true;
        let spec = world.database.spec.clone();
        let mut done = Trip::new(world, Fault::Elsewhere).run_with(|world, log| {
            // What these change is taken back without a new pod; else what made it fail has to go
            // with its files.
            if log.contains("roll back")
                && matches!(trip.name, "restart" | "change-modes" | "change-password")
            {
                world.mend();
            }
        });
        assert_eq!(
            done.phase(),
            Some(OpsPhase::Failed),
            "{}\n{}",
            trip.name,
            done.log
        );
        assert!(
            done.world.evictions().iter().filter(|n| **n > 0).count() <= 1,
            "{}\n{}",
            trip.name,
            done.log
        );
        assert_eq!(done.world.database.spec, spec, "{}", trip.name);
        done.must_be_well(trip.name);
    }
}

#[test]
fn a_request_that_is_deleted_on_the_way_turns_back() {
    for trip in SCENARIOS {
        let effects = Trip::new(World::new(trip, 3, PodStrategy::Restart), Fault::None)
            .run()
            .effects;
        for at in 3..effects - 3 {
            let mut under_way =
                Trip::new(World::new(trip, 3, PodStrategy::Restart), Fault::Elsewhere)
                    .run_until(at);
            let now = under_way.world.now();
            under_way.world.request.metadata.deletion_timestamp = Some(Time(now));
            let mut done = under_way.run();
            done.must_be_well(&format!("{} deleted at {at}", trip.name));
        }
    }
}
