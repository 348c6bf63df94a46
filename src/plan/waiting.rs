//! The reasons why a step cannot go on now, and why a fact is not known.
//!
//! Each text completes "waits for ...". Nothing reads the texts back.

use std::fmt;

use crate::api::postgres::DatabasePhase;
use crate::plan::budgets::BudgetConflict;
use crate::tls::Alias;

/// Why a fact is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It was not observed: nothing asked for it, or the request has not begun.
    NotObserved,
    /// An object is missing, or cannot be understood: which one, in words.
    Unreadable(String),
    /// A pod or its server gave no answer: the error.
    NoAnswer(String),
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotObserved => f.write_str("not observed yet"),
            Self::Unreadable(what) => f.write_str(what),
            Self::NoAnswer(error) => f.write_str(error),
        }
    }
}

/// What has to happen before a step can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// An earlier request about the same database has to end: its name.
    EarlierRequest(String),
    /// As many operations work in the cluster or namespace as may.
    Slot,
    /// Something else has paused the database: the message of its condition `Paused`.
    Resumed(String),
    /// The database has to be Ready: its phase now.
    DatabaseReady(Option<DatabasePhase>),
    /// The uids of the pods are not known.
    PodUids(Unknown),
    /// The pods are not observed.
    Observation(Unknown),
    /// The issuers or Certificates are not observed, or the spec cannot be issued for.
    Issuance(Unknown),
    /// The disruption budgets are not observed.
    Budgets(Unknown),
    /// No pod holds the leadership.
    Leader,
    /// One pod has to change.
    Pod(String, PodEvent),
    /// There are fewer or more pods than the database has.
    PodCount {
        /// So many pods belong to the database.
        wanted: usize,
        /// So many exist.
        found: usize,
    },
    /// The only pod has the only copy of the data.
    AnotherCopy,
    /// The database's own PodDisruptionBudget lets no pod go.
    OwnBudget,
    /// A PodDisruptionBudget that is not the database's is in the way.
    Budget(BudgetConflict),
    /// Issuers are not ready: each with its reason.
    Issuers(Vec<String>),
    /// The trial certificate is not issued yet: what it waits for, if that takes long.
    Trial(Option<String>),
    /// A Certificate is not issued yet: why the last try failed.
    Certificate(Alias, Option<String>),
    /// cert-manager has issued; the Secrets are not there yet.
    IssuedSecrets,
    /// The certificates that the spec asks for are not there.
    Certificates,
    /// The controller of the PetSet has not taken over the new pod template.
    Template,
    /// A switchover is under way.
    SwitchoverEnd,
    /// This primary has been asked for a switchover and still leads.
    Handover(String),
    /// No standby is up to date.
    Candidate,
    /// Patroni has no synchronous standby; it promotes no other.
    SynchronousStandby,
    /// Clients have to take over the new bundle or their new certificates.
    Clients,
    /// The step failed: it is tried again after a pause.
    NextTry(StepProblem),
    /// An effect could not be had: in words.
    Effect(String),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EarlierRequest(name) => {
                write!(f, "{name} to end, an earlier request about the same database")
            }
            Self::Slot => f.write_str(
                "another operation to end: as many work in this cluster or namespace as may",
            ),
            Self::Resumed(paused_by) => write!(f, "the database to be resumed: {paused_by}"),
            Self::DatabaseReady(phase) => {
                f.write_str("the database to be Ready; it is ")?;
                match phase {
                    Some(phase) => write!(f, "{phase:?}")?,
                    None => f.write_str("not known")?,
                }
                f.write_str(" (apply: Always would not wait)")
            }
            Self::PodUids(why) => write!(f, "its pods to be known: {why}"),
            Self::Observation(why) => write!(f, "an observation of the pods ({why})"),
            Self::Issuance(why) | Self::Budgets(why) => why.fmt(f),
            Self::Leader => f.write_str("a leader"),
            Self::Pod(pod, event) => write!(f, "{pod} {event}"),
            Self::PodCount { wanted, found } => write!(f, "{wanted} pods; there are {found}"),
            Self::AnotherCopy => f.write_str(
                "a standby, because the only pod has the only copy of the data (storageType: Ephemeral)",
            ),
            Self::OwnBudget => f.write_str("the PodDisruptionBudget to let a pod go"),
            Self::Budget(conflict) => conflict.fmt(f),
            Self::Issuers(reasons) => f.write_str(&reasons.join("; ")),
            Self::Trial(why) => {
                f.write_str("the trial certificates")?;
                why.iter().try_for_each(|why| write!(f, " ({why})"))
            }
            Self::Certificate(alias, failure) => {
                write!(f, "the {} certificate", alias.as_str())?;
                failure.iter().try_for_each(|why| write!(f, " ({why})"))
            }
            Self::IssuedSecrets => f.write_str("the Secrets of the certificates"),
            Self::Certificates => f.write_str("the certificates"),
            Self::Template => {
                f.write_str("the PetSet's controller to take over the new pod template")
            }
            Self::SwitchoverEnd => f.write_str("the switchover to end"),
            Self::Handover(primary) => write!(f, "{primary} to hand the leadership over"),
            Self::Candidate => f.write_str("a standby that is up to date, as the next primary"),
            Self::SynchronousStandby => f.write_str("Patroni to make a standby synchronous"),
            Self::Clients => f.write_str("clients to take over what has changed"),
            Self::NextTry(problem) => write!(f, "another try: {problem}"),
            Self::Effect(what) => f.write_str(what),
        }
    }
}

/// What one pod, or its server, has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodEvent {
    /// The pod of this name has to exist.
    Exist,
    /// It is being deleted.
    BeReplaced,
    /// It has to be created anew.
    BeCreated,
    /// Its readiness probe fails.
    BeReady,
    /// Its server gave no answer.
    Answer(Unknown),
    /// It holds the leadership and is in recovery.
    LeaveRecovery,
    /// It is no standby, while this pod leads.
    Follow(String),
    /// It does not stream from this primary.
    StreamFrom(String),
    /// It lags by more than this many bytes of WAL.
    CatchUp(u64),
    /// `ssl` is not loaded as it was applied.
    SwitchTls(Switch),
    /// `pg_hba.conf` is not loaded as it was applied.
    LoadHba,
    /// Plaintext connections are not taken, or not refused, as was applied.
    Plaintext(Switch),
    /// The kubelet has not brought its volumes up to date.
    RefreshVolumes,
    /// It has loaded the certificate and serves another one.
    ServeLoadedCertificate,
    /// It replicates in the other way.
    ReplicateWithTls(Switch),
    /// It replicates without its client certificate.
    PresentCertificate,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// On, or accepted.
    On,
    /// Off, or refused.
    Off,
}

impl Switch {
    /// `On` if the condition holds.
    #[must_use]
    pub const fn when(condition: bool) -> Self {
        if condition { Self::On } else { Self::Off }
    }
}

impl fmt::Display for PodEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exist => f.write_str("to exist"),
            Self::BeReplaced => f.write_str("to be replaced"),
            Self::BeCreated => f.write_str("to be created"),
            Self::BeReady => f.write_str("to be ready"),
            Self::Answer(why) => write!(f, "to answer ({why})"),
            Self::LeaveRecovery => f.write_str("to leave recovery: it holds the leadership"),
            Self::Follow(leader) => write!(f, "to follow {leader}, which holds the leadership"),
            Self::StreamFrom(primary) => write!(f, "to stream from {primary}"),
            Self::CatchUp(bytes) => write!(f, "to catch up to within {bytes} bytes"),
            Self::SwitchTls(Switch::On) => f.write_str("to switch TLS on"),
            Self::SwitchTls(Switch::Off) => f.write_str("to switch TLS off"),
            Self::LoadHba => f.write_str("to load pg_hba.conf"),
            Self::Plaintext(Switch::On) => f.write_str("to accept plaintext"),
            Self::Plaintext(Switch::Off) => f.write_str("to refuse plaintext"),
            Self::RefreshVolumes => f.write_str("to get its volumes refreshed by the kubelet"),
            Self::ServeLoadedCertificate => {
                f.write_str("to serve the certificate that it has loaded")
            }
            Self::ReplicateWithTls(Switch::On) => f.write_str("to replicate with TLS"),
            Self::ReplicateWithTls(Switch::Off) => f.write_str("to replicate in plaintext"),
            Self::PresentCertificate => {
                f.write_str("to present its certificate when it replicates")
            }
        }
    }
}

/// Why a step cannot be done as things are: another try begins after a pause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepProblem {
    /// Objects with the names of what would be issued belong to something else.
    Conflicts(Vec<String>),
    /// The database cannot become what is asked for.
    Refused(String),
    /// Roles whose passwords are stored as MD5 could not log in any more.
    LockedOut(Vec<String>),
    /// libpq cannot log in with a password under the certificate that is served.
    NoChannelBinding,
    /// The certificates are not issued anew, and what is issued is not good for what is asked for.
    BadForGoal(String),
    /// The issuer refused the trial certificate, or it is not good.
    TrialFailed(String),
    /// The certificates that were issued are not good.
    BadMaterial(String),
}

impl fmt::Display for StepProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflicts(objects) => write!(
                f,
                "{} already exists and belongs to something else",
                objects.join(", ")
            ),
            Self::LockedOut(roles) => write!(
                f,
                "the passwords of {} are stored as MD5, and scram would refuse them: set them anew \
                 with password_encryption = 'scram-sha-256' first",
                roles.join(", ")
            ),
            Self::NoChannelBinding => f.write_str(
                "the served certificate is signed with Ed25519, for which libpq knows no channel \
                 binding, so that no login with a password would work: change to an issuer whose CA \
                 has an RSA or ECDSA key first, by a request that leaves clientAuthMode as it is",
            ),
            Self::BadForGoal(why) => write!(
                f,
                "this request has no certificate issued anew, and those that are issued could not be \
                 served with it: {why}. If the issuer signs better ones by now, rotate the \
                 certificates first"
            ),
            Self::TrialFailed(why) => write!(f, "the trial certificates: {why}"),
            Self::BadMaterial(why) | Self::Refused(why) => f.write_str(why),
        }
    }
}
