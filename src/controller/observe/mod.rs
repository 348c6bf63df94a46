//! Reads: what the API server, cert-manager and the servers show.

pub(crate) mod budgets;
pub(crate) mod cluster;
pub(crate) mod instance;
pub(crate) mod issuance;
pub(crate) mod posture;
pub(crate) mod workload;
