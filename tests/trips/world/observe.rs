//! The observations of a simulated cluster, as the product gets them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use pgrekey::api::postgres::PostgresSpec;
use pgrekey::api::tls::SslMode;
use pgrekey::pki::Material;
use pgrekey::plan::budgets::{Budget, Budgets};
use pgrekey::plan::observed::cluster::{
    LeafSummary, ObservedCluster, ObservedPod, ObservedServer, StandbyReplication, Template,
};
use pgrekey::plan::observed::instance::client_expired;
use pgrekey::plan::observed::{Issuance, Live, Observed, ObservedCertificate, Paused, Trial};
use pgrekey::plan::operation::goal;
use pgrekey::plan::status::write_policy::StoredStatus;
use pgrekey::plan::waiting::Unknown;
use pgrekey::tls::{Alias, PasswordEncryption, Posture, ServerTls, hba};

use super::certificates::ca;
use super::pods::SimPod;
use super::{World, at};

/// How much log there is, in bytes.
const WRITTEN: u64 = 5 << 20;

impl World {
    /// The observation of this second.
    pub(crate) fn observe(&self) -> Observed {
        let wished = goal::target_spec(&self.database.spec, &self.request, self.major);
        let is_blind = self.second < self.trouble.blind_until;
        let unknown = || Unknown::NoAnswer("no answer".to_owned());
        let closed = self.second < self.trouble.budget_closed_until
            || self.pods.iter().any(|pod| !self.is_up(pod));
        let live = Live {
            major: self.major,
            issuance: if is_blind {
                Err(unknown())
            } else {
                Ok(self.observed_issuance(&wished))
            },
            cluster: if is_blind {
                Err(unknown())
            } else {
                Ok(self.observed_cluster())
            },
            budgets: if is_blind {
                Err(unknown())
            } else {
                Ok(self.observed_budgets(closed))
            },
        };
        Observed {
            stored: StoredStatus {
                status: self.request.status.clone(),
                since: None,
            },
            request: Arc::new(self.request.clone()),
            database: Some(Arc::new(self.database.clone())),
            siblings: vec![Arc::new(self.request.clone())],
            free_slots: usize::from(!self.trouble.crowded.contains(&self.second)),
            refused: vec![],
            paused: if self.paused {
                Paused::ByUs
            } else {
                Paused::No
            },
            pod_uids: if is_blind || self.request.begun_on().is_some() {
                Err(unknown())
            } else {
                Ok(self.pod_uids())
            },
            live: Ok(live),
            last_failure: None,
        }
    }

    fn observed_budgets(&self, closed: bool) -> Budgets {
        let second = Budget {
            name: "demo/extra".to_owned(),
            pods: vec!["pg-0".to_owned()],
            allowed: 1,
        };
        Budgets {
            own: (self.pods.len() > 1).then_some(i32::from(!closed)),
            others: (self.second < self.trouble.second_budget_until)
                .then_some(second)
                .into_iter()
                .collect(),
        }
    }

    fn pod_uids(&self) -> BTreeMap<String, String> {
        self.pods
            .iter()
            .map(|pod| (pod.name.clone(), pod.uid.to_string()))
            .collect()
    }

    fn observed_trial(&self, wished: &PostgresSpec) -> Trial {
        let all = Alias::ALL.map(|alias| self.trial_of(alias));
        let is_issued = |at: i64| at <= self.second;
        if all
            .iter()
            .all(|one| one.issued_at.is_none() && !one.has_secret)
        {
            Trial::Absent
        } else if self.trouble.trial_fails && all.iter().any(|one| one.has_secret) {
            Trial::Failed("the policy says no".to_owned())
        } else if all.iter().any(|one| one.issued_at.is_none()) {
            Trial::Begun
        } else if all.iter().all(|one| one.issued_at.is_some_and(is_issued)) {
            let tls = wished.tls.as_ref();
            let issuer = tls.and_then(|tls| tls.issuer_ref.as_ref());
            Trial::Passed(BTreeSet::from([ca(&issuer.expect("an issuer").name)]))
        } else {
            Trial::Pending(None)
        }
    }

    fn observed_issuance(&self, wished: &PostgresSpec) -> Issuance {
        let trial = self.observed_trial(wished);
        let certificates = self.certificates.iter().map(|(alias, certificate)| {
            let seen = ObservedCertificate {
                matches: certificate.spec.tls == wished.tls,
                ready: certificate.issued_at.is_none(),
                issuing: certificate.issued_at.is_some(),
                revision: certificate.revision,
                requested_at_revision: certificate.asked,
                failure: None,
                retry_at: None,
                begins: None,
            };
            (*alias, seen)
        });
        let not_ready = self
            .trouble
            .issuer_is_never_ready
            .then(|| "issuer new: its Secret is missing".to_owned());
        Issuance {
            refused: None,
            not_ready: not_ready.into_iter().collect(),
            trial,
            conflicts: vec![],
            certificates: certificates.collect(),
            issued: self.issued.map(|material| {
                let defect = if self.origin == Some(material) {
                    self.trouble.bad_for_goal
                } else {
                    self.trouble.bad_leaf
                };
                defect.map_or(Ok(material), |why| Err(why.to_owned()))
            }),
        }
    }

    pub(crate) fn observed_cluster(&self) -> ObservedCluster {
        let stored = self.written.files.as_ref().map(|files| files.material);
        let pods: Vec<ObservedPod> = self.pods.iter().map(|pod| self.observed_pod(pod)).collect();
        ObservedCluster {
            database: "pg".to_owned(),
            applied: Posture {
                files: self
                    .written
                    .files
                    .clone()
                    .filter(|_| self.template_has_files),
                ..self.written.clone()
            },
            template: Template {
                has_files: self.template_has_files,
                is_known: self.realised == self.template_has_files,
            },
            client_bundle: self.published.clone(),
            trust_changed_at: Some(at(self.trust_changed_at)),
            in_secret: stored,
            lacks_channel_binding: self.trouble.lacks_channel_binding && stored == self.origin,
            leaf_expires_at: self
                .trouble
                .leaves_end_at
                .filter(|_| stored == self.origin)
                .map(at),
            previous: self.previous,
            volume_version: self.version.to_string(),
            is_ephemeral: self.trouble.is_ephemeral,
            replicas: self.pods.len(),
            leader: Ok(self.leader.clone()),
            switchover_candidates: self.successors(),
            switchover_pending: self.switching.is_some(),
            max_lag: 1 << 20,
            observed_at: self.now(),
            client_expired: client_expired(
                self.client_end(stored),
                self.client_end(self.previous),
                &pods,
                self.now(),
            ),
            pods,
        }
    }

    /// When the client certificate of this material expires, if it ever does.
    fn client_end(&self, material: Option<Material>) -> Option<Timestamp> {
        let is_expired = self.trouble.client_is_expired && material == self.origin;
        material.filter(|_| is_expired).map(|_| at(0))
    }

    fn observed_pod(&self, pod: &SimPod) -> ObservedPod {
        let is_up = self.is_up(pod);
        ObservedPod {
            name: pod.name.clone(),
            ordinal: pod.ordinal,
            uid: pod.uid.to_string(),
            ready: is_up && (pod.name == self.leader || self.streams(pod)),
            terminating: pod.gone_at.is_some(),
            has_files: pod.has_files,
            refreshed_for: pod.refreshed.clone(),
            server: if is_up {
                Ok(self.observed_server(pod))
            } else {
                Err(Unknown::NoAnswer("cannot be reached".to_owned()))
            },
        }
    }

    fn observed_server(&self, pod: &SimPod) -> ObservedServer {
        let standby = pod.name != self.leader;
        let (serve, accept) = pod.settings;
        let settings = Posture {
            serve,
            accept,
            ..self.written.clone()
        };
        let files = self.written.files.clone().filter(|_| pod.has_files);
        let others = self
            .pods
            .iter()
            .filter(|other| !standby && other.name != pod.name && self.is_up(other));
        let streams = others.filter(|other| self.streams(other)).map(|other| {
            let tls = serve == ServerTls::Tls && other.dial.mode >= SslMode::Prefer;
            let replayed = if self.second < self.trouble.behind_until {
                0
            } else {
                WRITTEN
            };
            (
                other.name.clone(),
                StandbyReplication {
                    streaming: true,
                    replayed,
                    tls,
                    client_cert: tls && other.dial.sends_client_cert,
                },
            )
        });
        ObservedServer {
            in_recovery: standby,
            wal_position: WRITTEN,
            ssl: serve == ServerTls::Tls,
            hba: hba::lines(&settings),
            accepts_plaintext: accept.plain.is_some(),
            served_leaf: self.posture_of(pod).served().map(|leaf| leaf.fingerprint),
            files_current: pod.mounted.0 == files,
            files_loaded: pod.loaded == pod.mounted.0,
            patroni_yml_current: pod.mounted.1 == self.written.conninfo,
            conninfo: standby.then_some(pod.dial),
            replication: streams.collect(),
            superuser_password_is_md5: self.hash == PasswordEncryption::Md5,
            md5_roles: self.md5_roles.clone(),
            tls: None,
            leaf: self.ends_at(pod).map(|end| LeafSummary {
                serial: "1".to_owned(),
                ends: at(end),
            }),
            trusts: vec![],
        }
    }
}
