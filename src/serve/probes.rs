//! The plain HTTP port: liveness, readiness, metrics.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use http::StatusCode;

use crate::metrics;
use crate::metrics::Metrics;

/// The conditions of readiness, each with a name.
///
/// Each condition is evaluated when the kubelet asks: a certificate may expire and a task may hang
/// at any time. Evaluation must be cheap and must not block.
#[derive(Clone, Default)]
pub struct Readiness {
    parts: Arc<Mutex<Vec<ReadinessPart>>>,
}

struct ReadinessPart {
    name: &'static str,
    ask: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl Readiness {
    /// Without conditions: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition. `ask` returns why it does not hold, as words that follow its name, such as
    /// `expired 3 min ago`.
    pub fn add(
        &self,
        name: &'static str,
        ask: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(ReadinessPart {
                name,
                ask: Box::new(ask),
            });
    }

    /// The conditions that do not hold, each with the reason.
    #[must_use]
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts
            .iter()
            .filter_map(|part| Some((part.name, (part.ask)().err()?)))
            .collect()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness")
            .field("missing", &self.missing())
            .finish()
    }
}

/// `/livez`, `/readyz` and `/metrics`.
///
/// `/livez` answers 200 as long as the process can answer. It checks no more, because a restart
/// would not repair an API server that is away.
pub fn router(readiness: Readiness, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(async move || ready(&readiness)))
        .route("/metrics", get(async move || scrape(&metrics)))
}

fn ready(readiness: &Readiness) -> (StatusCode, String) {
    let missing = readiness.missing();
    if missing.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let body = missing.iter().fold(String::new(), |mut body, (name, why)| {
        let _ = writeln!(body, "{name}: {why}");
        body
    });
    (StatusCode::SERVICE_UNAVAILABLE, body)
}

fn scrape(metrics: &Metrics) -> impl IntoResponse + use<> {
    match metrics.text() {
        Ok(text) => (
            StatusCode::OK,
            [(CONTENT_TYPE, metrics::CONTENT_TYPE)],
            text,
        ),
        Err(error) => {
            let text = format!("pgrekey: cannot write the metrics: {error}\n");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                [(CONTENT_TYPE, "text/plain; charset=utf-8")],
                text,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_each_part_that_is_missing() {
        let readiness = Readiness::new();
        assert_eq!(ready(&readiness).0, StatusCode::OK);
        readiness.add("certificate", || Err("expired 3 min ago".to_owned()));
        readiness.add("leader", || Ok(()));
        readiness.add("facts", || Err("Postgres not synced".to_owned()));
        let (status, body) = ready(&readiness);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            body,
            "certificate: expired 3 min ago\nfacts: Postgres not synced\n"
        );
    }
}
