//! Writes the status of a database: only if it differs, and never over a status that was written
//! meanwhile.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::EventType;
use serde_json::{Value, json};

use crate::api::condition::CA_ENDS_EARLY;
use crate::api::postgres::{EarlyCaStatus, ExtraCaStatus, PostgresStatus};
use crate::api::{Postgres, condition};
use crate::cluster::{Error, ObjectName};
use crate::controller::Context;
use crate::plan::status::database::{DatabaseStatusWriter, phase};

/// Writes conditions, and the phase that follows from them. Returns the status after that; `None` if
/// the database was deleted.
pub(crate) async fn write(
    context: &Context,
    postgres: &Postgres,
    change: impl Fn(&mut DatabaseStatusWriter),
) -> Result<Option<PostgresStatus>, Error> {
    update(context, postgres, |status, generation| {
        change_conditions(context, postgres, status, generation, &change);
    })
    .await
}

fn change_conditions(
    context: &Context,
    postgres: &Postgres,
    status: &mut PostgresStatus,
    generation: Option<i64>,
    change: impl Fn(&mut DatabaseStatusWriter),
) {
    let mut writer = DatabaseStatusWriter {
        conditions: std::mem::take(&mut status.conditions),
        database: database(postgres),
        generation,
        now: Time(context.now()),
    };
    change(&mut writer);
    status.conditions = writer.conditions;
}

/// Notes that the spec is carried out.
pub(crate) async fn done(context: &Context, postgres: &Postgres) -> Result<(), Error> {
    write(context, postgres, DatabaseStatusWriter::free).await?;
    let generation = postgres.metadata.generation;
    update(context, postgres, |status, _| {
        status.observed_generation = generation;
    })
    .await?;
    Ok(())
}

/// What a status says about CAs.
pub(crate) struct ReportedCas {
    /// Those that end before a certificate.
    pub(crate) early: Vec<EarlyCaStatus>,
    /// The same in words, for the condition; `None` if there is none.
    pub(crate) early_in_words: Option<String>,
    /// Those that the issuers did not give.
    pub(crate) extra: Vec<ExtraCaStatus>,
}

/// Notes which CAs end before a certificate, and which the issuers did not give.
pub(crate) async fn record_cas(
    context: &Context,
    postgres: &Postgres,
    cas: &ReportedCas,
) -> Result<(), Error> {
    let message = cas.early_in_words.as_deref();
    update(context, postgres, |status, generation| {
        status.early_cas.clone_from(&cas.early);
        status.extra_cas.clone_from(&cas.extra);
        // Another generation of the spec alone is no news.
        if condition::message(&status.conditions, CA_ENDS_EARLY) != message {
            change_conditions(context, postgres, status, generation, |writer| {
                writer.ca_ends_early(message);
            });
        }
    })
    .await?;
    Ok(())
}

/// `NAMESPACE/NAME`.
pub(crate) fn database(postgres: &Postgres) -> String {
    format!(
        "{}/{}",
        postgres.namespace().unwrap_or_default(),
        postgres.name_any()
    )
}

async fn update(
    context: &Context,
    postgres: &Postgres,
    change: impl Fn(&mut PostgresStatus, Option<i64>),
) -> Result<Option<PostgresStatus>, Error> {
    // The object may be old. That is good enough to find that nothing changes, but not to write.
    if changed(postgres, &change).is_none() {
        return Ok(Some(postgres.status.clone().unwrap_or_default()));
    }
    let Some(fresh) = context.refetch(postgres).await? else {
        return Ok(None);
    };
    let Some(status) = changed(&fresh, &change) else {
        return Ok(Some(fresh.status.unwrap_or_default()));
    };
    let name = fresh.name_any();
    let api: Api<Postgres> = Api::namespaced(
        context.client.clone(),
        &fresh.namespace().unwrap_or_default(),
    );
    let mut document = json!(status);
    // A merge patch takes away only what it names.
    for (list, is_empty) in [
        ("earlyCAs", status.early_cas.is_empty()),
        ("extraCAs", status.extra_cas.is_empty()),
    ] {
        if is_empty {
            document[list] = Value::Null;
        }
    }
    let patch =
        json!({"metadata": {"resourceVersion": fresh.resource_version()}, "status": document});
    let patched = api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    patched.map_err(|error| Error::classify(ObjectName::new::<Postgres>(&name), error))?;
    let before = fresh.status.as_ref().and_then(|status| status.phase);
    if let (Some(from), Some(to)) = (before, status.phase)
        && from != to
    {
        let note = format!("phase changed from {from:?} to {to:?} reason:");
        context
            .publish_event(&fresh, EventType::Normal, "Phase Changed", note)
            .await;
    }
    Ok(Some(status))
}

/// The status after the change; `None` if it is the same.
fn changed(
    postgres: &Postgres,
    change: &impl Fn(&mut PostgresStatus, Option<i64>),
) -> Option<PostgresStatus> {
    let before = postgres.status.clone().unwrap_or_default();
    let mut after = before.clone();
    change(&mut after, postgres.metadata.generation);
    after.phase = phase(&after.conditions);
    (after != before).then_some(after)
}
