//! Who the superuser of a database is.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use crate::api::Postgres;
use crate::controller::Context;
use crate::controller::login;
use crate::controller::outcome::ReconcileResult;

/// The superuser of a database that names none.
const SUPERUSER: &str = "postgres";

/// The name of the Secret of the superuser. A database has one before it is known whether it can be
/// built.
pub(crate) fn auth_secret(postgres: &Postgres) -> String {
    postgres.spec.auth_secret_of(&postgres.name_any())
}

/// The superuser's name, as far as it is known: it is in the client certificate.
pub(crate) fn superuser(context: &Context, postgres: &Postgres, secret: Option<&Secret>) -> String {
    let written = secret.and_then(|secret| login::text(secret, "username").ok());
    written
        .or_else(|| context.state(postgres).login.map(|login| login.username))
        .unwrap_or_else(|| SUPERUSER.to_owned())
}

/// The Secret of the superuser, if there is one.
pub(crate) async fn auth(
    context: &Context,
    postgres: &Postgres,
) -> ReconcileResult<Option<Secret>> {
    Ok(context
        .get(
            &postgres.namespace().unwrap_or_default(),
            &auth_secret(postgres),
        )
        .await?)
}
