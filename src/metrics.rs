//! The metrics for Prometheus. Labels are enums, so that callers cannot create series.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::StepKind;

/// The content type of `/metrics`.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric of the program, and the registry that encodes them.
///
/// Each part of the program gets its own families, never the registry. A clone counts in the same
/// series.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// When the serving certificate expires, in seconds since 1970. 0 before there is one.
    pub serving_certificate_expiry: Gauge,
    /// The webhook server's connections and refusals.
    pub webhook_server: ServerMetrics,
    /// Reviews and findings.
    pub reviews: ReviewMetrics,
    /// Operations, and the certificates of databases.
    pub controllers: ControllerMetrics,
}

/// Reviews and findings.
#[derive(Clone, Debug, Default)]
pub struct ReviewMetrics {
    reviews: Family<ReviewLabels, Counter>,
    findings: Family<FindingLabels, Counter>,
}

/// The result of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs, reason = "the label's values, which say it")]
pub enum ReviewOutcome {
    Allowed,
    Denied,
}

/// Labels whose values come from tables of the program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabels {
    webhook: &'static str,
    outcome: ReviewOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FindingLabels {
    rule: &'static str,
}

impl ReviewMetrics {
    /// Counts one review by this webhook, and each rule with a finding once.
    pub fn count(
        &self,
        webhook: &'static str,
        outcome: ReviewOutcome,
        rules: impl IntoIterator<Item = &'static str>,
    ) {
        self.reviews
            .get_or_create(&ReviewLabels { webhook, outcome })
            .inc();
        for rule in rules {
            self.findings.get_or_create(&FindingLabels { rule }).inc();
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
        let ServerMetrics {
            connections_open,
            connections,
            requests_shed,
        } = &webhook_server;
        registry.register(
            "connections_open",
            "Connections to the webhook port right now",
            connections_open.clone(),
        );
        registry.register(
            "connections",
            "Connections to the webhook port that ended, by how",
            connections.clone(),
        );
        registry.register(
            "requests_shed",
            "Requests to the webhook port that were not answered by their handler, by why",
            requests_shed.clone(),
        );
        let reviews = ReviewMetrics::default();
        registry.register(
            "reviews",
            "Admission reviews, by webhook and outcome",
            reviews.reviews.clone(),
        );
        registry.register(
            "findings",
            "Reviews in which a rule found something, by rule",
            reviews.findings.clone(),
        );
        let controllers = ControllerMetrics::default();
        controllers.register(&mut registry);
        Self {
            registry,
            serving_certificate_expiry,
            webhook_server,
            reviews,
            controllers,
        }
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

/// The metrics of the controllers. The leader sets the gauges; they are zero on other replicas.
#[derive(Clone, Debug)]
pub struct ControllerMetrics {
    leader: Gauge,
    operations_running: Gauge,
    operations_working: Gauge,
    operation_places: Gauge,
    operations: Family<OperationEnded, Counter>,
    step_duration: Family<StepTaken, Histogram>,
    write_gap: Histogram,
    database_certificate_expiry: Gauge,
    databases_drifted: Gauge,
}

impl Default for ControllerMetrics {
    fn default() -> Self {
        use {OperationKind as Kind, OperationOutcome as Outcome};
        // Prometheus sees no increase in a series that begins at 1, so all series exist from the
        // start, at 0.
        let operations = Family::<OperationEnded, Counter>::default();
        for operation in [
            Kind::ChangeTls,
            Kind::RotateTls,
            Kind::RemoveTls,
            Kind::Restart,
        ] {
            for outcome in [Outcome::Successful, Outcome::Failed] {
                drop(operations.get_or_create(&OperationEnded { operation, outcome }));
            }
        }
        Self {
            leader: Gauge::default(),
            operations_running: Gauge::default(),
            operations_working: Gauge::default(),
            operation_places: Gauge::default(),
            operations,
            step_duration: Family::new_with_constructor(|| {
                Histogram::new([
                    0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
                ])
            }),
            write_gap: Histogram::new([0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 30.0, 60.0]),
            database_certificate_expiry: Gauge::default(),
            databases_drifted: Gauge::default(),
        }
    }
}

impl ControllerMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "leader",
            "Whether this replica holds the lease and runs the controllers, 1 or 0",
            self.leader.clone(),
        );
        registry.register(
            "operations_running",
            "Operations that have begun and not ended",
            self.operations_running.clone(),
        );
        registry.register(
            "operations_working",
            "Operations that have a place: their databases are paused for them",
            self.operations_working.clone(),
        );
        registry.register(
            "operation_places",
            "How many operations may have a place at once; 0 until one was asked for",
            self.operation_places.clone(),
        );
        registry.register(
            "operations",
            "Operations that have ended, by what they did and how they ended",
            self.operations.clone(),
        );
        registry.register(
            "step_duration_seconds",
            "How long one step of an operation took, waits included, by step",
            self.step_duration.clone(),
        );
        registry.register(
            "write_gap_seconds",
            "How long an operation saw no primary: from the last observation with one to the next",
            self.write_gap.clone(),
        );
        registry.register(
            "database_certificate_expiry_seconds",
            "When the first of the certificates that databases serve expires, as Unix time; 0 where none is known",
            self.database_certificate_expiry.clone(),
        );
        registry.register(
            "databases_drifted",
            "Databases that serve other certificates than were issued last",
            self.databases_drifted.clone(),
        );
    }

    /// Sets whether this replica runs the controllers. A replica that no longer does clears the
    /// gauges about databases.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        if !leads {
            self.running(0);
            self.places(0, 0);
            self.certificates(None, 0);
        }
    }

    /// Sets the number of running operations.
    pub fn running(&self, operations: usize) {
        self.operations_running
            .set(i64::try_from(operations).unwrap_or(i64::MAX));
    }

    /// Sets the number of operations that hold a slot, and the number of slots.
    pub fn places(&self, working: usize, places: usize) {
        self.operations_working
            .set(i64::try_from(working).unwrap_or(i64::MAX));
        self.operation_places
            .set(i64::try_from(places).unwrap_or(i64::MAX));
    }

    /// Counts an operation that ended.
    pub fn ended(&self, operation: OperationKind, outcome: OperationOutcome) {
        self.operations
            .get_or_create(&OperationEnded { operation, outcome })
            .inc();
    }

    /// Records the duration of a step.
    pub fn step(&self, step: StepKind, took: Duration) {
        self.step_duration
            .get_or_create(&StepTaken { step })
            .observe(took.as_secs_f64());
    }

    /// Records for how long an operation saw no primary.
    pub fn write_gap(&self, took: Duration) {
        self.write_gap.observe(took.as_secs_f64());
    }

    /// Sets when the first served certificate of all databases expires (in seconds since 1970), and
    /// the number of databases that do not serve their newest certificates.
    pub fn certificates(&self, first_expiry: Option<i64>, drifted: usize) {
        self.database_certificate_expiry
            .set(first_expiry.unwrap_or_default());
        self.databases_drifted
            .set(i64::try_from(drifted).unwrap_or(i64::MAX));
    }
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs, reason = "the label's values, which say it")]
pub enum OperationKind {
    /// Adds or changes TLS.
    ChangeTls,
    RotateTls,
    RemoveTls,
    Restart,
}

/// The result of an operation: the final phases of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs, reason = "the label's values, which say it")]
pub enum OperationOutcome {
    Successful,
    Failed,
}

impl EncodeLabelValue for StepKind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.as_str().encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationEnded {
    operation: OperationKind,
    outcome: OperationOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepTaken {
    step: StepKind,
}

/// The metrics of one server.
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
        self.connections
            .get_or_create(&ConnectionEndLabels { end })
            .inc();
    }

    /// Counts a request that was not answered by its handler.
    pub fn shed(&self, reason: Shed) {
        self.requests_shed
            .get_or_create(&ShedLabels { reason })
            .inc();
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ConnectionEnd {
    /// Closed in good order.
    Closed,
    /// Broken by the peer or the network.
    Broken,
    /// The TLS handshake failed.
    HandshakeFailed,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// The head of a request took too long, or never came.
    HeaderTimeout,
    /// It was idle for long.
    Idle,
    /// Closed for another one.
    Evicted,
    /// Still busy when the time to drain was over.
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
    /// The body was longer than any review.
    TooLarge,
    /// The body ended too early.
    BrokenBody,
    /// The body took too long.
    SlowBody,
    /// The memory for all bodies, or for those of the caller, was used up.
    Memory,
    /// The body was slow and was dropped for another one.
    MadeWay,
    /// Too many reviews with many values waited.
    Heavy,
    /// Too many requests were in flight.
    InFlight,
    /// It took too long to be answered.
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
mod tests;
