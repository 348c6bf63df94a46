//! Renewals: the certificates that cert-manager renews are taken into service without a restart, by
//! reload, standbys first, and seen on the wire. A renewal that another CA has signed goes through a
//! walk, like any other change of trust, and clients get a grace period on it. A cluster that an
//! operation left half-way goes on to its spec in the same way.

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
use crate::pki::issued::Issued;
use crate::plan::renewal::{RenewalMaterial, only_touches_silent_pods, renewal_material};
use crate::plan::rollout::grace;
use crate::plan::rollout::grace::ClientGracePeriod;
use crate::plan::{ClusterAction, ObservedCluster, Progress, next_step, steady_state_target};
use crate::tls::{Posture, ServerTls};

/// A renewal asks for no certificate in the name of an operation.
const NO_OPERATION: &str = "";

/// How far the renewal of certificates is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewed {
    /// All certificates that can be in service are.
    Done,
    /// A client grace period runs that long, and nothing is done before.
    GracePeriod(Duration),
    /// There is more to do.
    UnderWay,
}

/// Takes the certificates that have been issued into service. `current` is the posture of the
/// cluster.
pub(crate) async fn renew(
    context: &Context,
    postgres: &Postgres,
    current: &Posture,
) -> ReconcileResult<Renewed> {
    if postgres.spec.tls.is_none() && current.serve == ServerTls::Plain && current.files.is_none() {
        context.record_served(postgres, None);
        return Ok(Renewed::Done);
    }
    let site = ClusterObjects::observe(context, postgres, None).await?;
    let Ok(applied) = site.applied_posture() else {
        return Ok(Renewed::Done);
    };
    let ObservedIssuance {
        issuance, issued, ..
    } = issuance::observe(context, &site.objects, &site.cluster, NO_OPERATION).await?;
    let in_secret = site.certificates.in_secret.as_ref();
    context.record_served(
        postgres,
        in_secret.and_then(|served| ServedCertificates::new(served, issued.as_ref())),
    );
    let issued = match renewal_material(&postgres.spec, issuance, issued) {
        RenewalMaterial::Issued(issued) => Some(*issued),
        RenewalMaterial::Nothing => None,
        RenewalMaterial::InProgress => return Ok(Renewed::Done),
        RenewalMaterial::Unusable(why) => {
            return Err(Interrupt::Blocked("CertificatesNotServed", why));
        }
    };
    let Some(renewal) = Renewal::new(context, postgres, &site, &applied, issued) else {
        return Ok(Renewed::Done);
    };
    if renewal.is_in_service() {
        return Ok(Renewed::Done);
    }
    let cluster = match site.observe_cluster().await {
        Ok(cluster) => cluster,
        Err(why) => {
            debug!(database = postgres.name_any(), %why, "a renewal waits");
            return Ok(Renewed::UnderWay);
        }
    };
    let progress = next_step(&cluster, &renewal.target, None);
    if let Some(grace) = grace::grace(&cluster, &progress, grace::for_renewal(postgres)) {
        return Ok(Renewed::GracePeriod(
            renewal.announce_grace_period(&cluster, grace).await,
        ));
    }
    match progress {
        Progress::Reached => {
            renewal.remember_proof();
            return Ok(Renewed::Done);
        }
        Progress::Wait { on, .. } => debug!(database = postgres.name_any(), %on, "a renewal waits"),
        Progress::Act { actions, .. } if renewal.only_hurries_silent_pods(&actions, &cluster) => {
            debug!(database = postgres.name_any(), "pods are starting");
        }
        Progress::Act {
            purpose, actions, ..
        } => {
            info!(
                database = postgres.name_any(),
                %purpose, "keeping TLS as it should be"
            );
            renewal.execute(&cluster, &actions).await?;
        }
    }
    Ok(Renewed::UnderWay)
}

/// A renewal on its way to its target.
struct Renewal<'a> {
    context: &'a Context,
    postgres: &'a Postgres,
    site: &'a ClusterObjects,
    issued: Option<Issued>,
    target: Posture,
    /// The objects do not say the target yet.
    is_new: bool,
    /// Names the target, and the content of the volumes that pods mount.
    proof: String,
}

impl<'a> Renewal<'a> {
    /// `None` if there is no target: nothing to keep and nothing to come to.
    fn new(
        context: &'a Context,
        postgres: &'a Postgres,
        site: &'a ClusterObjects,
        applied: &Posture,
        issued: Option<Issued>,
    ) -> Option<Self> {
        let material = issued.as_ref().map(|issued| issued.material);
        let target = steady_state_target(
            applied,
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
            is_new: *applied != target,
            target,
            proof,
        })
    }

    /// Whether the objects say the target, and every pod was seen to serve it.
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
        context.update_state(postgres, |state| state.proven = Some(proof));
    }

    /// Announces the grace period once, in an event; returns how long it still lasts.
    async fn announce_grace_period(
        &self,
        cluster: &ObservedCluster,
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
            context.update_state(postgres, |state| state.grace_until = Some(until));
        }
        Duration::try_from(until.duration_since(cluster.observed_at)).unwrap_or_default()
    }

    /// Whether all that is left is to touch pods that do not answer: they may be starting.
    fn only_hurries_silent_pods(
        &self,
        actions: &[ClusterAction],
        cluster: &ObservedCluster,
    ) -> bool {
        !self.is_new && only_touches_silent_pods(actions, &cluster.pods)
    }

    async fn execute(
        &self,
        cluster: &ObservedCluster,
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
            .filter(|issued| self.is_new && cluster.in_secret != Some(issued.material))
        {
            let note = format!(
                "Taking renewed certificates into service, valid until {}",
                issued.not_after.server
            );
            context
                .publish_event(*postgres, EventType::Normal, "RenewCertificates", note)
                .await;
        }
        let executor = Executor::without_operation(context, site, issued.as_ref());
        for action in actions {
            executor.execute(action).await?;
        }
        Ok(())
    }
}
