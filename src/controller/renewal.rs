//! What cert-manager renews is taken into service, without a restart: by reload, standbys first, seen on the wire. A renewal that
//! another CA has signed goes through a walk, like any other change of what is trusted.

use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::controller::Action as Requeue;
use kube::runtime::events::EventType;
use secrecy::ExposeSecret;
use tracing::{debug, info};

use super::context::Served;
use super::perform::Hands;
use super::postgres::{Step, Stop};
use super::site::Site;
use super::{Context, issuance};
use crate::api::Postgres;
use crate::plan::decide::Certificate as Seen;
use crate::plan::{Heading, steer};
use crate::tls::material::{self, Cas, Issued};
use crate::tls::pair::Pair;
use crate::tls::{Files, Posture, Serve};

/// How long until the next look while servers are waited for.
const SOON: Duration = Duration::from_millis(500);

/// Takes what has been issued into service. `None`: it is in service.
///
/// Only the leaves and the trust in their CAs change: how pods dial and whom they let in is for requests to change.
pub(super) async fn renew(context: &Context, postgres: &Postgres) -> Step<Option<Requeue>> {
    if postgres.spec.tls.is_none() {
        context.serves(postgres, None);
        return Ok(None);
    }
    let site = Site::look(context, postgres, None).await?;
    let Ok(written) = site.written() else { return Ok(None) };
    let look = issuance::look(context, &site.objects, &site.cluster, "").await?;
    context.serves(postgres, site.stored.as_ref().and_then(|stored| served(stored, look.issued.as_ref())));
    let is_as_asked = |seen: &Seen| seen.matches && seen.ready && !seen.issuing;
    let issued = match look.issued {
        Some(issued) if look.issuance.certificates.values().all(is_as_asked) => issued,
        // cert-manager is still at it, and its Certificates are watched.
        Some(_) => return Ok(None),
        None => match look.issuance.issued {
            // What is served stays, whatever became of what was issued.
            Some(Err(why)) => return Err(Stop::Blocked("CertificatesNotServed", why)),
            _ => return Ok(None),
        },
    };
    let Some(target) = renewed(&written, &issued) else { return Ok(None) };
    let proven = format!("{}/{}", site.version(), issued.material.server.fingerprint);
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
    match steer(&scene, &target, None) {
        Heading::There => {
            context.remember(postgres, |memory| memory.proven = Some(proven));
            return Ok(None);
        }
        Heading::Wait { on, .. } => debug!(database = postgres.name_any(), on, "a renewal waits"),
        Heading::Do { what, actions, .. } => {
            info!(database = postgres.name_any(), what, "taking renewed certificates into service");
            if is_new && scene.stored != Some(issued.material) {
                let note = format!("Taking renewed certificates into service, valid until {}", issued.not_after.server);
                context.tell(postgres, EventType::Normal, "RenewCertificates", note).await;
            }
            let hands = Hands {
                context,
                site: &site,
                wished: &site.cluster,
                issued: Some(&issued),
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

/// How long what is served lasts, and whether it is what was issued last.
fn served(stored: &material::Served, issued: Option<&Issued>) -> Option<Served> {
    let until = |pem: &material::Pem| {
        let pair = Pair::parse(pem.certificate.as_bytes(), pem.key.expose_secret().as_bytes());
        pair.ok().map(|pair| pair.not_after().as_second())
    };
    let until = [&stored.server, &stored.client, &stored.exporter].into_iter().filter_map(until).min()?;
    Some(Served { until, drifted: issued.is_some_and(|issued| stored.material() != Some(issued.material)) })
}

/// The same posture with what has been issued; nothing for a cluster that is not in a posture of its own.
fn renewed(written: &Posture, issued: &Issued) -> Option<Posture> {
    let method = written.accept.tls.filter(|_| written.serve == Serve::Tls && written.accept.plain.is_none())?;
    let target = Posture::tls(written.dial.mode, method, issued.material);
    Some(Posture { files: Some(Files::of(issued.material)), dial: written.dial, ..target })
}
