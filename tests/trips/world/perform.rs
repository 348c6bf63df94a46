//! The actions of the product, and their effects on a simulated cluster.

use kube::ResourceExt;
use pgrekey::api::annotations::OPS_REQUEST_FINALIZER;
use pgrekey::plan::action::CertificateVolume;
use pgrekey::plan::rollout::grace;
use pgrekey::plan::{
    Action, ClusterAction, Progress, RequestAction, next_step, steady_state_target,
};
use pgrekey::tls::{Alias, Files, Posture};

use super::World;

impl World {
    /// The effect of one action.
    pub(crate) fn perform(&mut self, action: &Action) {
        match action {
            Action::Request(action) => self.perform_on_request(action.clone()),
            Action::Cluster(action) => self.perform_on_cluster(action.clone()),
        }
    }

    fn perform_on_request(&mut self, action: RequestAction) {
        match action {
            RequestAction::AddFinalizer => {
                self.request
                    .finalizers_mut()
                    .push(OPS_REQUEST_FINALIZER.to_owned());
            }
            RequestAction::RemoveFinalizer => self.request.finalizers_mut().clear(),
            RequestAction::Pause => self.paused = true,
            RequestAction::Resume => self.paused = false,
            RequestAction::WriteSpec(spec) => self.database.spec = *spec,
            RequestAction::Delete => self.request_is_gone = true,
        }
    }

    fn perform_on_cluster(&mut self, action: ClusterAction) {
        let second = self.second;
        match action {
            ClusterAction::StartTrial
            | ClusterAction::EndTrial
            | ClusterAction::RequestCertificates(_)
            | ClusterAction::Reissue { .. } => unreachable!("they are several writes"),
            ClusterAction::PublishBundle(trust) => {
                self.published = trust;
                self.trust_changed_at = second;
            }
            ClusterAction::WriteSettings(posture) => {
                self.written = Posture {
                    files: self.written.files.clone(),
                    conninfo: self.written.conninfo,
                    ..posture
                };
                self.settings_at = second + 1;
                // Pods have not loaded the new settings yet.
                self.lets_pgrekey_in().expect("a way in");
            }
            ClusterAction::WriteFiles(files) => self.write_files(files),
            ClusterAction::WriteConninfo(posture) => {
                self.written.conninfo = posture.conninfo;
                self.version += 1;
            }
            ClusterAction::WriteTemplate(volume) => {
                self.template_has_files = volume == CertificateVolume::Mounted;
                self.realised_at = second + 3;
            }
            ClusterAction::SetPassword(hash) => self.hash = hash,
            ClusterAction::Touch { pod, version } => self.change_pod(&pod, |pod| {
                pod.refreshed = Some(version.clone());
                pod.mounts_at = second + 1;
            }),
            ClusterAction::ReloadServer(pod) => {
                let refused = self.origin.filter(|_| self.trouble.leaves_are_refused);
                self.change_pod(&pod, |pod| {
                    let is_new = pod.mounted.0.as_ref().map(|files| files.material) != refused;
                    if refused.is_none() || !is_new {
                        pod.loaded.clone_from(&pod.mounted.0);
                    }
                });
            }
            ClusterAction::ReloadPatroni(pod) => {
                self.change_pod(&pod, |pod| pod.dial = pod.mounted.1);
            }
            ClusterAction::Evict(_) if second < self.trouble.budget_closed_until => {}
            ClusterAction::Evict(pod) => self.change_pod(&pod, |pod| {
                pod.gone_at = Some(second + 1);
                pod.evictions += 1;
            }),
            ClusterAction::SwitchOver { from, to } => {
                if self.leader == from {
                    self.switching = Some((to, second + 2));
                }
            }
        }
    }

    fn write_files(&mut self, files: Files) {
        let old = self.written.files.as_ref().map(|files| files.material);
        if old != Some(files.material) {
            self.previous = if self.previous == Some(files.material) {
                None
            } else {
                old
            };
        }
        self.written.files = Some(files);
        self.version += 1;
        self.trust_changed_at = self.second;
    }

    /// The controller of databases: requests the certificates of the spec, and puts issued ones into
    /// service.
    pub(crate) fn provision(&mut self) {
        let spec = self.database.spec.clone();
        if self.paused {
            return;
        }
        if spec.tls.is_some()
            && self
                .certificates
                .values()
                .any(|certificate| certificate.spec.tls != spec.tls)
        {
            for alias in Alias::ALL {
                self.certify(alias, &spec);
            }
            return;
        }
        let is_issued = self
            .certificates
            .values()
            .all(|certificate| certificate.issued_at.is_none());
        let issued = self.issued.as_ref().filter(|_| is_issued);
        let cluster = self.observed_cluster();
        let Some(target) = steady_state_target(&cluster.applied, &spec, self.major, issued) else {
            return;
        };
        let heading = next_step(&cluster, &target, None);
        if grace::grace(&cluster, &heading, grace::for_renewal(&self.database)).is_some() {
            return;
        }
        if let Progress::Act { actions, .. } = heading {
            for action in actions {
                self.perform_on_cluster(action);
            }
        }
    }
}
