//! Reconciles databases: a `Postgres` becomes a running cluster, stays one, and ends as its deletion
//! policy says.

mod credentials;
mod database;
mod delete;
pub(crate) mod health;
mod provision;
mod renew;
mod scale;
pub(crate) mod status;
mod user_conf;

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use tracing::debug;

use crate::api::condition::holds;
use crate::api::{Postgres, PostgresOpsRequest, condition};
use crate::cluster::Error;
use crate::controller::Context;
use crate::controller::finalizer;
use crate::controller::outcome::{Interrupt, ReconcileResult};
use crate::controller::postgres::provision::{Extent, Provisioned};
use crate::controller::postgres::renew::Renewed;
use crate::plan::status::database::types::{BLOCKED, HALTED, PAUSED};
use crate::plan::status::database::{DatabaseStatusWriter, PausedBy};

/// How long until the next reconcile while a renewal is under way: servers are asked again.
const REQUEUE_WHILE_RENEWING: Duration = Duration::from_millis(500);

/// How long until the next reconcile while something is pending that is not watched.
const REQUEUE_WHILE_PENDING: Duration = Duration::from_secs(2);

/// How long until the next reconcile while the user has to do something.
const REQUEUE_WHILE_BLOCKED: Duration = Duration::from_secs(10);

/// How long until the next reconcile of a database that is well or paused. A change of a watched
/// object leads to one earlier.
const REQUEUE_WHEN_IDLE: Duration = Duration::from_mins(10);

pub(crate) async fn reconcile(seen: Arc<Postgres>, context: Arc<Context>) -> Result<Action, Error> {
    let _alone = context.lock_database(&seen).await;
    // The watched object may be older than the pause of a request.
    let Some(postgres) = context.refetch(seen.as_ref()).await? else {
        return Ok(Action::await_change());
    };
    let step = if postgres.metadata.deletion_timestamp.is_some() {
        delete::clean_up(&context, &postgres).await
    } else {
        Box::pin(reconcile_live(&context, &postgres)).await
    };
    match step {
        Ok(action) => Ok(action),
        Err(Interrupt::Error(error)) => Err(error),
        Err(Interrupt::Wait(pending)) => {
            debug!(database = postgres.name_any(), %pending, "waiting");
            Ok(Action::requeue(REQUEUE_WHILE_PENDING))
        }
        Err(Interrupt::Blocked(reason, message)) => {
            blocked(&context, &postgres, reason, &message).await?;
            Ok(Action::requeue(REQUEUE_WHILE_BLOCKED))
        }
    }
}

/// Reconciles a database that is not being deleted.
async fn reconcile_live(context: &Context, postgres: &Postgres) -> ReconcileResult<Action> {
    finalizer::claim(context, postgres).await?;
    status::write(context, postgres, DatabaseStatusWriter::started).await?;
    if let Some(words) = abandoned_pause(context, postgres).await? {
        let note = format!("{words}, which has gone or ended: resumed");
        context
            .publish_event(postgres, EventType::Warning, "ResumeDatabase", note)
            .await;
        status::write(context, postgres, |writer| writer.resumed(words)).await?;
        return Ok(Action::requeue(REQUEUE_WHILE_PENDING));
    }
    if holds(postgres.conditions(), PAUSED) {
        return Ok(Action::requeue(REQUEUE_WHEN_IDLE));
    }
    if postgres.spec.halted == Some(true) {
        return delete::halt(context, postgres).await;
    }
    if condition::find(postgres.conditions(), HALTED).is_some() {
        status::write(context, postgres, DatabaseStatusWriter::not_halted).await?;
    }
    let Provisioned {
        database,
        posture,
        unmet,
        extent,
    } = Box::pin(provision::provision(context, postgres)).await?;
    context.update_state(postgres, |state| state.hba_methods = Some(posture.accept));
    let settings = match extent {
        Extent::Applied => Box::pin(database.spread_user_conf(&posture)).await,
        Extent::LeftAlone => Ok(REQUEUE_WHEN_IDLE),
    };
    let next_renewal = match Box::pin(renew::renew(context, postgres, &posture)).await? {
        Renewed::UnderWay => return Ok(Action::requeue(REQUEUE_WHILE_RENEWING)),
        Renewed::GracePeriod(left) => left.clamp(REQUEUE_WHILE_RENEWING, REQUEUE_WHEN_IDLE),
        // Its Certificates are watched. If they do not change by then, it is time to say so.
        Renewed::Issuing(left) => left.max(REQUEUE_WHILE_RENEWING),
        Renewed::Done => REQUEUE_WHEN_IDLE,
    };
    let requeue = settings?.min(next_renewal);
    // Reported last: renewals go on meanwhile.
    if let Some(interrupt) = unmet {
        return Err(interrupt);
    }
    status::done(context, postgres).await?;
    Ok(Action::requeue(requeue))
}

/// The words of a pause that its request has left behind.
async fn abandoned_pause<'a>(
    context: &Context,
    postgres: &'a Postgres,
) -> Result<Option<&'a str>, Error> {
    let Some(paused) = PausedBy::find(postgres.conditions()) else {
        return Ok(None);
    };
    // Asked of the API server: what is watched may be behind, and the operation goes on.
    let request = context
        .get::<PostgresOpsRequest>(&postgres.namespace().unwrap_or_default(), paused.name)
        .await?;
    Ok(paused
        .is_abandoned(request.as_ref())
        .then_some(paused.words))
}

/// Says what is in the way, in the status and, when it is news, in an event.
async fn blocked(
    context: &Context,
    postgres: &Postgres,
    reason: &str,
    message: &str,
) -> Result<(), Error> {
    if condition::message(postgres.conditions(), BLOCKED) == Some(message) {
        return Ok(());
    }
    status::write(context, postgres, |writer| writer.blocked(reason, message)).await?;
    context
        .publish_event(postgres, EventType::Warning, reason, message)
        .await;
    Ok(())
}
