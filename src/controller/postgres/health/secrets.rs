//! The Secrets that a check reads.

use std::collections::BTreeMap;

use futures::future;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;

use crate::api::Postgres;
use crate::api::condition::holds;
use crate::api::names::Names;
use crate::build::applied::accept;
use crate::build::current_posture::shared_config;
use crate::cluster::Error;
use crate::controller::Context;
use crate::controller::login::Login;
use crate::controller::observe::superuser::auth_secret_name;
use crate::pki::issued::ServedMaterial;
use crate::plan::status::database::types::PAUSED;
use crate::tls::posture::HbaMethods;

/// Resource versions of Secrets, by name; `None` for a Secret that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecretVersions(pub(super) BTreeMap<String, Option<String>>);

/// What a check needs to log in.
pub(super) struct CheckSecrets {
    /// `None` if the superuser's Secret cannot be used.
    pub(super) login: Option<Login>,
    /// The certificates in Secret `NAME-tls`.
    pub(super) served: Option<ServedMaterial>,
    /// The authentication that servers are told to accept, if it can be read.
    pub(super) accept: Option<HbaMethods>,
    pub(super) versions: SecretVersions,
}

/// A Secret with its name, which is known also if there is none.
type NamedSecret = (String, Option<Secret>);

impl CheckSecrets {
    pub(super) async fn fetch(context: &Context, postgres: &Postgres) -> Result<Self, Error> {
        let name = postgres.name_any();
        let namespace = postgres.namespace().unwrap_or_default();
        let has_tls = postgres.spec.tls.is_some() || is_paused(postgres);
        let configuration = postgres.spec.configuration.as_ref();
        let user_conf = configuration.and_then(|conf| conf.secret_name.clone());
        let get = async |name: String| -> Result<NamedSecret, Error> {
            let secret = context.get::<Secret>(&namespace, &name).await?;
            Ok((name, secret))
        };
        let get_if = async |name: Option<String>| match name {
            Some(name) => get(name).await.map(Some),
            None => Ok(None),
        };
        let (auth, patroni, tls, user_conf, accept) = future::try_join5(
            get(auth_secret_name(postgres)),
            get(Names::new(&name).patroni()),
            get_if(has_tls.then(|| Names::new(&name).tls_secret())),
            get_if(user_conf),
            fetch_hba_methods(context, postgres),
        )
        .await?;
        let login = auth.1.as_ref().and_then(|auth| Login::parse(auth).ok());
        let data = tls
            .as_ref()
            .and_then(|(_, tls)| tls.as_ref()?.data.as_ref());
        let served = data.and_then(|data| ServedMaterial::from_data(data, ""));
        let secrets = [Some(auth), Some(patroni), tls, user_conf];
        let versions = secrets
            .into_iter()
            .flatten()
            .map(|(name, secret)| (name, secret.and_then(|secret| secret.resource_version())));
        Ok(Self {
            login,
            served,
            accept,
            versions: SecretVersions(versions.collect()),
        })
    }
}

/// The authentication that servers are told to accept: as pgrekey applied it last, or, while an
/// operation has paused the database and changes it, as Patroni's shared configuration says.
async fn fetch_hba_methods(
    context: &Context,
    postgres: &Postgres,
) -> Result<Option<HbaMethods>, Error> {
    if is_paused(postgres) {
        context.update_state(postgres, |state| state.hba_methods = None);
    }
    if let Some(known) = context.state(postgres).hba_methods {
        return Ok(Some(known));
    }
    let namespace = postgres.namespace().unwrap_or_default();
    let name = Names::new(&postgres.name_any())
        .patroni_config_maps()
        .config;
    let map = context.get::<ConfigMap>(&namespace, &name).await?;
    let config = map.as_ref().and_then(shared_config);
    Ok(config.and_then(|config| accept(&config).ok()))
}

/// Whether an operation may be adding or removing TLS.
pub(super) fn is_paused(postgres: &Postgres) -> bool {
    holds(postgres.conditions(), PAUSED)
}
