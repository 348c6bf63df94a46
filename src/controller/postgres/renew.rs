//! What cert-manager renews is taken into service, without a restart: by reload, standbys first,
//! seen on the wire. A renewal that another CA has signed goes through a walk, like any other
//! change of what is trusted, and clients get time on it. So does a cluster that an operation left
//! half-way.

use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::events::EventType;
use tracing::{debug, info};

use crate::api::Postgres;
use crate::controller::Context;
use crate::controller::execute::Executor;
use crate::controller::observe::cluster::ClusterObjects;
use crate::controller::observe::issuance;
use crate::controller::observe::issuance::ObservedIssuance;
use crate::controller::outcome::{Interrupt, ReconcileResult};
use crate::controller::state::ServedCertificates;
use crate::pki::issued;
use crate::pki::issued::{Cas, Issued};
use crate::plan::observed::ObservedCertificate as Seen;
use crate::plan::rollout::grace;
use crate::plan::rollout::grace::ClientGracePeriod;
use crate::plan::{ClusterAction, ObservedCluster, Progress, next_step, steady_state_target};
use crate::tls::{Posture, ServerTls};

/// How far certificates are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewed {
    /// What can be is in service.
    Done,
    /// Clients get time until then, and nothing is done before.
    Settles(Duration),
    /// There is more to do.
    UnderWay,
}

/// Takes what has been issued into service, where the cluster is `here`.
pub(crate) async fn renew(
    context: &Context,
    postgres: &Postgres,
    here: &Posture,
) -> ReconcileResult<Renewed> {
    if postgres.spec.tls.is_none() && here.serve == ServerTls::Plain && here.files.is_none() {
        context.record_served(postgres, None);
        return Ok(Renewed::Done);
    }
    let site = ClusterObjects::observe(context, postgres, None).await?;
    let Ok(written) = site.applied_posture() else {
        return Ok(Renewed::Done);
    };
    let look = issuance::observe(context, &site.objects, &site.cluster, "").await?;
    context.record_served(
        postgres,
        site.in_secret
            .as_ref()
            .and_then(|stored| served(stored, look.issued.as_ref())),
    );
    let issued = match offer(postgres, look)? {
        RenewalMaterial::Good(issued) => Some(*issued),
        RenewalMaterial::Nothing => None,
        RenewalMaterial::Unfinished => return Ok(Renewed::Done),
    };
    let Some(renewal) = Renewal::of(context, postgres, &site, &written, issued) else {
        return Ok(Renewed::Done);
    };
    if renewal.is_in_service() {
        return Ok(Renewed::Done);
    }
    let scene = match site.observe_cluster().await {
        Ok(scene) => scene,
        Err(why) => {
            debug!(database = postgres.name_any(), %why, "a renewal waits");
            return Ok(Renewed::UnderWay);
        }
    };
    let heading = next_step(&scene, &renewal.target, None);
    if let Some(grace) = grace::grace(&scene, &heading, grace::for_renewal(postgres)) {
        return Ok(Renewed::Settles(
            renewal.wait_for_clients(&scene, grace).await,
        ));
    }
    match heading {
        Progress::Reached => {
            renewal.remember_proof();
            return Ok(Renewed::Done);
        }
        Progress::Wait { on, .. } => debug!(database = postgres.name_any(), %on, "a renewal waits"),
        Progress::Act { actions, .. } if renewal.waits_for_slow_pods(&actions, &scene) => {
            debug!(database = postgres.name_any(), "pods are starting");
        }
        Progress::Act {
            purpose, actions, ..
        } => {
            info!(
                database = postgres.name_any(),
                %purpose, "keeping TLS as it should be"
            );
            renewal.perform(&scene, &actions).await?;
        }
    }
    Ok(Renewed::UnderWay)
}

/// What there is to be taken into service.
enum RenewalMaterial {
    /// All that the spec asks for.
    Good(Box<Issued>),
    /// Nothing: what is served stays.
    Nothing,
    /// cert-manager is still at it, and its Certificates are watched.
    Unfinished,
}

fn offer(postgres: &Postgres, look: ObservedIssuance) -> ReconcileResult<RenewalMaterial> {
    let is_as_asked = |seen: &Seen| seen.matches && seen.ready && !seen.issuing;
    match (look.issued, look.issuance.issued) {
        (Some(issued), _) if look.issuance.certificates.values().all(is_as_asked) => {
            Ok(RenewalMaterial::Good(Box::new(issued)))
        }
        (Some(_), _) => Ok(RenewalMaterial::Unfinished),
        // What is served stays, whatever became of what was issued.
        (None, Some(Err(why))) if postgres.spec.tls.is_some() => {
            Err(Interrupt::Blocked("CertificatesNotServed", why))
        }
        (None, _) => Ok(RenewalMaterial::Nothing),
    }
}

/// A database on its way to where it belongs.
struct Renewal<'a> {
    context: &'a Context,
    postgres: &'a Postgres,
    site: &'a ClusterObjects,
    issued: Option<Issued>,
    target: Posture,
    /// Whether the target is yet to be written.
    is_new: bool,
    /// Names the target, and what pods mount of it.
    proof: String,
}

impl<'a> Renewal<'a> {
    /// Nothing where there is nothing to keep and nothing to come to.
    fn of(
        context: &'a Context,
        postgres: &'a Postgres,
        site: &'a ClusterObjects,
        written: &Posture,
        issued: Option<Issued>,
    ) -> Option<Self> {
        let material = issued.as_ref().map(|issued| issued.material);
        let target = steady_state_target(
            written,
            &postgres.spec,
            site.cluster.major(),
            material.as_ref(),
        )?;
        let leaf = target
            .files
            .as_ref()
            .map(|files| files.material.server.fingerprint.to_string());
        let proof = format!("{}/{}", site.volume_version(), leaf.unwrap_or_default());
        Some(Self {
            context,
            postgres,
            site,
            issued,
            is_new: *written != target,
            target,
            proof,
        })
    }

    /// Whether the target is written, and every pod was seen to be there.
    fn is_in_service(&self) -> bool {
        !self.is_new && self.context.state(self.postgres).proven.as_ref() == Some(&self.proof)
    }

    fn remember_proof(self) {
        let Self {
            context,
            postgres,
            proof,
            ..
        } = self;
        context.update_state(postgres, |memory| memory.proven = Some(proof));
    }

    /// Says once until when clients get time; returns how long that is.
    async fn wait_for_clients(
        &self,
        scene: &ObservedCluster,
        ClientGracePeriod { until, need }: ClientGracePeriod,
    ) -> Duration {
        let Self {
            context, postgres, ..
        } = self;
        if context.state(postgres).grace_until != Some(until) {
            context
                .publish_event(
                    *postgres,
                    EventType::Normal,
                    "ClientGracePeriod",
                    format!("Clients get until {until:.0} {need}"),
                )
                .await;
            context.update_state(postgres, |memory| memory.grace_until = Some(until));
        }
        Duration::try_from(until.duration_since(scene.observed_at)).unwrap_or_default()
    }

    /// Whether there is nothing to do but to hurry pods that do not answer yet.
    fn waits_for_slow_pods(&self, actions: &[ClusterAction], scene: &ObservedCluster) -> bool {
        !self.is_new && actions.iter().all(|action| is_of_a_slow_pod(action, scene))
    }

    async fn perform(
        &self,
        scene: &ObservedCluster,
        actions: &[ClusterAction],
    ) -> ReconcileResult<()> {
        let Self {
            context,
            postgres,
            site,
            issued,
            ..
        } = self;
        if let Some(issued) = issued
            .as_ref()
            .filter(|issued| self.is_new && scene.in_secret != Some(issued.material))
        {
            let note = format!(
                "Taking renewed certificates into service, valid until {}",
                issued.not_after.server
            );
            context
                .publish_event(*postgres, EventType::Normal, "RenewCertificates", note)
                .await;
        }
        let hands = Executor {
            context,
            site,
            wished: &site.cluster,
            issued: issued.as_ref(),
            more_cas: Cas::new(),
            operation: None,
        };
        for action in actions {
            hands.execute(action).await?;
        }
        Ok(())
    }
}

/// Whether a pod is to be hurried that does not answer yet: it may just be starting, with the files
/// that it is to have.
fn is_of_a_slow_pod(action: &ClusterAction, scene: &ObservedCluster) -> bool {
    let is_slow = |name: &str| {
        scene
            .pods
            .iter()
            .any(|pod| pod.name == name && pod.server.is_err())
    };
    matches!(action, ClusterAction::Touch { pod, .. } if is_slow(&pod.name))
}

/// How long what is served lasts, and whether it is what was issued last.
fn served(stored: &issued::ServedMaterial, issued: Option<&Issued>) -> Option<ServedCertificates> {
    let until = stored.ends()?.as_second();
    Some(ServedCertificates {
        until,
        drifted: issued.is_some_and(|issued| stored.material() != Some(issued.material)),
    })
}
