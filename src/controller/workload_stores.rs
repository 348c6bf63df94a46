//! The watched pods of databases and the controllers of these pods.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store, store::WriterDropped};

use crate::api::{PetSet, Postgres};
use crate::build::meta::{INSTANCE_LABEL, KIND};
use crate::build::workload::{Realised, Workload};

/// The watched pods of databases and the controllers of these pods.
pub(crate) struct WorkloadStores {
    pub(crate) pods: Store<Pod>,
    pub(crate) pet_sets: Store<PetSet>,
    /// `None` unless StatefulSets realise PetSets.
    pub(crate) stateful_sets: Option<Store<PartialObjectMeta<StatefulSet>>>,
}

impl WorkloadStores {
    /// Waits until all of them have been listed once: an object that is not listed yet is not
    /// missing.
    pub(crate) async fn until_listed(&self) -> Result<(), WriterDropped> {
        self.pods.wait_until_ready().await?;
        self.pet_sets.wait_until_ready().await?;
        match &self.stateful_sets {
            Some(sets) => sets.wait_until_ready().await,
            None => Ok(()),
        }
    }

    /// The PetSet of this name.
    pub(crate) fn pet_set(&self, namespace: &str, name: &str) -> Option<Arc<PetSet>> {
        self.pet_sets.get(&ObjectRef::new(name).within(namespace))
    }

    /// The controller of the pods of a database.
    pub(crate) fn workload(&self, postgres: &Postgres) -> Result<Workload, String> {
        let (namespace, name) = (
            postgres.namespace().unwrap_or_default(),
            postgres.name_any(),
        );
        let stateful_set = self
            .stateful_sets
            .as_ref()
            .map(|sets| sets.get(&ObjectRef::new(&name).within(&namespace)));
        let realised = match &stateful_set {
            None => Realised::Directly,
            Some(set) => Realised::By(set.as_ref().map(|set| &set.metadata)),
        };
        Workload::find(
            postgres,
            self.pet_set(&namespace, &name).as_deref(),
            realised,
        )
    }

    /// The pods of this workload, in the order of their names.
    pub(crate) fn pods(&self, postgres: &Postgres, workload: &Workload) -> Vec<Arc<Pod>> {
        let mut pods = self.labelled_pods(postgres);
        pods.retain(|pod| workload.ownership(pod).is_own());
        pods.sort_by_key(|pod| pod.name_any());
        pods
    }

    /// The pods with the labels of a database, whoever made them.
    pub(crate) fn labelled_pods(&self, postgres: &Postgres) -> Vec<Arc<Pod>> {
        let (namespace, name) = (postgres.namespace(), postgres.name_any());
        let is = |pod: &Arc<Pod>, key: &str, value: &str| {
            pod.labels().get(key).is_some_and(|own| own == value)
        };
        let mut pods = self.pods.state();
        pods.retain(|pod| {
            pod.metadata.namespace == namespace
                && is(pod, INSTANCE_LABEL, &name)
                && is(pod, "app.kubernetes.io/name", KIND)
        });
        pods
    }
}
