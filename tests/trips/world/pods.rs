//! The life of pods: how they are made, mount, load, serve and stream, and how they go.

use pgrekey::api::StepKind;
use pgrekey::api::tls::SslMode;
use pgrekey::plan::action::PodRef;
use pgrekey::tls::{Files, HbaMethods, Posture, ReplicationConninfo, ServerTls, can_replicate};

use super::World;

#[derive(Clone, Debug)]
pub(super) struct SimPod {
    pub(super) name: String,
    pub(super) ordinal: i32,
    pub(super) uid: u64,
    pub(super) has_files: bool,
    pub(super) refreshed: Option<String>,
    /// Second at which it is ready; while it is not, its server does not answer.
    pub(super) ready_at: i64,
    /// Second at which it is gone, once it has been evicted.
    pub(super) gone_at: Option<i64>,
    /// The content of its volumes.
    pub(super) mounted: (Option<Files>, ReplicationConninfo, u32),
    /// Second at which its volumes are brought up to date, if that was asked for.
    pub(super) mounts_at: i64,
    /// The files that its server has loaded.
    pub(super) loaded: Option<Files>,
    pub(super) settings: (ServerTls, HbaMethods),
    /// How its agent dials.
    pub(super) dial: ReplicationConninfo,
    pub(super) evictions: u32,
}

impl World {
    pub(super) fn new_pod(&mut self, ordinal: i32, ready_at: i64) -> SimPod {
        self.next_uid += 1;
        let files = self.written.files.clone().filter(|_| self.realised);
        let leads_back = self
            .request
            .steps()
            .iter()
            .any(|step| step.name == StepKind::Rollback.as_str());
        let fails = self.trouble.new_pods_fail && self.paused && !leads_back;
        SimPod {
            name: format!("pg-{ordinal}"),
            ordinal,
            uid: self.next_uid,
            has_files: self.realised,
            refreshed: None,
            ready_at: if fails { i64::MAX } else { ready_at },
            gone_at: None,
            mounted: (files.clone(), self.written.conninfo, self.version),
            mounts_at: i64::MAX,
            loaded: files,
            settings: (self.written.serve, self.written.accept),
            dial: self.written.conninfo,
            evictions: 0,
        }
    }

    pub(super) fn replace_pods_that_are_gone(&mut self) {
        let second = self.second;
        for at in 0..self.pods.len() {
            if self.pods[at].gone_at.is_some_and(|gone| gone <= second) {
                let (ordinal, evictions) = (self.pods[at].ordinal, self.pods[at].evictions);
                self.pods[at] = SimPod {
                    evictions,
                    ..self.new_pod(ordinal, second + 5)
                };
            }
        }
    }

    /// Volumes and settings reach the pods.
    pub(super) fn update_pods(&mut self) {
        let second = self.second;
        for pod in &mut self.pods {
            if pod.mounts_at <= second {
                pod.mounts_at = i64::MAX;
                pod.mounted = (
                    self.written.files.clone().filter(|_| pod.has_files),
                    self.written.conninfo,
                    self.version,
                );
            }
            // Other files than those that it failed with make it ready.
            if pod.ready_at == i64::MAX && pod.mounted.0 != pod.loaded {
                pod.ready_at = second + 5;
                pod.loaded.clone_from(&pod.mounted.0);
            }
            if self.settings_at <= second && pod.ready_at <= second {
                pod.settings = (self.written.serve, self.written.accept);
            }
        }
    }

    pub(super) fn is_up(&self, pod: &SimPod) -> bool {
        pod.gone_at.is_none() && pod.ready_at <= self.second
    }

    /// How a pod's server and dialler are now.
    pub(super) fn posture_of(&self, pod: &SimPod) -> Posture {
        let (serve, accept) = pod.settings;
        Posture {
            files: pod.loaded.clone(),
            serve,
            accept,
            hash: self.hash,
            conninfo: pod.dial,
        }
    }

    pub(super) fn dials_as(&self, pod: &SimPod) -> Posture {
        Posture {
            files: pod.mounted.0.clone(),
            ..self.posture_of(pod)
        }
    }

    pub(super) fn leader_pod(&self) -> Option<&SimPod> {
        self.pods.iter().find(|pod| pod.name == self.leader)
    }

    pub(super) fn streams(&self, pod: &SimPod) -> bool {
        let Some(primary) = self.leader_pod().filter(|primary| self.is_up(primary)) else {
            return false;
        };
        let is_refused = self.is_expired(primary) && pod.dial.mode >= SslMode::VerifyCa
            || self.trouble.client_is_expired && self.presents_old(pod);
        !is_refused && can_replicate(&self.dials_as(pod), &self.posture_of(primary)).is_ok()
    }

    fn presents_old(&self, pod: &SimPod) -> bool {
        pod.dial.sends_client_cert
            && pod.mounted.0.as_ref().map(|files| files.material) == self.origin
    }

    /// Second at which the certificate that this pod serves expires, if it ever does.
    pub(super) fn ends_at(&self, pod: &SimPod) -> Option<i64> {
        self.trouble
            .leaves_end_at
            .filter(|_| pod.loaded.as_ref().map(|files| files.material) == self.origin)
    }

    fn is_expired(&self, pod: &SimPod) -> bool {
        self.ends_at(pod).is_some_and(|end| end <= self.second)
    }

    pub(super) fn change_pod(
        &mut self,
        PodRef { name, uid }: &PodRef,
        change: impl FnOnce(&mut SimPod),
    ) {
        if let Some(pod) = self
            .pods
            .iter_mut()
            .find(|pod| pod.name == *name && pod.uid.to_string() == *uid)
        {
            change(pod);
        }
    }

    pub(crate) fn kill(&mut self, at: usize) {
        let second = self.second;
        let at = at % self.pods.len();
        self.pods[at].gone_at.get_or_insert(second + 1);
    }

    /// This pod is away, and does not come back by itself.
    pub(crate) fn lose(&mut self, pod: usize) {
        self.pods[pod].ready_at = i64::MAX;
    }

    /// Pods that would never have become ready are replaced by ones that do.
    pub(crate) fn mend(&mut self) {
        let second = self.second;
        for pod in self.pods.iter_mut().filter(|pod| pod.ready_at == i64::MAX) {
            pod.ready_at = second + 5;
        }
    }

    pub(crate) fn evictions(&self) -> Vec<u32> {
        self.pods.iter().map(|pod| pod.evictions).collect()
    }
}
