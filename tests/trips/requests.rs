//! The life of a request: its turn, its finalizer, its record and its deletion.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pgrekey::api::PostgresOpsRequest;
use pgrekey::api::ops_request::OpsPhase;
use pgrekey::controller::STATUS_DELAY;
use pgrekey::plan::observed::{Observed, Paused};
use pgrekey::plan::preview::PodStrategy;
use pgrekey::plan::status::write_policy::StatusWrite;
use pgrekey::plan::transition::transition;
use pgrekey::plan::{Decision, RequestAction, decide};

use crate::trip::{Fault, Trip};
use crate::world::{SCENARIOS, World};

#[test]
fn a_request_that_waits_for_its_turn_writes_its_status_once() {
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
            let mut seen = world.observe();
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
fn a_request_that_waits_for_a_slot_does_not_time_out() {
    for scenario in SCENARIOS {
        let mut world = World::new(scenario, 3, PodStrategy::Restart);
        world.set_timeout("2m");
        // From the first second until long after a step of 2 min would have timed out.
        world.trouble.crowded = 1..3600;
        let mut done = Trip::new(world, Fault::None).run_with(|world, log| {
            assert!(
                !world.paused || world.second() >= 3600,
                "{}\n{log}",
                scenario.name
            );
        });
        done.must_have_succeeded(scenario.name);
    }
}

#[test]
fn a_request_without_a_finalizer_gets_one_when_it_begins() {
    for scenario in SCENARIOS {
        let mut world = World::new(scenario, 3, PodStrategy::Restart);
        world.take_finalizer();
        let plain = Trip::new(world.clone(), Fault::None).run();
        for fault in plain.first_effects().map(Fault::CrashAfter) {
            let mut done = Trip::new(world.clone(), fault).run();
            let outcome = (done.phase(), done.log.contains("start [AddFinalizer]"));
            assert_eq!(
                outcome,
                (Some(OpsPhase::Successful), true),
                "{} {fault:?}\n{}",
                scenario.name,
                done.log
            );
            done.must_be_well(scenario.name);
        }
    }
}

#[test]
fn a_request_that_is_replaced_by_its_manifest_on_the_way_succeeds() {
    for (scenario, at) in SCENARIOS
        .iter()
        .flat_map(|scenario| [5, 15, 25].map(|at| (scenario, at)))
    {
        let mut under_way =
            Trip::new(World::new(scenario, 3, PodStrategy::Restart), Fault::None).run_until(at);
        under_way.world.take_finalizer();
        let mut done = under_way.run();
        done.must_have_succeeded(&format!("{} at {at}", scenario.name));
    }
}

#[test]
fn a_request_that_has_lost_the_record_of_its_first_pods_succeeds() {
    for (scenario, at) in SCENARIOS
        .iter()
        .flat_map(|scenario| [5, 8, 11].map(|at| (scenario, at)))
    {
        // Pods that were replaced before may be replaced again: the record of them is lost.
        let mut under_way = Trip::new(
            World::new(scenario, 3, PodStrategy::Restart),
            Fault::Elsewhere,
        )
        .run_until(at);
        let status = under_way.world.request.status.as_mut().expect("a status");
        status.begun_on = None;
        under_way.draft = None;
        let mut done = under_way.run();
        done.must_have_succeeded(&format!("{} at {at}", scenario.name));
    }
}

#[test]
fn a_request_that_is_deleted_before_its_turn_loses_its_finalizer() {
    let mut world = World::new(&SCENARIOS[0], 3, PodStrategy::Restart);
    world.request.metadata.deletion_timestamp = Some(Time(world.now()));
    let decide = |world: &World| decide(&world.observe(), world.now());
    assert_eq!(
        decide(&world),
        Decision::Finish(vec![RequestAction::RemoveFinalizer])
    );
    world.perform(&RequestAction::RemoveFinalizer.into());
    assert_eq!(decide(&world), Decision::Rest(None));
}

#[test]
fn a_request_that_is_deleted_on_the_way_leaves_the_database_well() {
    for scenario in SCENARIOS {
        let plain = Trip::new(World::new(scenario, 3, PodStrategy::Restart), Fault::None).run();
        let under_way = 3..plain.effects - 3;
        for at in plain.first_effects().filter(|at| under_way.contains(at)) {
            let mut under_way = Trip::new(
                World::new(scenario, 3, PodStrategy::Restart),
                Fault::Elsewhere,
            )
            .run_until(at);
            let now = under_way.world.now();
            under_way.world.request.metadata.deletion_timestamp = Some(Time(now));
            let mut done = under_way.run();
            done.must_be_well(&format!("{} deleted at {at}", scenario.name));
        }
    }
}
