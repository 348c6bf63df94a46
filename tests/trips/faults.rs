//! A crash, a fault or a failover at any point of an operation.

use pgrekey::api::ops_request::OpsPhase;
use pgrekey::plan::preview::PodStrategy;
use pgrekey::plan::{Decision, decide};

use crate::operations::{REPLICAS, each_operation};
use crate::trip::{Fault, Trip};
use crate::world::{SCENARIOS, World};

#[test]
fn a_crash_at_any_point_does_not_change_the_outcome() {
    each_operation(&REPLICAS, |scenario, replicas, strategy| {
        let world = World::new(scenario, replicas, strategy);
        let plain = Trip::new(world.clone(), Fault::None).run();
        let crashes = plain
            .first_effects()
            .flat_map(|at| [Fault::CrashBefore(at), Fault::CrashAfter(at)]);
        let within = plain.later_effects().filter(|_| replicas == 1);
        for fault in crashes.chain(within.map(Fault::CrashBefore)) {
            let mut done = Trip::new(world.clone(), fault).run();
            let name = format!("{} {replicas} {strategy:?} {fault:?}", scenario.name);
            done.must_have_succeeded(&name);
        }
    });
}

#[test]
fn a_fault_at_any_point_leaves_the_database_well() {
    // Faults of two pods, or of five, show with three.
    each_operation(&[1, 3], |scenario, replicas, strategy| {
        let world = World::new(scenario, replicas, strategy);
        let plain = Trip::new(world.clone(), Fault::None).run();
        let within = plain.later_effects().filter(|_| replicas == 1);
        for fault in within.flat_map(|at| [Fault::Once(at), Fault::Unheard(at)]) {
            let mut done = Trip::new(world.clone(), fault).run();
            done.must_have_succeeded(&format!("{} {strategy:?} {fault:?}", scenario.name));
        }
        for at in plain.first_effects() {
            let mut faults = vec![
                Fault::Once(at),
                Fault::Unheard(at),
                Fault::Forever(at),
                Fault::PodDies(at),
                Fault::Blind(at),
                Fault::Mute(at),
            ];
            if replicas > 1 {
                faults.push(Fault::FailsOver(at));
            }
            for fault in faults {
                let mut done = Trip::new(world.clone(), fault).run();
                done.must_be_well(&format!(
                    "{} {replicas} {strategy:?} {fault:?}",
                    scenario.name
                ));
                let passes = matches!(
                    fault,
                    Fault::Once(_) | Fault::Unheard(_) | Fault::Blind(_) | Fault::Mute(_)
                );
                assert!(
                    !passes || done.phase() == Some(OpsPhase::Successful),
                    "{} {fault:?}\n{}",
                    scenario.name,
                    done.log
                );
            }
        }
    });
}

#[test]
fn a_rollback_that_fails_resumes_the_database_and_the_database_reaches_its_spec() {
    // Modes that were left half-way stay, until another request changes them.
    for scenario in SCENARIOS.iter().filter(|scenario| {
        !scenario.name.starts_with("change-") || scenario.name == "change-issuer"
    }) {
        let world = World::new(scenario, 3, PodStrategy::Restart);
        let plain = Trip::new(world.clone(), Fault::None).run();
        for at in plain.first_effects() {
            let mut done = Trip::new(world.clone(), Fault::Hopeless(at)).run();
            done.must_be_well(&format!("{} hopeless at {at}", scenario.name));
        }
    }
}

#[test]
fn an_operation_waits_while_the_cluster_cannot_be_observed() {
    for scenario in SCENARIOS {
        let effects = Trip::new(World::new(scenario, 3, PodStrategy::Restart), Fault::None)
            .run()
            .effects;
        for at in 2..effects {
            let mut under_way =
                Trip::new(World::new(scenario, 3, PodStrategy::Restart), Fault::None).run_until(at);
            under_way.world.trouble.blind_until = i64::MAX;
            let seen = under_way.world.observe();
            let decision = decide(&seen, under_way.world.now());
            let is_over = seen.request.is_finished();
            assert!(
                is_over || matches!(decision, Decision::Wait { .. }),
                "{} {at}: {decision:?}",
                scenario.name
            );
        }
    }
}
