//! The means that every controller shares.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use futures::channel::mpsc;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::Api;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, ResourceExt};
use tokio::sync::OwnedMutexGuard;
use tracing::warn;

use crate::api::{PetSet, Postgres};
use crate::cluster::apply::ObjectKind;
use crate::cluster::cache::Stores;
use crate::cluster::{Error, ObjectName};
use crate::controller::ops_request::cache::RequestCache;
use crate::controller::settings::Settings;
use crate::controller::state::{DatabaseState, DatabaseStates, ServedCertificates};
use crate::controller::workload_stores::WorkloadStores;
use crate::metrics::ControllerMetrics;

/// The means that every controller shares.
pub struct Context {
    /// The client of the API server.
    pub client: Client,
    /// The facts that rules are judged by.
    pub facts: Arc<Stores>,
    /// The decisions of the installation.
    pub settings: Settings,
    /// The metrics.
    pub metrics: ControllerMetrics,
    /// The state of requests that is not written yet.
    pub(crate) requests: RequestCache,
    /// Pods and their controllers.
    pub(crate) watched: WorkloadStores,
    recorder: Recorder,
    requeue_all: mpsc::UnboundedSender<()>,
    databases: DatabaseStates,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The objects of a kind in the namespaces that the settings select.
pub(crate) fn api_of<K: ObjectKind>(client: &Client, settings: &Settings) -> Api<K> {
    match &settings.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

impl Context {
    pub(crate) fn new(
        client: Client,
        facts: Arc<Stores>,
        settings: Settings,
        metrics: ControllerMetrics,
        watched: WorkloadStores,
        requeue_all: mpsc::UnboundedSender<()>,
    ) -> Self {
        let reporter = Reporter {
            controller: "pgrekey".to_owned(),
            instance: settings.instance.clone(),
        };
        let recorder = Recorder::new(client.clone(), reporter);
        Self {
            client,
            facts,
            settings,
            metrics,
            requests: RequestCache::default(),
            watched,
            recorder,
            requeue_all,
            databases: DatabaseStates::default(),
        }
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    pub(crate) fn api<K: ObjectKind>(&self) -> Api<K> {
        api_of(&self.client, &self.settings)
    }

    /// The object of this name, as the API server has it now.
    pub async fn get<K: ObjectKind>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<K>, Error> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        api.get_opt(name)
            .await
            .map_err(|error| Error::classify(ObjectName::new::<K>(name), error))
    }

    /// The same object, as the API server has it now; `None` if it was deleted, also if there is a
    /// new one of its name.
    pub async fn refetch<K: ObjectKind>(&self, seen: &K) -> Result<Option<K>, Error> {
        let found = self
            .get::<K>(&seen.namespace().unwrap_or_default(), &seen.name_any())
            .await?;
        Ok(found.filter(|found| found.uid() == seen.uid()))
    }

    /// The PetSet of a database.
    #[must_use]
    pub fn pet_set(&self, namespace: &str, database: &str) -> Option<Arc<PetSet>> {
        self.watched.pet_set(namespace, database)
    }

    /// Writes an event about an object. A failure to do so is logged and ignored.
    pub async fn publish_event<K: ObjectKind>(
        &self,
        object: &K,
        type_: EventType,
        reason: &str,
        note: impl Into<String>,
    ) {
        let note = note.into();
        // The recorder merges events of one action and keeps the first note, so each note is an
        // action of its own.
        let mut text = DefaultHasher::new();
        note.hash(&mut text);
        let action = format!("{reason}-{:016x}", text.finish());
        self.publish(object, type_, reason, note, action).await;
    }

    /// Publishes an event with this `action`.
    pub(crate) async fn publish<K: ObjectKind>(
        &self,
        object: &K,
        type_: EventType,
        reason: &str,
        note: impl Into<String>,
        action: String,
    ) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note.into()),
            action,
            secondary: None,
        };
        let reference: ObjectReference = object.object_ref(&());
        if let Err(error) = self.recorder.publish(&event, &reference).await {
            warn!(%error, reason, "an event could not be written");
        }
    }

    /// Reconciles every database, because something that is not watched has changed.
    pub(crate) fn requeue_all_databases(&self) {
        // The receiver is gone only when the controllers have ended.
        let _ = self.requeue_all.unbounded_send(());
    }

    /// The state of this database in memory.
    pub(crate) fn state(&self, postgres: &Postgres) -> DatabaseState {
        self.databases.get(&key(postgres))
    }

    /// Changes the state of this database in memory.
    pub(crate) fn update_state(
        &self,
        postgres: &Postgres,
        change: impl FnOnce(&mut DatabaseState),
    ) {
        self.databases.update(key(postgres), change);
    }

    /// Notes the certificates that a database serves, and updates the metrics of all databases.
    pub(crate) fn record_served(&self, postgres: &Postgres, served: Option<ServedCertificates>) {
        self.update_state(postgres, |state| state.served = served);
        self.publish_served_metrics();
    }

    fn publish_served_metrics(&self) {
        let all = self.databases.served();
        let drifted = all.iter().filter(|served| served.drifted).count();
        self.metrics
            .certificates(all.iter().map(|served| served.until).min(), drifted);
    }

    /// Forgets the state of this database.
    pub(crate) fn forget(&self, postgres: &Postgres) {
        self.databases.forget(&key(postgres));
        self.publish_served_metrics();
    }

    /// Forgets every database that is not among these, by their uids.
    pub(crate) fn forget_all_but(&self, known: &BTreeSet<String>) {
        self.databases.retain(known);
        self.publish_served_metrics();
    }

    /// Locks the database within this process.
    ///
    /// Take it to set `Paused`, and to read `Paused` before writing: else a reconcile that started
    /// before the pause may still be writing.
    pub async fn lock_database(&self, postgres: &Postgres) -> OwnedMutexGuard<()> {
        self.databases.lock(key(postgres)).lock_owned().await
    }
}

fn key(postgres: &Postgres) -> String {
    postgres.uid().unwrap_or_default()
}
