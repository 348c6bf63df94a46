//! What the rules may know, kept in memory by watching the API server.
//!
//! # Expected flow
//! [`watch`] gives the stores and a future that fills them and keeps them up to date; somebody runs
//! the future. Until a kind has been listed once it is named by [`ClusterFacts::unknown`].
//!
//! # Guarantees
//! A kind of cert-manager's that the cluster does not have is known to have no objects: see
//! [`optional`]. Answers never wait and never read the network. Objects are pruned to what the
//! rules read before they are kept. A watch that breaks is resumed with back-off; what was known
//! until then stays known.
//!
//! # Assumptions
//! pgrekey may list and watch these kinds, and those that have namespaces in all of them, also
//! where it looks after one alone.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// One kind: its objects, whether they have been listed, and whether there is such a kind.
struct KindStore<K: Lookup + Clone + 'static>
where
    K::DynamicType: Eq + std::hash::Hash + Clone,
{
    kind: &'static str,
    objects: Store<K>,
    listed: Arc<AtomicBool>,
    lack: AbsentKind,
}

impl<K> KindStore<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Starts to know a kind; the future keeps knowing it.
    fn watch(kind: &'static str, client: &Client) -> (Self, BoxFuture<'static, ()>) {
        Self::watch_some(kind, client, Config::default())
    }

    /// The same for some objects of it.
    fn watch_some(
        kind: &'static str,
        client: &Client,
        which: Config,
    ) -> (Self, BoxFuture<'static, ()>) {
        let stream = watcher(Api::<K>::all(client.clone()), which).default_backoff();
        Self::fill(kind, stream, AbsentKind::default())
    }

    /// The same for a kind that the cluster may not have.
    fn watch_optional(kind: &'static str, client: &Client) -> (Self, BoxFuture<'static, ()>) {
        let lack = AbsentKind::default();
        Self::fill(
            kind,
            optional::watch(
                Api::<K>::all(client.clone()),
                Config::default(),
                lack.clone(),
            ),
            lack,
        )
    }

    fn fill(
        kind: &'static str,
        stream: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
        lack: AbsentKind,
    ) -> (Self, BoxFuture<'static, ()>) {
        let (objects, writer) = reflector::store();
        let listed = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&listed);
        let fill = stream.modify(prune).reflect(writer).for_each(move |event| {
            match event {
                Ok(Event::InitDone) => seen.store(true, Ordering::Release),
                Ok(_) => {}
                Err(error) => warn!(kind, %error, "cannot watch; trying again"),
            }
            future::ready(())
        });
        (
            Self {
                kind,
                objects,
                listed,
                lack,
            },
            fill.boxed(),
        )
    }

    fn get(&self, reference: &ObjectRef<K>) -> Option<Arc<K>> {
        self.objects.get(reference)
    }

    fn unlisted(&self) -> Option<&'static str> {
        (!self.listed.load(Ordering::Acquire)).then_some(self.kind)
    }
}

/// Drops what no rule reads and what takes most of the memory.
fn prune<K: Resource>(object: &mut K) {
    object.managed_fields_mut().clear();
    object
        .annotations_mut()
        .retain(|key, _| key.starts_with(PREFIX));
}

/// What is known about the cluster.
pub struct Stores {
    databases: KindStore<Postgres>,
    requests: KindStore<PostgresOpsRequest>,
    versions: KindStore<PostgresVersion>,
    issuers: KindStore<Issuer>,
    cluster_issuers: KindStore<ClusterIssuer>,
    namespaces: KindStore<PartialObjectMeta<Namespace>>,
    storage_classes: KindStore<PartialObjectMeta<StorageClass>>,
    /// Those that pods of databases may run as.
    service_accounts: KindStore<PartialObjectMeta<ServiceAccount>>,
}

impl Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores")
            .field("unknown", &self.unknown())
            .finish_non_exhaustive()
    }
}

/// The stores, and the future that keeps them up to date for as long as it runs.
pub fn watch(client: &Client) -> (Stores, impl Future<Output = ()> + Send + use<>) {
    let (databases, fill_databases) = KindStore::watch("Postgres", client);
    let (requests, fill_requests) = KindStore::watch("PostgresOpsRequest", client);
    let (versions, fill_versions) = KindStore::watch("PostgresVersion", client);
    let (issuers, fill_issuers) = KindStore::watch_optional("Issuer", client);
    let (cluster_issuers, fill_cluster_issuers) =
        KindStore::watch_optional("ClusterIssuer", client);
    let (namespaces, fill_namespaces) = KindStore::watch("Namespace", client);
    let (storage_classes, fill_storage_classes) = KindStore::watch("StorageClass", client);
    let usable = Config::default().labels(&usable());
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
fn usable() -> String {
    format!("{USABLE_BY_DATABASES}=true")
}

impl Stores {
    /// Every database.
    #[must_use]
    pub fn all_databases(&self) -> Vec<Arc<Postgres>> {
        self.databases.objects.state()
    }

    /// Every request, of whatever database.
    #[must_use]
    pub fn all_requests(&self) -> Vec<Arc<PostgresOpsRequest>> {
        self.requests.objects.state()
    }

    /// Whether an issuer may sign with what this Secret holds. Where ClusterIssuers keep theirs
    /// only cert-manager knows, so one counts in every namespace.
    #[must_use]
    pub fn signs(&self, namespace: &str, secret: &str) -> bool {
        let is_it = |ca: &Option<CaIssuer>| ca.as_ref().is_some_and(|ca| ca.secret_name == secret);
        let is_here = |issuer: &Issuer| issuer.metadata.namespace.as_deref() == Some(namespace);
        self.issuers
            .objects
            .state()
            .iter()
            .any(|issuer| is_here(issuer) && is_it(&issuer.spec.ca))
            || self
                .cluster_issuers
                .objects
                .state()
                .iter()
                .any(|issuer| is_it(&issuer.spec.ca))
    }
}

/// A kind could not be listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the objects of kind {kind}: {error}")]
pub struct ListProblem {
    kind: &'static str,
    error: kube::Error,
}

/// What is known about the cluster at this moment, for whoever asks once.
pub async fn snapshot(client: &Client) -> Result<Snapshot, ListProblem> {
    async fn list<K>(client: &Client, kind: &'static str) -> Result<Vec<Arc<K>>, ListProblem>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        list_some(client, kind, &ListParams::default()).await
    }
    async fn list_some<K>(
        client: &Client,
        kind: &'static str,
        which: &ListParams,
    ) -> Result<Vec<Arc<K>>, ListProblem>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let listed = Api::<K>::all(client.clone()).list(which).await;
        let listed = listed.map_err(|error| ListProblem { kind, error })?;
        Ok(listed.items.into_iter().map(Arc::new).collect())
    }
    /// Nothing where the cluster does not have the kind.
    async fn list_optional<K>(
        client: &Client,
        kind: &'static str,
    ) -> Result<Option<Vec<Arc<K>>>, ListProblem>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        match list(client, kind).await {
            Err(ListProblem {
                error: kube::Error::Api(status),
                ..
            }) if status.code == 404 => Ok(None),
            listed => listed.map(Some),
        }
    }
    let storage_classes = list::<StorageClass>(client, "StorageClass").await?;
    let namespaces = list::<Namespace>(client, "Namespace").await?;
    let usable = ListParams::default().labels(&usable());
    let service_accounts = list_some::<ServiceAccount>(client, "ServiceAccount", &usable).await?;
    let default_issuer = |namespace: &Arc<Namespace>| {
        Some((
            namespace.name_any(),
            namespace.annotations().get(DEFAULT_ISSUER)?.clone(),
        ))
    };
    let issuers = list_optional(client, "Issuer").await?;
    let cluster_issuers = list_optional(client, "ClusterIssuer").await?;
    let lacks = [
        ("Issuer", issuers.is_none()),
        ("ClusterIssuer", cluster_issuers.is_none()),
    ];
    Ok(Snapshot {
        databases: list(client, "Postgres").await?,
        requests: list(client, "PostgresOpsRequest").await?,
        versions: list(client, "PostgresVersion").await?,
        issuers: issuers.unwrap_or_default(),
        cluster_issuers: cluster_issuers.unwrap_or_default(),
        service_accounts: service_accounts
            .iter()
            .map(|account| {
                (
                    ResourceExt::namespace(account.as_ref()).unwrap_or_default(),
                    account.name_any(),
                )
            })
            .collect(),
        storage_classes: storage_classes
            .iter()
            .map(|class| class.name_any())
            .collect(),
        default_issuers: namespaces.iter().filter_map(default_issuer).collect(),
        lacks: lacks
            .into_iter()
            .filter_map(|(kind, is_lacking)| is_lacking.then_some(kind))
            .collect(),
        unknown: vec![],
    })
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
            (self.issuers.kind, &self.issuers.lack),
            (self.cluster_issuers.kind, &self.cluster_issuers.lack),
        ];
        lacks
            .into_iter()
            .any(|(known, lack)| known == kind && lack.holds())
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
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cluster::optional::tests::Fake;

    async fn comes_true(what: impl Fn() -> bool) {
        let soon = async {
            while !what() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), soon)
            .await
            .expect("it comes true within 20 s");
    }

    #[tokio::test(start_paused = true)]
    async fn cert_manager_may_be_absent_come_and_go_and_nothing_is_started_again() {
        let cluster = Fake::without("/apis/cert-manager.io/");
        let (stores, fill) = watch(&cluster.client());
        let filling = tokio::spawn(fill);
        comes_true(|| stores.unknown().is_empty()).await;
        assert!(
            stores.lacks("Issuer") && stores.lacks("ClusterIssuer") && !stores.lacks("Postgres")
        );

        cluster.become_(Some(vec!["ca"]));
        comes_true(|| stores.issuer("demo", "ca").is_some() && !stores.lacks("Issuer")).await;

        cluster.become_(None);
        comes_true(|| stores.issuer("demo", "ca").is_none() && stores.lacks("Issuer")).await;
        assert!(stores.unknown().is_empty());

        cluster.become_(Some(vec!["ca", "another"]));
        comes_true(|| stores.issuer("demo", "another").is_some() && !stores.lacks("Issuer")).await;
        filling.abort();
    }

    #[tokio::test]
    async fn who_asks_once_hears_of_no_issuers_where_there_is_no_cert_manager() {
        let cluster = Fake::without("/apis/cert-manager.io/");
        let snapshot = snapshot(&cluster.client()).await.expect("a snapshot");
        assert_eq!(
            (snapshot.issuers.len(), snapshot.lacks),
            (0, vec!["Issuer", "ClusterIssuer"])
        );
        // What pgrekey brings itself has to be there.
        let cluster = Fake::without("/postgresversions");
        assert!(super::snapshot(&cluster.client()).await.is_err());
    }
}
