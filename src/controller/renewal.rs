//! What cert-manager renews is taken into service, without a restart: by reload, standbys first,
//! seen on the wire. A renewal that another CA has signed goes through a walk, like any other
//! change of what is trusted, and clients get time on it. So does a cluster that an operation left
//! half-way.

use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::events::EventType;
use tracing::{debug, info};

use super::Context;
use super::issuance::{self, Look};
use super::memory::Served;
use super::perform::Hands;
use super::postgres::{Step, Stop};
use super::site::Site;
use crate::api::Postgres;
use crate::plan::observed::Certificate as Seen;
use crate::plan::settle::{self, Grace};
use crate::plan::{Action, Heading, Scene, steer, upkeep};
use crate::tls::material::{self, Cas, Issued};
use crate::tls::{Posture, Serve};

/// How far certificates are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    /// What can be is in service.
    Done,
    /// Clients get time until then, and nothing is done before.
    Settles(Duration),
    /// There is more to do.
    UnderWay,
}

/// Takes what has been issued into service, where the cluster is `here`.
pub(super) async fn renew(context: &Context, postgres: &Postgres, here: &Posture) -> Step<Renewed> {
    if postgres.spec.tls.is_none() && here.serve == Serve::Plain && here.files.is_none() {
        context.serves(postgres, None);
        return Ok(Renewed::Done);
    }
    let site = Site::look(context, postgres, None).await?;
    let Ok(written) = site.written() else {
        return Ok(Renewed::Done);
    };
    let look = issuance::look(context, &site.objects, &site.cluster, "").await?;
    context.serves(
        postgres,
        site.stored
            .as_ref()
            .and_then(|stored| served(stored, look.issued.as_ref())),
    );
    let issued = match offer(postgres, look)? {
        Offer::Good(issued) => Some(*issued),
        Offer::Nothing => None,
        Offer::Unfinished => return Ok(Renewed::Done),
    };
    let Some(renewal) = Renewal::of(context, postgres, &site, &written, issued) else {
        return Ok(Renewed::Done);
    };
    if renewal.is_in_service() {
        return Ok(Renewed::Done);
    }
    let scene = match site.scene().await {
        Ok(scene) => scene,
        Err(why) => {
            debug!(database = postgres.name_any(), why, "a renewal waits");
            return Ok(Renewed::UnderWay);
        }
    };
    let heading = steer(&scene, &renewal.target, None);
    if let Some(grace) = settle::grace(&scene, &heading, settle::of_renewal(postgres)) {
        return Ok(Renewed::Settles(
            renewal.wait_for_clients(&scene, grace).await,
        ));
    }
    match heading {
        Heading::There => {
            renewal.remember_proof();
            return Ok(Renewed::Done);
        }
        Heading::Wait { on, .. } => debug!(database = postgres.name_any(), on, "a renewal waits"),
        Heading::Do { actions, .. } if renewal.waits_for_slow_pods(&actions, &scene) => {
            debug!(database = postgres.name_any(), "pods are starting");
        }
        Heading::Do { what, actions, .. } => {
            info!(
                database = postgres.name_any(),
                what, "keeping TLS as it should be"
            );
            renewal.perform(&scene, &actions).await?;
        }
    }
    Ok(Renewed::UnderWay)
}

/// What there is to be taken into service.
enum Offer {
    /// All that the spec asks for.
    Good(Box<Issued>),
    /// Nothing: what is served stays.
    Nothing,
    /// cert-manager is still at it, and its Certificates are watched.
    Unfinished,
}

fn offer(postgres: &Postgres, look: Look) -> Step<Offer> {
    let is_as_asked = |seen: &Seen| seen.matches && seen.ready && !seen.issuing;
    match (look.issued, look.issuance.issued) {
        (Some(issued), _) if look.issuance.certificates.values().all(is_as_asked) => {
            Ok(Offer::Good(Box::new(issued)))
        }
        (Some(_), _) => Ok(Offer::Unfinished),
        // What is served stays, whatever became of what was issued.
        (None, Some(Err(why))) if postgres.spec.tls.is_some() => {
            Err(Stop::Blocked("CertificatesNotServed", why))
        }
        (None, _) => Ok(Offer::Nothing),
    }
}

/// A database on its way to where it belongs.
struct Renewal<'a> {
    context: &'a Context,
    postgres: &'a Postgres,
    site: &'a Site,
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
        site: &'a Site,
        written: &Posture,
        issued: Option<Issued>,
    ) -> Option<Self> {
        let material = issued.as_ref().map(|issued| issued.material);
        let target = upkeep(
            written,
            &postgres.spec,
            site.cluster.major(),
            material.as_ref(),
        )?;
        let leaf = target
            .files
            .as_ref()
            .map(|files| files.material.server.fingerprint.to_string());
        let proof = format!("{}/{}", site.version(), leaf.unwrap_or_default());
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
        !self.is_new && self.context.recall(self.postgres).proven.as_ref() == Some(&self.proof)
    }

    fn remember_proof(self) {
        let Self {
            context,
            postgres,
            proof,
            ..
        } = self;
        context.remember(postgres, |memory| memory.proven = Some(proof));
    }

    /// Says once until when clients get time; returns how long that is.
    async fn wait_for_clients(&self, scene: &Scene, Grace { until, what }: Grace) -> Duration {
        let Self {
            context, postgres, ..
        } = self;
        if context.recall(postgres).settles != Some(until) {
            context
                .tell(
                    *postgres,
                    EventType::Normal,
                    "Settle",
                    format!("Clients get until {until:.0} {what}"),
                )
                .await;
            context.remember(postgres, |memory| memory.settles = Some(until));
        }
        Duration::try_from(until.duration_since(scene.at)).unwrap_or_default()
    }

    /// Whether there is nothing to do but to hurry pods that do not answer yet.
    fn waits_for_slow_pods(&self, actions: &[Action], scene: &Scene) -> bool {
        !self.is_new && actions.iter().all(|action| is_of_a_slow_pod(action, scene))
    }

    async fn perform(&self, scene: &Scene, actions: &[Action]) -> Step<()> {
        let Self {
            context,
            postgres,
            site,
            issued,
            ..
        } = self;
        if let Some(issued) = issued
            .as_ref()
            .filter(|issued| self.is_new && scene.stored != Some(issued.material))
        {
            let note = format!(
                "Taking renewed certificates into service, valid until {}",
                issued.not_after.server
            );
            context
                .tell(*postgres, EventType::Normal, "RenewCertificates", note)
                .await;
        }
        let hands = Hands {
            context,
            site,
            wished: &site.cluster,
            issued: issued.as_ref(),
            more_cas: Cas::new(),
            operation: None,
        };
        for action in actions {
            hands.perform(action).await?;
        }
        Ok(())
    }
}

/// Whether a pod is to be hurried that does not answer yet: it may just be starting, with the files
/// that it is to have.
fn is_of_a_slow_pod(action: &Action, scene: &Scene) -> bool {
    let is_slow = |name: &str| {
        scene
            .pods
            .iter()
            .any(|pod| pod.name == name && pod.server.is_err())
    };
    matches!(action, Action::Touch { pod, .. } if is_slow(pod))
}

/// How long what is served lasts, and whether it is what was issued last.
fn served(stored: &material::Served, issued: Option<&Issued>) -> Option<Served> {
    let until = stored.ends()?.as_second();
    Some(Served {
        until,
        drifted: issued.is_some_and(|issued| stored.material() != Some(issued.material)),
    })
}
