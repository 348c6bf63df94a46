//! Where a cluster is: the posture that its objects say, or, for what they lack, the one that its spec asks for.
//!
//! The loop of the databases never takes a running cluster to another posture: it writes again what is written. Who walks does
//! so by writing these objects.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use serde_json::Value;

use super::postgres::{Step, Stop};
use crate::api::PetSet;
use crate::build::written::{Unreadable, Written, has_files, written};
use crate::build::{Cluster, patroni, shared};
use crate::cluster::{Error, Objects};
use crate::tls::material::{Issued, Served};
use crate::tls::posture::{Files, Posture};

/// The objects in which a posture is written down, as far as they are there.
#[derive(Debug)]
pub(super) struct Pieces {
    pub(super) tls: Option<Secret>,
    pub(super) shared: Option<ConfigMap>,
    pub(super) patroni: Option<ConfigMap>,
    pub(super) pet_set: Option<PetSet>,
}

/// Where a cluster is.
#[derive(Debug)]
pub(super) struct Here {
    pub(super) posture: Posture,
    /// What is served there, if anything is.
    pub(super) served: Option<Served>,
}

impl Pieces {
    pub(super) async fn look(objects: &Objects, cluster: &Cluster) -> Result<Self, Error> {
        let [shared, ..] = cluster.patroni_config_maps();
        Ok(Self {
            tls: objects.look(&cluster.tls_secret()).await?,
            shared: objects.look(&shared).await?,
            patroni: objects.look(&cluster.patroni()).await?,
            pet_set: objects.look(cluster.name()).await?,
        })
    }

    /// Whether the cluster has never been built.
    pub(super) fn none(&self) -> bool {
        self.shared.is_none() && self.patroni.is_none() && self.pet_set.is_none()
    }

    pub(super) fn served(&self) -> Option<Served> {
        Served::of(self.tls.as_ref()?.data.as_ref()?, "").filter(|served| served.material().is_some())
    }

    /// Patroni's shared configuration, as far as it can be read.
    pub(super) fn shared_config(&self) -> Option<Value> {
        serde_json::from_str(self.shared.as_ref()?.annotations().get(shared::ANNOTATION)?).ok()
    }

    pub(super) fn local_config(&self) -> Option<&String> {
        self.patroni.as_ref()?.data.as_ref()?.get(patroni::PATRONI_YML)
    }
}

/// Where the cluster is, given what its spec asks for and what has been issued for it, if that is known.
pub(super) fn here(
    cluster: &Cluster,
    pieces: &Pieces,
    wished: Option<&Posture>,
    issued: Option<&Issued>,
) -> Step<Here> {
    let wish = |what: &str| {
        let why = || format!("{what} is lost or damaged, and what the spec asks for has not been issued");
        wished.ok_or_else(|| Stop::Blocked("PostureUnknown", why()))
    };
    if pieces.none() {
        // Without TLS a posture is always known.
        return wished.cloned().map(|posture| with_issued(posture, issued)).ok_or(Stop::Wait("certificates"));
    }
    let shared = pieces.shared_config();
    let shared = shared.map_or_else(|| wish("the shared configuration").map(|w| shared::config(cluster, w)), Ok)?;
    let local = pieces.local_config().cloned();
    let local = local.map_or_else(|| wish("patroni.yml").map(|w| patroni_yml(cluster, w)), Ok)?;
    // A cluster that is halted has no pods; it had files if there is something to serve.
    let files = pieces.pet_set.as_ref().map_or_else(|| pieces.served().is_some(), has_files);
    let data = pieces.tls.as_ref().and_then(|secret| secret.data.as_ref());
    let read = |shared: &Value, local: &str, files| written(&Written { tls: data, shared, patroni: local, files });
    let posture = match read(&shared, &local, files) {
        Ok(posture) => posture,
        Err(Unreadable::Files) => {
            // What was served is lost; what has been issued takes its place.
            let issued = issued.ok_or_else(|| {
                let why = format!("Secret {} is damaged, and nothing has been issued to mend it", cluster.tls_secret());
                Stop::Blocked("PostureUnknown", why)
            })?;
            let rest = read(&shared, &local, false).or_else(|_| wish("the configuration").cloned())?;
            return Ok(with_issued(Posture { files: Some(Files::of(issued.material)), ..rest }, Some(issued)));
        }
        // Somebody has written into it by hand.
        Err(Unreadable::Shared(_) | Unreadable::Patroni(_)) => {
            let wished = wish("the configuration")?;
            let repaired = (shared::config(cluster, wished), patroni_yml(cluster, wished));
            read(&repaired.0, &repaired.1, files).unwrap_or_else(|_| wished.clone())
        }
    };
    let served = pieces.served().filter(|_| posture.files.is_some());
    Ok(if served.is_some() { Here { posture, served } } else { with_issued(posture, issued) })
}

fn with_issued(posture: Posture, issued: Option<&Issued>) -> Here {
    let served = issued.filter(|_| posture.files.is_some()).map(|issued| issued.served.clone());
    Here { posture, served }
}

fn patroni_yml(cluster: &Cluster, posture: &Posture) -> String {
    let data = patroni::config_map(cluster, posture).data.unwrap_or_default();
    data.get(patroni::PATRONI_YML).cloned().unwrap_or_default()
}

/// What an operation that fails goes back to: it stays where it is.
pub(super) fn previous(pieces: &Pieces) -> Option<Served> {
    Served::of(pieces.tls.as_ref()?.data.as_ref()?, "previous.")
}
