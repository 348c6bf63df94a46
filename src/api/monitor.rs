//! Metrics of a database: `spec.monitor`.

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements, SecurityContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;
use std::collections::BTreeMap;

/// Metrics of a database.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Monitor {
    /// How Prometheus finds the exporter: `prometheus.io` (pgrekey does nothing),
    /// `prometheus.io/builtin` (annotations on the Service) or `prometheus.io/operator` (a
    /// ServiceMonitor).
    pub agent: Option<Agent>,
    /// Settings of the exporter and of the ServiceMonitor.
    pub prometheus: Option<Prometheus>,
}

/// How Prometheus finds the exporter: `prometheus.io`, `prometheus.io/builtin` or
/// `prometheus.io/operator`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Agent {
    /// An exporter and its Service. The user configures Prometheus.
    #[serde(rename = "prometheus.io")]
    Prometheus,
    /// The Service has the annotations that Prometheus' own discovery reads.
    #[serde(rename = "prometheus.io/builtin")]
    Builtin,
    /// A ServiceMonitor for Prometheus Operator.
    #[serde(rename = "prometheus.io/operator")]
    Operator,
}

/// Settings of the exporter and of the ServiceMonitor.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Prometheus {
    /// The container of the metrics exporter.
    pub exporter: Option<Exporter>,
    /// The ServiceMonitor.
    pub service_monitor: Option<ServiceMonitor>,
}

/// The container of the metrics exporter.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Exporter {
    /// Port of the exporter, 1024 to 65535. 56790 if left out.
    pub port: Option<i32>,
    /// Command-line arguments to add.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment variables to add.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// CPU and memory. No request and no limit if left out.
    pub resources: Option<ResourceRequirements>,
    /// Security settings of the container. Those of Pod Security level `restricted` if left out.
    pub security_context: Option<SecurityContext>,
}

/// The ServiceMonitor.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMonitor {
    /// Labels of the ServiceMonitor, by which a Prometheus selects it.
    pub labels: Option<BTreeMap<String, String>>,
    /// Time between two scrapes, as a Prometheus duration such as `30s`. Prometheus' own default if
    /// left out.
    pub interval: Option<String>,
}
