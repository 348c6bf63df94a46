//! The controller of the pods of a database, as the API server has it now.

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;

use crate::api::{PetSet, Postgres};
use crate::build::workload::{Realised, Workload};
use crate::cluster::{Error, Objects};
use crate::controller::Context;
use crate::controller::settings::PetSets;

/// The controller of the pods of a database. `set` is its current PetSet.
pub(crate) async fn workload(
    context: &Context,
    objects: &Objects,
    postgres: &Postgres,
    set: Option<&PetSet>,
) -> Result<Result<Workload, String>, Error> {
    let stateful_set: Option<PartialObjectMeta<StatefulSet>>;
    let realised = match context.settings.pet_sets {
        PetSets::External => Realised::Directly,
        PetSets::Own => {
            stateful_set = objects.get(&postgres.name_any()).await?;
            Realised::By(stateful_set.as_ref().map(|set| &set.metadata))
        }
    };
    Ok(Workload::find(postgres, set, realised))
}
