//! Switchovers in a cluster whose commits wait for standbys.

use pgrekey::api::ops_request::OpsPhase;
use pgrekey::plan::preview::PodStrategy;

use crate::trip::{Fault, Trip};
use crate::world::{SCENARIOS, Scenario, World};

/// Clusters whose commits wait for one standby, or for all.
fn each_synchronous_cluster(visit: impl Fn(World, &str)) {
    for scenario in SCENARIOS
        .iter()
        .filter(|scenario| matches!(scenario.name, "restart" | "change-issuer"))
    {
        for (replicas, count) in [(2, 1), (3, 1), (3, 2), (5, 1), (5, 4)] {
            let mut world = World::new(scenario, replicas, PodStrategy::Restart);
            world.synchronise(count);
            visit(
                world,
                &format!(
                    "{} of {replicas}, {count} of them synchronous",
                    scenario.name
                ),
            );
        }
    }
}

#[test]
fn the_leadership_goes_to_a_synchronous_standby() {
    each_synchronous_cluster(|world, name| {
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
    each_synchronous_cluster(|world, name| {
        let plain = Trip::new(world.clone(), Fault::None).run();
        for at in plain.first_effects() {
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
fn the_leadership_stays_while_no_standby_is_synchronous() {
    let scenario = Scenario::named("restart");
    let mut world = World::new(scenario, 3, PodStrategy::Restart);
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
    done.must_be_well("no standby is synchronous");
}
