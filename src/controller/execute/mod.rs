//! Doing what was decided about a database: one effect at a time, each of them idempotent.
pub(crate) mod certificates;
mod issuance;
pub(crate) mod patroni;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams, Preconditions};
use kube::core::Status;
use serde_json::json;
use tracing::info;

use crate::api::annotations::{PREVIOUS_OF, REFRESHED_FOR};
use crate::api::ports::{PATRONI_PORT, POSTGRES_PORT};
use crate::build::applied::has_files;
use crate::build::patroni::{dynamic, local};
use crate::build::{Cluster, secrets, trust};
use crate::cluster::{ApplyOutcome, Error, ObjectName};
use crate::controller::Context;
use crate::controller::observe::cluster::{ClusterObjects, select_cas};
use crate::controller::outcome::{Interrupt, ReconcileResult};
use crate::database;
use crate::database::ProbeError;
use crate::database::probe::probe;
use crate::database::server_status::{reload, store_password};
use crate::database::session::Session;
use crate::pki::CaId;
use crate::pki::issued::{Cas, Issued, ServedMaterial, bundle};
use crate::plan::action::{CertificateVolume, ClusterAction, PodRef};
use crate::plan::observed::instance::address;
use crate::tls::{Files, PasswordEncryption};

/// A database on which something is to be done.
pub(crate) struct Executor<'a> {
    pub(crate) context: &'a Context,
    pub(crate) site: &'a ClusterObjects,
    /// The database as the operation wants it; for a renewal, as it is.
    pub(crate) wished: &'a Cluster,
    /// What has been issued for it, if anything has.
    pub(crate) issued: Option<&'a Issued>,
    /// CAs that are known from elsewhere.
    pub(crate) more_cas: Cas,
    /// In whose name; none for renewals.
    pub(crate) operation: Option<&'a str>,
}

impl Executor<'_> {
    /// Does one thing to the database. What is about the request is not done here.
    pub(crate) async fn execute(&self, action: &ClusterAction) -> ReconcileResult<()> {
        let ClusterObjects {
            cluster, objects, ..
        } = self.site;
        match action {
            ClusterAction::StartTrial => {
                issuance::try_issuers(objects, self.wished, self.operation.unwrap_or_default())
                    .await?;
            }
            ClusterAction::RequestCertificates(_) => {
                certificates::ask(objects, self.wished).await?
            }
            ClusterAction::EndTrial => issuance::end_trial(objects, cluster).await?,
            ClusterAction::Reissue { alias, revision } => {
                let name = cluster.names().certificate(*alias);
                issuance::reissue(
                    self.context,
                    objects,
                    &name,
                    self.operation.unwrap_or_default(),
                    *revision,
                )
                .await?;
            }
            ClusterAction::PublishBundle(cas) => {
                let text = self.bundle(cas)?;
                objects.apply(trust::ca_config_map(cluster, &text)).await?;
            }
            ClusterAction::WriteSettings(posture) => {
                self.site.require_buildable(true)?;
                objects.apply(dynamic::config_map(cluster, posture)).await?;
            }
            ClusterAction::WriteConninfo(posture) => {
                self.site.require_buildable(true)?;
                objects.apply(local::config_map(cluster, posture)).await?;
            }
            ClusterAction::WriteFiles(files) => self.write_files(files).await?,
            ClusterAction::WriteTemplate(volume) => {
                let has_files = *volume == CertificateVolume::Mounted;
                self.write_pet_set(has_files).await?;
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

    fn cas(&self) -> Cas {
        let issued = self
            .issued
            .map(|issued| issued.cas.clone())
            .unwrap_or_default();
        self.site
            .cas()
            .into_iter()
            .chain(issued)
            .chain(self.more_cas.clone())
            .collect()
    }

    fn bundle(&self, wanted: &BTreeSet<CaId>) -> ReconcileResult<String> {
        let all = select_cas(wanted, &self.cas());
        bundle(wanted.iter().copied(), &all)
            .map_err(|ca| Interrupt::Blocked("CaUnknown", unknown_ca(ca)))
    }

    /// Secret `NAME-tls`. In an operation what was in it stays beside it as the previous material,
    /// until the leaves go back to that. A renewal has nothing to go back to, and keeps nothing.
    async fn write_files(&self, files: &Files) -> ReconcileResult<()> {
        let ClusterObjects {
            cluster,
            objects,
            in_secret: stored,
            previous,
            posture_objects: pieces,
            ..
        } = self.site;
        let is = |served: &&ServedMaterial| served.material().as_ref() == Some(&files.material);
        let issued = self.issued.map(|issued| &issued.served).filter(|_| {
            self.issued
                .is_some_and(|issued| issued.material == files.material)
        });
        // What has been issued was verified a moment ago; what is kept was when it was written.
        let now = issued
            .or(stored.as_ref().filter(is))
            .or(previous.as_ref().filter(is));
        let now = now.ok_or_else(|| {
            Interrupt::Blocked(
                "MaterialUnknown",
                "the leaves to be served are not there".to_owned(),
            )
        })?;
        let now = now
            .clone()
            .trusting(&files.material, &files.trust, &self.cas())
            .map_err(|ca| Interrupt::Blocked("CaUnknown", unknown_ca(ca)))?;
        let stays = stored.as_ref().is_some_and(|stored| is(&stored));
        let goes_back = previous.as_ref().is_some_and(|previous| is(&previous));
        let before = if stays {
            previous.as_ref()
        } else {
            stored.as_ref().filter(|_| !goes_back)
        };
        let mut secret = secrets::tls(cluster, &now, before.filter(|_| self.operation.is_some()));
        if let (Some(operation), Some(_)) = (self.operation, before) {
            secret
                .annotations_mut()
                .insert(PREVIOUS_OF.to_owned(), operation.to_owned());
        }
        objects.apply_over(pieces.tls.as_ref(), secret).await?;
        Ok(())
    }

    /// What new pods are made of, with or without files, if it is not so already.
    async fn write_pet_set(&self, has_files: bool) -> ReconcileResult<ApplyOutcome> {
        let ClusterObjects {
            objects,
            posture_objects: pieces,
            ..
        } = self.site;
        self.site.require_buildable(false)?;
        let wish = self
            .site
            .pet_set(has_files, self.issued.map(|issued| issued.material))?;
        Ok(objects.apply_over(pieces.pet_set.as_ref(), wish).await?)
    }

    async fn set_password(&self, hash: PasswordEncryption) -> ReconcileResult<()> {
        let ClusterObjects { login, .. } = self.site;
        let leader = self.site.leader().ok_or(Interrupt::Wait("a leader"))?;
        let session = self.log_in(leader).await?;
        let stored = store_password(&session, &login.username, &login.password, hash).await;
        stored.map_err(|silence| self.retry(leader, &silence))
    }

    /// Any change of a pod makes the kubelet look at its volumes, within about a second.
    async fn touch(&self, pod: &PodRef, version: &str) -> ReconcileResult<()> {
        let PodRef { name, uid } = pod;
        let patch = json!({"metadata": {"uid": uid, "annotations": {REFRESHED_FOR: version}}});
        let patched = self
            .site
            .objects
            .api::<Pod>()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        patched
            .map(drop)
            .or_else(|error| gone_is_fine(name, error))
            .map_err(Interrupt::from)
    }

    async fn reload_server(&self, pod: &PodRef) -> ReconcileResult<()> {
        let Some(pod) = self.site.find_pod(pod) else {
            return Ok(());
        };
        let session = self.log_in(pod).await?;
        reload(&session)
            .await
            .map_err(|silence| self.retry(pod, &silence))
    }

    async fn reload_patroni(&self, pod: &PodRef) -> ReconcileResult<()> {
        let Some(pod) = self.site.find_pod(pod) else {
            return Ok(());
        };
        let address = address(pod, PATRONI_PORT.number)
            .map_err(|_| Interrupt::Wait("an address of the pod"))?;
        let password = self
            .site
            .patroni_password
            .as_ref()
            .ok_or(Interrupt::Wait("the password of Patroni's REST API"))?;
        let reloaded = database::patroni::reload(address, secrets::PATRONI_USER, password).await;
        reloaded.map_err(|silence| self.retry(pod, &silence))
    }

    /// Who says no may say yes at the next look. What new pods are made of is brought up to date
    /// first: who restarts a database expects it to come back as it is asked for now.
    async fn evict(&self, PodRef { name: pod, uid }: &PodRef) -> ReconcileResult<()> {
        if let Some(live) = &self.site.posture_objects.pet_set
            && !matches!(
                self.write_pet_set(has_files(live)).await?,
                ApplyOutcome::Nothing
            )
        {
            return Err(Interrupt::Wait(
                "the PetSet's controller to see what new pods are made of",
            ));
        }
        let preconditions = Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        });
        let delete_options = Some(DeleteParams {
            preconditions,
            ..DeleteParams::default()
        });
        let parameters = EvictParams {
            delete_options,
            ..EvictParams::default()
        };
        info!(pod, namespace = self.site.cluster.namespace(), "evicting");
        match self.site.objects.api::<Pod>().evict(pod, &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if !matches!(status.code, 404 | 409) => Err(
                Interrupt::Blocked("EvictionRefused", eviction_refused(pod, &status)),
            ),
            Err(error) => gone_is_fine(pod, error).map_err(Interrupt::from),
        }
    }

    pub(crate) async fn log_in(&self, pod: &Pod) -> ReconcileResult<Session> {
        let address = address(pod, POSTGRES_PORT.number)
            .map_err(|_| Interrupt::Wait("an address of the pod"))?;
        let written = self
            .site
            .applied_posture()
            .map_err(|why| Interrupt::Blocked("PostureUnknown", why))?;
        let keys = self.site.login_keys(&written);
        let wire = probe(address, &self.site.login.username).await;
        let host = self.site.host(&pod.name_any());
        let session = crate::controller::observe::instance::log_in(
            address,
            &host,
            &self.site.login,
            &keys,
            &wire,
        )
        .await;
        session.map_err(|silence| self.retry(pod, &silence))
    }

    /// A server that does not do what it is asked is asked again after the next look.
    pub(crate) fn retry(&self, pod: &Pod, silence: &ProbeError) -> Interrupt {
        info!(pod = pod.name_any(), namespace = self.site.cluster.namespace(), %silence, "not done; trying again");
        Interrupt::Wait("a server that answers")
    }
}

/// What the eviction API says about a pod: which budget it is about is among the causes.
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

fn unknown_ca(ca: CaId) -> String {
    format!("the certificate of CA {ca} is nowhere to be found")
}

/// Who is gone, or is somebody else by now, needs nothing any more.
fn gone_is_fine(pod: &str, error: kube::Error) -> Result<(), Error> {
    match error {
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => Ok(()),
        error => Err(Error::classify(ObjectName::new::<Pod>(pod), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_eviction_api_says_is_told_with_its_causes() {
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
