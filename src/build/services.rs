//! The Services for clients.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::ports::{POSTGRES_PORT, Port};
use crate::api::template::{ExternalTrafficPolicy, ServiceAlias, ServiceSettings, ServiceType};
use crate::build::Cluster;
use crate::build::meta::{PRIMARY, STANDBY};

/// Service `NAME`: the primary.
#[must_use]
pub fn primary(cluster: &Cluster) -> Service {
    templated(
        cluster,
        ServiceAlias::Primary,
        cluster.name(),
        cluster.selector_of(PRIMARY),
        i32::from(POSTGRES_PORT.number),
        POSTGRES_PORT.name,
    )
}

/// Service `NAME-standby`: the standbys. `None` for a database of one pod.
#[must_use]
pub fn standby(cluster: &Cluster) -> Option<Service> {
    let name = cluster.names().standby_service();
    (cluster.replicas() > 1).then(|| {
        templated(
            cluster,
            ServiceAlias::Standby,
            &name,
            cluster.selector_of(STANDBY),
            i32::from(POSTGRES_PORT.number),
            POSTGRES_PORT.name,
        )
    })
}

/// Service `NAME-pods`: gives each pod a DNS name, also while the pod is not ready. A standby dials
/// a new primary by that name before the primary is ready.
#[must_use]
pub fn pods(cluster: &Cluster) -> Service {
    let Port { number, name } = POSTGRES_PORT;
    Service {
        metadata: cluster.meta(cluster.names().pods_service()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(cluster.selector()),
            ports: Some(vec![service_port(name, i32::from(number), name)]),
            ..Default::default()
        }),
        status: None,
    }
}

/// A Service for one port of the pods, with the user's changes.
pub(super) fn templated(
    cluster: &Cluster,
    alias: ServiceAlias,
    name: &str,
    selector: BTreeMap<String, String>,
    port: i32,
    target: &str,
) -> Service {
    let mut metadata = cluster.meta(name);
    let mut spec = ServiceSpec {
        type_: Some("ClusterIP".to_owned()),
        selector: Some(selector),
        ports: Some(vec![service_port(alias.port_name(), port, target)]),
        ..Default::default()
    };
    if let Some(template) = cluster.service_template(alias) {
        if let Some(wish) = template.metadata.clone() {
            let ours = metadata.labels.replace(wish.labels.unwrap_or_default());
            metadata
                .labels
                .get_or_insert_default()
                .extend(ours.unwrap_or_default());
            metadata.annotations = wish.annotations;
        }
        if let Some(wish) = template.spec.clone() {
            change(&mut spec, wish);
        }
    }
    Service {
        metadata,
        spec: Some(spec),
        status: None,
    }
}

fn service_port(name: &str, port: i32, target: &str) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(target.to_owned())),
        ..Default::default()
    }
}

/// Applies the user's changes. The pattern names every field, so that a new field does not compile
/// until it has an effect.
fn change(spec: &mut ServiceSpec, wish: ServiceSettings) {
    let ServiceSettings {
        type_,
        ports,
        cluster_ip,
        external_ips,
        external_traffic_policy,
        health_check_node_port,
        load_balancer_ip,
        load_balancer_source_ranges,
        session_affinity_config,
    } = wish;
    if let Some(type_) = type_ {
        spec.type_ = Some(service_type(type_).to_owned());
    }
    for changed in ports {
        for port in spec
            .ports
            .iter_mut()
            .flatten()
            .filter(|port| port.name.as_ref() == Some(&changed.name))
        {
            port.port = changed.port;
            port.node_port = changed.node_port;
        }
    }
    spec.cluster_ip = cluster_ip;
    spec.external_ips = Some(external_ips).filter(|list| !list.is_empty());
    spec.external_traffic_policy =
        external_traffic_policy.map(|policy| traffic_policy(policy).to_owned());
    spec.health_check_node_port = health_check_node_port;
    spec.load_balancer_ip = load_balancer_ip;
    spec.load_balancer_source_ranges =
        Some(load_balancer_source_ranges).filter(|list| !list.is_empty());
    // The API server refuses settings of session affinity if the affinity itself is not set.
    spec.session_affinity = session_affinity_config
        .as_ref()
        .map(|_| "ClientIP".to_owned());
    spec.session_affinity_config = session_affinity_config;
}

const fn service_type(type_: ServiceType) -> &'static str {
    match type_ {
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    }
}

const fn traffic_policy(policy: ExternalTrafficPolicy) -> &'static str {
    match policy {
        ExternalTrafficPolicy::Cluster => "Cluster",
        ExternalTrafficPolicy::Local => "Local",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::cluster::tests::{cluster, postgres};

    #[test]
    fn a_single_pod_has_no_service_of_standbys() {
        assert_eq!(standby(&cluster(&postgres("version: '17'"))), None);
        assert!(standby(&cluster(&postgres("{version: '17', replicas: 2}"))).is_some());
    }

    #[test]
    fn a_template_cannot_change_the_selector() {
        let service = primary(&cluster(&postgres(
            "{version: '17', serviceTemplates: [{alias: primary, metadata: {labels: \
             {app.kubernetes.io/instance: x, team: t}, annotations: {a: b}}, spec: {type: NodePort, ports: \
             [{name: primary, port: 6432, nodePort: 30000}], sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}}}]}",
        )));
        let labels = service.metadata.labels.unwrap_or_default();
        assert_eq!(
            (
                labels["app.kubernetes.io/instance"].as_str(),
                labels["team"].as_str()
            ),
            ("pg", "t")
        );
        let spec = service.spec.expect("a spec");
        let port = &spec.ports.expect("ports")[0];
        assert_eq!(
            (port.port, port.node_port, spec.type_.as_deref()),
            (6432, Some(30000), Some("NodePort"))
        );
        assert_eq!(spec.session_affinity.as_deref(), Some("ClientIP"));
    }
}
