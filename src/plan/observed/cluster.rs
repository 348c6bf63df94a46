//! What one look at a database shows, as far as its TLS is concerned.
//!
//! Everything here is of one moment: whoever looks asks the servers after the last thing that was
//! written.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::api::tls::SslMode;
use crate::pki::{CaId, Fingerprint, Material};
use crate::tls::{PasswordEncryption, Posture, ReplicationConninfo, ServerTls, hba};

use crate::plan::observed::candidates::SwitchoverCandidates;

/// Something that was looked at: what it is, or why it is not known.
pub type Known<T> = Result<T, String>;

/// A database at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedCluster {
    /// Name of the database.
    pub database: String,
    /// What pgrekey has written for the pods: where they are, or are on their way to.
    pub applied: Posture,
    /// What new pods are to be made of.
    pub template: Template,
    /// The CAs that clients are told to trust.
    pub client_bundle: BTreeSet<CaId>,
    /// When that was last something else, or what pods mount was; nothing where it cannot be known.
    pub trust_changed_at: Option<Timestamp>,
    /// The leaves that Secret `NAME-tls` holds; pods that are made without files do not see them.
    pub in_secret: Option<Material>,
    /// When the first of them expires.
    pub leaf_expires_at: Option<Timestamp>,
    /// The leaves that were served before those, kept until an operation has succeeded.
    pub previous: Option<Material>,
    /// Names what the pods' volumes should hold: it changes when the Secret or the ConfigMap that
    /// they mount changes.
    pub volume_version: String,
    /// Data end with their pod: it has no volume of its own.
    pub is_ephemeral: bool,
    /// How many pods there should be.
    pub replicas: usize,
    /// The pods that there are, by ordinal.
    pub pods: Vec<ObservedPod>,
    /// Name of the pod that holds the leadership.
    pub leader: Known<String>,
    /// To whom Patroni would hand it over.
    pub switchover_candidates: SwitchoverCandidates,
    /// A switchover was asked for and is not done.
    pub switchover_pending: bool,
    /// How many bytes of WAL a standby may be behind and still count as up to date.
    pub max_lag: u64,
    /// When all this was seen.
    pub observed_at: Timestamp,
    /// The client certificate has expired that standbys present, or some of them while they have
    /// not got the next one.
    pub client_expired: bool,
}

/// What new pods are to be made of, as far as TLS is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// They have the volume with certificates.
    pub has_files: bool,
    /// Whoever makes the pods has seen that: new ones are made of it.
    pub is_known: bool,
}

/// One pod.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedPod {
    /// Its name, which is also that of its server among the standbys.
    pub name: String,
    /// The number at the end of its name.
    pub ordinal: i32,
    /// It changes with every new pod of this name.
    pub uid: String,
    /// Its readiness probe succeeds.
    pub ready: bool,
    /// It is being deleted.
    pub terminating: bool,
    /// It has the volume with certificates.
    pub has_files: bool,
    /// The [`ObservedCluster::volume_version`] for which the kubelet was last asked to bring its
    /// volumes up to date.
    pub refreshed_for: Option<String>,
    /// Its server, asked from outside.
    pub server: Known<ObservedServer>,
}

/// One server, as it shows itself on the wire and in SQL.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent fact"
)]
pub struct ObservedServer {
    /// It is in recovery.
    pub in_recovery: bool,
    /// Written, on a primary; replayed, on a standby; in bytes of WAL.
    pub wal_position: u64,
    /// `ssl`, as loaded.
    pub ssl: bool,
    /// The lines of `pg_hba.conf`, in [`hba::lines`]'s words.
    pub hba: Vec<String>,
    /// Whether a plaintext connection gets as far as authentication.
    pub accepts_plaintext: bool,
    /// The leaf in its TLS handshake.
    pub served_leaf: Option<Fingerprint>,
    /// Its certificate files are those of `NAME-tls`. True where it has none and should have none.
    pub files_current: bool,
    /// It has read its settings since its certificate files last changed.
    pub files_loaded: bool,
    /// Its `patroni.yml` is that of `NAME-patroni`.
    pub patroni_yml_current: bool,
    /// How it dials its primary; `None` on a primary.
    pub conninfo: Option<ReplicationConninfo>,
    /// The standbys that replicate from it, by the names of their pods.
    pub replication: BTreeMap<String, StandbyReplication>,
    /// The superuser's password is stored as MD5.
    pub superuser_password_is_md5: bool,
    /// The other roles whose passwords are stored as MD5.
    pub md5_roles: Vec<String>,
    /// The leaf in its TLS handshake, for people to read.
    pub leaf: Option<LeafSummary>,
    /// Common names of the CAs from which it takes client certificates.
    pub trusts: Vec<String>,
}

/// A leaf as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafSummary {
    /// Serial number, in hex.
    pub serial: String,
    /// When it ends.
    pub not_after: Timestamp,
}

/// How one standby replicates, as its primary says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandbyReplication {
    /// It is past catching up.
    pub streaming: bool,
    /// Replayed, in bytes of WAL.
    pub replayed: u64,
    /// The connection is encrypted.
    pub tls: bool,
    /// It was opened with a client certificate.
    pub client_cert: bool,
}

/// Why a pod is not what [`ObservedCluster::applied`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodDrift {
    /// There is nothing to do but to wait; the text says for what.
    Waiting(String),
    /// Its volumes are older than what was written.
    StaleVolume,
    /// Its server has not loaded its certificate files.
    NotReloaded,
    /// Its agent dials as it used to.
    StaleConninfo,
}

impl ObservedServer {
    /// Whether this posture's settings are loaded; else what is to happen first, in words.
    pub(crate) fn has_settings(&self, posture: &Posture) -> Result<(), String> {
        if self.ssl != (posture.serve == ServerTls::Tls) {
            return Err(format!(
                "to switch TLS {}",
                if self.ssl { "off" } else { "on" }
            ));
        }
        if self.hba != hba::lines(posture) {
            return Err("to take over pg_hba".to_owned());
        }
        if self.accepts_plaintext != posture.accept.plain.is_some() {
            return Err(format!(
                "to {} plaintext",
                if self.accepts_plaintext {
                    "refuse"
                } else {
                    "take"
                }
            ));
        }
        Ok(())
    }
}

impl ObservedCluster {
    /// The primary's pod, if it holds the leadership and answers as a primary.
    pub fn primary(&self) -> Known<(&ObservedPod, &ObservedServer)> {
        let name = self.leader.as_ref().map_err(Clone::clone)?;
        let pod = self.pods.iter().find(|pod| pod.name == *name);
        let pod = pod.ok_or_else(|| format!("the pod of the leader {name}"))?;
        let server = pod
            .server
            .as_ref()
            .map_err(|why| format!("primary {name} to answer ({why})"))?;
        if server.in_recovery {
            Err(format!("the leader {name} to leave recovery"))
        } else {
            Ok((pod, server))
        }
    }

    /// Whether a pod serves a certificate that has expired: who checks it does not get in.
    #[must_use]
    pub fn is_expired(&self, pod: &ObservedPod) -> bool {
        let leaf = pod
            .server
            .as_ref()
            .ok()
            .and_then(|server| server.leaf.as_ref());
        leaf.is_some_and(|leaf| leaf.not_after <= self.observed_at)
    }

    /// Whether standbys cannot stream, because what the primary serves or what they present has
    /// expired.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        let presents_expired = self.applied.conninfo.sends_client_cert && self.client_expired;
        presents_expired
            || self
                .primary()
                .is_ok_and(|(primary, _)| self.is_expired(primary))
    }

    /// Whether certificates have expired that somebody needs now.
    #[must_use]
    pub fn has_expired(&self) -> bool {
        self.is_cut_off() || self.pods.iter().any(|pod| self.is_expired(pod))
    }

    /// Whether a pod can be replaced without losing the only copy of the data; else why not.
    pub fn keeps_data(&self) -> Known<()> {
        if self.is_ephemeral && self.replicas == 1 {
            return Err(
                "a standby, because the only pod has the only copy of the data (storageType: Ephemeral)".to_owned()
            );
        }
        Ok(())
    }

    /// How many bytes of WAL a standby has yet to replay; nothing if it does not replicate from the
    /// primary.
    #[must_use]
    pub fn lag(&self, pod: &str) -> Option<u64> {
        let (_, primary) = self.primary().ok()?;
        Some(
            primary
                .wal_position
                .saturating_sub(primary.replication.get(pod)?.replayed),
        )
    }

    /// How the superuser's password is stored.
    pub fn stored_password_encryption(&self) -> Known<PasswordEncryption> {
        let (_, server) = self.primary()?;
        Ok(if server.superuser_password_is_md5 {
            PasswordEncryption::Md5
        } else {
            PasswordEncryption::Scram
        })
    }

    /// Whether a pod serves in its role: ready, and primary, or streaming from the primary and not
    /// far behind.
    ///
    /// The text says what is waited for.
    pub fn serves_its_role(&self, pod: &ObservedPod) -> Result<(), String> {
        let name = &pod.name;
        if pod.terminating {
            return Err(format!("{name} to be replaced"));
        }
        if !pod.ready {
            return Err(format!("{name} to be ready"));
        }
        let server = pod
            .server
            .as_ref()
            .map_err(|why| format!("{name} to answer ({why})"))?;
        let (leader, primary) = self.primary()?;
        if leader.name == *name {
            return Ok(());
        }
        if !server.in_recovery {
            return Err(format!(
                "{name} to follow {}, which holds the leadership",
                leader.name
            ));
        }
        match primary.replication.get(name) {
            Some(stream) if stream.streaming => {
                if self.lag(name).is_some_and(|lag| lag > self.max_lag) {
                    return Err(format!(
                        "{name} to catch up to within {} bytes",
                        self.max_lag
                    ));
                }
                Ok(())
            }
            _ => Err(format!("{name} to stream from {}", leader.name)),
        }
    }

    /// Whether the settings that all pods take at once have reached this one.
    pub fn has_settings(&self, pod: &ObservedPod) -> Result<(), String> {
        let server = pod
            .server
            .as_ref()
            .map_err(|why| format!("{} to answer ({why})", pod.name))?;
        server
            .has_settings(&self.applied)
            .map_err(|what| format!("{} {what}", pod.name))
    }

    /// What keeps a pod from being what is written; nothing when it is, as far as the wire can show
    /// it. What can be done about its files comes first: they may be why it does not serve.
    #[must_use]
    pub fn drift(&self, pod: &ObservedPod) -> Option<PodDrift> {
        let is_cut_off = !pod.terminating && pod.server.is_ok() && self.is_cut_off();
        // Whom expired certificates keep from streaming is not waited for: they would never be
        // replaced.
        let serves = self
            .serves_its_role(pod)
            .or_else(|on| if is_cut_off { Ok(()) } else { Err(on) });
        let role = serves
            .and_then(|()| self.has_settings(pod))
            .map_err(PodDrift::Waiting)
            .err();
        match self.file_drift(pod).filter(|_| !pod.terminating) {
            Some(PodDrift::Waiting(on)) => role.or(Some(PodDrift::Waiting(on))),
            Some(lack) => Some(lack),
            None => role,
        }
    }

    fn file_drift(&self, pod: &ObservedPod) -> Option<PodDrift> {
        let Ok(server) = &pod.server else { return None };
        let name = &pod.name;
        if !server.files_current || !server.patroni_yml_current {
            return Some(
                if pod.refreshed_for.as_ref() == Some(&self.volume_version) {
                    PodDrift::Waiting(format!("the kubelet to refresh the volumes of {name}"))
                } else {
                    PodDrift::StaleVolume
                },
            );
        }
        let served = self.applied.served().map(|leaf| leaf.fingerprint);
        if !server.files_loaded {
            return Some(PodDrift::NotReloaded);
        }
        if server.served_leaf != served {
            return Some(PodDrift::Waiting(format!(
                "{name} to serve the certificate that it has loaded"
            )));
        }
        if server
            .conninfo
            .is_some_and(|dial| dial != self.applied.conninfo)
        {
            return Some(PodDrift::StaleConninfo);
        }
        self.replication_drift(pod).map(PodDrift::Waiting)
    }

    /// A standby is proven by its connection, as its primary sees it.
    fn replication_drift(&self, pod: &ObservedPod) -> Option<String> {
        let (_, primary) = self.primary().ok()?;
        let stream = primary.replication.get(&pod.name)?;
        let encrypted = match (self.applied.serve, self.applied.accept.plain) {
            (ServerTls::Plain, _) => false,
            (ServerTls::Tls, None) => true,
            (ServerTls::Tls, Some(_)) => self.applied.conninfo.mode >= SslMode::Prefer,
        };
        let way = |tls| if tls { "with TLS" } else { "in plaintext" };
        if stream.tls != encrypted {
            return Some(format!("{} to replicate {}", pod.name, way(encrypted)));
        }
        (encrypted && self.applied.conninfo.sends_client_cert && !stream.client_cert)
            .then(|| format!("{} to show its certificate when it replicates", pod.name))
    }

    /// The standbys that could be promoted now, the most advanced first: they serve what is written
    /// and are up to date, and Patroni takes them.
    pub(crate) fn candidates<'a>(&'a self, pods: &[&'a ObservedPod]) -> Vec<&'a ObservedPod> {
        let position =
            |pod: &ObservedPod| pod.server.as_ref().map_or(0, |server| server.wal_position);
        let mut standbys: Vec<&ObservedPod> = pods
            .iter()
            .copied()
            .filter(|pod| {
                self.leader.as_ref() != Ok(&pod.name) && self.serves_its_role(pod).is_ok()
            })
            .filter(|pod| self.switchover_candidates.include(&pod.name))
            .filter(|pod| self.drift(pod).is_none())
            .collect();
        standbys.sort_by_key(|pod| (std::cmp::Reverse(position(pod)), pod.ordinal));
        standbys
    }
}
