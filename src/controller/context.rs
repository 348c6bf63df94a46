//! What every loop has at hand.

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

/// What every loop has at hand.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What the rules may know.
    pub facts: Arc<Stores>,
    /// What is left to the installation.
    pub settings: Settings,
    /// What is told to Prometheus.
    pub metrics: ControllerMetrics,
    /// What is known about requests and not written.
    pub(crate) requests: RequestCache,
    /// Pods, and what controls them.
    pub(crate) watched: WorkloadStores,
    recorder: Recorder,
    drift: mpsc::UnboundedSender<()>,
    databases: DatabaseStates,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The objects of a kind that the settings let us look after.
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
        drift: mpsc::UnboundedSender<()>,
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
            drift,
            databases: DatabaseStates::default(),
        }
    }

    /// The time.
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

    /// The same object, as the API server has it now. None if it has gone; another of its name is
    /// not the same.
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

    /// Publishes an event about an object. A failure to write it is logged, and no more.
    pub async fn publish_event<K: ObjectKind>(
        &self,
        object: &K,
        type_: EventType,
        reason: &str,
        note: impl Into<String>,
    ) {
        let note = note.into();
        // The recorder counts events with one action as one and keeps the first note. So each note
        // has an action of its own.
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

    /// Something that nobody watches has changed: every database is looked at again.
    pub(crate) fn requeue_all_databases(&self) {
        // Only a loop that has ended does not listen.
        let _ = self.drift.unbounded_send(());
    }

    /// What is remembered of this database.
    pub(crate) fn state(&self, postgres: &Postgres) -> DatabaseState {
        self.databases.get(&key(postgres))
    }

    /// Remembers something about this database.
    pub(crate) fn update_state(
        &self,
        postgres: &Postgres,
        change: impl FnOnce(&mut DatabaseState),
    ) {
        self.databases.update(key(postgres), change);
    }

    /// Notes what a database serves, and tells what all of them do.
    pub(crate) fn record_served(&self, postgres: &Postgres, served: Option<ServedCertificates>) {
        self.update_state(postgres, |memory| memory.served = served);
        self.publish_served_metrics();
    }

    fn publish_served_metrics(&self) {
        let all = self.databases.served();
        let drifted = all.iter().filter(|served| served.drifted).count();
        self.metrics
            .certificates(all.iter().map(|served| served.until).min(), drifted);
    }

    /// Forgets this database.
    pub(crate) fn forget(&self, postgres: &Postgres) {
        self.databases.forget(&key(postgres));
        self.publish_served_metrics();
    }

    /// Forgets every database that is not among these, by their uids.
    pub(crate) fn forget_all_but(&self, known: &BTreeSet<String>) {
        self.databases.retain(known);
        self.publish_served_metrics();
    }

    /// Waits until no loop of this process is at this database, and keeps others away for as long
    /// as the answer lives.
    ///
    /// A loop that saw a database before it was paused may still be writing its objects. Whoever
    /// pauses it does so in here, and a loop looks at the pause in here.
    pub async fn lock_database(&self, postgres: &Postgres) -> OwnedMutexGuard<()> {
        self.databases.lock(key(postgres)).lock_owned().await
    }
}

fn key(postgres: &Postgres) -> String {
    postgres.uid().unwrap_or_default()
}
