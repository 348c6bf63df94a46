//! A database in one reconcile, and the means to change it.

use kube::runtime::events::EventType;

use crate::api::Postgres;
use crate::build::Cluster;
use crate::cluster::Objects;
use crate::controller::Context;
use crate::controller::observe::spec;
use crate::controller::outcome::ReconcileResult;

/// A database in one reconcile. Its steps stand in the files of this folder.
pub(crate) struct ReconciledDatabase<'a> {
    pub(crate) context: &'a Context,
    pub(crate) postgres: &'a Postgres,
    /// Its parsed spec.
    pub(crate) cluster: Cluster,
    /// Its objects in the cluster.
    pub(crate) objects: Objects,
}

impl<'a> ReconciledDatabase<'a> {
    pub(crate) fn new(
        context: &'a Context,
        postgres: &'a Postgres,
        cluster: Cluster,
    ) -> ReconcileResult<Self> {
        Ok(Self {
            objects: spec::objects(context, postgres, &cluster)?,
            context,
            postgres,
            cluster,
        })
    }

    /// Writes an event about the database.
    pub(crate) async fn publish_event(&self, reason: &str, note: impl Into<String>) {
        self.context
            .publish_event(self.postgres, EventType::Normal, reason, note)
            .await;
    }
}
