//! Changes that users may make to the pods and Services of a database.

use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, LocalObjectReference, PodSecurityContext, ResourceRequirements,
    SecurityContext, SessionAffinityConfig, Toleration, TopologySpreadConstraint,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;
use std::collections::BTreeMap;

use crate::api::ports::EXPORTER_PORT;

/// Labels and annotations to add.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMeta {
    /// Annotations to add.
    pub annotations: Option<BTreeMap<String, String>>,
    /// Labels to add. The labels of pgrekey's selectors cannot be changed.
    pub labels: Option<BTreeMap<String, String>>,
}

/// Changes to the pods of a database.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels and annotations to add to each pod.
    pub metadata: Option<TemplateMeta>,
    /// Changes to the specification of each pod.
    pub spec: Option<PodSettings>,
}

/// Changes to the specification of each pod.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodSettings {
    /// Changes to containers, by name: `postgres`, and `exporter` where metrics are on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub containers: Vec<ContainerSettings>,
    /// Labels that a node must have to run these pods.
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints that these pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Rules that place these pods near nodes or pods, or away from them.
    pub affinity: Option<Affinity>,
    /// How these pods are spread over zones and nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// PriorityClass of these pods. The cluster's default if left out.
    pub priority_class_name: Option<String>,
    /// Secrets with the credentials of image registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// ServiceAccount of these pods. If left out, one with the database's name and the rights that
    /// Patroni needs.
    pub service_account_name: Option<String>,
    /// Security settings of the pod. User, group and fsGroup are those of the PostgresVersion if
    /// left out.
    pub security_context: Option<PodSecurityContext>,
}

/// Changes to one container.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSettings {
    /// Which container: `postgres` or `exporter`.
    pub name: String,
    /// CPU and memory. For `postgres`: requests of 500m and 1Gi, and a memory limit of 1Gi, if left
    /// out.
    pub resources: Option<ResourceRequirements>,
    /// Environment variables to add. `POSTGRES_USER`, `POSTGRES_PASSWORD`, `PGUSER`, `PGDATA`,
    /// `DATA_SOURCE_NAME` and `PATRONI_*` are pgrekey's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Security settings of the container. Those of Pod Security level `restricted` if left out.
    pub security_context: Option<SecurityContext>,
}

/// Changes to one Service of a database.
#[skip_serializing_none]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceTemplate {
    /// Which Service: `primary`, `standby` or `stats`.
    pub alias: ServiceAlias,
    /// Labels and annotations to add to the Service.
    pub metadata: Option<TemplateMeta>,
    /// Changes to the specification of the Service.
    pub spec: Option<ServiceSettings>,
}

/// Which Service of a database: `primary`, `standby` or `stats`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ServiceAlias {
    /// The Service of the primary, named like the database.
    Primary,
    /// The Service of the standbys, `<database>-standby`.
    Standby,
    /// The Service of the metrics, `<database>-stats`.
    Stats,
}

impl ServiceAlias {
    /// The alias as the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::Stats => "stats",
        }
    }

    /// The name of the Service's one port.
    #[must_use]
    pub const fn port_name(self) -> &'static str {
        match self {
            Self::Primary | Self::Standby => self.as_str(),
            Self::Stats => EXPORTER_PORT.name,
        }
    }
}

/// Changes to the specification of a Service.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSettings {
    /// How the Service is exposed: `ClusterIP`, `NodePort`, `LoadBalancer`. `ClusterIP` if left
    /// out.
    #[serde(rename = "type")]
    pub type_: Option<ServiceType>,
    /// Changes to ports, matched by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
    /// Address of the Service inside the cluster. Chosen by the API server if left out; cannot be
    /// changed later.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// Addresses outside the cluster for which nodes accept traffic.
    #[serde(default, rename = "externalIPs", skip_serializing_if = "Vec::is_empty")]
    pub external_ips: Vec<String>,
    /// Whether traffic from outside may cross nodes (`Cluster`) or not (`Local`). `Cluster` if left
    /// out.
    pub external_traffic_policy: Option<ExternalTrafficPolicy>,
    /// Node port for the health check of `externalTrafficPolicy: Local`. Chosen by the API server
    /// if left out.
    #[schemars(range(min = 0, max = 65535))]
    pub health_check_node_port: Option<i32>,
    /// Address to ask the load balancer for.
    #[serde(rename = "loadBalancerIP")]
    pub load_balancer_ip: Option<String>,
    /// Networks (CIDR) that the load balancer lets in. All if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_source_ranges: Vec<String>,
    /// Settings of session affinity.
    pub session_affinity_config: Option<SessionAffinityConfig>,
}

/// How a Service is exposed: `ClusterIP`, `NodePort` or `LoadBalancer`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum ServiceType {
    /// Inside the cluster only.
    ClusterIP,
    /// On a port of every node too.
    NodePort,
    /// Through a load balancer too.
    LoadBalancer,
}

/// Whether traffic from outside may cross nodes: `Cluster` or `Local`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum ExternalTrafficPolicy {
    /// It may. The client's address is lost.
    Cluster,
    /// It may not. The client's address is kept.
    Local,
}

/// Changes to one port of a Service.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Name of the port to change: `primary`, `standby` or `prom-http`.
    pub name: String,
    /// Port of the Service, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Port on every node, for types `NodePort` and `LoadBalancer`. Chosen by the API server if
    /// left out.
    #[schemars(range(min = 0, max = 65535))]
    pub node_port: Option<i32>,
}
