//! Records a transition: the status, the events and the metrics.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::EventType;
use serde_json::json;

use crate::api::PostgresOpsRequest;
use crate::api::operation::Operation;
use crate::api::ops_request::{OpsPhase, PostgresOpsRequestStatus};
use crate::api::step::StepId;
use crate::cluster::{Error, ObjectName};
use crate::controller::Context;
use crate::controller::ops_request::observe::slot_candidates;
use crate::controller::state::PrimarySeen;
use crate::metrics::{OperationKind, OperationOutcome};
use crate::plan::operation::is_running;
use crate::plan::status::request::{Audience, RequestEvent, Severity};
use crate::plan::status::write_policy::StatusWrite;
use crate::plan::transition::Transition;
use crate::plan::{Decision, Observed};

/// Why nothing begins where the API server drops fields of the status.
const OUTDATED: &str = "the CRD of PostgresOpsRequests in this cluster is of an older pgrekey, and \
    drops status.begunOn: nothing begins until `pgrekey crds | kubectl apply --server-side \
    --force-conflicts -f -`, or an upgrade of the chart pgrekey-crds";

/// Whether the status was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recorded {
    /// It was, or it is written later.
    Complete,
    /// The API server dropped fields that a later pgrekey needs.
    Truncated,
}

/// Writes the status first, then the events.
pub(super) async fn record(
    context: &Context,
    observed: &Observed,
    transition: &Transition,
) -> Result<Recorded, Error> {
    let request = observed.request.as_ref();
    let ends = matches!(transition.decision, Decision::Complete(_));
    measure_gap(context, observed, ends);
    if !matches!(transition.decision, Decision::Finish(_) | Decision::Rest(_)) {
        let status = &transition.status;
        let pending = match &transition.write {
            StatusWrite::Unchanged => None,
            StatusWrite::Deferred(pending) => Some(pending.as_ref().clone()),
            StatusWrite::Immediate => {
                let written = write_status(context, request, status).await?;
                if written.begun_on() != status.begun_on.as_ref() {
                    let (type_, reason) = (EventType::Warning, "DefinitionsOutdated");
                    context
                        .publish_event(request, type_, reason, OUTDATED)
                        .await;
                    return Ok(Recorded::Truncated);
                }
                None
            }
        };
        context.requests.set_pending_status(request, pending);
        count(context, request, status);
    }
    for event in &transition.events {
        publish(context, observed, event).await;
    }
    Ok(Recorded::Complete)
}

/// Writes the status over the one that was read, and no other. The answer is what the API server
/// has kept.
async fn write_status(
    context: &Context,
    request: &PostgresOpsRequest,
    status: &PostgresOpsRequestStatus,
) -> Result<PostgresOpsRequest, Error> {
    let name = request.name_any();
    let namespace = request.namespace().unwrap_or_default();
    let api: Api<PostgresOpsRequest> = Api::namespaced(context.client.clone(), &namespace);
    let version = request.resource_version();
    let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
    let parameters = PatchParams::default();
    let written = api
        .patch_status(&name, &parameters, &Patch::Merge(patch))
        .await;
    written.map_err(|error| Error::classify(ObjectName::new::<PostgresOpsRequest>(&name), error))
}

async fn publish(context: &Context, observed: &Observed, event: &RequestEvent) {
    let RequestEvent {
        reason,
        message,
        attempt,
        severity,
        audience,
    } = event;
    let type_ = match severity {
        Severity::Normal => EventType::Normal,
        Severity::Warning => EventType::Warning,
    };
    let request = observed.request.as_ref();
    match attempt {
        // Programs read the step and the number of the try from `action`.
        Some(attempt) => {
            let action = attempt.to_string();
            context
                .publish(request, type_, reason, message, action)
                .await;
        }
        None => context.publish_event(request, type_, reason, message).await,
    }
    if let (Audience::Both, Some(database)) = (audience, observed.database.as_deref()) {
        context
            .publish_event(database, type_, reason, message)
            .await;
    }
}

/// Counts the steps and the operations that end with this status.
fn count(context: &Context, request: &PostgresOpsRequest, new: &PostgresOpsRequestStatus) {
    for step in &new.steps {
        let mut old = request.steps().iter();
        let known = old.find(|known| known.name == step.name);
        let is_counted = known.is_some_and(|known| known.finished_at == step.finished_at);
        if let (Ok(id), Some(Time(end)), Some(Time(start))) = (
            step.name.parse::<StepId>(),
            &step.finished_at,
            &step.started_at,
        ) && !is_counted
        {
            let took = Duration::try_from(end.duration_since(*start)).unwrap_or_default();
            context.metrics.step(id.category(), took);
        }
    }
    let outcome = match new.phase {
        Some(OpsPhase::Successful) => Some(OperationOutcome::Successful),
        Some(OpsPhase::Failed) => Some(OperationOutcome::Failed),
        _ => None,
    };
    if let Some(outcome) = outcome {
        context.metrics.ended(operation_kind(request), outcome);
    }
    let requests = context.facts.all_requests();
    let others = requests
        .iter()
        .filter(|other| is_running(other) && other.uid() != request.uid())
        .count();
    let runs = new.phase == Some(OpsPhase::Progressing);
    context.metrics.running(others + usize::from(runs));
    let candidates = slot_candidates(context);
    let working = candidates.iter().filter(|one| one.holds_slot).count();
    let slots = context.settings.max_concurrent_operations;
    context.metrics.places(working, slots);
}

/// The label of an operation. TLS that is changed may be TLS that is added: the request does not
/// say.
fn operation_kind(request: &PostgresOpsRequest) -> OperationKind {
    match request.spec.operation() {
        None | Some(Operation::Restart) => OperationKind::Restart,
        Some(Operation::Remove) => OperationKind::RemoveTls,
        Some(Operation::Rotate) => OperationKind::RotateTls,
        Some(Operation::Change) => OperationKind::ChangeTls,
    }
}

/// Measures how long there is no primary, from one observation to the next.
fn measure_gap(context: &Context, observed: &Observed, ends: bool) {
    let Some(database) = &observed.database else {
        return;
    };
    let now = context.now();
    if ends {
        return context.update_state(database, |state| state.primary = PrimarySeen::Unknown);
    }
    let Ok(cluster) = observed.cluster() else {
        return;
    };
    context.update_state(database, |state| {
        state.primary = match (state.primary, cluster.primary()) {
            (PrimarySeen::There(last) | PrimarySeen::Away(last), Err(_)) => PrimarySeen::Away(last),
            (PrimarySeen::Unknown, Err(_)) => PrimarySeen::Unknown,
            (PrimarySeen::Away(last), Ok(_)) => {
                let gap = Duration::try_from(now.duration_since(last)).unwrap_or_default();
                context.metrics.write_gap(gap);
                PrimarySeen::There(now)
            }
            (_, Ok(_)) => PrimarySeen::There(now),
        };
    });
}
