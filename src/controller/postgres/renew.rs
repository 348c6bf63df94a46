//! Renewals: the certificates that cert-manager renews are taken into service without a restart, by
//! reload, standbys first, and seen on the wire. A renewal that another CA has signed goes through a
//! walk, like any other change of trust, and clients get a grace period on it. A cluster that an
//! operation left half-way goes on to its spec in the same way.

use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::events::EventType;
use tracing::{debug, info};

use crate::api::annotations::EXTRA_CA;
use crate::api::condition::CA_ENDS_EARLY;
use crate::api::postgres::ExtraCaStatus;
use crate::api::{Postgres, condition};
use crate::controller::Context;
use crate::controller::execute::Executor;
use crate::controller::observe::cluster::ClusterObjects;
use crate::controller::observe::issuance;
use crate::controller::outcome::{Interrupt, ReconcileResult};
use crate::controller::postgres::status;
use crate::controller::postgres::status::ReportedCas;
use crate::controller::state::ServedCertificates;
use crate::pki::issued::Issued;
use crate::plan::observed::issuance::NORMAL_ISSUANCE_TIME;
use crate::plan::observed::{Issuance, ObservedCertificate};
use crate::plan::renewal::{
    RenewalMaterial, describe_early_cas, only_touches_silent_pods, reissue_under_early_ca,
    renewal_material, status_of_early_cas,
};
use crate::plan::rollout::grace;
use crate::plan::rollout::grace::ClientGracePeriod;
use crate::plan::{ClusterAction, ObservedCluster, Progress, next_step, steady_state_target};
use crate::tls::{Posture, ServerTls};

/// How far the renewal of certificates is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewed {
    /// All certificates that can be in service are.
    Done,
    /// A client grace period runs that long, and nothing is done before.
    GracePeriod(Duration),
    /// cert-manager is issuing, and may usually take that much longer.
    Issuing(Duration),
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
        report_cas(context, postgres, None).await?;
        return Ok(Renewed::Done);
    }
    let site = ClusterObjects::observe(context, postgres, None).await?;
    let Ok(applied) = site.applied_posture() else {
        return Ok(Renewed::Done);
    };
    let found = issuance::observe(context, &site, &site.cluster, None).await?;
    let in_secret = site.certificates.in_secret.as_ref();
    context.record_served(
        postgres,
        in_secret.and_then(|served| ServedCertificates::new(served, found.issued.as_ref())),
    );
    let reissues = reissue_under_early_ca(
        found.issued.as_ref().ok_or(found.problems.as_slice()),
        &found.issuance.certificates,
        context.state(postgres).reissued_at,
        context.now(),
    );
    let (material, waited) = context.judge_renewal(postgres, found.issuance, found.issued);
    let issued = match material {
        RenewalMaterial::Issued(issued) => {
            report_cas(context, postgres, Some(&issued)).await?;
            Some(*issued)
        }
        RenewalMaterial::Nothing => None,
        RenewalMaterial::InProgress | RenewalMaterial::Unusable(_) if !reissues.is_empty() => {
            return reissue(context, postgres, &site, None, &reissues).await;
        }
        RenewalMaterial::InProgress => {
            let left = NORMAL_ISSUANCE_TIME.checked_sub(waited);
            let left = left.filter(|left| !left.is_zero());
            return Ok(left.map_or(Renewed::Done, Renewed::Issuing));
        }
        RenewalMaterial::Unusable(why) => {
            return Err(Interrupt::Blocked("CertificatesNotServed", why));
        }
    };
    let Some(renewal) = Renewal::new(context, postgres, &site, &applied, issued) else {
        return Ok(Renewed::Done);
    };
    if renewal.is_in_service() {
        // What is issued is in service before anything else is asked for.
        return reissue(context, postgres, &site, renewal.issued.as_ref(), &reissues).await;
    }
    renewal.advance().await
}

impl Context {
    /// Judges what has been issued; returns also how long it has not been what the spec asks for.
    fn judge_renewal(
        &self,
        postgres: &Postgres,
        issuance: Issuance,
        issued: Option<Issued>,
    ) -> (RenewalMaterial, Duration) {
        let now = self.now();
        let since = self.state(postgres).issuing_since.unwrap_or(now);
        let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let mut certificates = issuance.certificates.values();
        let is_settled = certificates.all(ObservedCertificate::is_settled);
        let material = renewal_material(&postgres.spec, issuance, issued, waited);
        let is_waiting = match material {
            RenewalMaterial::InProgress | RenewalMaterial::Unusable(_) => true,
            RenewalMaterial::Issued(_) => !is_settled,
            RenewalMaterial::Nothing => false,
        };
        self.update_state(postgres, |state| {
            state.issuing_since = is_waiting.then_some(since);
        });
        (material, waited)
    }
}

/// Says which CAs end before a certificate, and which the issuers did not give: in the status, and in
/// events when that is news.
async fn report_cas(
    context: &Context,
    postgres: &Postgres,
    issued: Option<&Issued>,
) -> ReconcileResult<()> {
    let extra = issued.iter().flat_map(|issued| &issued.extra_cas);
    let cas = ReportedCas {
        early: issued.map(status_of_early_cas).unwrap_or_default(),
        early_in_words: issued.and_then(describe_early_cas),
        extra: extra.map(ExtraCaStatus::from).collect(),
    };
    status::record_cas(context, postgres, &cas).await?;
    let known = condition::message(postgres.conditions(), CA_ENDS_EARLY);
    if let Some(message) = cas
        .early_in_words
        .filter(|words| known != Some(words.as_str()))
    {
        context
            .publish_event(postgres, EventType::Warning, CA_ENDS_EARLY, message)
            .await;
    }
    let known = postgres.status.iter().flat_map(|status| &status.extra_cas);
    let known: Vec<&ExtraCaStatus> = known.collect();
    for ca in cas.extra.iter().filter(|ca| !known.contains(ca)) {
        let note = format!(
            "CA {:?} (SHA-256 {}) completes the chain of certificates whose issuer did not give it: \
             annotation {EXTRA_CA} named it",
            ca.name, ca.fingerprint
        );
        context
            .publish_event(postgres, EventType::Normal, "ExtraCA", note)
            .await;
    }
    Ok(())
}

/// Asks for certificates anew, because a CA ends before them or has ended.
async fn reissue(
    context: &Context,
    postgres: &Postgres,
    site: &ClusterObjects,
    issued: Option<&Issued>,
    reissues: &[ClusterAction],
) -> ReconcileResult<Renewed> {
    let executor = Executor::without_operation(context, site, issued);
    for action in reissues {
        info!(database = site.cluster.name(), %action, "a CA ends before a certificate");
        executor.execute(action).await?;
    }
    if reissues.is_empty() {
        return Ok(Renewed::Done);
    }
    let now = context.now();
    context.update_state(postgres, |state| state.reissued_at = Some(now));
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

    /// Takes the next step to the target.
    async fn advance(self) -> ReconcileResult<Renewed> {
        let database = self.postgres.name_any();
        let cluster = match self.site.observe_cluster().await {
            Ok(cluster) => cluster,
            Err(why) => {
                debug!(database, %why, "a renewal waits");
                return Ok(Renewed::UnderWay);
            }
        };
        let progress = next_step(&cluster, &self.target, None);
        if let Some(grace) = grace::grace(&cluster, &progress, grace::for_renewal(self.postgres)) {
            let left = self.announce_grace_period(&cluster, grace).await;
            return Ok(Renewed::GracePeriod(left));
        }
        match progress {
            Progress::Reached => {
                self.remember_proof();
                return Ok(Renewed::Done);
            }
            Progress::Wait { on, .. } => debug!(database, %on, "a renewal waits"),
            Progress::Act { actions, .. } if self.only_hurries_silent_pods(&actions, &cluster) => {
                debug!(database, "pods are starting");
            }
            Progress::Act {
                purpose, actions, ..
            } => {
                info!(database, %purpose, "keeping TLS as it should be");
                self.execute(&cluster, &actions).await?;
            }
        }
        Ok(Renewed::UnderWay)
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
                issued.ends.server
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
