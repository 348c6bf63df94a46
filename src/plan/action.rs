//! What can be done to a database, as data.

use std::collections::BTreeSet;
use std::fmt;

use crate::api::postgres::PostgresSpec;
use crate::pki::CaId;
use crate::tls::{Alias, Files, PasswordEncryption, Posture};

/// One effect. Each is idempotent, and carries what must still be true for it to be right: a uid, a
/// revision.
///
/// Printed, also by `Debug`, it names what it is about and shows no spec: the `env` of one is
/// nobody's to read in a log.
#[derive(Clone, PartialEq)]
pub enum Action {
    /// Keeps the request from vanishing before its way is ended: a finalizer.
    AddFinalizer,
    /// Lets the request go: its finalizer is removed.
    RemoveFinalizer,
    /// Sets or removes the database's condition `Paused`, in the request's name.
    SetPaused(bool),
    /// Asks the issuers for trial certificates, to test them before anything is touched.
    StartTrial,
    /// Deletes the trial.
    EndTrial,
    /// Applies the Certificates that this spec asks for.
    RequestCertificates(Box<PostgresSpec>),
    /// Asks cert-manager for a new certificate, if it is still at this revision.
    Reissue {
        /// Which one.
        alias: Alias,
        /// The revision that is to be followed by another one.
        revision: i64,
    },
    /// Tells clients to trust these CAs: ConfigMap `NAME-ca`.
    PublishBundle(BTreeSet<CaId>),
    /// Writes what all pods take at once: `ssl`, `pg_hba`, `password_encryption` of this posture.
    WriteSettings(Posture),
    /// Writes what pods mount: Secret `NAME-tls`. An operation keeps the leaves that were in it
    /// beside the new ones.
    WriteFiles(Files),
    /// Writes how standbys dial: `patroni.yml` of this posture.
    WriteConninfo(Posture),
    /// Writes what new pods are made of; restarts nothing.
    WriteTemplate {
        /// They have the volume with certificates.
        files: bool,
    },
    /// Sets the superuser's password anew, so that it is stored like this.
    SetPassword(PasswordEncryption),
    /// Makes the kubelet bring the pod's volumes up to date.
    Touch {
        /// The pod.
        pod: String,
        /// Its uid.
        uid: String,
        /// The version that it is to hold.
        version: String,
    },
    /// Makes the server read its settings and certificate files.
    ReloadServer {
        /// The pod.
        pod: String,
        /// Its uid.
        uid: String,
    },
    /// Makes Patroni read `patroni.yml`.
    ReloadPatroni {
        /// The pod.
        pod: String,
        /// Its uid.
        uid: String,
    },
    /// Evicts the pod, if it still has this uid.
    Evict {
        /// The pod.
        pod: String,
        /// Its uid.
        uid: String,
    },
    /// Asks Patroni to hand the leadership over.
    SwitchOver {
        /// The pod that leads.
        from: String,
        /// The pod that is to lead.
        to: String,
    },
    /// Writes the database's new spec: TLS, sslMode and clientAuthMode.
    WriteSpec(Box<PostgresSpec>),
    /// Deletes the request: its time after the end is over.
    Delete,
}

impl Action {
    /// Whether a look a moment later shows that it was done. Agents, the kubelet and Patroni take
    /// their time.
    #[must_use]
    pub fn shows_at_once(&self) -> bool {
        !matches!(
            self,
            Self::ReloadPatroni { .. } | Self::Evict { .. } | Self::SwitchOver { .. }
        )
    }

    /// What kind of effect it is.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AddFinalizer => "AddFinalizer",
            Self::RemoveFinalizer => "RemoveFinalizer",
            Self::SetPaused(true) => "Pause",
            Self::SetPaused(false) => "Resume",
            Self::StartTrial => "StartTrial",
            Self::EndTrial => "EndTrial",
            Self::RequestCertificates(_) => "RequestCertificates",
            Self::Reissue { .. } => "Reissue",
            Self::PublishBundle(_) => "PublishBundle",
            Self::WriteSettings(_) => "WriteSettings",
            Self::WriteFiles(_) => "WriteFiles",
            Self::WriteConninfo(_) => "WriteConninfo",
            Self::WriteTemplate { .. } => "WriteTemplate",
            Self::SetPassword(_) => "SetPassword",
            Self::Touch { .. } => "Touch",
            Self::ReloadServer { .. } => "ReloadServer",
            Self::ReloadPatroni { .. } => "ReloadPatroni",
            Self::Evict { .. } => "Evict",
            Self::SwitchOver { .. } => "SwitchOver",
            Self::WriteSpec(_) => "WriteSpec",
            Self::Delete => "Delete",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Touch { pod, .. }
            | Self::ReloadServer { pod, .. }
            | Self::ReloadPatroni { pod, .. }
            | Self::Evict { pod, .. } => write!(f, " {pod}"),
            Self::SwitchOver { from, to } => write!(f, " {from} to {to}"),
            Self::WriteFiles(Files { material, trust }) => {
                write!(f, " {} of {} CAs", material.server.fingerprint, trust.len())
            }
            Self::WriteSettings(posture) => write!(f, " {:?} {:?}", posture.serve, posture.accept),
            Self::WriteConninfo(posture) => write!(f, " {}", posture.conninfo.mode.as_str()),
            Self::WriteTemplate { files } => write!(f, " files: {files}"),
            Self::PublishBundle(trust) => write!(f, " {} CAs", trust.len()),
            Self::Reissue { alias, revision } => write!(f, " {} after {revision}", alias.as_str()),
            Self::AddFinalizer
            | Self::RemoveFinalizer
            | Self::SetPaused(_)
            | Self::StartTrial
            | Self::EndTrial
            | Self::RequestCertificates(_)
            | Self::SetPassword(_)
            | Self::WriteSpec(_)
            | Self::Delete => Ok(()),
        }
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_named_and_shows_nothing_of_a_spec() {
        let spec = "{version: '17', podTemplate: {spec: {containers: [{name: postgres, env: [{name: A, value: hidden}]}]}}}";
        let spec: PostgresSpec = serde_saphyr::from_str(spec).expect("a spec");
        assert!(format!("{spec:?}").contains("hidden"));
        let wrap: [fn(Box<PostgresSpec>) -> Action; 2] =
            [Action::RequestCertificates, Action::WriteSpec];
        for action in wrap.map(|wrap| wrap(Box::new(spec.clone()))) {
            assert_eq!(
                [format!("{action}"), format!("{action:?}")],
                [action.name(), action.name()]
            );
        }
        let (from, to) = ("pg-0".to_owned(), "pg-1".to_owned());
        assert_eq!(
            Action::SwitchOver { from, to }.to_string(),
            "SwitchOver pg-0 to pg-1"
        );
    }
}
