//! The webhooks' certificate from pgrekey's own CA: stored in a Secret, with the CA published in
//! the `caBundle` of the webhooks.
//!
//! # Expected flow
//! [`OwnCa::run`] watches the Secret and the webhook configurations. After each change, and every
//! few seconds because time passes, it evaluates them ([`CaState`]), hands over the certificate to
//! serve, stores a renewal that is due, and publishes the CAs where the `caBundle` differs.
//!
//! # Guarantees
//! Replicas agree on one CA: the Secret is created, or replaced in the version that was read, so
//! the second replica fails and takes what the first one stored. An edited `caBundle` of ours is
//! repaired. Webhooks of another installation with configurations of the same names are left alone.
//! If the API server is away, the last certificate is still served.
//!
//! # Assumptions
//! pgrekey may create Secrets in its namespace; get, watch and update this one; watch and patch
//! these configurations.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cluster::FIELD_MANAGER;
use crate::pki::key_pair::CertificateAndKey;
use crate::pki::webhook_ca::{CaState, FreshKeys, Publication, StoredCa};

/// The Secret with the CA, the leaf, and their keys.
pub const SECRET: &str = "pgrekey-webhook";

/// Time between two evaluations without a change. Certificates end by the wall clock, which a timer
/// does not follow while the machine sleeps: hence a short interval. An evaluation costs no
/// request, and retries what failed.
const EVALUATE_EVERY: Duration = Duration::from_secs(10);

/// Shortest time between two repairs of the same object. Another program may keep writing another
/// `caBundle`.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);

/// The installation that the CA is for.
pub struct OwnCa {
    /// The client of the API server.
    pub client: Client,
    /// The namespace of the Secret.
    pub namespace: String,
    /// The names of the server: DNS names and IP addresses.
    pub names: Vec<String>,
    /// Names of the MutatingWebhookConfigurations.
    pub mutating: Vec<&'static str>,
    /// Names of the ValidatingWebhookConfigurations.
    pub validating: Vec<&'static str>,
}

impl fmt::Debug for OwnCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnCa")
            .field("namespace", &self.namespace)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl OwnCa {
    /// Renews the certificate and publishes the CA until the signal. Each evaluation hands the
    /// certificate to `serve`, or the reason why there is none.
    pub async fn run(
        self,
        serve: impl Fn(Result<Arc<CertificateAndKey>, String>) + Send,
        signal: CancellationToken,
    ) {
        let Self {
            client,
            namespace,
            names,
            mutating,
            validating,
        } = self;
        let secrets = Api::<Secret>::namespaced(client.clone(), &namespace);
        let mutating = configurations::<MutatingWebhookConfiguration>(&client, mutating);
        let validating = configurations::<ValidatingWebhookConfiguration>(&client, validating);
        let configurations: Vec<WebhookConfiguration> = mutating.chain(validating).collect();
        let mut events = watch_all(&secrets, &configurations);
        let mut reconciler = CaReconciler {
            secrets,
            names,
            secret: WatchedObject::Unknown,
            configurations,
            problem: None,
        };
        let mut ticks = tokio::time::interval(EVALUATE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = signal.cancelled() => return,
                Some(event) = events.next() => reconciler.observe(event),
                _ = ticks.tick() => {}
            }
            reconciler.reconcile(&serve, Timestamp::now()).await;
        }
    }
}

/// An object as it was last received.
enum WatchedObject<K> {
    Unknown,
    Absent,
    Present(K),
}

impl<K> From<Option<K>> for WatchedObject<K> {
    fn from(object: Option<K>) -> Self {
        object.map_or(Self::Absent, Self::Present)
    }
}

/// A configuration of webhooks. The fields that matter here are the same in both kinds, so both are
/// read as plain JSON.
struct WebhookConfiguration {
    api: Api<DynamicObject>,
    name: &'static str,
    object: WatchedObject<DynamicObject>,
    patched: Option<Instant>,
}

fn configurations<K: kube::Resource<DynamicType = ()>>(
    client: &Client,
    names: Vec<&'static str>,
) -> impl Iterator<Item = WebhookConfiguration> + use<K> {
    let api = Api::all_with(client.clone(), &ApiResource::erase::<K>(&()));
    names.into_iter().map(move |name| WebhookConfiguration {
        api: api.clone(),
        name,
        object: WatchedObject::Unknown,
        patched: None,
    })
}

enum CaEvent {
    Secret(Option<Secret>),
    Configuration(usize, Option<DynamicObject>),
    Broken(watcher::Error),
}

/// The changes of the objects. Each is watched by its name, so pgrekey needs no right to others.
fn watch_all(
    secrets: &Api<Secret>,
    configurations: &[WebhookConfiguration],
) -> BoxStream<'static, CaEvent> {
    let secret = watcher::watch_object(secrets.clone(), SECRET)
        .default_backoff()
        .map(|event| event.map_or_else(CaEvent::Broken, CaEvent::Secret))
        .boxed();
    let configurations = configurations.iter().enumerate().map(|(i, configuration)| {
        watcher::watch_object(configuration.api.clone(), configuration.name)
            .default_backoff()
            .map(move |event| {
                event.map_or_else(CaEvent::Broken, |object| CaEvent::Configuration(i, object))
            })
            .boxed()
    });
    stream::select_all(std::iter::once(secret).chain(configurations)).boxed()
}

struct CaReconciler {
    secrets: Api<Secret>,
    names: Vec<String>,
    secret: WatchedObject<Secret>,
    configurations: Vec<WebhookConfiguration>,
    /// The last problem that was logged.
    problem: Option<String>,
}

impl CaReconciler {
    fn observe(&mut self, event: CaEvent) {
        match event {
            CaEvent::Secret(object) => self.secret = object.into(),
            CaEvent::Configuration(i, object) => self.configurations[i].object = object.into(),
            CaEvent::Broken(error) => {
                warn!(%error, "cannot watch the Secret and the registration of the webhooks; trying again");
            }
        }
    }

    /// Evaluates all objects once and does what is due. The watch brings back what is stored here.
    async fn reconcile(
        &mut self,
        serve: &impl Fn(Result<Arc<CertificateAndKey>, String>),
        now: Timestamp,
    ) {
        let (stored, secret) = match &self.secret {
            WatchedObject::Unknown => return,
            WatchedObject::Absent => (StoredCa::default(), None),
            WatchedObject::Present(secret) => (parse_secret(secret), Some(secret)),
        };
        let is_published = |c: &WebhookConfiguration| c.is_published(&stored.ca_crt, &self.names);
        let publication = if self.configurations.iter().all(is_published) {
            Publication::Complete
        } else {
            Publication::Pending
        };
        let state = CaState::evaluate(&stored, &self.names, publication, now);
        let mut problem = None;
        if let Some(due) = state.due() {
            match store(&self.secrets, secret, &state, &self.names, now).await {
                Ok(()) => info!(secret = SECRET, "stored {due}"),
                // Another replica was faster. The watch brings what it stored.
                Err(StoreProblem::Api(error)) if is_conflict(&error) => {}
                Err(error) => problem = Some(format!("cannot store {due}: {error}")),
            }
        }
        if problem.is_some() && problem != self.problem {
            warn!(
                secret = SECRET,
                "{}",
                problem.as_deref().unwrap_or_default()
            );
        }
        self.problem.clone_from(&problem);
        match state.pair() {
            Some(pair) => serve(Ok(Arc::clone(pair))),
            None => serve(Err(problem.unwrap_or_else(|| "not stored yet".to_owned()))),
        }
        let trust = state.trust_pem();
        // Without a CA there is nothing to publish: it is stored first.
        if !trust.is_empty() {
            for configuration in &mut self.configurations {
                configuration.publish(&trust, &self.names).await;
            }
        }
    }
}

fn parse_secret(secret: &Secret) -> StoredCa {
    let value = |key| {
        secret
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .map(|v| v.0.clone())
            .unwrap_or_default()
    };
    StoredCa {
        ca_crt: value("ca.crt"),
        ca_key: value("ca.key"),
        tls_crt: value("tls.crt"),
        tls_key: value("tls.key"),
    }
}

#[derive(Debug, thiserror::Error)]
enum StoreProblem {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("cannot generate it: {0}")]
    Generate(#[from] rcgen::Error),
}

/// Generates what is due and stores it, unless the Secret has changed since it was read.
async fn store(
    secrets: &Api<Secret>,
    live: Option<&Secret>,
    state: &CaState,
    names: &[String],
    now: Timestamp,
) -> Result<(), StoreProblem> {
    let keys = FreshKeys {
        ca: KeyPair::generate()?,
        leaf: KeyPair::generate()?,
    };
    let StoredCa {
        ca_crt,
        ca_key,
        tls_crt,
        tls_key,
    } = state.renewed(&keys, names, now)?;
    let data = [
        ("ca.crt", ca_crt),
        ("ca.key", ca_key),
        ("tls.crt", tls_crt),
        ("tls.key", tls_key),
    ];
    let data = data.map(|(key, value)| (key.to_owned(), ByteString(value)));
    let parameters = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    if let Some(live) = live {
        let mut secret = live.clone();
        secret.data.get_or_insert_default().extend(data);
        secret.metadata.managed_fields = None;
        secrets.replace(SECRET, &parameters, &secret).await?;
    } else {
        let labels = [(
            "app.kubernetes.io/managed-by".to_owned(),
            FIELD_MANAGER.to_owned(),
        )];
        let metadata = ObjectMeta {
            name: Some(SECRET.to_owned()),
            labels: Some(BTreeMap::from(labels)),
            ..ObjectMeta::default()
        };
        let secret = Secret {
            metadata,
            data: Some(BTreeMap::from(data)),
            ..Secret::default()
        };
        secrets.create(&parameters, &secret).await?;
    }
    Ok(())
}

/// Whether the object was created, changed or deleted since it was read.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() || status.is_not_found())
}

impl WebhookConfiguration {
    /// Whether all webhooks of the configuration that call us trust this bundle. A configuration
    /// that does not exist has none.
    fn is_published(&self, trust: &[u8], names: &[String]) -> bool {
        match &self.object {
            WatchedObject::Unknown => false,
            WatchedObject::Absent => true,
            WatchedObject::Present(object) => repairs(object, trust, names).is_empty(),
        }
    }

    /// Writes the bundle into the webhooks that have another one.
    async fn publish(&mut self, trust: &[u8], names: &[String]) {
        let WatchedObject::Present(object) = &self.object else {
            return;
        };
        let repairs = repairs(object, trust, names);
        if repairs.is_empty() || self.patched.is_some_and(|at| at.elapsed() < REPAIR_PAUSE) {
            return;
        }
        self.patched = Some(Instant::now());
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let name = self.name;
        let patch: json_patch::Patch = match serde_json::from_value(Value::Array(repairs)) {
            Ok(patch) => patch,
            Err(error) => {
                return warn!(name, %error, "cannot write the patch that publishes the CA");
            }
        };
        match self
            .api
            .patch_metadata(name, &parameters, &Patch::Json::<()>(patch))
            .await
        {
            Ok(_) => info!(
                name,
                kind = object.types.as_ref().map(|t| t.kind.as_str()),
                "published the CA"
            ),
            Err(error) => warn!(name, %error, "cannot publish the CA; trying again"),
        }
    }
}

/// The JSON patch that gives this bundle to every webhook of a configuration that calls us. Empty
/// if they have it.
fn repairs(configuration: &DynamicObject, trust: &[u8], names: &[String]) -> Vec<Value> {
    let webhooks = configuration.data["webhooks"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let trust = json!(ByteString(trust.to_vec()));
    let is_wrong = |client: &Value| client["caBundle"] != trust && calls(client, names);
    let wrong = webhooks
        .iter()
        .enumerate()
        .filter(|(_, webhook)| is_wrong(&webhook["clientConfig"]));
    // If the list has changed since it was read, the patch fails and the watch brings the new list.
    wrong
        .flat_map(|(i, webhook)| {
            let test = json!({"op": "test", "path": format!("/webhooks/{i}/name"), "value": webhook["name"]});
            let path = format!("/webhooks/{i}/clientConfig/caBundle");
            [test, json!({"op": "add", "path": path, "value": trust})]
        })
        .collect()
}

/// Whether a `clientConfig` makes the API server call one of these names.
fn calls(client: &Value, names: &[String]) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let host = match client["url"].as_str() {
        Some(url) => url
            .parse::<http::Uri>()
            .ok()
            .and_then(|url| url.host().map(str::to_owned))
            .unwrap_or_default(),
        None => format!(
            "{}.{}.svc",
            text(&client["service"]["name"]),
            text(&client["service"]["namespace"])
        ),
    };
    // A URL has brackets around an IPv6 address.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    names.iter().any(
        |name| match (name.parse::<IpAddr>(), host.parse::<IpAddr>()) {
            (Ok(name), Ok(host)) => name == host,
            _ => name.eq_ignore_ascii_case(host),
        },
    )
}

#[cfg(test)]
mod tests;
