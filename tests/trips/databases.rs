//! The database of a request: gone, being deleted, not ready, or with roles that would be refused.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pgrekey::api::StepKind;
use pgrekey::api::ops_request::{Apply, OpsPhase};
use pgrekey::api::postgres::DatabasePhase;
use pgrekey::plan::preview::PodStrategy;
use pgrekey::plan::waiting::Waiting;
use pgrekey::plan::{Decision, Outcome, decide};

use crate::trip::{Fault, Trip};
use crate::world::{SCENARIOS, Scenario, World};

#[test]
fn a_database_that_is_gone_fails_its_requests() {
    for scenario in SCENARIOS {
        let under_way =
            Trip::new(World::new(scenario, 3, PodStrategy::Restart), Fault::None).run_until(6);
        let mut seen = under_way.world.observe();
        // Another database of the same name is not shown to the plan.
        seen.database = None;
        let decision = decide(&seen, under_way.world.now());
        assert!(
            matches!(decision, Decision::Complete(Outcome::Failed(_))),
            "{}: {decision:?}",
            scenario.name
        );
    }
}

#[test]
fn a_database_that_is_being_deleted_fails_its_requests() {
    let under_way = Trip::new(
        World::new(&SCENARIOS[0], 3, PodStrategy::Restart),
        Fault::None,
    )
    .run_until(12);
    let mut seen = under_way.world.observe();
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
fn a_request_waits_for_a_database_that_is_not_ready_unless_it_says_always() {
    let world = World::new(&SCENARIOS[0], 3, PodStrategy::Restart);
    let mut seen = world.observe();
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
fn roles_with_md5_passwords_fail_a_request_for_scram_before_the_database_is_paused() {
    let scenario = Scenario::named("change-modes");
    let mut world = World::new(scenario, 3, PodStrategy::Restart);
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
    done.must_be_well(scenario.name);
}
