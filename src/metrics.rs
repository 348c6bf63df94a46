//! What Prometheus is told. Labels are enums, so that no caller can make up a series.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What `/metrics` is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric of the program, and the registry that writes them.
///
/// A part of the program gets the families that it counts in (a clone counts in the same place), never the registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// When the certificate that is served expires, in seconds since 1970. 0 until one is served.
    pub serving_certificate_expiry: Gauge,
    /// The webhook server's connections and refusals.
    pub webhook_server: ServerMetrics,
    /// Reviews and what they found.
    pub reviews: ReviewMetrics,
}

/// Reviews and what they found.
#[derive(Clone, Debug, Default)]
pub struct ReviewMetrics {
    reviews: Family<Reviewed, Counter>,
    findings: Family<Found, Counter>,
}

/// What came of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs, reason = "the label's values, which say it")]
pub enum ReviewOutcome {
    Allowed,
    Denied,
}

/// Where a label's value comes from a table of the program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reviewed {
    webhook: &'static str,
    outcome: ReviewOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Found {
    rule: &'static str,
}

impl ReviewMetrics {
    /// Counts one review by this webhook, and the rules that found something, each once.
    pub fn count(&self, webhook: &'static str, outcome: ReviewOutcome, rules: impl IntoIterator<Item = &'static str>) {
        self.reviews.get_or_create(&Reviewed { webhook, outcome }).inc();
        for rule in rules {
            self.findings.get_or_create(&Found { rule }).inc();
        }
    }
}

impl Metrics {
    /// All metrics, at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("pgrekey");
        let serving_certificate_expiry = Gauge::default();
        registry.register(
            "serving_certificate_expiry_seconds",
            "When the served certificate expires, as Unix time; 0 until one is served",
            serving_certificate_expiry.clone(),
        );
        let webhook_server = ServerMetrics::default();
        let ServerMetrics { connections_open, connections, requests_shed } = &webhook_server;
        registry.register("connections_open", "Connections to the webhook port right now", connections_open.clone());
        registry.register("connections", "Connections to the webhook port that ended, by how", connections.clone());
        registry.register(
            "requests_shed",
            "Requests to the webhook port that were not answered by their handler, by why",
            requests_shed.clone(),
        );
        let reviews = ReviewMetrics::default();
        registry.register("reviews", "Admission reviews, by webhook and outcome", reviews.reviews.clone());
        registry.register("findings", "Reviews in which a rule found something, by rule", reviews.findings.clone());
        Self { registry, serving_certificate_expiry, webhook_server, reviews }
    }

    /// All of them as OpenMetrics text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// What one server counts.
#[derive(Clone, Debug, Default)]
pub struct ServerMetrics {
    /// Connections right now.
    pub connections_open: Gauge,
    /// Connections that have ended.
    pub connections: Family<ConnectionEndLabels, Counter>,
    /// Requests that were not answered by their handler.
    pub requests_shed: Family<ShedLabels, Counter>,
}

impl ServerMetrics {
    /// Counts a connection that has ended.
    pub fn ended(&self, end: ConnectionEnd) {
        self.connections.get_or_create(&ConnectionEndLabels { end }).inc();
    }

    /// Counts a request that was not answered by its handler.
    pub fn shed(&self, reason: Shed) {
        self.requests_shed.get_or_create(&ShedLabels { reason }).inc();
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ConnectionEnd {
    /// In good order.
    Closed,
    /// In the middle, by the peer or the network.
    Broken,
    /// The TLS handshake failed.
    HandshakeFailed,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// The head of a request took too long, or never came.
    HeaderTimeout,
    /// It was idle for long.
    Idle,
    /// It made way for another one.
    Evicted,
    /// It was still busy when the time to drain was over.
    Abandoned,
}

/// Labels of connections that ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConnectionEndLabels {
    /// How they ended.
    pub end: ConnectionEnd,
}

/// Why a request was not answered by its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Shed {
    /// Too many were in flight.
    InFlight,
    /// It took too long, to be read or to be answered.
    Timeout,
    /// Its handler panicked.
    Panic,
}

/// Labels of requests that were shed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ShedLabels {
    /// Why.
    pub reason: Shed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_our_prefix_and_a_help_text() {
        let metrics = Metrics::new();
        metrics.webhook_server.shed(Shed::InFlight);
        let text = metrics.text().expect("text");
        assert!(text.lines().filter(|l| !l.starts_with('#')).all(|l| l.starts_with("pgrekey_")), "{text}");
        assert!(text.contains("pgrekey_requests_shed_total{reason=\"InFlight\"} 1\n"), "{text}");
        let names = |word: &str| text.lines().filter(|l| l.starts_with(word)).count();
        assert_eq!(names("# TYPE"), names("# HELP"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
