//! The loop of the databases: a `Postgres` becomes a running cluster, stays one, and goes as its
//! owner wants it to go.
pub(crate) mod credentials;
pub(crate) mod delete;
pub(crate) mod health;
pub(crate) mod provision;
pub(crate) mod renew;
pub(crate) mod scale;
pub(crate) mod status;
pub(crate) mod user_conf;

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use tracing::debug;

use crate::api::annotations::POSTGRES_FINALIZER;
use crate::api::condition::holds;
use crate::api::{Postgres, PostgresOpsRequest, condition};
use crate::cluster::Error;
use crate::cluster::finalizer;
use crate::cluster::finalizer::Finalizer;
use crate::controller::Context;
use crate::controller::postgres::renew::Renewed;
use crate::plan::status::database::types::{BLOCKED, HALTED, PAUSED};
use crate::plan::status::database::{DatabaseStatusWriter, PausedBy};

/// How long until a database is looked at again whose servers are waited for.
const AT_ONCE: Duration = Duration::from_millis(500);

/// How long until a database is looked at again that waits for something nobody is told of.
const SOON: Duration = Duration::from_secs(2);

/// How long until a database is looked at again in which something is in the way.
const LATER: Duration = Duration::from_secs(10);

/// How long until a database is looked at again in which all is well, or which is paused: what is
/// watched says by itself when it changes.
const RARELY: Duration = Duration::from_mins(10);

/// Why a database is not yet what it should be.
#[derive(Debug)]
pub(crate) enum Interrupt {
    /// The world did not answer.
    Error(Error),
    /// Something must happen first, and it will.
    Wait(&'static str),
    /// Somebody has to do something first: reason and message.
    Blocked(&'static str, String),
}

impl From<Error> for Interrupt {
    fn from(error: Error) -> Self {
        match error {
            Error::InTheWay(object) => Self::Blocked("ObjectInTheWay", object.to_string()),
            Error::Refused { .. } => Self::Blocked("Refused", error.to_string()),
            Error::UnknownKind(_) => Self::Blocked("KindUnknown", error.to_string()),
            error => Self::Error(error),
        }
    }
}

/// What a step of the loop gives, or why it does not.
pub(crate) type ReconcileResult<T> = Result<T, Interrupt>;

pub(crate) async fn reconcile(seen: Arc<Postgres>, context: Arc<Context>) -> Result<Action, Error> {
    let _alone = context.lock_database(&seen).await;
    // What was seen may be from before somebody paused the database.
    let Some(postgres) = context.refetch(seen.as_ref()).await? else {
        return Ok(Action::await_change());
    };
    let step = if postgres.metadata.deletion_timestamp.is_some() {
        delete::clean_up(&context, &postgres).await
    } else {
        Box::pin(live(&context, &postgres)).await
    };
    match step {
        Ok(action) => Ok(action),
        Err(Interrupt::Error(error)) => Err(error),
        Err(Interrupt::Wait(what)) => {
            debug!(database = postgres.name_any(), what, "waiting");
            Ok(Action::requeue(SOON))
        }
        Err(Interrupt::Blocked(reason, message)) => {
            blocked(&context, &postgres, reason, &message).await?;
            Ok(Action::requeue(LATER))
        }
    }
}

/// The life of a database, but for its end.
async fn live(context: &Context, postgres: &Postgres) -> ReconcileResult<Action> {
    claim(context, postgres).await?;
    status::write(context, postgres, DatabaseStatusWriter::started).await?;
    let conditions = conditions(postgres);
    if let Some(words) = abandoned_pause(context, postgres).await? {
        let note = format!("{words}, which has gone or ended: resumed");
        context
            .publish_event(postgres, EventType::Warning, "ResumeDatabase", note)
            .await;
        status::write(context, postgres, |writer| writer.resumed(words)).await?;
        return Ok(Action::requeue(SOON));
    }
    if holds(conditions, PAUSED) {
        return Ok(Action::requeue(RARELY));
    }
    if postgres.spec.halted == Some(true) {
        return delete::halt(context, postgres).await;
    }
    if condition::find(conditions, HALTED).is_some() {
        status::write(context, postgres, DatabaseStatusWriter::not_halted).await?;
    }
    let provisioned = Box::pin(provision::provision(context, postgres)).await?;
    context.update_state(postgres, |memory| {
        memory.hba_methods = Some(provisioned.posture.accept)
    });
    let taken = if provisioned.is_built {
        Box::pin(user_conf::spread(context, postgres, &provisioned)).await
    } else {
        Ok(RARELY)
    };
    let until = match Box::pin(renew::renew(context, postgres, &provisioned.posture)).await? {
        Renewed::UnderWay => return Ok(Action::requeue(AT_ONCE)),
        Renewed::Settles(time) => time.clamp(AT_ONCE, RARELY),
        Renewed::Done => RARELY,
    };
    let until = taken?.min(until);
    // Renewals go on meanwhile.
    if let Some(stop) = provisioned.unmet {
        return Err(stop);
    }
    status::done(context, postgres).await?;
    Ok(Action::requeue(until))
}

/// The words of a pause that its request has left behind.
async fn abandoned_pause<'a>(
    context: &Context,
    postgres: &'a Postgres,
) -> Result<Option<&'a str>, Error> {
    let Some(paused) = PausedBy::find(conditions(postgres)) else {
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

pub(crate) fn conditions(postgres: &Postgres) -> &[condition::Condition] {
    postgres
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default()
}

/// Puts our finalizer on, first of all: what is made from here on is dealt with at the end.
async fn claim(context: &Context, postgres: &Postgres) -> Result<(), Error> {
    if postgres
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == POSTGRES_FINALIZER)
    {
        return Ok(());
    }
    finalizer::put(
        &context.client,
        postgres,
        POSTGRES_FINALIZER,
        Finalizer::Hold,
    )
    .await
}

/// Takes our finalizer off: the API server may forget the database.
pub(crate) async fn release(context: &Context, postgres: &Postgres) -> Result<(), Error> {
    finalizer::put(
        &context.client,
        postgres,
        POSTGRES_FINALIZER,
        Finalizer::Release,
    )
    .await
}

/// Says what is in the way, in the status and, when it is news, in an event.
async fn blocked(
    context: &Context,
    postgres: &Postgres,
    reason: &str,
    message: &str,
) -> Result<(), Error> {
    let known = condition::find(conditions(postgres), BLOCKED)
        .and_then(|condition| condition.message.as_deref());
    if known == Some(message) {
        return Ok(());
    }
    status::write(context, postgres, |writer| writer.blocked(reason, message)).await?;
    context
        .publish_event(postgres, EventType::Warning, reason, message)
        .await;
    Ok(())
}
