//! The PetSet.

use k8s_openapi::api::apps::v1::StatefulSetUpdateStrategy;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::bounds::clamp_replicas;
use crate::api::names::DATA_VOLUME;
use crate::api::pet_set::{PetSet, PetSetSpec, PodManagementPolicy};
use crate::build::Cluster;
use crate::build::cluster::Data;
use crate::build::pod::template;
use crate::tls::Posture;

/// PetSet `NAME`.
///
/// Update strategy `OnDelete`: a set does not know which pod is the primary, so it must not restart
/// pods by itself. `replicas` and `revisionHistoryLimit` are written although they are optional:
/// otherwise KubeOps' controller writes them, and becomes the owner of more of the spec.
/// `rollingUpdate` is left out because that controller would crash on it.
#[must_use]
pub fn pet_set(cluster: &Cluster, posture: &Posture) -> PetSet {
    let spec = PetSetSpec {
        replicas: Some(cluster.replicas()),
        selector: cluster.label_selector(),
        template: template(cluster, posture),
        service_name: cluster.names().pods_service(),
        volume_claim_templates: claim(cluster).into_iter().collect(),
        // `OrderedReady` would start the pods one after the other. After an outage the first pod
        // may be a standby that must not be promoted; it would wait for the others for ever.
        pod_management_policy: Some(PodManagementPolicy::Parallel),
        update_strategy: Some(StatefulSetUpdateStrategy {
            type_: Some("OnDelete".to_owned()),
            rolling_update: None,
        }),
        revision_history_limit: Some(10),
        ..Default::default()
    };
    let mut set = PetSet::new("", spec);
    // Not in the template: a changed template replaces pods.
    set.metadata = ObjectMeta {
        annotations: Some([cluster.built_of().annotation()].into()),
        ..cluster.meta(cluster.name())
    };
    set
}

/// How many pods a set has, or is to have: the larger number, so that pods that are still to go
/// count.
#[must_use]
pub fn live_pods(set: &PetSet) -> i32 {
    let running = set.status.as_ref().map_or(0, |status| status.replicas);
    clamp_replicas(running.max(set.spec.replicas.unwrap_or_default()))
}

/// The claim template of each pod. Its labels are the selector alone, because a claim template
/// cannot be changed later.
fn claim(cluster: &Cluster) -> Option<PersistentVolumeClaim> {
    let Data::Claim(wish) = &cluster.data else {
        return None;
    };
    let mut spec = wish.as_ref().clone();
    spec.access_modes
        .get_or_insert_with(|| vec!["ReadWriteOnce".to_owned()]);
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(DATA_VOLUME.to_owned()),
            labels: Some(cluster.selector()),
            ..Default::default()
        },
        spec: Some(spec),
        status: None,
    })
}
