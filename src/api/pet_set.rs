//! `PetSet` (`apps.k8s.appscode.com/v1`): KubeOps' StatefulSet, the workload that KubeDB users
//! know.

use k8s_openapi::api::apps::v1::{
    StatefulSetOrdinals, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetStatus,
    StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{LocalObjectReference, PersistentVolumeClaim, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::api::schema::{opaque_object, opaque_objects};

/// A set of pods with stable names and volumes, like a StatefulSet.
#[skip_serializing_none]
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "apps.k8s.appscode.com",
    version = "v1",
    kind = "PetSet",
    plural = "petsets",
    singular = "petset",
    category = "kubeops",
    category = "appscode",
    namespaced,
    status = "StatefulSetStatus",
    derive = "PartialEq",
    doc = "PetSet is a set of pods with stable names and volumes, like a StatefulSet.",
    annotation("helm.sh/resource-policy", "keep"),
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas"
    ),
    printcolumn(
        name = "Desired",
        type_ = "integer",
        json_path = ".spec.replicas",
        description = "Wanted number of pods"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "Number of ready pods"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since creation"
    )
)]
pub struct PetSetSpec {
    /// Number of pods. 1 if left out.
    pub replicas: Option<i32>,
    /// Labels by which the set selects its pods. They must match the template's labels.
    pub selector: LabelSelector,
    /// The template of the pods: a PodTemplateSpec.
    #[schemars(schema_with = "opaque_object")]
    pub template: PodTemplateSpec,
    /// Headless Service that gives the pods their names. It must exist before the set.
    pub service_name: String,
    /// Templates of the claims of each pod: PersistentVolumeClaims.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "opaque_objects")]
    pub volume_claim_templates: Vec<PersistentVolumeClaim>,
    /// Whether pods are created one after the other (`OrderedReady`) or at once (`Parallel`).
    /// `OrderedReady` if left out.
    pub pod_management_policy: Option<PodManagementPolicy>,
    /// When pods get a changed template. pgrekey always writes `OnDelete`: it restarts pods itself.
    pub update_strategy: Option<StatefulSetUpdateStrategy>,
    /// Number of old revisions of the template to keep. 10 if left out.
    pub revision_history_limit: Option<i32>,
    /// Seconds that a pod must be ready before it counts as available. 0 if left out.
    pub min_ready_seconds: Option<i32>,
    /// What happens to the claims when the set is deleted or scaled down. They are kept if left
    /// out.
    pub persistent_volume_claim_retention_policy:
        Option<StatefulSetPersistentVolumeClaimRetentionPolicy>,
    /// Ordinal of the first pod.
    pub ordinals: Option<StatefulSetOrdinals>,
    /// Whether the pods are spread over several Kubernetes clusters. Not used by pgrekey.
    pub distributed: Option<bool>,
    /// KubeOps' PlacementPolicy for the pods. Not used by pgrekey.
    pub pod_placement_policy: Option<LocalObjectReference>,
}

/// How pods are created: `OrderedReady`, one after the other, or `Parallel`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum PodManagementPolicy {
    /// One after the other, each when the one before it is ready.
    OrderedReady,
    /// All at once.
    Parallel,
}
