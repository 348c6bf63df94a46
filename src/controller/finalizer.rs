//! The finalizer of a database.

use kube::ResourceExt;

use crate::api::Postgres;
use crate::api::annotations::POSTGRES_FINALIZER;
use crate::cluster::Error;
use crate::cluster::finalizer;
use crate::cluster::finalizer::Finalizer;
use crate::controller::Context;

/// Adds the finalizer, before any object is made that must be deleted at the end.
pub(crate) async fn claim(context: &Context, postgres: &Postgres) -> Result<(), Error> {
    if is_held(postgres) {
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

/// Removes the finalizer, so that the API server deletes the database.
pub(crate) async fn release(context: &Context, postgres: &Postgres) -> Result<(), Error> {
    finalizer::put(
        &context.client,
        postgres,
        POSTGRES_FINALIZER,
        Finalizer::Release,
    )
    .await
}

/// Whether the database has the finalizer.
pub(crate) fn is_held(postgres: &Postgres) -> bool {
    postgres
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == POSTGRES_FINALIZER)
}
