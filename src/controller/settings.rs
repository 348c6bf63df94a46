//! What the installation decides about the controllers.

use std::sync::Arc;
use std::time::Duration;

use crate::rules::Allowed;

/// The label of every object of a database, KubeDB's and so ours.
pub const OURS: &str = "app.kubernetes.io/managed-by=kubedb.com";

/// What is left to the installation.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The only namespace whose databases are looked after; all if left out.
    pub namespace: Option<String>,
    /// Whether databases are provisioned.
    pub provisioner: bool,
    /// Whether requests are carried out.
    pub ops_manager: bool,
    /// Who realises PetSets.
    pub pet_sets: PetSets,
    /// The lease that whoever runs the loops holds; none where nobody else can run them.
    pub lease: Option<Lease>,
    /// How many operations may run at once in the cluster.
    pub max_concurrent_operations: usize,
    /// How late a status may tell of a step that went well.
    pub status_delay: Duration,
    /// What this process is called in events.
    pub instance: Option<String>,
    /// What databases may have.
    pub allowed: Arc<Allowed>,
}

/// How many operations may run at once in a cluster, if the installation does not say.
pub const MAX_CONCURRENT_OPERATIONS: usize = 10;

/// How late a status may tell of a step that went well, if the installation does not say.
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
        }
    }
}

/// Who realises PetSets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PetSets {
    /// pgrekey, by StatefulSets.
    #[default]
    Own,
    /// A controller that was installed beside pgrekey, such as KubeOps'.
    External,
}

/// The lease of the loops.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who we are; no two processes may be the same.
    pub identity: String,
}
