//! What a server makes of the settings in its files.

use std::collections::BTreeSet;

use postgres_protocol::escape::escape_literal;
use serde::Deserialize;

use crate::database::ProbeError;
use crate::database::session::Session;

/// What a server makes of the settings in its files: names, and no values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PendingSettings {
    /// What has changed there and waits for a restart.
    pub pending: BTreeSet<String>,
    /// What it does not take of the file that was asked about.
    pub refused: BTreeSet<String>,
}

/// The file is `$FILE`. What waits for a restart counts as an error of its file too.
const SETTINGS: &str = "
    select pg_catalog.json_build_object(
        'pending', array(select name from pg_catalog.pg_settings where pending_restart limit 100),
        'refused', array(select name from pg_catalog.pg_file_settings
                         where error is not null and name is not null and sourcefile = $FILE::pg_catalog.text limit 100))";

/// Asks a server what it makes of its settings, those in this file among them. The role that asks
/// must be a superuser.
pub async fn settings(session: &Session, file: &str) -> Result<PendingSettings, ProbeError> {
    let PendingSettings { pending, refused } = session
        .ask(&SETTINGS.replace("$FILE", &escape_literal(file)))
        .await?;
    Ok(PendingSettings {
        refused: refused.difference(&pending).cloned().collect(),
        pending,
    })
}
