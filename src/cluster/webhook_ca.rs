//! The serving certificate from pgrekey's own CA: kept in a Secret, and the CA published to those
//! who call the webhooks.
//!
//! # Expected flow
//! [`OwnCa::run`] watches the Secret and the webhook configurations. After each change, and now
//! and then because time passes, it looks at all of them ([`CaState`]), hands over what is to be
//! served, stores what is due, and publishes the CAs where something else is written.
//!
//! # Guarantees
//! Replicas agree: the Secret is created, or replaced in the version that was looked at, and who
//! comes second takes what the first one stored. Whoever edits a `caBundle` of ours finds it
//! repaired; webhooks of another installation, which has configurations of the same names, are left
//! alone. An API server that is away ends nothing: what was served is served on.
//!
//! # Assumptions
//! pgrekey may create Secrets in its namespace, get, watch and update this one, and watch and patch
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

use crate::pki::key_pair::CertificateAndKey;
use crate::pki::webhook_ca::{CaState, FreshKeys, Publication, StoredCa};

/// The Secret with the CA, the leaf, and their keys.
pub const SECRET: &str = "pgrekey-webhook";

/// Time passes by the wall clock, which a timer does not follow (it stands still while the machine
/// sleeps): so look often. A look costs no request. What failed is tried again at the next one.
const LOOK: Duration = Duration::from_secs(10);

/// Something else may insist on another `caBundle`: we do too, but not more often than this for
/// each object.
const REPAIR_PAUSE: Duration = Duration::from_secs(1);

const MANAGER: &str = "pgrekey";

/// What the CA is for.
pub struct OwnCa {
    /// Talks to the API server.
    pub client: Client,
    /// Where the Secret is.
    pub namespace: String,
    /// What callers call us: DNS names and IP addresses.
    pub names: Vec<String>,
    /// The configurations of our webhooks that fill in.
    pub mutating: Vec<&'static str>,
    /// The configurations of our webhooks that judge.
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
    /// Keeps the certificate good and the CA published, until the signal. Each look tells what can
    /// be served, or why there is nothing.
    pub async fn run(
        self,
        tell: impl Fn(Result<Arc<CertificateAndKey>, String>) + Send,
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
        let mutating = registered::<MutatingWebhookConfiguration>(&client, mutating);
        let validating = registered::<ValidatingWebhookConfiguration>(&client, validating);
        let configurations: Vec<ConfigurationSeen> = mutating.chain(validating).collect();
        let mut events = events(&secrets, &configurations);
        let mut keeper = CaReconciler {
            secrets,
            names,
            secret: CaSecret::Unknown,
            configurations,
            problem: None,
        };
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = signal.cancelled() => return,
                Some(event) = events.next() => keeper.note(event),
                _ = ticks.tick() => {}
            }
            keeper.reconcile(&tell, Timestamp::now()).await;
        }
    }
}

/// An object as it was last seen.
enum CaSecret<K> {
    Unknown,
    Absent,
    Present(K),
}

impl<K> From<Option<K>> for CaSecret<K> {
    fn from(object: Option<K>) -> Self {
        object.map_or(Self::Absent, Self::Present)
    }
}

/// A configuration of our webhooks. Both kinds are alike in what matters here, so they are taken as
/// plain JSON.
struct ConfigurationSeen {
    api: Api<DynamicObject>,
    name: &'static str,
    seen: CaSecret<DynamicObject>,
    patched: Option<Instant>,
}

fn registered<K: kube::Resource<DynamicType = ()>>(
    client: &Client,
    names: Vec<&'static str>,
) -> impl Iterator<Item = ConfigurationSeen> + use<K> {
    let api = Api::all_with(client.clone(), &ApiResource::erase::<K>(&()));
    names.into_iter().map(move |name| ConfigurationSeen {
        api: api.clone(),
        name,
        seen: CaSecret::Unknown,
        patched: None,
    })
}

enum CaEvent {
    Secret(Option<Secret>),
    Configuration(usize, Option<DynamicObject>),
    Broken(watcher::Error),
}

/// What happens to the objects. Each is watched by its name: pgrekey need not see others.
fn events(
    secrets: &Api<Secret>,
    configurations: &[ConfigurationSeen],
) -> BoxStream<'static, CaEvent> {
    let secret = watcher::watch_object(secrets.clone(), SECRET)
        .default_backoff()
        .map(|seen| seen.map_or_else(CaEvent::Broken, CaEvent::Secret))
        .boxed();
    let configurations = configurations.iter().enumerate().map(|(i, configuration)| {
        watcher::watch_object(configuration.api.clone(), configuration.name)
            .default_backoff()
            .map(move |seen| {
                seen.map_or_else(CaEvent::Broken, |seen| CaEvent::Configuration(i, seen))
            })
            .boxed()
    });
    stream::select_all(std::iter::once(secret).chain(configurations)).boxed()
}

struct CaReconciler {
    secrets: Api<Secret>,
    names: Vec<String>,
    secret: CaSecret<Secret>,
    configurations: Vec<ConfigurationSeen>,
    /// The last problem, said once.
    problem: Option<String>,
}

impl CaReconciler {
    fn note(&mut self, event: CaEvent) {
        match event {
            CaEvent::Secret(seen) => self.secret = seen.into(),
            CaEvent::Configuration(i, seen) => self.configurations[i].seen = seen.into(),
            CaEvent::Broken(error) => {
                warn!(%error, "cannot watch what the webhooks' certificate is about; trying again")
            }
        }
    }

    /// Looks at everything once and does what is due. What is stored here comes back through the
    /// watch.
    async fn reconcile(
        &mut self,
        tell: &impl Fn(Result<Arc<CertificateAndKey>, String>),
        now: Timestamp,
    ) {
        let (stored, secret) = match &self.secret {
            CaSecret::Unknown => return,
            CaSecret::Absent => (StoredCa::default(), None),
            CaSecret::Present(secret) => (stored(secret), Some(secret)),
        };
        let is_published = |c: &ConfigurationSeen| c.is_published(&stored.ca_crt, &self.names);
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
                // Somebody was faster; the watch brings what they stored.
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
            Some(pair) => tell(Ok(Arc::clone(pair))),
            None => tell(Err(problem.unwrap_or_else(|| "not stored yet".to_owned()))),
        }
        let trust = state.trust_pem();
        // Without a CA there is nothing to publish: the one that is due comes first.
        if !trust.is_empty() {
            for configuration in &mut self.configurations {
                configuration.publish(&trust, &self.names).await;
            }
        }
    }
}

fn stored(secret: &Secret) -> StoredCa {
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
    #[error("cannot make it: {0}")]
    Made(#[from] rcgen::Error),
}

/// Makes what is due and stores it, unless the Secret has changed since it was seen.
async fn store(
    secrets: &Api<Secret>,
    seen: Option<&Secret>,
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
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    if let Some(seen) = seen {
        let mut secret = seen.clone();
        secret.data.get_or_insert_default().extend(data);
        secret.metadata.managed_fields = None;
        secrets.replace(SECRET, &parameters, &secret).await?;
    } else {
        let labels = [(
            "app.kubernetes.io/managed-by".to_owned(),
            MANAGER.to_owned(),
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

/// Whether the object is not what it was when we looked: created, changed or deleted since.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() || status.is_not_found())
}

impl ConfigurationSeen {
    /// Whether we are called with this trust by all webhooks of it. One that is not there calls
    /// nobody.
    fn is_published(&self, trust: &[u8], names: &[String]) -> bool {
        match &self.seen {
            CaSecret::Unknown => false,
            CaSecret::Absent => true,
            CaSecret::Present(object) => repairs(object, trust, names).is_empty(),
        }
    }

    /// Writes the trust where something else is.
    async fn publish(&mut self, trust: &[u8], names: &[String]) {
        let CaSecret::Present(object) = &self.seen else {
            return;
        };
        let repairs = repairs(object, trust, names);
        if repairs.is_empty() || self.patched.is_some_and(|at| at.elapsed() < REPAIR_PAUSE) {
            return;
        }
        self.patched = Some(Instant::now());
        let parameters = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
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

/// The JSON patch after which every webhook of a configuration that calls us has this trust; empty
/// when they have.
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
    // The list may have changed since it was seen: the patch fails then, and the watch brings the
    // new one.
    wrong
        .flat_map(|(i, webhook)| {
            let test = json!({"op": "test", "path": format!("/webhooks/{i}/name"), "value": webhook["name"]});
            let path = format!("/webhooks/{i}/clientConfig/caBundle");
            [test, json!({"op": "add", "path": path, "value": trust})]
        })
        .collect()
}

/// Whether the API server calls one of these names with this `clientConfig`.
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
mod tests {
    use super::*;

    fn configuration(webhooks: &Value) -> DynamicObject {
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "validators.kubedb.com"}, "webhooks": webhooks,
        });
        serde_json::from_value(configuration).unwrap()
    }

    fn names() -> Vec<String> {
        ["pgrekey.ns.svc", "192.0.2.1", "2001:db8::1"]
            .map(ToOwned::to_owned)
            .to_vec()
    }

    #[test]
    fn only_what_differs_is_repaired() {
        let service = json!({"namespace": "ns", "name": "pgrekey"});
        let published =
            json!({"name": "a", "clientConfig": {"caBundle": "Q0E=", "service": service}});
        let repairs =
            |webhooks: &Value| Value::Array(repairs(&configuration(webhooks), b"CA", &names()));
        assert_eq!(repairs(&json!([published])), json!([]));
        assert_eq!(repairs(&Value::Null), json!([]));
        let webhooks = json!([
            published,
            {"name": "none", "clientConfig": {"url": "https://192.0.2.1/path"}},
            {"name": "other", "clientConfig": {"caBundle": "T1RIRVI=", "service": service}},
        ]);
        let expected = json!([
            {"op": "test", "path": "/webhooks/1/name", "value": "none"},
            {"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": "Q0E="},
            {"op": "test", "path": "/webhooks/2/name", "value": "other"},
            {"op": "add", "path": "/webhooks/2/clientConfig/caBundle", "value": "Q0E="},
        ]);
        assert_eq!(repairs(&webhooks), expected);
    }

    #[test]
    fn webhooks_of_another_installation_are_left_alone() {
        for (client, ours) in [
            (
                json!({"service": {"namespace": "ns", "name": "pgrekey"}}),
                true,
            ),
            (
                json!({"service": {"namespace": "another", "name": "pgrekey"}}),
                false,
            ),
            (
                json!({"service": {"namespace": "ns", "name": "another"}}),
                false,
            ),
            (json!({"url": "https://192.0.2.1:9443/path"}), true),
            (json!({"url": "https://[2001:db8:0::1]:9443"}), true),
            (json!({"url": "https://192.0.2.2:9443"}), false),
            (json!({"url": "no url"}), false),
            (json!({}), false),
        ] {
            let configuration = configuration(&json!([{"name": "a", "clientConfig": client}]));
            assert_eq!(
                !repairs(&configuration, b"CA", &names()).is_empty(),
                ours,
                "{client}"
            );
        }
    }
}
