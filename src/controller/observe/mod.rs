//! Reads: what the API server, cert-manager and the servers show.

pub(crate) mod budgets;
pub(crate) mod certificates;
pub(crate) mod cluster;
pub(crate) mod instance;
pub(crate) mod issuance;
pub(crate) mod patroni;
pub(crate) mod posture;
pub(crate) mod spec;
pub(crate) mod stored_certificates;
pub(crate) mod superuser;
pub(crate) mod workload;
