//! The superuser of a database: its Secret and its name.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use crate::api::Postgres;
use crate::controller::Context;
use crate::controller::login;
use crate::controller::outcome::ReconcileResult;

/// The superuser of a database whose Secret names none.
const DEFAULT_SUPERUSER: &str = "postgres";

/// The name of the superuser's Secret. It is known before the spec can be parsed.
pub(crate) fn auth_secret_name(postgres: &Postgres) -> String {
    postgres.spec.auth_secret_of(&postgres.name_any())
}

/// The superuser's Secret, if it exists.
pub(crate) async fn fetch_auth_secret(
    context: &Context,
    postgres: &Postgres,
) -> ReconcileResult<Option<Secret>> {
    let namespace = postgres.namespace().unwrap_or_default();
    let name = auth_secret_name(postgres);
    Ok(context.get(&namespace, &name).await?)
}

/// The superuser's name, which is in the client certificate: from the Secret, else as it was when
/// pgrekey last logged in.
pub(crate) fn superuser_name(
    context: &Context,
    postgres: &Postgres,
    secret: Option<&Secret>,
) -> String {
    let written = secret.and_then(|secret| login::read_key(secret, "username").ok());
    written
        .or_else(|| context.state(postgres).login.map(|login| login.username))
        .unwrap_or_else(|| DEFAULT_SUPERUSER.to_owned())
}
