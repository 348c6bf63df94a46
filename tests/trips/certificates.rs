//! Certificates that cannot be issued, that are not loaded, or that have expired.

use pgrekey::api::ops_request::OpsPhase;
use pgrekey::plan::preview::PodStrategy;

use crate::trip::{Fault, Trip};
use crate::world::{SCENARIOS, Scenario, Trouble, World};

#[test]
fn a_certificate_that_cannot_be_issued_fails_the_request_before_a_pod_is_touched() {
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
    for scenario in SCENARIOS
        .iter()
        .filter(|scenario| matches!(scenario.name, "add" | "change-issuer" | "update" | "rotate"))
    {
        for trouble in &troubles {
            let mut world = World::new(scenario, 3, PodStrategy::Restart);
            world.trouble = trouble.clone();
            let spec = world.database.spec.clone();
            let mut done = Trip::new(world, Fault::None).run();
            let name = format!("{} {trouble:?}", scenario.name);
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
fn a_server_that_does_not_load_new_certificates_turns_the_walk_back() {
    for scenario in SCENARIOS
        .iter()
        .filter(|scenario| matches!(scenario.name, "change-issuer" | "update" | "rotate"))
    {
        let mut world = World::new(scenario, 3, PodStrategy::Reload);
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
        done.must_be_well(scenario.name);
    }
}

#[test]
fn expired_certificates_are_replaced_although_standbys_no_longer_stream() {
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
    for scenario in SCENARIOS
        .iter()
        .filter(|scenario| matches!(scenario.name, "change-issuer" | "update" | "rotate"))
    {
        for (strategy, trouble) in [PodStrategy::Restart, PodStrategy::Reload]
            .into_iter()
            .flat_map(|s| troubles.iter().map(move |t| (s, t)))
        {
            let mut world = World::new(scenario, 3, strategy);
            world.trouble = trouble.clone();
            world.apply_always();
            let mut done = Trip::new(world, Fault::None).run();
            done.must_have_succeeded(&format!("{} {strategy:?} {trouble:?}", scenario.name));
        }
    }
}

#[test]
fn a_login_that_libpq_could_not_make_under_the_served_certificate_is_refused_with_nothing_touched()
{
    let unbound = Trouble {
        lacks_channel_binding: true,
        ..Trouble::default()
    };
    for (name, is_refused) in [
        ("change-modes", true),
        ("change-password", true),
        ("change-issuer", false),
        ("rotate", false),
        ("remove", false),
        ("restart", false),
    ] {
        let why = "the served certificate is signed with Ed25519";
        is_refused_before_the_pause(name, &unbound, why, is_refused);
    }
    let kept = Trouble {
        bad_for_goal: Some("server: its CA signs with Ed25519"),
        ..Trouble::default()
    };
    for (name, is_refused) in [("change-modes", true), ("change-issuer", false)] {
        let why = "rotate the certificates first";
        is_refused_before_the_pause(name, &kept, why, is_refused);
    }
}

/// With this trouble the operation fails for this reason before the database is paused, or else
/// succeeds.
fn is_refused_before_the_pause(name: &str, trouble: &Trouble, why: &str, is_refused: bool) {
    let mut world = World::new(Scenario::named(name), 3, PodStrategy::Restart);
    world.trouble = trouble.clone();
    let mut done = Trip::new(world, Fault::None).run();
    if !is_refused {
        done.must_have_succeeded(name);
        return;
    }
    assert_eq!(done.phase(), Some(OpsPhase::Failed), "{name}\n{}", done.log);
    let is_touched = ["Pause:", "StartTrial"].map(|word| done.log.contains(word));
    assert_eq!(is_touched, [false; 2], "{name}\n{}", done.log);
    assert!(done.log.contains(why), "{name}\n{}", done.log);
    done.must_be_well(name);
}
