//! Every operation, in clusters of every size and with both strategies.

use std::fmt::Write;

use pgrekey::plan::preview::PodStrategy;

use crate::trip::{Fault, Trip};
use crate::world::{SCENARIOS, Scenario, World};

/// With one pod, with a primary and a standby, with a majority, and with more standbys than one.
pub(crate) const REPLICAS: [u32; 4] = [1, 2, 3, 5];

pub(crate) fn each_operation(
    replicas: &[u32],
    visit: impl Fn(&'static Scenario, u32, PodStrategy) + Sync,
) {
    std::thread::scope(|scope| {
        for strategy in [PodStrategy::Restart, PodStrategy::Reload] {
            let visit = &visit;
            scope.spawn(move || {
                for (scenario, replicas) in SCENARIOS
                    .iter()
                    .flat_map(|scenario| replicas.iter().map(move |replicas| (scenario, *replicas)))
                {
                    visit(scenario, replicas, strategy);
                }
            });
        }
    });
}

#[test]
fn every_operation_succeeds_as_its_golden_transcript_says() {
    each_operation(&REPLICAS, |scenario, replicas, strategy| {
        let name = format!("{}-{replicas}-{strategy:?}", scenario.name);
        let mut done = Trip::new(World::new(scenario, replicas, strategy), Fault::None).run();
        done.must_have_succeeded(&name);
        let rolls = strategy == PodStrategy::Restart
            || matches!(scenario.name, "add" | "add-scram" | "remove" | "restart");
        assert!(
            done.world
                .evictions()
                .iter()
                .all(|n| *n == u32::from(rolls)),
            "{name}\n{}",
            done.log
        );
        assert_eq!(
            done.announcements().contains("ReloadTLS"),
            !rolls && scenario.name != "restart",
            "{name}"
        );
        let (of_status, writes) = done.writes;
        assert!(
            writes <= 28 + 3 * replicas as usize,
            "{name}: {writes} writes\n{}",
            done.log
        );
        let _ = writeln!(
            done.log,
            "{writes} writes, {of_status} of them of the status"
        );
        // Transcripts are named after the suite, in whichever module this test stands.
        insta::with_settings!({prepend_module_to_snapshot => false}, {
            if replicas == 3 {
                insta::assert_snapshot!(format!("trips__{name}-told"), done.announcements());
            }
            insta::assert_snapshot!(format!("trips__{name}"), done.log);
        });
    });
}
