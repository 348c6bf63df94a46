//! The cost of one review of a 5 kB body: read the envelope, decode the object, run every rule,
//! write the answer.

#![allow(
    missing_docs,
    clippy::expect_used,
    reason = "a benchmark fails by panicking"
)]

#[path = "review_body.rs"]
mod review_body;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pgrekey::rules::defaults::InstallationDefaults;
use pgrekey::serve::admission::AdmissionRequest;
use pgrekey::serve::response::respond;
use pgrekey::serve::table::{WEBHOOKS, WebhookType};
use pgrekey::serve::webhooks::review;

fn benchmark(criterion: &mut Criterion) {
    let (body, facts) = (review_body::body(), review_body::facts());
    let installation = InstallationDefaults {
        ops_manager: true,
        ..InstallationDefaults::default()
    };
    for purpose in [WebhookType::Validate, WebhookType::Mutate] {
        let webhook = WEBHOOKS
            .iter()
            .find(|w| w.kind == "PostgresOpsRequest" && w.webhook_type == purpose)
            .expect("a webhook");
        let run = |body: &[u8]| {
            let request = AdmissionRequest::parse(body).expect("a request");
            let verdict = review(webhook, &request, &facts, &installation);
            assert!(verdict.allowed(), "{verdict:?}");
            request
                .encode(respond(webhook, &request, verdict).expect("a response"))
                .expect("JSON")
        };
        criterion.bench_function(&format!("{purpose:?} {} bytes", body.len()), |b| {
            b.iter(|| run(black_box(&body)));
        });
    }
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
