//! What can be done to a database, as data.

use std::collections::BTreeSet;

use crate::api::postgres::PostgresSpec;
use crate::tls::{Alias, CaId, Files, Hash, Posture};

use super::scene::Template;

/// One effect. Each is idempotent, and carries what must still be true for it to be right: a uid, a revision.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Marks the request as begun on this database: finalizer, and the database's uid.
    Hold,
    /// Lets the request go: its finalizer is removed.
    Release,
    /// Sets or removes the database's condition `Paused`, in the request's name.
    SetPaused(bool),
    /// Asks the issuers for trial certificates, to test them before anything is touched.
    Try,
    /// Deletes the trial.
    EndTrial,
    /// Applies the Certificates that this spec asks for.
    Certify(Box<PostgresSpec>),
    /// Asks cert-manager for a new certificate, if it is still at this revision.
    Reissue {
        /// Which one.
        alias: Alias,
        /// The revision that is to be followed by another one.
        revision: i64,
    },
    /// Tells clients to trust these CAs: ConfigMap `NAME-ca`.
    Publish(BTreeSet<CaId>),
    /// Writes what all pods take at once: `ssl`, `pg_hba`, `password_encryption` of this posture.
    WriteSettings(Posture),
    /// Writes what pods mount: Secret `NAME-tls`. The leaves that were in it are kept beside the new ones.
    WriteFiles(Files),
    /// Writes how standbys dial: `patroni.yml` of this posture.
    WriteDial(Posture),
    /// Writes what new pods are made of; restarts nothing.
    WriteTemplate(Template),
    /// Sets the superuser's password anew, so that it is stored like this.
    SetPassword(Hash),
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
    ReloadAgent {
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
    /// Whether a look a moment later shows that it was done. Agents, the kubelet and Patroni take their time.
    #[must_use]
    pub fn shows_at_once(&self) -> bool {
        !matches!(self, Self::ReloadAgent { .. } | Self::Evict { .. } | Self::SwitchOver { .. })
    }
}
