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

use super::Settings;
use super::memory::{Memories, Memory, Served};
use super::notes::Notes;
use super::pods::Watched;
use crate::api::{PetSet, Postgres};
use crate::cluster::apply::Kind;
use crate::cluster::facts::Stores;
use crate::cluster::{Error, Thing};
use crate::metrics::LoopMetrics;

/// What every loop has at hand.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What the rules may know.
    pub facts: Arc<Stores>,
    /// What is left to the installation.
    pub settings: Settings,
    /// What is told to Prometheus.
    pub metrics: LoopMetrics,
    /// What is known about requests and not written.
    pub(super) notes: Notes,
    /// Pods, and what controls them.
    pub(super) watched: Watched,
    recorder: Recorder,
    drift: mpsc::UnboundedSender<()>,
    memories: Memories,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The objects of a kind that the settings let us look after.
pub(super) fn api_of<K: Kind>(client: &Client, settings: &Settings) -> Api<K> {
    match &settings.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

impl Context {
    pub(super) fn new(
        client: Client,
        facts: Arc<Stores>,
        settings: Settings,
        metrics: LoopMetrics,
        watched: Watched,
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
            notes: Notes::default(),
            watched,
            recorder,
            drift,
            memories: Memories::default(),
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    pub(super) fn api<K: Kind>(&self) -> Api<K> {
        api_of(&self.client, &self.settings)
    }

    /// The object of this name, as the API server has it now.
    pub async fn get<K: Kind>(&self, namespace: &str, name: &str) -> Result<Option<K>, Error> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        api.get_opt(name)
            .await
            .map_err(|error| Error::of(Thing::new::<K>(name), error))
    }

    /// The same object, as the API server has it now. None if it has gone; another of its name is
    /// not the same.
    pub async fn fresh<K: Kind>(&self, seen: &K) -> Result<Option<K>, Error> {
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

    /// Tells people what happened to an object. An event that cannot be written is not worth a
    /// failure.
    pub async fn tell<K: Kind>(
        &self,
        object: &K,
        type_: EventType,
        reason: &str,
        note: impl Into<String>,
    ) {
        let note = note.into();
        // The recorder counts events of one action as one and keeps the first note; another note is
        // another action.
        let mut text = DefaultHasher::new();
        note.hash(&mut text);
        let action = format!("{reason}-{:016x}", text.finish());
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action,
            secondary: None,
        };
        let reference: ObjectReference = object.object_ref(&());
        if let Err(error) = self.recorder.publish(&event, &reference).await {
            warn!(%error, reason, "an event could not be written");
        }
    }

    /// Something that nobody watches has changed: every database is looked at again.
    pub(super) fn drifted(&self) {
        // Only a loop that has ended does not listen.
        let _ = self.drift.unbounded_send(());
    }

    /// What is remembered of this database.
    pub(super) fn recall(&self, postgres: &Postgres) -> Memory {
        self.memories.recall(&key(postgres))
    }

    /// Remembers something about this database.
    pub(super) fn remember(&self, postgres: &Postgres, change: impl FnOnce(&mut Memory)) {
        self.memories.remember(key(postgres), change);
    }

    /// Notes what a database serves, and tells what all of them do.
    pub(super) fn serves(&self, postgres: &Postgres, served: Option<Served>) {
        self.remember(postgres, |memory| memory.served = served);
        self.tell_served();
    }

    fn tell_served(&self) {
        let all = self.memories.served();
        let drifted = all.iter().filter(|served| served.drifted).count();
        self.metrics
            .certificates(all.iter().map(|served| served.until).min(), drifted);
    }

    /// Forgets this database.
    pub(super) fn forget(&self, postgres: &Postgres) {
        self.memories.forget(&key(postgres));
        self.tell_served();
    }

    /// Forgets every database that is not among these, by their uids.
    pub(super) fn forget_all_but(&self, known: &BTreeSet<String>) {
        self.memories.keep(known);
        self.tell_served();
    }

    /// Waits until no loop of this process is at this database, and keeps others away for as long
    /// as the answer lives.
    ///
    /// A loop that saw a database before it was paused may still be writing its objects. Whoever
    /// pauses it does so in here, and a loop looks at the pause in here.
    pub async fn alone(&self, postgres: &Postgres) -> OwnedMutexGuard<()> {
        self.memories.turn(key(postgres)).lock_owned().await
    }
}

fn key(postgres: &Postgres) -> String {
    postgres.uid().unwrap_or_default()
}
