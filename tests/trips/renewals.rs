//! Renewals by cert-manager, alone and amid an operation.

use kube::ResourceExt;
use pgrekey::api::ops_request::OpsPhase;
use pgrekey::plan::preview::PodStrategy;

use crate::trip::{Fault, Trip};
use crate::world::{ClientVolumes, Scenario, World};

/// A database that nothing is asked of, while cert-manager has renewed its certificates.
pub(crate) fn renewed(by_another_key: bool) -> World {
    let scenario = Scenario::named("rotate");
    let mut world = World::new(scenario, 3, PodStrategy::Reload);
    if by_another_key {
        world.rekey("the next key");
    }
    world.renew();
    world
}

pub(crate) fn go_on(world: &mut World, seconds: usize) {
    for _ in 0..seconds {
        world.pass();
        world.provision();
    }
}

/// A client whose volumes are behind: the kubelet brings a changed ConfigMap or Secret to a pod
/// within about a minute.
struct SlowClient {
    volumes: Vec<(i64, ClientVolumes)>,
}

impl SlowClient {
    fn new(world: &World) -> Self {
        Self {
            volumes: vec![(i64::MIN, world.client_volumes())],
        }
    }

    fn must_get_in(&mut self, world: &World, what: &str) {
        self.volumes.push((world.second(), world.client_volumes()));
        let seen = self
            .volumes
            .iter()
            .rfind(|(second, _)| *second <= world.second() - 90)
            .expect("the first one");
        world
            .lets_in(seen.1.clone())
            .unwrap_or_else(|why| panic!("{what}, after {} s: {why}", world.second()));
    }
}

#[test]
fn a_renewal_replaces_expired_certificates_although_a_standby_is_away() {
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

#[test]
fn a_renewal_by_a_new_key_of_the_ca_refuses_no_client_with_old_volumes() {
    let mut world = renewed(true);
    let mut client = SlowClient::new(&world);
    for _ in 0..360 {
        go_on(&mut world, 1);
        client.must_get_in(&world, "a renewal");
    }
    assert!(world.primary_serves_what_was_issued() && world.trusts_only_the_signer());
}

#[test]
fn an_operation_amid_a_renewal_does_not_shorten_the_time_of_clients() {
    // While clients learn of the new CA, and while they take over its certificates.
    for (scenario, begins) in ["rotate", "restart"]
        .iter()
        .flat_map(|scenario| [60, 180].map(|begins| (*scenario, begins)))
    {
        let what = format!("{scenario} after {begins} s");
        let mut world = renewed(true);
        let scenario = Scenario::named(scenario);
        world.request = World::new(scenario, 3, PodStrategy::Restart).request;
        world.database.annotations_mut().insert(
            "pgrekey.dev/client-grace-period".to_owned(),
            "2m".to_owned(),
        );
        let mut client = SlowClient::new(&world);
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
