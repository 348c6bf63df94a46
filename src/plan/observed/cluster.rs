//! One observation of a database, as far as its TLS is concerned.
//!
//! All of it is of one moment: the servers are asked after the last change was applied.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::api::ops_request::NegotiatedTls;
use crate::api::tls::SslMode;
use crate::pki::{CaId, Fingerprint, Material};
use crate::plan::observed::candidates::SwitchoverCandidates;
use crate::plan::waiting::{PodEvent, Switch, Unknown, Waiting};
use crate::tls::{PasswordEncryption, Posture, ReplicationConninfo, ServerTls, hba};

/// A database at one moment.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent fact"
)]
pub struct ObservedCluster {
    /// Name of the database.
    pub database: String,
    /// The posture in the objects that pgrekey wrote: the pods are there, or on their way to it.
    pub applied: Posture,
    /// The template of new pods.
    pub template: Template,
    /// The CAs in ConfigMap `NAME-ca`, which clients should trust.
    pub client_bundle: BTreeSet<CaId>,
    /// When the client CA bundle or Secret `NAME-tls` last changed. Pods see a change up to a minute
    /// later. `None` if the API server does not record it.
    pub trust_changed_at: Option<Timestamp>,
    /// The leaves in Secret `NAME-tls`. Pods without the volume with certificates do not see them.
    pub in_secret: Option<Material>,
    /// When the first of these leaves expires.
    pub leaf_expires_at: Option<Timestamp>,
    /// libpq knows no channel binding for the server's leaf among them: no login by SCRAM works.
    pub lacks_channel_binding: bool,
    /// The leaves that were served before, kept until an operation has succeeded.
    pub previous: Option<Material>,
    /// Names the content of the pods' volumes: another one when the Secret or the ConfigMap that
    /// they mount changes.
    pub volume_version: String,
    /// The pods have no volumes of their own: data end with their pod.
    pub is_ephemeral: bool,
    /// The number of pods that the PetSet asks for.
    pub replicas: usize,
    /// The pods that exist, by ordinal.
    pub pods: Vec<ObservedPod>,
    /// Name of the pod that holds Patroni's leadership.
    pub leader: Result<String, Waiting>,
    /// The standbys that Patroni would promote.
    pub switchover_candidates: SwitchoverCandidates,
    /// Patroni was asked for a switchover, and it is not done.
    pub switchover_pending: bool,
    /// How many bytes of WAL a standby may lag and still count as up to date.
    pub max_lag: u64,
    /// The time of the observation.
    pub observed_at: Timestamp,
    /// The client certificate that standbys present has expired, or that of a standby which has not
    /// received the next one.
    pub client_expired: bool,
}

/// The template of new pods, as far as TLS is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// New pods have the volume with certificates.
    pub has_files: bool,
    /// The controller of the PetSet has taken over this template.
    pub is_known: bool,
}

/// One pod.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedPod {
    /// Its name, which is also that of its server among the standbys.
    pub name: String,
    /// The number at the end of its name.
    pub ordinal: i32,
    /// Its uid: each new pod of this name has another one.
    pub uid: String,
    /// Its readiness probe succeeds.
    pub ready: bool,
    /// It is being deleted.
    pub terminating: bool,
    /// It has the volume with certificates.
    pub has_files: bool,
    /// The [`ObservedCluster::volume_version`] for which the kubelet was last asked to refresh its
    /// volumes.
    pub refreshed_for: Option<String>,
    /// Its server, observed on the wire and in SQL.
    pub server: Result<ObservedServer, Unknown>,
}

/// One server, as it shows itself on the wire and in SQL.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent fact"
)]
pub struct ObservedServer {
    /// It is in recovery: a standby.
    pub in_recovery: bool,
    /// On a primary the WAL written, on a standby the WAL replayed; in bytes.
    pub wal_position: u64,
    /// `ssl`, as loaded.
    pub ssl: bool,
    /// The lines of `pg_hba.conf`, as [`hba::lines`] writes them.
    pub hba: Vec<String>,
    /// A plaintext connection gets as far as authentication.
    pub accepts_plaintext: bool,
    /// The leaf in its TLS handshake.
    pub served_leaf: Option<Fingerprint>,
    /// Its certificate files are those of `NAME-tls`. True where it has none and should have none.
    pub files_current: bool,
    /// It has loaded its settings since its certificate files last changed.
    pub files_loaded: bool,
    /// Its `patroni.yml` is that of `NAME-patroni`.
    pub patroni_yml_current: bool,
    /// How it connects to its primary; `None` on a primary.
    pub conninfo: Option<ReplicationConninfo>,
    /// The standbys that replicate from it, by the names of their pods.
    pub replication: BTreeMap<String, StandbyReplication>,
    /// The superuser's password is stored as MD5.
    pub superuser_password_is_md5: bool,
    /// The other roles whose passwords are stored as MD5.
    pub md5_roles: Vec<String>,
    /// The leaf in its TLS handshake, for people to read.
    pub leaf: Option<LeafSummary>,
    /// What that handshake negotiated, for people to read.
    pub tls: Option<NegotiatedTls>,
    /// Common names of the CAs whose client certificates it accepts.
    pub trusts: Vec<String>,
}

/// A leaf as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafSummary {
    /// Serial number, in hex.
    pub serial: String,
    /// When its chain ends: the earliest end of the leaf and the CAs above it.
    pub ends: Timestamp,
}

/// The replication of one standby, as its primary shows it in `pg_stat_replication`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandbyReplication {
    /// Its state is `streaming`: it is past catching up.
    pub streaming: bool,
    /// The WAL replayed, in bytes.
    pub replayed: u64,
    /// The connection is encrypted.
    pub tls: bool,
    /// The standby presented a client certificate.
    pub client_cert: bool,
}

/// Why a pod does not show [`ObservedCluster::applied`] yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodDrift {
    /// It needs time, and no action.
    Waiting(Waiting),
    /// Its volumes are older than what was applied.
    StaleVolume,
    /// Its server has not loaded its certificate files.
    NotReloaded,
    /// It still connects to its primary in the old way.
    StaleConninfo,
}

impl ObservedPod {
    fn waiting(&self, event: PodEvent) -> Waiting {
        Waiting::Pod(self.name.clone(), event)
    }

    /// Its server, if it answers.
    pub(crate) fn answering(&self) -> Result<&ObservedServer, Waiting> {
        let server = self.server.as_ref();
        server.map_err(|why| self.waiting(PodEvent::Answer(why.clone())))
    }
}

impl ObservedServer {
    /// Whether this posture's settings are loaded; else what has to happen first.
    pub(crate) fn has_settings(&self, posture: &Posture) -> Result<(), PodEvent> {
        let ssl = posture.serve == ServerTls::Tls;
        if self.ssl != ssl {
            return Err(PodEvent::SwitchTls(Switch::when(ssl)));
        }
        if self.hba != hba::lines(posture) {
            return Err(PodEvent::LoadHba);
        }
        let plaintext = posture.accept.plain.is_some();
        if self.accepts_plaintext != plaintext {
            return Err(PodEvent::Plaintext(Switch::when(plaintext)));
        }
        Ok(())
    }
}

impl ObservedCluster {
    /// The pod that holds the leadership, and its server, if that is out of recovery.
    pub fn primary(&self) -> Result<(&ObservedPod, &ObservedServer), Waiting> {
        let name = self.leader.as_ref().map_err(Clone::clone)?;
        let pod = self.pods.iter().find(|pod| pod.name == *name);
        let pod = pod.ok_or_else(|| Waiting::Pod(name.clone(), PodEvent::Exist))?;
        let server = pod.answering()?;
        if server.in_recovery {
            return Err(pod.waiting(PodEvent::LeaveRecovery));
        }
        Ok((pod, server))
    }

    /// Whether a pod serves an expired certificate: clients that check it are refused.
    #[must_use]
    pub fn is_expired(&self, pod: &ObservedPod) -> bool {
        let server = pod.server.as_ref().ok();
        let leaf = server.and_then(|server| server.leaf.as_ref());
        leaf.is_some_and(|leaf| leaf.ends <= self.observed_at)
    }

    /// Whether standbys cannot stream, because the primary's leaf or their own client certificate
    /// has expired.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        let presents_expired = self.applied.conninfo.sends_client_cert && self.client_expired;
        presents_expired
            || self
                .primary()
                .is_ok_and(|(primary, _)| self.is_expired(primary))
    }

    /// Whether a certificate has expired that clients or standbys need now.
    #[must_use]
    pub fn has_expired(&self) -> bool {
        self.is_cut_off() || self.pods.iter().any(|pod| self.is_expired(pod))
    }

    /// Whether a pod can be replaced without losing the only copy of the data.
    pub fn keeps_data(&self) -> Result<(), Waiting> {
        if self.is_ephemeral && self.replicas == 1 {
            return Err(Waiting::AnotherCopy);
        }
        Ok(())
    }

    /// How many bytes of WAL a standby has yet to replay; `None` if it does not replicate from the
    /// primary.
    #[must_use]
    pub fn lag(&self, pod: &str) -> Option<u64> {
        let (_, primary) = self.primary().ok()?;
        let replayed = primary.replication.get(pod)?.replayed;
        Some(primary.wal_position.saturating_sub(replayed))
    }

    /// The hash with which the superuser's password is stored.
    pub fn stored_password_encryption(&self) -> Result<PasswordEncryption, Waiting> {
        let (_, server) = self.primary()?;
        Ok(if server.superuser_password_is_md5 {
            PasswordEncryption::Md5
        } else {
            PasswordEncryption::Scram
        })
    }

    /// Whether a pod serves in its role: ready, and either the primary, or streaming from it within
    /// the lag limit.
    pub fn serves_its_role(&self, pod: &ObservedPod) -> Result<(), Waiting> {
        if pod.terminating {
            return Err(pod.waiting(PodEvent::BeReplaced));
        }
        if !pod.ready {
            return Err(pod.waiting(PodEvent::BeReady));
        }
        let server = pod.answering()?;
        let (leader, primary) = self.primary()?;
        if leader.name == pod.name {
            return Ok(());
        }
        if !server.in_recovery {
            return Err(pod.waiting(PodEvent::Follow(leader.name.clone())));
        }
        match primary.replication.get(&pod.name) {
            Some(replication) if replication.streaming => {
                if self.lag(&pod.name).is_some_and(|lag| lag > self.max_lag) {
                    return Err(pod.waiting(PodEvent::CatchUp(self.max_lag)));
                }
                Ok(())
            }
            _ => Err(pod.waiting(PodEvent::StreamFrom(leader.name.clone()))),
        }
    }

    /// Whether the settings that reach all pods at once have reached this one.
    pub fn has_settings(&self, pod: &ObservedPod) -> Result<(), Waiting> {
        let loaded = pod.answering()?.has_settings(&self.applied);
        loaded.map_err(|event| pod.waiting(event))
    }

    /// Why a pod does not show the applied posture; `None` when it does, as far as the wire shows
    /// it. Drift of its files that an action can mend comes first: it may be why the pod does not
    /// serve.
    #[must_use]
    pub fn drift(&self, pod: &ObservedPod) -> Option<PodDrift> {
        let is_cut_off = !pod.terminating && pod.server.is_ok() && self.is_cut_off();
        // A pod that expired certificates keep from streaming is not waited for: else they would
        // never be replaced.
        let serves = match self.serves_its_role(pod) {
            Err(_) if is_cut_off => Ok(()),
            serves => serves,
        };
        let role = serves
            .and_then(|()| self.has_settings(pod))
            .map_err(PodDrift::Waiting)
            .err();
        if pod.terminating {
            return role;
        }
        match self.file_drift(pod) {
            Some(PodDrift::Waiting(on)) => role.or(Some(PodDrift::Waiting(on))),
            Some(drift) => Some(drift),
            None => role,
        }
    }

    fn file_drift(&self, pod: &ObservedPod) -> Option<PodDrift> {
        let Ok(server) = &pod.server else { return None };
        let waiting = |event| Some(PodDrift::Waiting(pod.waiting(event)));
        if !server.files_current || !server.patroni_yml_current {
            let is_asked = pod.refreshed_for.as_ref() == Some(&self.volume_version);
            return if is_asked {
                waiting(PodEvent::RefreshVolumes)
            } else {
                Some(PodDrift::StaleVolume)
            };
        }
        if !server.files_loaded {
            return Some(PodDrift::NotReloaded);
        }
        if server.served_leaf != self.applied.served().map(|leaf| leaf.fingerprint) {
            return waiting(PodEvent::ServeLoadedCertificate);
        }
        let conninfo = server.conninfo;
        if conninfo.is_some_and(|conninfo| conninfo != self.applied.conninfo) {
            return Some(PodDrift::StaleConninfo);
        }
        self.replication_drift(pod).and_then(waiting)
    }

    /// A standby is proven by its connection, as its primary sees it.
    fn replication_drift(&self, pod: &ObservedPod) -> Option<PodEvent> {
        let (_, primary) = self.primary().ok()?;
        let replication = primary.replication.get(&pod.name)?;
        let encrypted = match (self.applied.serve, self.applied.accept.plain) {
            (ServerTls::Plain, _) => false,
            (ServerTls::Tls, None) => true,
            (ServerTls::Tls, Some(_)) => self.applied.conninfo.mode >= SslMode::Prefer,
        };
        if replication.tls != encrypted {
            return Some(PodEvent::ReplicateWithTls(Switch::when(encrypted)));
        }
        (encrypted && self.applied.conninfo.sends_client_cert && !replication.client_cert)
            .then_some(PodEvent::PresentCertificate)
    }

    /// The standbys among these pods that could be promoted now, the most advanced first: they show
    /// the applied posture, they are up to date, and Patroni promotes them.
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
