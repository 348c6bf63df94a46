//! Does to a database what was decided: one effect at a time, each of them idempotent.

pub(crate) mod certificates;
mod issuance;
pub(crate) mod patroni;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams, Preconditions};
use kube::core::Status;
use serde_json::json;
use tracing::info;

use crate::api::PetSet;
use crate::api::annotations::{PREVIOUS_OF, REFRESHED_FOR};
use crate::api::ports::PATRONI_PORT;
use crate::build::applied::has_files;
use crate::build::patroni::{dynamic, local};
use crate::build::tls_groups::are_withdrawn;
use crate::build::{Cluster, pet_set, secrets, trust};
use crate::cluster::{ApplyOutcome, Error, ObjectName};
use crate::controller::Context;
use crate::controller::observe::cluster::{BuiltFromSpec, ClusterObjects};
use crate::controller::outcome::{Interrupt, Pending, ReconcileResult, ServerCall};
use crate::database;
use crate::database::ProbeError;
use crate::database::server_status::{reload, store_password};
use crate::pki::CaId;
use crate::pki::issued::{Issued, ServedMaterial, bundle};
use crate::plan::action::{CertificateVolume, ClusterAction, PodRef};
use crate::plan::observed::instance::address;
use crate::tls::{Files, PasswordEncryption, Posture};

/// Executes actions on one database.
pub(crate) struct Executor<'a> {
    pub(crate) context: &'a Context,
    pub(crate) observed: &'a ClusterObjects,
    /// The database as the operation wants it; for a renewal, as it is.
    pub(crate) target: &'a Cluster,
    /// The certificates that have been issued for it, if any.
    pub(crate) issued: Option<&'a Issued>,
    /// CAs that are known from trials.
    pub(crate) trial_cas: BTreeMap<CaId, String>,
    /// The uid of the request in whose name it acts; `None` for renewals.
    pub(crate) operation: Option<&'a str>,
}

impl<'a> Executor<'a> {
    /// For what a database needs without an operation: renewals and settings.
    pub(crate) fn without_operation(
        context: &'a Context,
        observed: &'a ClusterObjects,
        issued: Option<&'a Issued>,
    ) -> Self {
        Self {
            context,
            observed,
            target: &observed.cluster,
            issued,
            trial_cas: BTreeMap::new(),
            operation: None,
        }
    }

    /// Executes one action on the database. Actions on the request are executed elsewhere.
    pub(crate) async fn execute(&self, action: &ClusterAction) -> ReconcileResult<()> {
        let ClusterObjects {
            cluster, objects, ..
        } = self.observed;
        let operation = self.operation.unwrap_or_default();
        match action {
            ClusterAction::StartTrial => {
                issuance::start_trial(self.context, objects, self.target, operation).await?;
            }
            ClusterAction::RequestCertificates(_) => {
                certificates::request_certificates(objects, self.target).await?;
            }
            ClusterAction::EndTrial => {
                certificates::delete_trial(self.context, objects, cluster.name(), None).await?;
            }
            ClusterAction::Reissue { alias, revision } => {
                let name = cluster.names().certificate(*alias);
                issuance::reissue(self.context, objects, &name, operation, *revision).await?;
            }
            ClusterAction::PublishBundle(cas) => {
                let text = self.bundle(cas)?;
                objects.apply(trust::ca_config_map(cluster, &text)).await?;
            }
            ClusterAction::WriteSettings(posture) => {
                self.observed.require_buildable(BuiltFromSpec::Settings)?;
                objects.apply(dynamic::config_map(cluster, posture)).await?;
            }
            ClusterAction::WriteConninfo(posture) => {
                self.observed.require_buildable(BuiltFromSpec::Settings)?;
                objects.apply(local::config_map(cluster, posture)).await?;
            }
            ClusterAction::WriteFiles(files) => self.write_files(files).await?,
            ClusterAction::WriteTemplate(volume) => {
                self.write_pet_set(*volume).await?;
            }
            ClusterAction::SetPassword(hash) => self.set_password(*hash).await?,
            ClusterAction::Touch { pod, version } => self.touch(pod, version).await?,
            ClusterAction::ReloadServer(pod) => self.reload_server(pod).await?,
            ClusterAction::ReloadPatroni(pod) => self.reload_patroni(pod).await?,
            ClusterAction::Evict(pod) => self.evict(pod).await?,
            ClusterAction::SwitchOver { from, to } => {
                let _ = patroni::request_switchover(objects, cluster, from, to).await?;
            }
        }
        Ok(())
    }

    /// Every CA that is known: of the cluster, of issued certificates, and of trials.
    fn cas(&self) -> BTreeMap<CaId, String> {
        let issued = self.issued.map(|issued| issued.cas.clone());
        let stored = self.observed.certificates.cas().into_iter();
        stored
            .chain(issued.unwrap_or_default())
            .chain(self.trial_cas.clone())
            .collect()
    }

    fn bundle(&self, wanted: &BTreeSet<CaId>) -> ReconcileResult<String> {
        let mut known = self.cas();
        known.retain(|ca, _| wanted.contains(ca));
        bundle(wanted.iter().copied(), &known).map_err(unknown_ca)
    }

    /// Writes Secret `NAME-tls`. In an operation the certificates that were in it stay beside the
    /// new ones as the previous ones, until a rollback brings them back. A renewal rolls nothing
    /// back, and keeps none.
    async fn write_files(&self, files: &Files) -> ReconcileResult<()> {
        let certificates = &self.observed.certificates;
        let (in_secret, previous) = (
            certificates.in_secret.as_ref(),
            certificates.previous.as_ref(),
        );
        let is_wanted = |served: &&ServedMaterial| served.material() == Some(files.material);
        // Issued certificates were verified a moment ago, stored ones when they were written.
        let issued = self.issued;
        let issued = issued.filter(|issued| issued.material == files.material);
        let next = issued
            .map(|issued| &issued.served)
            .or(in_secret.filter(is_wanted))
            .or(previous.filter(is_wanted))
            .ok_or_else(|| {
                let why = "the certificates to be served are neither issued nor stored";
                Interrupt::Blocked("MaterialUnknown", why.to_owned())
            })?;
        let next = next
            .clone()
            .trusting(&files.material, &files.trust, &self.cas())
            .map_err(unknown_ca)?;
        let keep = if in_secret.is_some_and(|served| is_wanted(&served)) {
            previous
        } else {
            let is_rollback = previous.is_some_and(|served| is_wanted(&served));
            in_secret.filter(|_| !is_rollback)
        };
        let keep = keep.filter(|_| self.operation.is_some());
        let mut secret = secrets::tls(&self.observed.cluster, &next, keep);
        if let (Some(operation), Some(_)) = (self.operation, keep) {
            secret
                .annotations_mut()
                .insert(PREVIOUS_OF.to_owned(), operation.to_owned());
        }
        let live = self.observed.posture_objects.tls.as_ref();
        self.observed.objects.apply_over(live, secret).await?;
        Ok(())
    }

    /// Writes the template of new pods, with or without the volume for certificates, unless it is
    /// so already.
    async fn write_pet_set(&self, volume: CertificateVolume) -> ReconcileResult<ApplyOutcome> {
        self.observed.require_buildable(BuiltFromSpec::Pods)?;
        let set = self.pet_set(volume)?;
        self.withdraw_groups().await?;
        let live = self.observed.posture_objects.pet_set.as_ref();
        Ok(self.observed.objects.apply_over(live, set).await?)
    }

    /// Takes away groups of the key exchange that the image of a new template may lack: no pod would
    /// start with them.
    async fn withdraw_groups(&self) -> ReconcileResult<()> {
        let observed = self.observed;
        let (Ok(applied), Some(live)) = (
            observed.applied_posture(),
            observed.posture_objects.shared_config(),
        ) else {
            return Ok(());
        };
        if are_withdrawn(&live, &dynamic::config(&observed.cluster, &applied)) {
            let next = dynamic::config_map(&observed.cluster, &applied);
            observed.objects.apply(next).await?;
        }
        Ok(())
    }

    /// The set with or without the volume for certificates, otherwise as it is.
    fn pet_set(&self, volume: CertificateVolume) -> ReconcileResult<PetSet> {
        let applied = self
            .observed
            .applied_posture()
            .map_err(|why| Interrupt::Blocked("PostureUnknown", why))?;
        let in_secret = self.observed.certificates.in_secret.as_ref();
        let material = in_secret
            .and_then(ServedMaterial::material)
            .or(self.issued.map(|issued| issued.material));
        let files = match volume {
            CertificateVolume::Mounted => Some(
                material
                    .map(Files::trusting_its_signers)
                    .ok_or(Interrupt::Wait(Pending::PodFiles))?,
            ),
            CertificateVolume::Absent => None,
        };
        let mut set = pet_set::pet_set(&self.observed.cluster, &Posture { files, ..applied });
        if let Some(live) = &self.observed.posture_objects.pet_set {
            set.spec
                .volume_claim_templates
                .clone_from(&live.spec.volume_claim_templates);
            set.spec.replicas = live.spec.replicas;
        }
        Ok(set)
    }

    async fn set_password(&self, hash: PasswordEncryption) -> ReconcileResult<()> {
        let login = &self.observed.login;
        let leader = self
            .observed
            .leader()
            .ok_or(Interrupt::Wait(Pending::Leader))?;
        let session = self.observed.log_in(leader).await?;
        store_password(&session, &login.username, &login.password, hash)
            .await
            .map_err(|error| self.unanswered(leader, ServerCall::StorePassword, error))
    }

    /// Changes an annotation of a pod: any change makes the kubelet refresh the pod's volumes,
    /// within about a second.
    pub(crate) async fn touch(&self, pod: &PodRef, version: &str) -> ReconcileResult<()> {
        let PodRef { name, uid } = pod;
        let patch = json!({"metadata": {"uid": uid, "annotations": {REFRESHED_FOR: version}}});
        let patched = self
            .observed
            .objects
            .api::<Pod>()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        patched
            .map(drop)
            .or_else(|error| ignore_replaced(name, error))
            .map_err(Interrupt::from)
    }

    pub(crate) async fn reload_server(&self, pod: &PodRef) -> ReconcileResult<()> {
        let Some(pod) = self.observed.find_pod(pod) else {
            return Ok(());
        };
        let session = self.observed.log_in(pod).await?;
        reload(&session)
            .await
            .map_err(|error| self.unanswered(pod, ServerCall::ReloadServer, error))
    }

    async fn reload_patroni(&self, pod: &PodRef) -> ReconcileResult<()> {
        let Some(pod) = self.observed.find_pod(pod) else {
            return Ok(());
        };
        let address = address(pod, PATRONI_PORT.number).map_err(|why| {
            Interrupt::Wait(Pending::Address {
                pod: pod.name_any(),
                why,
            })
        })?;
        let password = self
            .observed
            .patroni_password
            .as_ref()
            .ok_or(Interrupt::Wait(Pending::PatroniPassword))?;
        database::patroni::reload(address, secrets::PATRONI_USER, password)
            .await
            .map_err(|error| self.unanswered(pod, ServerCall::ReloadPatroni, error))
    }

    /// Evicts a pod. A refusal is reported, and the eviction is tried again at the next reconcile.
    /// The template of new pods is brought up to date first: a user who restarts a database expects
    /// the pods to come back as the spec asks now.
    async fn evict(&self, PodRef { name: pod, uid }: &PodRef) -> ReconcileResult<()> {
        if let Some(live) = &self.observed.posture_objects.pet_set
            && self.write_pet_set(certificate_volume(live)).await? != ApplyOutcome::Nothing
        {
            return Err(Interrupt::Wait(Pending::PetSetController));
        }
        let preconditions = Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        };
        let parameters = EvictParams {
            delete_options: Some(DeleteParams {
                preconditions: Some(preconditions),
                ..DeleteParams::default()
            }),
            ..EvictParams::default()
        };
        info!(
            pod,
            namespace = self.observed.cluster.namespace(),
            "evicting"
        );
        match self
            .observed
            .objects
            .api::<Pod>()
            .evict(pod, &parameters)
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if !matches!(status.code, 404 | 409) => Err(
                Interrupt::Blocked("EvictionRefused", eviction_refused(pod, &status)),
            ),
            Err(error) => ignore_replaced(pod, error).map_err(Interrupt::from),
        }
    }

    /// A server that did not do what it was asked: it is asked again at the next reconcile.
    pub(crate) fn unanswered(
        &self,
        pod: &Pod,
        attempt: ServerCall,
        error: ProbeError,
    ) -> Interrupt {
        let (pod, namespace) = (pod.name_any(), self.observed.cluster.namespace());
        info!(pod, namespace, %attempt, %error, "not done; trying again");
        Interrupt::Wait(Pending::Server {
            pod,
            attempt,
            error,
        })
    }
}

/// The refusal of the eviction API: its causes name the budget.
fn eviction_refused(pod: &str, status: &Status) -> String {
    let causes = status
        .details
        .iter()
        .flat_map(|details| &details.causes)
        .map(|cause| cause.message.as_str());
    let said: Vec<&str> = std::iter::once(status.message.as_str())
        .chain(causes)
        .collect();
    format!("the eviction API refuses pod {pod}: {}", said.join(" "))
}

fn unknown_ca(ca: CaId) -> Interrupt {
    let why = format!("the certificate of CA {ca} is nowhere to be found");
    Interrupt::Blocked("CaUnknown", why)
}

/// A pod that is gone, or was replaced by another of its name, needs nothing any more.
fn ignore_replaced(pod: &str, error: kube::Error) -> Result<(), Error> {
    match error {
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => Ok(()),
        error => Err(Error::classify(ObjectName::new::<Pod>(pod), error)),
    }
}

/// Whether the template of this set has the volume with certificates.
fn certificate_volume(set: &PetSet) -> CertificateVolume {
    if has_files(set) {
        CertificateVolume::Mounted
    } else {
        CertificateVolume::Absent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_of_an_eviction_is_told_with_its_causes() {
        let told = |status: serde_json::Value| {
            eviction_refused("pg-0", &serde_json::from_value(status).expect("a status"))
        };
        let two = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        assert_eq!(
            told(json!({"message": two, "code": 500})),
            format!("the eviction API refuses pod pg-0: {two}")
        );
        let closed = json!({"message": "Cannot evict pod.", "code": 429, "details": {"causes": [{
            "reason": "DisruptionBudget", "message": "The disruption budget pg needs 2 healthy pods and has 2 currently"}]}});
        assert!(told(closed).ends_with(
            "Cannot evict pod. The disruption budget pg needs 2 healthy pods and has 2 currently"
        ));
    }
}
