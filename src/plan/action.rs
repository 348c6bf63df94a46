//! The effects of decisions, as data.

use std::collections::BTreeSet;
use std::fmt;

use crate::api::postgres::PostgresSpec;
use crate::pki::CaId;
use crate::tls::{Alias, Files, PasswordEncryption, Posture};

/// One effect of a decision about a request. Each effect is idempotent, and carries its
/// precondition: a uid, a revision.
///
/// Its text, also by `Debug`, names the effect and shows no spec: the `env` of a spec may be secret.
#[derive(Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a decision has a handful of them, and most are of the large variant"
)]
pub enum Action {
    /// On the request, or on the database in the request's name.
    Request(RequestAction),
    /// On the objects, pods and servers of the database.
    Cluster(ClusterAction),
}

/// An effect on a request, or on its database's object.
#[derive(Clone, PartialEq)]
pub enum RequestAction {
    /// Puts the finalizer on the request.
    AddFinalizer,
    /// Removes the finalizer of the request.
    RemoveFinalizer,
    /// Sets the database's condition `Paused`, in the request's name.
    Pause,
    /// Removes the database's condition `Paused`.
    Resume,
    /// Writes the database's new spec: TLS, sslMode and clientAuthMode.
    WriteSpec(Box<PostgresSpec>),
    /// Deletes the request: its time after the end is over.
    Delete,
}

/// A pod: not another one of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// The name.
    pub name: String,
    /// The uid.
    pub uid: String,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Whether new pods have the volume with certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateVolume {
    /// They have it.
    Mounted,
    /// They do not.
    Absent,
}

/// An effect on the objects, pods and servers of a database.
#[derive(Clone, PartialEq)]
pub enum ClusterAction {
    /// Asks the issuers for trial certificates.
    StartTrial,
    /// Deletes the trial certificates.
    EndTrial,
    /// Applies the Certificates that this spec asks for.
    RequestCertificates(Box<PostgresSpec>),
    /// Asks cert-manager for a new certificate, if it is still at this revision.
    Reissue {
        /// The certificate.
        alias: Alias,
        /// The revision that another one is to follow.
        revision: i64,
    },
    /// Publishes the CAs that clients should trust: ConfigMap `NAME-ca`.
    PublishBundle(BTreeSet<CaId>),
    /// Writes the settings that reach all pods at once: `ssl`, `pg_hba` and `password_encryption`
    /// of this posture.
    WriteSettings(Posture),
    /// Writes the files that pods mount: Secret `NAME-tls`. An operation keeps the previous leaves
    /// beside the new ones.
    WriteFiles(Files),
    /// Writes how standbys connect: `patroni.yml` of this posture.
    WriteConninfo(Posture),
    /// Writes the template of new pods; restarts nothing.
    WriteTemplate(CertificateVolume),
    /// Sets the superuser's password anew, so that it is stored with this hash.
    SetPassword(PasswordEncryption),
    /// Makes the kubelet refresh the pod's volumes.
    Touch {
        /// The pod.
        pod: PodRef,
        /// The version that the volumes should hold.
        version: String,
    },
    /// Makes the server load its settings and certificate files.
    ReloadServer(PodRef),
    /// Makes Patroni load `patroni.yml`.
    ReloadPatroni(PodRef),
    /// Evicts the pod.
    Evict(PodRef),
    /// Asks Patroni for a switchover.
    SwitchOver {
        /// The primary.
        from: String,
        /// The next primary.
        to: String,
    },
}

impl Action {
    /// Whether an observation a moment later shows the effect. Patroni and the kubelet take their
    /// time.
    #[must_use]
    pub const fn shows_at_once(&self) -> bool {
        !matches!(
            self,
            Self::Cluster(
                ClusterAction::ReloadPatroni(_)
                    | ClusterAction::Evict(_)
                    | ClusterAction::SwitchOver { .. }
            )
        )
    }

    /// The kind of the effect.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Request(action) => action.name(),
            Self::Cluster(action) => action.name(),
        }
    }
}

impl RequestAction {
    const fn name(&self) -> &'static str {
        match self {
            Self::AddFinalizer => "AddFinalizer",
            Self::RemoveFinalizer => "RemoveFinalizer",
            Self::Pause => "Pause",
            Self::Resume => "Resume",
            Self::WriteSpec(_) => "WriteSpec",
            Self::Delete => "Delete",
        }
    }
}

impl ClusterAction {
    const fn name(&self) -> &'static str {
        match self {
            Self::StartTrial => "StartTrial",
            Self::EndTrial => "EndTrial",
            Self::RequestCertificates(_) => "RequestCertificates",
            Self::Reissue { .. } => "Reissue",
            Self::PublishBundle(_) => "PublishBundle",
            Self::WriteSettings(_) => "WriteSettings",
            Self::WriteFiles(_) => "WriteFiles",
            Self::WriteConninfo(_) => "WriteConninfo",
            Self::WriteTemplate(_) => "WriteTemplate",
            Self::SetPassword(_) => "SetPassword",
            Self::Touch { .. } => "Touch",
            Self::ReloadServer(_) => "ReloadServer",
            Self::ReloadPatroni(_) => "ReloadPatroni",
            Self::Evict(_) => "Evict",
            Self::SwitchOver { .. } => "SwitchOver",
        }
    }
}

impl From<RequestAction> for Action {
    fn from(action: RequestAction) -> Self {
        Self::Request(action)
    }
}

impl From<ClusterAction> for Action {
    fn from(action: ClusterAction) -> Self {
        Self::Cluster(action)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(action) => f.write_str(action.name()),
            Self::Cluster(action) => action.fmt(f),
        }
    }
}

impl fmt::Display for ClusterAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Touch { pod, .. }
            | Self::ReloadServer(pod)
            | Self::ReloadPatroni(pod)
            | Self::Evict(pod) => write!(f, " {pod}"),
            Self::SwitchOver { from, to } => write!(f, " {from} to {to}"),
            Self::WriteFiles(Files { material, trust }) => {
                write!(f, " {} of {} CAs", material.server.fingerprint, trust.len())
            }
            Self::WriteSettings(posture) => write!(f, " {:?} {:?}", posture.serve, posture.accept),
            Self::WriteConninfo(posture) => write!(f, " {}", posture.conninfo.mode.as_str()),
            Self::WriteTemplate(volume) => write!(f, " volume: {volume:?}"),
            Self::PublishBundle(trust) => write!(f, " {} CAs", trust.len()),
            Self::Reissue { alias, revision } => write!(f, " {} after {revision}", alias.as_str()),
            Self::StartTrial
            | Self::EndTrial
            | Self::RequestCertificates(_)
            | Self::SetPassword(_) => Ok(()),
        }
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for ClusterAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for RequestAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_named_and_shows_nothing_of_a_spec() {
        let spec = "{version: '17', podTemplate: {spec: {containers: [{name: postgres, \
            env: [{name: A, value: hidden}]}]}}}";
        let spec: PostgresSpec = serde_saphyr::from_str(spec).expect("a spec");
        assert!(format!("{spec:?}").contains("hidden"));
        for action in [
            Action::from(ClusterAction::RequestCertificates(Box::new(spec.clone()))),
            Action::from(RequestAction::WriteSpec(Box::new(spec))),
        ] {
            assert_eq!(
                [format!("{action}"), format!("{action:?}")],
                [action.name(), action.name()]
            );
        }
        let (from, to) = ("pg-0".to_owned(), "pg-1".to_owned());
        assert_eq!(
            Action::from(ClusterAction::SwitchOver { from, to }).to_string(),
            "SwitchOver pg-0 to pg-1"
        );
    }
}
