//! What the installation decides about the controllers.

use std::sync::Arc;
use std::time::Duration;

use crate::api::names::DEFAULT_CLUSTER_DOMAIN;
use crate::rules::Allowed;

/// The label of every object of a database: KubeDB's.
pub const OURS: &str = "app.kubernetes.io/managed-by=kubedb.com";

/// The decisions of the installation.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The only namespace whose databases are managed; `None` for all.
    pub namespace: Option<String>,
    /// Whether databases are provisioned.
    pub provisioner: bool,
    /// Whether requests are carried out.
    pub ops_manager: bool,
    /// The controller of PetSets.
    pub pet_sets: PetSets,
    /// The lease of the process that runs the controllers; `None` if no other process can run them.
    pub lease: Option<Lease>,
    /// How many operations may run at once in the cluster.
    pub max_concurrent_operations: usize,
    /// How late the status of a request may report a step that succeeded.
    pub status_delay: Duration,
    /// The name of this process in events.
    pub instance: Option<String>,
    /// The fields that databases may use.
    pub allowed: Arc<Allowed>,
    /// The DNS domain of the Kubernetes cluster.
    pub cluster_domain: String,
}

/// How many operations may run at once in a cluster, by default.
pub const MAX_CONCURRENT_OPERATIONS: usize = 10;

/// How late the status of a request may report a step that succeeded, by default.
pub const STATUS_DELAY: Duration = Duration::from_secs(30);

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: None,
            provisioner: true,
            ops_manager: true,
            pet_sets: PetSets::default(),
            lease: None,
            max_concurrent_operations: MAX_CONCURRENT_OPERATIONS,
            status_delay: STATUS_DELAY,
            instance: None,
            allowed: Arc::default(),
            cluster_domain: DEFAULT_CLUSTER_DOMAIN.to_owned(),
        }
    }
}

/// The controller of PetSets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PetSets {
    /// pgrekey, by StatefulSets.
    #[default]
    Own,
    /// A controller that was installed beside pgrekey, such as KubeOps'.
    External,
}

/// The lease of the controllers.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The identity of this process; no two processes may have the same.
    pub identity: String,
}
