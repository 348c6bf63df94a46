//! PetSets, unless another controller is installed for them: each becomes a StatefulSet of the same
//! name, whose status is copied back.
//!
//! # Expected flow
//! The PetSet of a database becomes a StatefulSet that it owns. A changed template restarts no pod:
//! the strategy is `OnDelete`. Kubernetes deletes the StatefulSet with the PetSet.
//!
//! # Guarantees
//! A PetSet that does not belong to a database is not realised, whatever its labels say: the right
//! to create PetSets is no right to create pods. A StatefulSet of the same name that the PetSet does not
//! control is left alone.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use serde_json::json;
use tracing::warn;

use crate::api::{PetSet, Postgres};
use crate::build::stateful_set::stateful_set;
use crate::cluster::apply::ApplyOutcome;
use crate::cluster::{Error, ObjectName, Objects};
use crate::controller::Context;
use crate::rules::ClusterFacts;

/// How long until the next reconcile of a set that cannot be realised.
const REQUEUE_WHILE_REFUSED: Duration = Duration::from_secs(20);

const NOT_OURS: &str =
    "no Postgres of this name controls this PetSet: pgrekey realises those of its databases only";

const IN_THE_WAY: &str =
    "there is a StatefulSet of this name that this PetSet does not control: rename or delete it";

pub(crate) async fn reconcile(set: Arc<PetSet>, context: Arc<Context>) -> Result<Action, Error> {
    if set.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    if !is_of_a_database(&context, &set).await? {
        refuse(&context, &set, NOT_OURS).await;
        return Ok(Action::await_change());
    }
    let Some(objects) = Objects::owned_by(&context.client, set.as_ref(), set.labels().clone())
    else {
        return Ok(Action::await_change());
    };
    let name = set.name_any();
    let live: Option<StatefulSet> = objects.get(&name).await?;
    let uid_of = |live: &StatefulSet| controller_of(live).map(|owner| owner.uid.clone());
    if live.as_ref().is_some_and(|live| uid_of(live) != set.uid()) {
        refuse(&context, &set, IN_THE_WAY).await;
        return Ok(Action::requeue(REQUEUE_WHILE_REFUSED));
    }
    match objects.apply_over(live.as_ref(), stateful_set(&set)).await {
        // The status is copied at the next reconcile, which this change leads to.
        Ok(ApplyOutcome::Created | ApplyOutcome::Changed) => return Ok(Action::await_change()),
        Ok(ApplyOutcome::Nothing) => {}
        Err(error @ (Error::InTheWay(_) | Error::Refused { .. })) => {
            refuse(&context, &set, &error.to_string()).await;
            return Ok(Action::requeue(REQUEUE_WHILE_REFUSED));
        }
        Err(error) => return Err(error),
    }
    if let Some(status) = live.and_then(|live| status(&set, live)) {
        let patch = json!({"status": status});
        let patched = objects
            .api::<PetSet>()
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        patched.map_err(|error| Error::classify(ObjectName::new::<PetSet>(&name), error))?;
    }
    Ok(Action::await_change())
}

/// Whether a Postgres of the set's name controls it. The name is compared because an owner reference
/// can be forged, but two sets cannot have one name.
async fn is_of_a_database(context: &Context, set: &PetSet) -> Result<bool, Error> {
    let Some(owner) =
        controller_of(set).filter(|owner| is_postgres(owner) && owner.name == set.name_any())
    else {
        return Ok(false);
    };
    let namespace = set.namespace().unwrap_or_default();
    let is_it = |postgres: &Postgres| postgres.uid().as_ref() == Some(&owner.uid);
    if context
        .facts
        .database(&namespace, &owner.name)
        .is_some_and(|postgres| is_it(&postgres))
    {
        return Ok(true);
    }
    // The cache may be behind.
    Ok(context
        .get::<Postgres>(&namespace, &owner.name)
        .await?
        .is_some_and(|postgres| is_it(&postgres)))
}

fn controller_of(object: &impl ResourceExt) -> Option<&OwnerReference> {
    object
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true))
}

fn is_postgres(owner: &OwnerReference) -> bool {
    let group = owner.api_version.split_once('/').map(|(group, _)| group);
    owner.kind == Postgres::kind(&()) && group == Some(&*Postgres::group(&()))
}

/// Reports why a set is not realised.
async fn refuse(context: &Context, set: &PetSet, why: &str) {
    warn!(
        namespace = set.namespace(),
        pet_set = set.name_any(),
        why,
        "not realised"
    );
    context
        .publish_event(set, EventType::Warning, "FailedCreate", why)
        .await;
}

/// The status that the set should have; `None` if it has it.
fn status(set: &PetSet, live: StatefulSet) -> Option<StatefulSetStatus> {
    let mut status = live.status?;
    if status.observed_generation == live.metadata.generation {
        status.observed_generation = set.metadata.generation;
    } else {
        status.observed_generation = set
            .status
            .as_ref()
            .and_then(|status| status.observed_generation);
    }
    // A merge patch keeps fields that it does not name, and Kubernetes omits zeros.
    status.ready_replicas = Some(status.ready_replicas.unwrap_or_default());
    status.current_replicas = Some(status.current_replicas.unwrap_or_default());
    status.updated_replicas = Some(status.updated_replicas.unwrap_or_default());
    status.available_replicas = Some(status.available_replicas.unwrap_or_default());
    (set.status.as_ref() != Some(&status)).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_postgres_of_kubedb_is_an_owner() {
        let is_postgres = |api_version: &str, kind: &str| {
            let (api_version, kind) = (api_version.to_owned(), kind.to_owned());
            is_postgres(&OwnerReference {
                api_version,
                kind,
                ..OwnerReference::default()
            })
        };
        assert!(
            is_postgres("kubedb.com/v1", "Postgres")
                && is_postgres("kubedb.com/v1alpha2", "Postgres")
        );
        assert!(!is_postgres("kubedb.com/v1", "MySQL"));
        assert!(!is_postgres("example.com/v1", "Postgres") && !is_postgres("v1", "Postgres"));
    }
}
