//! What cert-manager renews is taken into service, without a restart: by reload, standbys first, seen on the wire. A renewal that
//! another CA has signed goes through a walk, like any other change of what is trusted, and clients get time on it. So does a
//! cluster that an operation left half-way.

use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::controller::Action as Requeue;
use kube::runtime::events::EventType;
use tracing::{debug, info};

use super::memory::Served;
use super::perform::Hands;
use super::postgres::{Step, Stop};
use super::site::Site;
use super::{Context, issuance, status};
use crate::api::Postgres;
use crate::plan::observed::Certificate as Seen;
use crate::plan::settle::{self, Grace};
use crate::plan::{Action, Heading, Scene, steer, upkeep};
use crate::tls::material::{self, Cas, Each, Issued};
use crate::tls::{Posture, Serve};

/// How long until the next look while servers are waited for.
const SOON: Duration = Duration::from_millis(500);

/// Takes what has been issued into service, where the cluster is `here`. `None`: it is in service.
pub(super) async fn renew(context: &Context, postgres: &Postgres, here: &Posture) -> Step<Option<Requeue>> {
    if postgres.spec.tls.is_none() && here.serve == Serve::Plain && here.files.is_none() {
        context.serves(postgres, None);
        return Ok(None);
    }
    let site = Site::look(context, postgres, None).await?;
    let Ok(written) = site.written() else { return Ok(None) };
    let look = issuance::look(context, &site.objects, &site.cluster, "").await?;
    context.serves(postgres, site.stored.as_ref().and_then(|stored| served(stored, look.issued.as_ref())));
    let is_as_asked = |seen: &Seen| seen.matches && seen.ready && !seen.issuing;
    let issued = match look.issued {
        Some(issued) if look.issuance.certificates.values().all(is_as_asked) => Some(issued),
        // cert-manager is still at it, and its Certificates are watched.
        Some(_) => return Ok(None),
        None => match look.issuance.issued {
            // What is served stays, whatever became of what was issued.
            Some(Err(why)) if postgres.spec.tls.is_some() => return Err(Stop::Blocked("CertificatesNotServed", why)),
            _ => None,
        },
    };
    let material = issued.as_ref().map(|issued| issued.material);
    let target = upkeep(&written, &postgres.spec, site.cluster.major(), material.as_ref());
    let Some(target) = target else { return Ok(None) };
    let leaf = target.files.as_ref().map(|files| files.material.server.fingerprint.to_string());
    let proven = format!("{}/{}", site.version(), leaf.unwrap_or_default());
    if written == target && context.recall(postgres).proven.as_ref() == Some(&proven) {
        return Ok(None);
    }
    let scene = match site.scene().await {
        Ok(scene) => scene,
        Err(why) => {
            debug!(database = postgres.name_any(), why, "a renewal waits");
            return Ok(Some(Requeue::requeue(SOON)));
        }
    };
    let is_new = written != target;
    let heading = steer(&scene, &target, None);
    if let Some(Grace { until, what }) = settle::grace(&scene, &heading, settle::of_renewal(postgres)) {
        if context.recall(postgres).settles != Some(until) {
            context.tell(postgres, EventType::Normal, "Settle", format!("Clients get until {until:.0} {what}")).await;
            context.remember(postgres, |memory| memory.settles = Some(until));
        }
        // The rest is done.
        status::done(context, postgres).await?;
        let time = Duration::try_from(until.duration_since(scene.at)).unwrap_or(SOON);
        return Ok(Some(Requeue::requeue(time.max(SOON))));
    }
    match heading {
        Heading::There => {
            context.remember(postgres, |memory| memory.proven = Some(proven));
            return Ok(None);
        }
        Heading::Wait { on, .. } => debug!(database = postgres.name_any(), on, "a renewal waits"),
        Heading::Do { actions, .. } if !is_new && actions.iter().all(|action| is_of_a_slow_pod(action, &scene)) => {
            debug!(database = postgres.name_any(), "pods are starting");
        }
        Heading::Do { what, actions, .. } => {
            info!(database = postgres.name_any(), what, "keeping TLS as it should be");
            if let Some(issued) = issued.as_ref().filter(|issued| is_new && scene.stored != Some(issued.material)) {
                let note = format!("Taking renewed certificates into service, valid until {}", issued.not_after.server);
                context.tell(postgres, EventType::Normal, "RenewCertificates", note).await;
            }
            let hands = Hands {
                context,
                site: &site,
                wished: &site.cluster,
                issued: issued.as_ref(),
                more_cas: Cas::new(),
                operation: None,
            };
            for action in &actions {
                hands.perform(action).await?;
            }
        }
    }
    Ok(Some(Requeue::requeue(SOON)))
}

/// Whether a pod is to be hurried that does not answer yet: it may just be starting, with the files that it is to have.
fn is_of_a_slow_pod(action: &Action, scene: &Scene) -> bool {
    let is_slow = |name: &str| scene.pods.iter().any(|pod| pod.name == name && pod.server.is_err());
    matches!(action, Action::Touch { pod, .. } if is_slow(pod))
}

/// How long what is served lasts, and whether it is what was issued last.
fn served(stored: &material::Served, issued: Option<&Issued>) -> Option<Served> {
    let Each { server, client, exporter } = stored.pairs().ok()?;
    let until = [server, client, exporter].iter().map(|pair| pair.not_after().as_second()).min()?;
    Some(Served { until, drifted: issued.is_some_and(|issued| stored.material() != Some(issued.material)) })
}
