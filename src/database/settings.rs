//! The state of the settings in a server's configuration files.

use std::collections::BTreeSet;

use postgres_protocol::escape::escape_literal;
use serde::Deserialize;

use crate::database::ProbeError;
use crate::database::session::Session;

/// The names of settings, without their values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PendingSettings {
    /// Changed settings that wait for a restart.
    pub pending: BTreeSet<String>,
    /// Settings of the file that the server refuses.
    pub refused: BTreeSet<String>,
}

/// The file is `$FILE`. PostgreSQL also counts settings that wait for a restart as errors of the
/// file.
const SETTINGS: &str = "
    select pg_catalog.json_build_object(
        'pending', array(select name from pg_catalog.pg_settings where pending_restart limit 100),
        'refused', array(select name from pg_catalog.pg_file_settings
                         where error is not null and name is not null and sourcefile = $FILE::pg_catalog.text limit 100))";

/// Queries the state of the settings, and the refused ones of this file. The session's role must be
/// a superuser.
pub async fn settings(session: &Session, file: &str) -> Result<PendingSettings, ProbeError> {
    let PendingSettings { pending, refused } = session
        .ask(&SETTINGS.replace("$FILE", &escape_literal(file)))
        .await?;
    Ok(PendingSettings {
        refused: refused.difference(&pending).cloned().collect(),
        pending,
    })
}
