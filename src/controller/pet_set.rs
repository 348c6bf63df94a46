//! PetSets, where nobody else realises them: a StatefulSet of the same name, its status copied back.
//!
//! # Expected flow
//! A PetSet that carries the label of our objects becomes a StatefulSet that it owns. A changed template restarts nothing: the
//! strategy is `OnDelete`. When the PetSet goes, what it owns is collected.
//!
//! # Guarantees
//! A StatefulSet of the same name that belongs to somebody else is left alone.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use serde_json::json;
use tracing::warn;

use super::Context;
use crate::api::PetSet;
use crate::build::stateful_set::stateful_set;
use crate::cluster::apply::Done;
use crate::cluster::{Error, Objects, Thing};

/// How long until a set is looked at again that cannot be what it should be.
const LATER: Duration = Duration::from_secs(20);

pub(super) async fn reconcile(set: Arc<PetSet>, context: Arc<Context>) -> Result<Action, Error> {
    if set.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let Some(objects) = Objects::of(&context.client, set.as_ref(), set.labels().clone()) else {
        return Ok(Action::await_change());
    };
    let name = set.name_any();
    let live: Option<StatefulSet> = objects.look(&name).await?;
    match objects.apply_over(live.as_ref(), stateful_set(&set)).await {
        // What it has become is said when it has been seen: the change brings us here again.
        Ok(Done::Created | Done::Changed) => return Ok(Action::await_change()),
        Ok(Done::Nothing) => {}
        Err(error @ (Error::InTheWay(_) | Error::Refused { .. })) => {
            warn!(pet_set = name, %error, "cannot be realised");
            context.tell(set.as_ref(), EventType::Warning, "FailedCreate", error.to_string()).await;
            return Ok(Action::requeue(LATER));
        }
        Err(error) => return Err(error),
    }
    if let Some(status) = live.and_then(|live| status(&set, live)) {
        let patch = json!({"status": status});
        let patched = objects.api::<PetSet>().patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map_err(|error| Error::of(Thing::new::<PetSet>(&name), error))?;
    }
    Ok(Action::await_change())
}

/// The status that the set should have and has not.
fn status(set: &PetSet, live: StatefulSet) -> Option<StatefulSetStatus> {
    let mut status = live.status?;
    if status.observed_generation == live.metadata.generation {
        status.observed_generation = set.metadata.generation;
    } else {
        status.observed_generation = set.status.as_ref().and_then(|status| status.observed_generation);
    }
    // A merge leaves what it does not name, and Kubernetes leaves out what is zero.
    status.ready_replicas = Some(status.ready_replicas.unwrap_or_default());
    status.current_replicas = Some(status.current_replicas.unwrap_or_default());
    status.updated_replicas = Some(status.updated_replicas.unwrap_or_default());
    status.available_replicas = Some(status.available_replicas.unwrap_or_default());
    (set.status.as_ref() != Some(&status)).then_some(status)
}
