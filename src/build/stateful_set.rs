//! A PetSet as a StatefulSet, which pgrekey creates if no other controller realises PetSets.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::PetSet;
use crate::api::pet_set::{PetSetSpec, PodManagementPolicy};

/// The StatefulSet of a PetSet: the same name, labels and pods.
#[must_use]
pub fn stateful_set(set: &PetSet) -> StatefulSet {
    // The pattern names every field, so that a new field does not compile until it has an effect.
    let PetSetSpec {
        replicas,
        selector,
        template,
        service_name,
        volume_claim_templates,
        pod_management_policy,
        update_strategy,
        revision_history_limit,
        min_ready_seconds,
        persistent_volume_claim_retention_policy,
        ordinals,
        // Fields of KubeOps' own. A StatefulSet cannot do the same.
        distributed: _,
        pod_placement_policy: _,
    } = set.spec.clone();
    StatefulSet {
        metadata: ObjectMeta {
            name: set.metadata.name.clone(),
            namespace: set.metadata.namespace.clone(),
            labels: set.metadata.labels.clone(),
            ..Default::default()
        },
        spec: Some(StatefulSetSpec {
            replicas,
            selector,
            template,
            service_name: Some(service_name),
            volume_claim_templates: Some(volume_claim_templates),
            pod_management_policy: pod_management_policy
                .map(|policy| policy_name(policy).to_owned()),
            update_strategy,
            revision_history_limit,
            min_ready_seconds,
            persistent_volume_claim_retention_policy,
            ordinals,
        }),
        status: None,
    }
}

const fn policy_name(policy: PodManagementPolicy) -> &'static str {
    match policy {
        PodManagementPolicy::OrderedReady => "OrderedReady",
        PodManagementPolicy::Parallel => "Parallel",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::cluster::tests::{cluster, postgres};
    use crate::build::pet_set::pet_set;
    use crate::tls::{Method, Posture};

    #[test]
    fn a_stateful_set_has_the_name_the_labels_and_the_pods_of_its_pet_set() {
        let cluster = cluster(&postgres(
            "{version: '17', replicas: 3, storage: {resources: {requests: {storage: 1Gi}}}}",
        ));
        let set = pet_set(&cluster, &Posture::plain(Method::Scram));
        let StatefulSet { metadata, spec, .. } = stateful_set(&set);
        let spec = spec.expect("a spec");
        assert_eq!(
            (metadata.name, metadata.labels),
            (set.metadata.name, set.metadata.labels)
        );
        assert_eq!((spec.template, spec.replicas), (set.spec.template, Some(3)));
        assert_eq!(spec.volume_claim_templates.map(|all| all.len()), Some(1));
        assert_eq!(
            spec.update_strategy
                .and_then(|strategy| strategy.type_)
                .as_deref(),
            Some("OnDelete")
        );
        assert_eq!(spec.pod_management_policy.as_deref(), Some("Parallel"));
    }
}
