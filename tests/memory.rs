//! The memory of a review for every kind of object.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

#[path = "../benches/worst_body.rs"]
mod worst_body;

use peak_alloc::PeakAlloc;
use pgrekey::rules::Snapshot;
use pgrekey::rules::defaults::InstallationDefaults;
use pgrekey::serve::admission::AdmissionRequest;
use pgrekey::serve::limits::Limits;
use pgrekey::serve::response::respond;
use pgrekey::serve::table::{WEBHOOKS, WebhookType};
use pgrekey::serve::webhooks::review;
use worst_body::SHAPES;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const MIB: usize = 1024 * 1024;

/// The most memory that a review may hold, besides its body.
const MOST: usize = 36 * MIB;

/// The memory of this review besides the body, and whether the object was admitted.
fn cost(kind: &str, purpose: WebhookType, body: &[u8]) -> (usize, bool) {
    let webhook = WEBHOOKS
        .iter()
        .find(|w| w.kind == kind && w.webhook_type == purpose)
        .expect("a webhook");
    let (facts, installation) = (
        Snapshot::default(),
        InstallationDefaults {
            ops_manager: true,
            ..InstallationDefaults::default()
        },
    );
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let request = AdmissionRequest::parse(body).expect("a request");
    let verdict = review(webhook, &request, &facts, &installation);
    let allowed = verdict.allowed();
    let json = request
        .encode(respond(webhook, &request, verdict).expect("a response"))
        .expect("JSON");
    drop(json);
    (MEMORY.peak_usage() - before, allowed)
}

#[test]
fn a_review_costs_no_more_than_its_part_of_memory() {
    let long = Limits::default().body;
    for shape in SHAPES {
        let [bare, refused] = [9_900, 11_000].map(|values| shape.update(shape.entries(values), 0));
        // Strings add to the cost of entries: it is enough to measure the most expensive entries.
        let filler = if shape.name == "opaque objects" {
            (long - bare.len()) / 2
        } else {
            0
        };
        let taken = shape.update(shape.entries(9_900), filler);
        for purpose in [WebhookType::Mutate, WebhookType::Validate] {
            let (bytes, _) = cost(shape.kind(), purpose, &taken);
            println!(
                "{:<26} {purpose:?} {:>6} kB of {} kB",
                shape.name,
                bytes / 1024,
                taken.len() / 1024
            );
            assert!(
                bytes <= MOST,
                "{}: {purpose:?} takes {bytes} bytes",
                shape.name
            );
            let (bytes, allowed) = cost(shape.kind(), purpose, &refused);
            assert!(
                bytes <= MIB,
                "{}: {purpose:?} takes {bytes} bytes to refuse it",
                shape.name
            );
            assert_eq!(allowed, purpose == WebhookType::Mutate, "{}", shape.name);
        }
    }
}
