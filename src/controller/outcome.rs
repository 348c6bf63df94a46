//! How a step of a reconcile ends.

use std::fmt;

use crate::cluster::Error;
use crate::database::ProbeError;

/// The result of a step of a reconcile.
pub(crate) type ReconcileResult<T> = Result<T, Interrupt>;

/// Why a step of a reconcile could not be done.
#[derive(Debug)]
pub(crate) enum Interrupt {
    /// The API server did not do what it was asked.
    Error(Error),
    /// Something else must happen first, and it will happen without the user.
    Wait(Pending),
    /// The user has to do something first: reason and message of the condition.
    Blocked(&'static str, String),
}

impl From<Error> for Interrupt {
    fn from(error: Error) -> Self {
        match error {
            Error::InTheWay(object) => Self::Blocked("ObjectInTheWay", object.to_string()),
            Error::Refused { .. } => Self::Blocked("Refused", error.to_string()),
            Error::UnknownKind(_) => Self::Blocked("KindUnknown", error.to_string()),
            error => Self::Error(error),
        }
    }
}

/// What is waited for. Printed, it completes a sentence that begins with "waits for".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    /// A free slot for the operation: another one has taken it.
    Slot,
    /// The objects of the database, which could not be read in this pass.
    Observation,
    /// The API server's uid of the database.
    DatabaseUid,
    /// The caches that rules are judged by.
    Facts,
    /// The cache of PostgresVersions.
    PostgresVersions,
    /// Secret `NAME-auth`.
    SuperuserSecret,
    /// Secret `NAME-patroni`.
    PatroniPassword,
    /// The first certificates of a new database.
    Certificates,
    /// cert-manager, which is issuing.
    CertManager,
    /// Certificates for the files of new pods.
    PodFiles,
    /// The PetSet's controller, which has not seen the new template.
    PetSetController,
    /// Pods that are being deleted.
    PodsGone,
    /// The claim that a pod left behind earlier, which is being deleted.
    OldClaim,
    /// A primary.
    Leader,
    /// A served certificate with the names of the pods that are to come.
    NamesOfPods,
    /// A primary that is not among the pods that go.
    PrimaryThatStays,
    /// The pod cannot be connected to.
    Address {
        /// Name of the pod.
        pod: String,
        /// In words.
        why: String,
    },
    /// A server that did not do what it was asked.
    Server {
        /// Name of its pod.
        pod: String,
        /// What it was asked.
        attempt: ServerCall,
        /// What it answered.
        error: ProbeError,
    },
}

/// What a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerCall {
    /// To let the superuser in.
    LogIn,
    /// To read its settings and certificate files.
    ReloadServer,
    /// The same of Patroni.
    ReloadPatroni,
    /// To hash and store the superuser's password.
    StorePassword,
    /// To say which settings it has.
    ReadSettings,
}

impl fmt::Display for ServerCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LogIn => "let pgrekey log in",
            Self::ReloadServer => "reload its configuration",
            Self::ReloadPatroni => "reload Patroni",
            Self::StorePassword => "store the superuser's password",
            Self::ReadSettings => "report its settings",
        })
    }
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot => f.write_str("a free slot for the operation"),
            Self::Observation => f.write_str("the objects of the database"),
            Self::DatabaseUid => f.write_str("the uid of the database"),
            Self::Facts => f.write_str("the facts that rules are judged by"),
            Self::PostgresVersions => f.write_str("the PostgresVersions"),
            Self::SuperuserSecret => f.write_str("the superuser's Secret"),
            Self::PatroniPassword => f.write_str("the password of Patroni's REST API"),
            Self::Certificates => f.write_str("certificates"),
            Self::CertManager => f.write_str("cert-manager"),
            Self::PodFiles => f.write_str("the certificates that new pods are to mount"),
            Self::PetSetController => {
                f.write_str("the PetSet's controller to see the new pod template")
            }
            Self::PodsGone => f.write_str("pods to end"),
            Self::OldClaim => f.write_str("the old claim of a pod that comes back to be deleted"),
            Self::Leader => f.write_str("a leader"),
            Self::NamesOfPods => f.write_str("a served certificate with the names of new pods"),
            Self::PrimaryThatStays => f.write_str("a primary that stays"),
            Self::Address { pod, why } => write!(f, "the address of {pod} ({why})"),
            Self::Server {
                pod,
                attempt,
                error,
            } => write!(f, "{pod} to {attempt} ({error})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_did_not_obey_is_named_with_its_answer() {
        let pending = Pending::Server {
            pod: "pg-1".to_owned(),
            attempt: ServerCall::LogIn,
            error: ProbeError::Refused("starting up".into()),
        };
        assert_eq!(
            pending.to_string(),
            "pg-1 to let pgrekey log in (refuses the login: starting up)"
        );
    }
}
