//! The Service and the ServiceMonitor for Prometheus.

use k8s_openapi::api::core::v1::Service;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};

use crate::api::monitor::Agent;
use crate::api::ports::EXPORTER_PORT;
use crate::api::template::ServiceAlias;
use crate::build::Cluster;
use crate::build::exporter::port;
use crate::build::meta::{ROLE_LABEL, labels};
use crate::build::services::templated;
use crate::tls::Posture;

/// Annotation of the Service: how Prometheus finds it.
const AGENT: &str = "monitoring.appscode.com/agent";
const PATH: &str = "/metrics";

/// Service `NAME-stats`. `None` if the spec asks for no metrics.
#[must_use]
pub fn stats(cluster: &Cluster, posture: &Posture) -> Option<Service> {
    let agent = cluster.monitor()?.agent.unwrap_or(Agent::Prometheus);
    let (name, port) = (cluster.names().stats_service(), port(cluster));
    let mut service = templated(
        cluster,
        ServiceAlias::Stats,
        &name,
        cluster.selector(),
        port,
        EXPORTER_PORT.name,
    );
    let annotations = service.metadata.annotations.get_or_insert_default();
    annotations.extend(labels([(AGENT, agent_name(agent))]));
    if agent == Agent::Builtin {
        annotations.extend(labels([
            ("prometheus.io/scrape", "true"),
            ("prometheus.io/scheme", scheme(posture)),
            ("prometheus.io/path", PATH),
            ("prometheus.io/port", &port.to_string()),
        ]));
    }
    service
        .metadata
        .labels
        .get_or_insert_default()
        .extend(labels([(ROLE_LABEL, "stats")]));
    Some(service)
}

/// ServiceMonitor, the kind that Prometheus Operator reads. Its CRD may be missing.
#[must_use]
pub fn service_monitor_resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(
        "monitoring.coreos.com",
        "v1",
        "ServiceMonitor",
    ))
}

/// ServiceMonitor `NAME-stats`. `None` if the spec does not ask for Prometheus Operator.
#[must_use]
pub fn service_monitor(cluster: &Cluster, posture: &Posture) -> Option<DynamicObject> {
    let monitor = cluster.monitor()?;
    if monitor.agent != Some(Agent::Operator) {
        return None;
    }
    let wish = monitor
        .prometheus
        .as_ref()
        .and_then(|prometheus| prometheus.service_monitor.clone())
        .unwrap_or_default();
    let mut selector = cluster.selector();
    selector.extend(labels([(ROLE_LABEL, "stats")]));
    let mut endpoint =
        json!({ "port": EXPORTER_PORT.name, "path": PATH, "scheme": scheme(posture) });
    if let Value::Object(endpoint) = &mut endpoint {
        endpoint.extend(
            wish.interval
                .map(|interval| ("interval".to_owned(), json!(interval))),
        );
        endpoint.extend(
            posture
                .files
                .as_ref()
                .map(|_| ("tlsConfig".to_owned(), tls_config(cluster))),
        );
    }
    let mut metadata = cluster.meta(cluster.names().stats_service());
    let ours = metadata.labels.replace(wish.labels.unwrap_or_default());
    metadata
        .labels
        .get_or_insert_default()
        .extend(ours.unwrap_or_default());
    let spec = json!({
        "endpoints": [endpoint],
        "namespaceSelector": { "matchNames": [cluster.namespace()] },
        "selector": { "matchLabels": selector },
    });
    let mut object = DynamicObject::new(
        &cluster.names().stats_service(),
        &service_monitor_resource(),
    )
    .data(json!({ "spec": spec }));
    object.metadata = metadata;
    Some(object)
}

/// Prometheus connects to pods by address, and the certificate has the name of the Service.
fn tls_config(cluster: &Cluster) -> Value {
    json!({
        "ca": { "configMap": { "name": cluster.names().ca_config_map(), "key": "ca.crt" } },
        "serverName": cluster.host(&cluster.names().stats_service()),
    })
}

/// The exporter serves TLS as soon as its pod has certificates.
fn scheme(posture: &Posture) -> &'static str {
    if posture.files.is_some() {
        "https"
    } else {
        "http"
    }
}

const fn agent_name(agent: Agent) -> &'static str {
    match agent {
        Agent::Prometheus => "prometheus.io",
        Agent::Builtin => "prometheus.io/builtin",
        Agent::Operator => "prometheus.io/operator",
    }
}
