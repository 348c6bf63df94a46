//! The controller of requests.
//!
//! # Expected flow
//! [`reconcile`] observes, derives a [`transition`] without a client, records it, executes its
//! actions, and finishes; then the request is observed again. The status is written at once where a
//! later pgrekey needs it, else a little later: see
//! [`write_policy`](crate::plan::status::write_policy).
//!
//! # Guarantees
//! A request whose status cannot be written does not begin, tries nothing again and does not roll
//! back, until it can. An API server that does not answer ends no request.
//!
//! # Assumptions
//! One process runs this controller: the one that holds the lease.

pub(crate) mod cache;
mod execute;
mod observe;
mod record;

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller::Action;

use crate::api::PostgresOpsRequest;
use crate::cluster::Error;
use crate::controller::Context;
use crate::plan::observed::LastFailure;
use crate::plan::transition::{Requeue, Transition, transition};

use execute::execute;
use observe::{RequestView, observe};
use record::{Recorded, record};

/// How long until a request is observed again while the stores are not filled.
const REQUEUE_UNTIL_LISTED: Duration = Duration::from_millis(500);

/// How long until a request is observed again whose CRD drops fields of the status.
const REQUEUE_UNTIL_UPGRADED: Duration = Duration::from_mins(1);

pub(crate) async fn reconcile(
    request: Arc<PostgresOpsRequest>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    // The watch may be behind what this controller wrote itself.
    let Some(request) = context.refetch(request.as_ref()).await? else {
        context.requests.forget(&request);
        return Ok(Action::await_change());
    };
    let Some(view) = observe(&context, request).await? else {
        return Ok(Action::requeue(REQUEUE_UNTIL_LISTED));
    };
    let delay = context.settings.status_delay;
    let transition = transition(&view.observed, delay, context.now());
    if record(&context, &view.observed, &transition).await? == Recorded::Truncated {
        return Ok(Action::requeue(REQUEUE_UNTIL_UPGRADED));
    }
    let failure = execute(&context, &view, &transition).await?;
    Ok(finish(&context, &view, &transition, failure))
}

/// Remembers the outcome for the next observation, and says when that is.
fn finish(
    context: &Context,
    view: &RequestView,
    transition: &Transition,
    failure: Option<LastFailure>,
) -> Action {
    let request = &view.observed.request;
    let requeue = match failure {
        Some(_) => transition.requeue_after_failure(),
        None => transition.requeue,
    };
    if transition.ends() {
        context.requests.forget(request);
    } else {
        context.requests.set_last_failure(request, failure);
    }
    match requeue {
        Requeue::After(time) => Action::requeue(time),
        Requeue::OnChange => Action::await_change(),
    }
}
