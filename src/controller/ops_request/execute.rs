//! Executes the actions of a transition about a request.

use std::sync::Arc;

use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::events::EventType;
use serde_json::json;
use tracing::debug;

use crate::api::annotations::OPS_REQUEST_FINALIZER;
use crate::api::ops_request::OpsType;
use crate::api::postgres::PostgresSpec;
use crate::api::{Postgres, PostgresOpsRequest};
use crate::build::meta::selector;
use crate::cluster::finalizer::{self, Finalizer};
use crate::cluster::{Error, ObjectName, Objects};
use crate::controller::Context;
use crate::controller::execute::Executor;
use crate::controller::execute::certificates::delete_trial;
use crate::controller::ops_request::observe::{RequestView, slot_candidates};
use crate::controller::outcome::{Interrupt, Pending};
use crate::controller::postgres::status;
use crate::plan::observed::LastFailure;
use crate::plan::status::database::{DatabaseStatusWriter, is_paused_in, pause_of};
use crate::plan::transition::Transition;
use crate::plan::{Action, ClusterAction, Decision, RequestAction};

/// Executes the actions in their order, up to the first that cannot be done now; returns why.
///
/// The time of the step runs out if that stays so, and the operation rolls back.
pub(super) async fn execute(
    context: &Context,
    view: &RequestView,
    transition: &Transition,
) -> Result<Option<LastFailure>, Error> {
    let request = &view.observed.request;
    let step = match &transition.decision {
        Decision::Act { step, .. } => Some(step.clone()),
        _ => None,
    };
    let failure = |why: String| {
        debug!(request = request.name_any(), why, "not done");
        let step = step.clone();
        Some(LastFailure { step, why })
    };
    for action in transition.actions() {
        debug!(request = request.name_any(), ?action, "executing");
        let executed = match &action {
            Action::Request(action) => on_request(context, view, action).await,
            Action::Cluster(action) => on_cluster(context, view, action).await,
        };
        match executed {
            Ok(()) => {}
            Err(Interrupt::Wait(on)) => return Ok(failure(format!("waits for {on}"))),
            Err(Interrupt::Blocked(_, why)) => return Ok(failure(why)),
            Err(Interrupt::Error(error)) => {
                // The controller tries again; until then the status shows the error.
                let failure = failure(error.to_string());
                context.requests.set_last_failure(request, failure);
                return Err(error);
            }
        }
    }
    Ok(None)
}

async fn on_cluster(
    context: &Context,
    view: &RequestView,
    action: &ClusterAction,
) -> Result<(), Interrupt> {
    let Some(access) = &view.access else {
        return Err(Interrupt::Wait(Pending::Observation));
    };
    let issuance = access.issuance.as_ref();
    let operation = view.observed.request.uid().unwrap_or_default();
    let executor = Executor {
        context,
        observed: &access.objects,
        target: access.desired.as_ref().unwrap_or(&access.objects.cluster),
        issued: issuance.and_then(|issuance| issuance.issued.as_ref()),
        trial_cas: issuance
            .map(|issuance| issuance.trial_cas.clone())
            .unwrap_or_default(),
        operation: Some(&operation),
    };
    executor.execute(action).await
}

async fn on_request(
    context: &Context,
    view: &RequestView,
    action: &RequestAction,
) -> Result<(), Interrupt> {
    let request = view.observed.request.as_ref();
    let database = view.observed.database.as_ref();
    match (action, database) {
        (RequestAction::AddFinalizer, _) => {
            finalizer::put(
                &context.client,
                request,
                OPS_REQUEST_FINALIZER,
                Finalizer::Hold,
            )
            .await?;
        }
        (RequestAction::RemoveFinalizer, database) => {
            if let Some(database) = database {
                delete_leftover_trial(context, database, request).await?;
            }
            finalizer::put(
                &context.client,
                request,
                OPS_REQUEST_FINALIZER,
                Finalizer::Release,
            )
            .await?;
        }
        (RequestAction::Delete, _) => delete(context, request).await?,
        (RequestAction::Pause, Some(database)) => {
            // Requests about other databases may want the last slot at the same moment.
            let slots = context.settings.max_concurrent_operations;
            let candidates = slot_candidates(context);
            if !context.requests.take_slot(request, &candidates, slots) {
                return Err(Interrupt::Wait(Pending::Slot));
            }
            pause(context, database, request).await?;
        }
        (RequestAction::Resume, Some(database)) => resume(context, database, request).await?,
        (RequestAction::WriteSpec(spec), Some(database)) => {
            write_spec(context, database, spec).await?;
        }
        (RequestAction::Pause | RequestAction::Resume | RequestAction::WriteSpec(_), None) => {}
    }
    Ok(())
}

/// Deletes what the operation could not delete of its trial, or what cert-manager wrote just after
/// that: a key that logs in as superuser.
async fn delete_leftover_trial(
    context: &Context,
    database: &Postgres,
    request: &PostgresOpsRequest,
) -> Result<(), Error> {
    let (name, operation) = (database.name_any(), request.uid());
    let is_tried = request.spec.type_ == OpsType::ReconfigureTLS;
    match Objects::owned_by(&context.client, database, selector(&name)) {
        Some(objects) if is_tried => {
            delete_trial(context, &objects, &name, operation.as_deref()).await
        }
        _ => Ok(()),
    }
}

async fn pause(
    context: &Context,
    database: &Arc<Postgres>,
    request: &PostgresOpsRequest,
) -> Result<(), Error> {
    // A reconcile that saw the database before the pause may still be writing.
    let _lock = context.lock_database(database).await;
    let words = pause_of(request);
    let write = |writer: &mut DatabaseStatusWriter| writer.paused(&words);
    let written = status::write(context, database, write).await?;
    if !written.is_some_and(|status| is_paused_in(&status.conditions, &words)) {
        // Another request was faster; the next observation shows it.
        return Ok(());
    }
    let (name, request_name) = (status::database(database), request.name_any());
    let note = format!("Successfully paused Postgres {name} for PostgresOpsRequest {request_name}");
    publish_to_both(context, database, request, "PauseDatabase", &note).await;
    Ok(())
}

async fn resume(
    context: &Context,
    database: &Arc<Postgres>,
    request: &PostgresOpsRequest,
) -> Result<(), Error> {
    let _lock = context.lock_database(database).await;
    let words = pause_of(request);
    let write = |writer: &mut DatabaseStatusWriter| writer.resumed(&words);
    status::write(context, database, write).await?;
    let (name, request_name) = (status::database(database), request.name_any());
    let note =
        format!("Successfully resumed PostgreSQL {name} for PostgresOpsRequest {request_name}");
    publish_to_both(context, database, request, "ResumeDatabase", &note).await;
    Ok(())
}

async fn publish_to_both(
    context: &Context,
    database: &Arc<Postgres>,
    request: &PostgresOpsRequest,
    reason: &str,
    note: &str,
) {
    let type_ = EventType::Normal;
    context
        .publish_event(database.as_ref(), type_, reason, note)
        .await;
    context.publish_event(request, type_, reason, note).await;
}

/// TLS, sslMode and clientAuthMode of the new spec, each as a whole.
async fn write_spec(
    context: &Context,
    database: &Postgres,
    spec: &PostgresSpec,
) -> Result<(), Error> {
    let name = database.name_any();
    let what = || ObjectName::new::<Postgres>(&name);
    let tls = match (&database.spec.tls, &spec.tls) {
        (None, None) => None,
        (Some(_), None) => Some(json!({"op": "remove", "path": "/spec/tls"})),
        (_, Some(tls)) => Some(json!({"op": "add", "path": "/spec/tls", "value": tls})),
    };
    let mode = spec
        .ssl_mode
        .map(|mode| json!({"op": "add", "path": "/spec/sslMode", "value": mode}));
    let auth = spec
        .client_auth_mode
        .map(|auth| json!({"op": "add", "path": "/spec/clientAuthMode", "value": auth}));
    // A version that is written is one that has to be there still: the API server answers with a
    // conflict if it is not.
    let version = json!({"op": "add", "path": "/metadata/resourceVersion", "value": database.resource_version()});
    let patch: Vec<_> = [Some(version), tls, mode, auth]
        .into_iter()
        .flatten()
        .collect();
    let patch = serde_json::from_value(json!(patch)).map_err(|e| Error::Bug {
        what: what(),
        why: e.to_string(),
    })?;
    let api: Api<Postgres> = Api::namespaced(
        context.client.clone(),
        &database.namespace().unwrap_or_default(),
    );
    let written = api
        .patch(&name, &PatchParams::default(), &Patch::Json::<()>(patch))
        .await;
    written
        .map(drop)
        .map_err(|error| Error::classify(what(), error))
}

async fn delete(context: &Context, request: &PostgresOpsRequest) -> Result<(), Error> {
    let name = request.name_any();
    let api: Api<PostgresOpsRequest> = Api::namespaced(
        context.client.clone(),
        &request.namespace().unwrap_or_default(),
    );
    let preconditions = Some(Preconditions {
        uid: request.uid(),
        resource_version: None,
    });
    match api
        .delete(
            &name,
            &DeleteParams {
                preconditions,
                ..DeleteParams::default()
            },
        )
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(Error::classify(
            ObjectName::new::<PostgresOpsRequest>(&name),
            error,
        )),
    }
}
