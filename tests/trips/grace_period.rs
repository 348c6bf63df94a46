//! The grace period: how long clients get before the cluster goes on.

use kube::ResourceExt;
use pgrekey::plan::preview::PodStrategy;

use crate::renewals::{go_on, renewed};
use crate::trip::{Fault, Trip};
use crate::world::{Scenario, World};

#[test]
fn clients_get_the_grace_period_of_the_request_or_else_of_the_database() {
    let scenario = Scenario::named("change-issuer");
    // The annotation of the request overrides that of the database, which counts for all requests.
    for (of_the_request, of_the_database) in [
        (Some("30m"), None),
        (None, Some("30m")),
        (Some("30m"), Some("1s")),
    ] {
        let mut world = World::new(scenario, 3, PodStrategy::Reload);
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
        done.must_have_succeeded("that is longer than a step may take");
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
fn a_renewal_gives_clients_the_grace_period_of_the_database() {
    for (settle, is_done) in [("0s", true), ("10s", true), ("90s", false)] {
        let mut world = renewed(true);
        world.database.annotations_mut().insert(
            "pgrekey.dev/client-grace-period".to_owned(),
            settle.to_owned(),
        );
        go_on(&mut world, 60);
        assert_eq!(world.trusts_only_the_signer(), is_done, "{settle}");
    }
}

#[test]
fn a_renewal_ends_before_the_served_certificate_expires() {
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
fn an_operation_amid_a_renewal_ends_the_renewal_before_the_served_certificate_expires() {
    let mut world = renewed(true);
    world.database.annotations_mut().insert(
        "pgrekey.dev/client-grace-period".to_owned(),
        "24h".to_owned(),
    );
    world.trouble.leaves_end_at = Some(300);
    world.apply_always();
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
