//! What a server makes of the settings in its files.

use std::collections::BTreeSet;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::report::{failed, get};
use super::session::Session;
use super::{Silence, bounded};

/// What a server makes of the settings in its files: names, and no values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What has changed there and waits for a restart.
    pub pending: BTreeSet<String>,
    /// What it does not take of the file that was asked about.
    pub refused: BTreeSet<String>,
}

const PENDING: &str = "
    select name::pg_catalog.text from pg_catalog.pg_settings where pending_restart limit 100";

/// What waits for a restart counts as an error here too.
const REFUSED: &str = "
    select name::pg_catalog.text from pg_catalog.pg_file_settings
    where error is not null and name is not null and sourcefile operator(pg_catalog.=) $1::pg_catalog.text limit 100";

/// Asks a server what it makes of its settings, those in this file among them. The role that asks must be a superuser.
pub async fn settings(session: &Session, file: &str) -> Result<Settings, Silence> {
    bounded(async {
        let about: [&(dyn ToSql + Sync); 1] = [&file];
        let (pending, refused) =
            tokio::try_join!(session.client.query(PENDING, &[]), session.client.query(REFUSED, &about))
                .map_err(|e| failed(&e))?;
        let pending = names(&pending)?;
        Ok(Settings { refused: names(&refused)?.difference(&pending).cloned().collect(), pending })
    })
    .await
}

fn names(rows: &[Row]) -> Result<BTreeSet<String>, Silence> {
    rows.iter().map(|row| get(row, 0)).collect()
}
