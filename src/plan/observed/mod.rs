//! All that is known when something is decided about a request, but for the time.
pub mod candidates;
pub mod cluster;
pub mod instance;
pub mod issuance;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::{Postgres, PostgresOpsRequest};
use crate::pki::{CaId, Material};
use crate::tls::Alias;

use crate::plan::budgets::Budgets;
use crate::plan::observed::cluster::{Known, ObservedCluster};

/// Everything that a decision may depend on, but for the time.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The request.
    pub request: Arc<PostgresOpsRequest>,
    /// Its database; nothing if there is none, or another one than the request has begun on.
    pub database: Option<Arc<Postgres>>,
    /// Every request of the database.
    pub siblings: Vec<Arc<PostgresOpsRequest>>,
    /// How many more operations may work now, in this cluster and namespace: see
    /// [`places`](crate::plan::slots).
    pub free_slots: usize,
    /// What the rules refuse about the request.
    pub refused: Vec<String>,
    /// PostgreSQL's major version.
    pub major: u32,
    /// Who has paused the database.
    pub paused: Paused,
    /// What is known about issuing.
    pub issuance: Known<Issuance>,
    /// The uids of the pods there are, by name. Asked for only until the request has begun.
    pub pods: Known<BTreeMap<String, String>>,
    /// What is known about the pods.
    pub cluster: Known<ObservedCluster>,
    /// The disruption budgets. Asked for only until the database is paused.
    pub budgets: Known<Budgets>,
    /// Why what was last decided could not be done.
    pub last_failure: Option<LastFailure>,
}

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastFailure {
    /// The step that it belongs to.
    pub step: String,
    /// In words.
    pub why: String,
}

/// Who has paused a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paused {
    /// Nobody.
    No,
    /// This request.
    ByUs,
    /// Somebody else, in their words.
    ByOther(String),
}

/// What is known about issuing, for the spec that the request asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Issuance {
    /// Issuers that are not ready, and why.
    pub not_ready: Vec<String>,
    /// The trial.
    pub trial: Trial,
    /// Objects of other people that have the names of what would be issued.
    pub conflicts: Vec<String>,
    /// The Certificates.
    pub certificates: BTreeMap<Alias, ObservedCertificate>,
    /// What has been issued, verified; or what is wrong with it.
    pub issued: Option<Known<Material>>,
}

/// A certificate from each issuer that is asked for nothing but to see that it would issue one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trial {
    /// There is none.
    #[default]
    Absent,
    /// Not every issuer has been asked yet.
    Begun,
    /// It is waited for.
    Pending,
    /// It was issued and is good; these CAs have signed.
    Passed(BTreeSet<CaId>),
    /// It was refused, or is not good.
    Failed(String),
}

/// One Certificate of cert-manager's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedCertificate {
    /// Its spec is the one that is asked for.
    pub matches: bool,
    /// It is Ready, for this generation, and from the issuer that is asked for.
    pub ready: bool,
    /// It is being issued.
    pub issuing: bool,
    /// How often it was issued.
    pub revision: i64,
    /// The revision that this request has asked to be followed by another one.
    pub requested_at_revision: Option<i64>,
    /// Why the last try failed, and when cert-manager tries again.
    pub failure: Option<String>,
}
