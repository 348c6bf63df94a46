//! What a server says about itself, in SQL.

use std::collections::BTreeMap;
use std::fmt;

use postgres_protocol::password::{md5, scram_sha_256};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::session::Session;
use super::{Silence, bounded, plain_words};
use crate::tls::Hash;

/// A position in the write-ahead log, in bytes since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

/// What a server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// The timeline that it is on; it grows with each promotion.
    pub timeline: i32,
    /// Written, on a primary; replayed, on a standby.
    pub position: Lsn,
    /// Setting `ssl`, as loaded.
    pub ssl: bool,
    /// The lines of `pg_hba.conf`, in order, or why a line cannot be read.
    pub hba: Vec<HbaLine>,
    /// The standbys that stream from it, by application name, which is the pod's.
    pub standbys: BTreeMap<String, Stream>,
}

/// One line of `pg_hba.conf`, as the server reads it: what is in the file, not what is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HbaLine {
    /// `local`, `host`, `hostssl`, ...
    pub type_: String,
    /// Databases.
    pub databases: Vec<String>,
    /// Roles.
    pub users: Vec<String>,
    /// Address; empty for `local`.
    pub address: String,
    /// Method, such as `scram-sha-256`.
    pub method: String,
    /// Options, such as `clientcert=verify-full`.
    pub options: Vec<String>,
    /// Why the line cannot be read. The server keeps what it had loaded before.
    pub error: Option<String>,
}

/// As it is written in `pg_hba.conf`.
impl fmt::Display for HbaLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { type_, databases, users, address, method, options, error: _ } = self;
        let words = [type_.clone(), databases.join(","), users.join(","), address.clone(), method.clone()];
        let words: Vec<String> = words.into_iter().chain(options.clone()).filter(|word| !word.is_empty()).collect();
        f.write_str(&words.join(" "))
    }
}

/// How one standby streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// `streaming` when it is up to date with what is sent; `startup`, `catchup`, `backup` before.
    pub state: String,
    /// Replayed.
    pub replayed: Lsn,
    /// Whether the connection is encrypted.
    pub ssl: bool,
    /// Subject of the client certificate that it was opened with. A connection keeps the one it began with.
    pub client_dn: Option<String>,
}

/// Positions as numbers: `pg_lsn - '0/0'` is a `numeric`, and fits a `bigint` for the next 8 exabytes.
const SELF: &str = "
    select pg_is_in_recovery(),
           coalesce((select received_tli from pg_stat_wal_receiver), (pg_control_checkpoint()).timeline_id),
           ((case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end) - '0/0')::bigint,
           current_setting('ssl')::boolean";

const HBA: &str = "
    select coalesce(type, ''), coalesce(database, '{}'), coalesce(user_name, '{}'), coalesce(address, ''),
           coalesce(auth_method, ''), coalesce(options, '{}'), error
    from pg_hba_file_rules order by line_number";

const STANDBYS: &str = "
    select application_name, coalesce(state, ''), coalesce((replay_lsn - '0/0')::bigint, 0), coalesce(ssl, false), client_dn
    from pg_stat_replication left join pg_stat_ssl using (pid)";

/// Asks a server for everything that the loops want to know.
pub async fn report(session: &Session) -> Result<Report, Silence> {
    bounded(async {
        // Sent at once: the client pipelines them.
        let (about, hba, standbys) = tokio::try_join!(
            session.client.query_one(SELF, &[]),
            session.client.query(HBA, &[]),
            session.client.query(STANDBYS, &[]),
        )
        .map_err(|e| failed(&e))?;
        Ok(Report {
            in_recovery: get(&about, 0)?,
            timeline: get(&about, 1)?,
            position: lsn(get::<Option<i64>>(&about, 2)?.unwrap_or_default()),
            ssl: get(&about, 3)?,
            hba: hba.iter().map(hba_line).collect::<Result<_, _>>()?,
            standbys: standbys.iter().map(|row| Ok((get(row, 0)?, stream(row)?))).collect::<Result<_, _>>()?,
        })
    })
    .await
}

fn hba_line(row: &Row) -> Result<HbaLine, Silence> {
    Ok(HbaLine {
        type_: get(row, 0)?,
        databases: get(row, 1)?,
        users: get(row, 2)?,
        address: get(row, 3)?,
        method: get(row, 4)?,
        options: get(row, 5)?,
        error: get(row, 6)?,
    })
}

fn stream(row: &Row) -> Result<Stream, Silence> {
    Ok(Stream { state: get(row, 1)?, replayed: lsn(get(row, 2)?), ssl: get(row, 3)?, client_dn: get(row, 4)? })
}

/// What a server says about the TLS of its pod: what it mounts, what it has loaded, how it dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// SHA-256 (hex) of the files at the paths that were asked about, as they are now; a missing file is not in the map.
    pub files: BTreeMap<String, String>,
    /// Settings were read after the last of these files was written. Files tell their time in whole seconds, so what was read
    /// within the same second does not count.
    pub loaded: bool,
    /// How it dials its primary, without secrets; empty on a primary.
    pub primary_conninfo: String,
}

const MOUNTED: &str = "
    select path, encode(sha256(content), 'hex'), stat.modification + interval '1 second' <= pg_conf_load_time()
    from unnest($1::text[]) as path,
         lateral pg_read_binary_file(path, 0, 1048576, true) as content,
         lateral pg_stat_file(path, true) as stat
    where content is not null";

const CONNINFO: &str = "
    select case when pg_is_in_recovery() then coalesce(current_setting('primary_conninfo', true), '') else '' end";

/// Asks a server what it mounts at these paths, and how it dials. `loaded` speaks of the paths in `loads` alone.
pub async fn mounted(session: &Session, paths: &[&str], loads: &[&str]) -> Result<Mounted, Silence> {
    bounded(async {
        let about: [&(dyn ToSql + Sync); 1] = [&paths];
        let (files, dials) =
            tokio::try_join!(session.client.query(MOUNTED, &about), session.client.query_one(CONNINFO, &[]))
                .map_err(|e| failed(&e))?;
        let mut mounted = Mounted { files: BTreeMap::new(), loaded: true, primary_conninfo: get(&dials, 0)? };
        for row in &files {
            let path: String = get(row, 0)?;
            mounted.loaded &= !loads.contains(&path.as_str()) || get(row, 2)?;
            mounted.files.insert(path, get(row, 1)?);
        }
        Ok(mounted)
    })
    .await
}

/// How passwords are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passwords {
    /// That of the role that asks: as MD5; else as SCRAM, or not at all.
    pub own_is_md5: bool,
    /// The other roles that may log in and whose passwords are stored as MD5.
    pub md5_roles: Vec<String>,
}

const PASSWORDS: &str = "
    select coalesce(bool_or(rolpassword like 'md5%') filter (where rolname = current_user), false),
           coalesce(array_agg(rolname::text order by rolname)
                    filter (where rolpassword like 'md5%' and rolcanlogin and rolname <> current_user), '{}')
    from pg_authid";

/// Asks a server how passwords are stored. The role that asks must be a superuser.
pub async fn passwords(session: &Session) -> Result<Passwords, Silence> {
    bounded(async {
        let row = session.client.query_one(PASSWORDS, &[]).await.map_err(|e| failed(&e))?;
        Ok(Passwords { own_is_md5: get(&row, 0)?, md5_roles: get(&row, 1)? })
    })
    .await
}

/// Keeps what this session does from the server's log: of all that a server writes there about a statement, whether because of
/// `log_statement`, of a duration or of an error, nothing is as bad as a panic (PostgreSQL documentation, "When To Log").
const QUIETLY: &str = "set log_min_messages = 'panic'";

/// Stores a role's password anew, in this way. It is hashed here, and the session logs nothing from then on: an MD5 hash
/// is as good as the password to whoever reads it. The role that asks must be a superuser.
pub async fn store_password(session: &Session, role: &str, password: &SecretString, way: Hash) -> Result<(), Silence> {
    let password = password.expose_secret().as_bytes();
    let hash = match way {
        Hash::Md5 => md5(password, role),
        Hash::Scram => scram_sha_256(password),
    };
    let statement = format!("alter role \"{}\" password '{}'", role.replace('"', "\"\""), hash.replace('\'', "''"));
    bounded(async {
        // On its own: a batch is logged as a whole, before any of it is done.
        session.client.batch_execute(QUIETLY).await.map_err(|e| failed(&e))?;
        session.client.batch_execute(&statement).await.map_err(|e| failed(&e))
    })
    .await
}

/// Re-reads settings, `pg_hba.conf` and the certificate files. Patroni's own reload does not, when only the content of a
/// certificate file has changed.
pub async fn reload(session: &Session) -> Result<(), Silence> {
    bounded(async {
        session.client.query_one("select pg_reload_conf()", &[]).await.map(|_| ()).map_err(|e| failed(&e))
    })
    .await
}

/// The physical replication slots that nobody uses right now, by name.
pub async fn idle_slots(session: &Session) -> Result<Vec<String>, Silence> {
    const SLOTS: &str = "select slot_name::text from pg_replication_slots where slot_type = 'physical' and not active";
    bounded(async {
        let rows = session.client.query(SLOTS, &[]).await.map_err(|e| failed(&e))?;
        rows.iter().map(|row| get(row, 0)).collect()
    })
    .await
}

/// Writes to a table of pgrekey's own and forgets it: whether the server takes writes.
pub async fn write_check(session: &Session) -> Result<(), Silence> {
    const WRITE: &str = "
        create temporary table pgrekey_write_check (at timestamptz default now()) on commit drop;
        insert into pgrekey_write_check default values;
        select pg_current_xact_id();";
    bounded(async { session.client.batch_execute(WRITE).await.map_err(|e| failed(&e)) }).await
}

pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Silence> {
    row.try_get(column).map_err(|e| failed(&e))
}

fn lsn(bytes: i64) -> Lsn {
    Lsn(bytes.unsigned_abs())
}

pub(super) fn failed(error: &tokio_postgres::Error) -> Silence {
    Silence::Query(plain_words(error))
}
