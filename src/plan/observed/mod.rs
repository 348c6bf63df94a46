//! All that a decision about a request may depend on, but for the time.

pub mod candidates;
pub mod cluster;
pub mod instance;
pub mod issuance;
pub mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::api::step::StepId;
use crate::api::{Postgres, PostgresOpsRequest};
use crate::pki::{CaId, Material};
use crate::plan::budgets::Budgets;
use crate::plan::observed::cluster::ObservedCluster;
use crate::plan::status::write_policy::StoredStatus;
use crate::plan::waiting::Unknown;
use crate::tls::Alias;

/// Everything that a decision may depend on, but for the time.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The request, with the status that this process decided on last.
    pub request: Arc<PostgresOpsRequest>,
    /// The status that the API server has.
    pub stored: StoredStatus,
    /// Its database; `None` if there is none, or another one than the request has begun on.
    pub database: Option<Arc<Postgres>>,
    /// Every request about the database.
    pub siblings: Vec<Arc<PostgresOpsRequest>>,
    /// How many more operations may work now in this Kubernetes cluster and namespace: see
    /// [`slots`](crate::plan::slots).
    pub free_slots: usize,
    /// The findings of the rules that refuse the request.
    pub refused: Vec<String>,
    /// Whether the database is paused, and for whom.
    pub paused: Paused,
    /// The uids of the pods, by name. Observed only for a request that may begin: see
    /// [`may_begin`](crate::plan::operation::may_begin).
    pub pod_uids: Result<BTreeMap<String, String>, Unknown>,
    /// The database itself. Observed only for a request that has begun and has not ended.
    pub live: Result<Live, Unknown>,
    /// Why the last effect could not be had.
    pub last_failure: Option<LastFailure>,
}

/// A database that an operation works on.
#[derive(Clone, Debug)]
pub struct Live {
    /// PostgreSQL's major version.
    pub major: u32,
    /// The issuers and Certificates.
    pub issuance: Result<Issuance, Unknown>,
    /// The objects, pods and servers.
    pub cluster: Result<ObservedCluster, Unknown>,
    /// The disruption budgets. Observed only until the database is paused.
    pub budgets: Result<Budgets, Unknown>,
}

impl Observed {
    /// The objects, pods and servers of the database.
    pub fn cluster(&self) -> Result<&ObservedCluster, &Unknown> {
        self.live.as_ref()?.cluster.as_ref()
    }

    /// The issuers and Certificates for the spec that the request asks for.
    pub fn issuance(&self) -> Result<&Issuance, &Unknown> {
        self.live.as_ref()?.issuance.as_ref()
    }
}

/// Why an effect could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastFailure {
    /// The step of the effect; `None` for an effect after the end.
    pub step: Option<StepId>,
    /// The reason: pod or object, and what it answered.
    pub why: String,
}

/// Whether a database is paused, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paused {
    /// It is not.
    No,
    /// For this request.
    ByUs,
    /// For another one: the message of its condition `Paused`.
    ByOther(String),
}

/// The issuers and Certificates for the spec that the request asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Issuance {
    /// Issuers that are not ready, and why.
    pub not_ready: Vec<String>,
    /// Why the database cannot become what is asked for; `None` if it can.
    pub refused: Option<String>,
    /// The trial.
    pub trial: Trial,
    /// Objects of other owners with the names of Certificates or Secrets that would be issued.
    pub conflicts: Vec<String>,
    /// The Certificates.
    pub certificates: BTreeMap<Alias, ObservedCertificate>,
    /// The issued certificates, verified; or what is wrong with them. `None` if they are not there.
    pub issued: Option<Result<Material, String>>,
}

/// The trial: each certificate that will be asked for, issued once before, to see that it would be
/// and can be served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trial {
    /// There is none.
    #[default]
    Absent,
    /// Not every certificate has been asked for yet, or another operation has left a trial.
    Begun,
    /// It is not issued yet. If that takes longer than usual: which one, and what it waits for.
    Pending(Option<String>),
    /// It was issued and is good: the CAs that signed.
    Passed(BTreeSet<CaId>),
    /// It was refused, or is not good: which one, and why.
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
    /// The revision at which this request asked cert-manager for a new certificate; `None` if it has
    /// not asked. A later revision is the answer.
    pub requested_at_revision: Option<i64>,
    /// Why the last try failed, and when cert-manager tries again.
    pub failure: Option<String>,
    /// When that is.
    pub retry_at: Option<Timestamp>,
    /// When the life of the issued certificate begins; `None` if none was issued.
    pub begins: Option<Timestamp>,
}

impl ObservedCertificate {
    /// Whether it is as the spec asks for it, and stays so for now.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.matches && self.ready && !self.issuing
    }
}
