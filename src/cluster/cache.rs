//! The facts for the rules, kept in memory by watching the API server.
//!
//! # Expected flow
//! [`watch`] returns the stores and a future that keeps them up to date. The caller runs the
//! future. [`ClusterFacts::unknown`] names each kind until it has been listed once.
//!
//! # Guarantees
//! A kind of cert-manager's that the cluster does not have counts as one without objects: see
//! [`optional`]. Answers never wait and never use the network. Stored objects have only the fields
//! that the rules read. A broken watch is resumed with back-off, and its objects stay known.
//!
//! # Assumptions
//! pgrekey may list and watch these kinds in all namespaces, also if it manages the databases of
//! only one.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::{self, BoxFuture};
use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, ListParams, PartialObjectMeta};
use kube::runtime::reflector::{self, Lookup, ObjectRef, Store};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::api::annotations::{DEFAULT_ISSUER, PREFIX, USABLE_BY_DATABASES};
use crate::api::cert_manager::{CaIssuer, ClusterIssuer, Issuer};
use crate::api::{Postgres, PostgresOpsRequest, PostgresVersion};
use crate::cluster::optional;
use crate::cluster::optional::AbsentKind;
use crate::rules::{ClusterFacts, Snapshot};

/// The objects of one kind.
struct KindStore<K: Lookup + Clone + 'static>
where
    K::DynamicType: Eq + std::hash::Hash + Clone,
{
    kind: &'static str,
    objects: Store<K>,
    absence: AbsentKind,
}

impl<K> KindStore<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// A store for all objects of a kind, and the future that fills it.
    fn watch(kind: &'static str, client: &Client) -> (Self, BoxFuture<'static, ()>) {
        Self::watch_some(kind, client, Config::default())
    }

    /// As [`KindStore::watch`], for some objects of the kind.
    fn watch_some(
        kind: &'static str,
        client: &Client,
        selection: Config,
    ) -> (Self, BoxFuture<'static, ()>) {
        let stream = watcher(Api::<K>::all(client.clone()), selection).default_backoff();
        Self::fill(kind, stream, AbsentKind::default())
    }

    /// As [`KindStore::watch`], for a kind that the cluster may not have.
    fn watch_optional(kind: &'static str, client: &Client) -> (Self, BoxFuture<'static, ()>) {
        let absence = AbsentKind::default();
        Self::fill(
            kind,
            optional::watch(
                Api::<K>::all(client.clone()),
                Config::default(),
                absence.clone(),
            ),
            absence,
        )
    }

    fn fill(
        kind: &'static str,
        stream: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
        absence: AbsentKind,
    ) -> (Self, BoxFuture<'static, ()>) {
        let (objects, writer) = reflector::store();
        let fill = stream.modify(prune).reflect(writer).for_each(move |event| {
            if let Err(error) = event {
                warn!(kind, %error, "cannot watch; trying again");
            }
            future::ready(())
        });
        let store = Self {
            kind,
            objects,
            absence,
        };
        (store, fill.boxed())
    }

    fn get(&self, reference: &ObjectRef<K>) -> Option<Arc<K>> {
        self.objects.get(reference)
    }

    /// The name of the kind until its objects have been listed.
    fn unlisted(&self) -> Option<&'static str> {
        let is_ready = self.objects.wait_until_ready().now_or_never();
        is_ready
            .is_none_or(|ready| ready.is_err())
            .then_some(self.kind)
    }
}

/// Removes the fields that take most of the memory and that no rule reads.
fn prune<K: Resource>(object: &mut K) {
    object.managed_fields_mut().clear();
    object
        .annotations_mut()
        .retain(|key, _| key.starts_with(PREFIX));
}

/// The objects of all kinds that the rules need.
pub struct Stores {
    databases: KindStore<Postgres>,
    requests: KindStore<PostgresOpsRequest>,
    versions: KindStore<PostgresVersion>,
    issuers: KindStore<Issuer>,
    cluster_issuers: KindStore<ClusterIssuer>,
    namespaces: KindStore<PartialObjectMeta<Namespace>>,
    storage_classes: KindStore<PartialObjectMeta<StorageClass>>,
    /// The ServiceAccounts that pods of databases may run as.
    service_accounts: KindStore<PartialObjectMeta<ServiceAccount>>,
}

impl Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores")
            .field("unknown", &self.unknown())
            .finish_non_exhaustive()
    }
}

/// The stores, and the future that keeps them up to date while it runs.
pub fn watch(client: &Client) -> (Stores, impl Future<Output = ()> + Send + use<>) {
    let (databases, fill_databases) = KindStore::watch("Postgres", client);
    let (requests, fill_requests) = KindStore::watch("PostgresOpsRequest", client);
    let (versions, fill_versions) = KindStore::watch("PostgresVersion", client);
    let (issuers, fill_issuers) = KindStore::watch_optional("Issuer", client);
    let (cluster_issuers, fill_cluster_issuers) =
        KindStore::watch_optional("ClusterIssuer", client);
    let (namespaces, fill_namespaces) = KindStore::watch("Namespace", client);
    let (storage_classes, fill_storage_classes) = KindStore::watch("StorageClass", client);
    let usable = Config::default().labels(&usable_selector());
    let (service_accounts, fill_service_accounts) =
        KindStore::watch_some("ServiceAccount", client, usable);
    let stores = Stores {
        databases,
        requests,
        versions,
        issuers,
        cluster_issuers,
        namespaces,
        storage_classes,
        service_accounts,
    };
    let fill = future::join_all([
        fill_databases,
        fill_requests,
        fill_versions,
        fill_issuers,
        fill_cluster_issuers,
        fill_namespaces,
        fill_storage_classes,
        fill_service_accounts,
    ]);
    (stores, fill.map(|_| ()))
}

/// The selector of ServiceAccounts that pods of databases may run as.
fn usable_selector() -> String {
    format!("{USABLE_BY_DATABASES}=true")
}

impl Stores {
    /// All databases.
    #[must_use]
    pub fn all_databases(&self) -> Vec<Arc<Postgres>> {
        self.databases.objects.state()
    }

    /// All requests.
    #[must_use]
    pub fn all_requests(&self) -> Vec<Arc<PostgresOpsRequest>> {
        self.requests.objects.state()
    }

    /// Whether this Secret may be the CA of an issuer. Only cert-manager knows the namespace of a
    /// ClusterIssuer's Secret, so it counts in every namespace.
    #[must_use]
    pub fn signs(&self, namespace: &str, secret: &str) -> bool {
        let is_ca_secret =
            |ca: &Option<CaIssuer>| ca.as_ref().is_some_and(|ca| ca.secret_name == secret);
        let is_here = |issuer: &Issuer| issuer.metadata.namespace.as_deref() == Some(namespace);
        self.issuers
            .objects
            .state()
            .iter()
            .any(|issuer| is_here(issuer) && is_ca_secret(&issuer.spec.ca))
            || self
                .cluster_issuers
                .objects
                .state()
                .iter()
                .any(|issuer| is_ca_secret(&issuer.spec.issuer.ca))
    }
}

/// A kind could not be listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the objects of kind {kind}: {error}")]
pub struct ListProblem {
    kind: &'static str,
    error: kube::Error,
}

/// The facts about the cluster at this moment, for one use.
pub async fn snapshot(client: &Client) -> Result<Snapshot, ListProblem> {
    let all = ListParams::default();
    let namespaces = list::<Namespace>(client, "Namespace", &all).await?;
    let storage_classes = list::<StorageClass>(client, "StorageClass", &all).await?;
    let usable = ListParams::default().labels(&usable_selector());
    let service_accounts = list::<ServiceAccount>(client, "ServiceAccount", &usable).await?;
    let issuers = list_if_known(client, "Issuer").await?;
    let cluster_issuers = list_if_known(client, "ClusterIssuer").await?;
    let absent = [
        issuers.is_none().then_some("Issuer"),
        cluster_issuers.is_none().then_some("ClusterIssuer"),
    ];
    Ok(Snapshot {
        databases: list(client, "Postgres", &all).await?,
        requests: list(client, "PostgresOpsRequest", &all).await?,
        versions: list(client, "PostgresVersion", &all).await?,
        issuers: issuers.unwrap_or_default(),
        cluster_issuers: cluster_issuers.unwrap_or_default(),
        service_accounts: service_accounts
            .iter()
            .map(|account| {
                let namespace = ResourceExt::namespace(account.as_ref()).unwrap_or_default();
                (namespace, account.name_any())
            })
            .collect(),
        storage_classes: storage_classes
            .iter()
            .map(|class| class.name_any())
            .collect(),
        default_issuers: namespaces
            .iter()
            .filter_map(|namespace| {
                let issuer = namespace.annotations().get(DEFAULT_ISSUER)?;
                Some((namespace.name_any(), issuer.clone()))
            })
            .collect(),
        lacks: absent.into_iter().flatten().collect(),
        unknown: vec![],
    })
}

async fn list<K>(
    client: &Client,
    kind: &'static str,
    selection: &ListParams,
) -> Result<Vec<Arc<K>>, ListProblem>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let listed = Api::<K>::all(client.clone()).list(selection).await;
    let listed = listed.map_err(|error| ListProblem { kind, error })?;
    Ok(listed.items.into_iter().map(Arc::new).collect())
}

/// `None` if the cluster does not have the kind.
async fn list_if_known<K>(
    client: &Client,
    kind: &'static str,
) -> Result<Option<Vec<Arc<K>>>, ListProblem>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match list(client, kind, &ListParams::default()).await {
        Err(ListProblem {
            error: kube::Error::Api(status),
            ..
        }) if status.code == 404 => Ok(None),
        listed => listed.map(Some),
    }
}

impl ClusterFacts for Stores {
    fn unknown(&self) -> Vec<&'static str> {
        let Self {
            databases,
            requests,
            versions,
            issuers,
            cluster_issuers,
            namespaces,
            storage_classes,
            service_accounts,
        } = self;
        [
            databases.unlisted(),
            requests.unlisted(),
            versions.unlisted(),
            issuers.unlisted(),
            cluster_issuers.unlisted(),
            namespaces.unlisted(),
            storage_classes.unlisted(),
            service_accounts.unlisted(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn lacks(&self, kind: &str) -> bool {
        let lacks = [
            (self.issuers.kind, &self.issuers.absence),
            (self.cluster_issuers.kind, &self.cluster_issuers.absence),
        ];
        lacks
            .into_iter()
            .any(|(known, absence)| known == kind && absence.holds())
    }

    fn database(&self, namespace: &str, name: &str) -> Option<Arc<Postgres>> {
        self.databases.get(&ObjectRef::new(name).within(namespace))
    }

    fn databases(&self, namespace: &str) -> Vec<Arc<Postgres>> {
        let mut databases = self.databases.objects.state();
        databases.retain(|database| database.metadata.namespace.as_deref() == Some(namespace));
        databases
    }

    fn requests(&self, namespace: &str, database: &str) -> Vec<Arc<PostgresOpsRequest>> {
        let mut requests = self.requests.objects.state();
        requests.retain(|request| {
            request.spec.database_ref.name == database
                && request.metadata.namespace.as_deref() == Some(namespace)
        });
        requests
    }

    fn version(&self, name: &str) -> Option<Arc<PostgresVersion>> {
        self.versions.get(&ObjectRef::new(name))
    }

    fn issuer(&self, namespace: &str, name: &str) -> Option<Arc<Issuer>> {
        self.issuers.get(&ObjectRef::new(name).within(namespace))
    }

    fn issuers(&self, namespace: &str) -> Vec<Arc<Issuer>> {
        let mut issuers = self.issuers.objects.state();
        issuers.retain(|issuer| issuer.metadata.namespace.as_deref() == Some(namespace));
        issuers
    }

    fn issuer_namespaces(&self, name: &str) -> Vec<String> {
        let issuers = self.issuers.objects.state();
        let mut namespaces: Vec<String> = issuers
            .iter()
            .filter(|issuer| issuer.name_any() == name)
            .filter_map(|issuer| issuer.metadata.namespace.clone())
            .collect();
        namespaces.sort();
        namespaces
    }

    fn cluster_issuer(&self, name: &str) -> Option<Arc<ClusterIssuer>> {
        self.cluster_issuers.get(&ObjectRef::new(name))
    }

    fn cluster_issuers(&self) -> Vec<Arc<ClusterIssuer>> {
        self.cluster_issuers.objects.state()
    }

    fn service_account_is_usable(&self, namespace: &str, name: &str) -> bool {
        self.service_accounts
            .get(&ObjectRef::new(name).within(namespace))
            .is_some()
    }

    fn storage_class_exists(&self, name: &str) -> bool {
        self.storage_classes.get(&ObjectRef::new(name)).is_some()
    }

    fn default_issuer(&self, namespace: &str) -> Option<String> {
        let namespace = self.namespaces.get(&ObjectRef::new(namespace))?;
        namespace.annotations().get(DEFAULT_ISSUER).cloned()
    }
}

#[cfg(test)]
mod tests;
