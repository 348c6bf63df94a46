//! What a server says about itself, in SQL.
//!
//! Every session has `pg_catalog` alone on its search path, so operators are PostgreSQL's own.
//! Everything else is named with its schema all the same, and with the types that it is declared
//! with: what somebody else has put into the database is never found.

use std::collections::BTreeMap;
use std::fmt;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::password::{md5, scram_sha_256};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::database::session::Session;
use crate::database::{ProbeError, ServerText};
use crate::tls::PasswordEncryption;

/// A position in the write-ahead log, in bytes since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Lsn(pub u64);

/// What a server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
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
    pub standbys: BTreeMap<String, StatReplication>,
}

/// One line of `pg_hba.conf`, as the server reads it: what is in the file, not what is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct HbaLine {
    /// `local`, `host`, `hostssl`, ...
    #[serde(rename = "type")]
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
    pub error: Option<ServerText>,
}

/// As it is written in `pg_hba.conf`.
impl fmt::Display for HbaLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            type_,
            databases,
            users,
            address,
            method,
            options,
            error: _,
        } = self;
        let words = [
            type_.clone(),
            databases.join(","),
            users.join(","),
            address.clone(),
            method.clone(),
        ];
        let words: Vec<String> = words
            .into_iter()
            .chain(options.clone())
            .filter(|word| !word.is_empty())
            .collect();
        f.write_str(&words.join(" "))
    }
}

/// How one standby streams.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct StatReplication {
    /// `streaming` when it is up to date with what is sent; `startup`, `catchup`, `backup` before.
    pub state: String,
    /// Replayed.
    pub replayed: Lsn,
    /// Whether the connection is encrypted.
    pub ssl: bool,
    /// Subject of the client certificate that it was opened with. A connection keeps the one it
    /// began with.
    pub client_dn: Option<String>,
}

/// Positions as numbers, bytes. So many lines of `pg_hba.conf` and so many standbys are no database
/// of ours.
const REPORT: &str = "
    select pg_catalog.json_build_object(
        'in_recovery', pg_catalog.pg_is_in_recovery(),
        'timeline', coalesce((select received_tli from pg_catalog.pg_stat_wal_receiver),
                             (pg_catalog.pg_control_checkpoint()).timeline_id),
        'position', pg_catalog.pg_wal_lsn_diff(
            case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
                 else pg_catalog.pg_current_wal_lsn() end, '0/0'::pg_catalog.pg_lsn),
        'ssl', pg_catalog.current_setting('ssl'::pg_catalog.text)::pg_catalog.bool,
        'hba', (select pg_catalog.json_agg(line) from (
            select coalesce(type, '') as type, coalesce(database, '{}') as databases, coalesce(user_name, '{}') as users,
                   coalesce(address, '') as address, coalesce(auth_method, '') as method, coalesce(options, '{}') as options, error
            from pg_catalog.pg_hba_file_rules order by line_number limit 1000) as line),
        'standbys', (select pg_catalog.json_agg(standby) from (
            select application_name as name, coalesce(state, '') as state,
                   coalesce(pg_catalog.pg_wal_lsn_diff(replay_lsn, '0/0'::pg_catalog.pg_lsn), 0) as replayed,
                   coalesce(ssl, false) as ssl, client_dn
            from pg_catalog.pg_stat_replication left join pg_catalog.pg_stat_ssl using (pid) limit 1000) as standby))";

/// [`REPORT`], as it comes: what is empty is null.
#[derive(Deserialize)]
struct ServerStatusRow {
    in_recovery: bool,
    timeline: i32,
    position: Option<Lsn>,
    ssl: bool,
    hba: Option<Vec<HbaLine>>,
    standbys: Option<Vec<StatReplicationRow>>,
}

#[derive(Deserialize)]
struct StatReplicationRow {
    name: String,
    #[serde(flatten)]
    stream: StatReplication,
}

/// Asks a server for everything that the loops want to know.
pub async fn server_status(session: &Session) -> Result<ServerStatus, ProbeError> {
    let ServerStatusRow {
        in_recovery,
        timeline,
        position,
        ssl,
        hba,
        standbys,
    } = session.ask(REPORT).await?;
    Ok(ServerStatus {
        in_recovery,
        timeline,
        position: position.unwrap_or_default(),
        ssl,
        hba: hba.unwrap_or_default(),
        standbys: standbys
            .into_iter()
            .flatten()
            .map(|StatReplicationRow { name, stream }| (name, stream))
            .collect(),
    })
}

/// What a server says about the TLS of its pod: what it mounts, what it has loaded, how it dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedFiles {
    /// SHA-256 (hex) of the files at the paths that were asked about, as they are now; a missing
    /// file is not in the map.
    pub files: BTreeMap<String, String>,
    /// Settings were read after the last of these files was written. Files tell their time in whole
    /// seconds, so what was read within the same second does not count.
    pub loaded: bool,
    /// How it dials its primary, without secrets; empty on a primary.
    pub primary_conninfo: String,
}

/// The files at `$PATHS`, and how it dials. One query about all of it.
const MOUNTED: &str = "
    select pg_catalog.json_build_object(
        'files', (select pg_catalog.json_agg(file) from (
            select path, pg_catalog.encode(pg_catalog.sha256(content), 'hex'::pg_catalog.text) as hash,
                   stat.modification + '1 second'::pg_catalog.interval <= pg_catalog.pg_conf_load_time() as loaded
            from pg_catalog.unnest(array[$PATHS]::pg_catalog.text[]) as path,
                 lateral pg_catalog.pg_read_binary_file(path, 0::pg_catalog.int8, 1048576::pg_catalog.int8, true) as content,
                 lateral pg_catalog.pg_stat_file(path, true) as stat
            where content is not null) as file),
        'primary_conninfo', case when pg_catalog.pg_is_in_recovery()
            then coalesce(pg_catalog.current_setting('primary_conninfo'::pg_catalog.text, true), '') else '' end)";

/// [`MOUNTED`], as it comes.
#[derive(Deserialize)]
struct MountedFilesRow {
    files: Option<Vec<File>>,
    primary_conninfo: String,
}

#[derive(Deserialize)]
struct File {
    path: String,
    hash: String,
    loaded: bool,
}

/// Asks a server what it mounts at these paths, and how it dials. `loaded` speaks of the paths in
/// `loads` alone.
pub async fn mounted_files(
    session: &Session,
    paths: &[&str],
    loads: &[&str],
) -> Result<MountedFiles, ProbeError> {
    let paths: Vec<String> = paths.iter().map(|path| escape_literal(path)).collect();
    let MountedFilesRow {
        files,
        primary_conninfo,
    } = session
        .ask(&MOUNTED.replace("$PATHS", &paths.join(",")))
        .await?;
    let files = files.unwrap_or_default();
    let loaded = files
        .iter()
        .all(|file| file.loaded || !loads.contains(&file.path.as_str()));
    Ok(MountedFiles {
        files: files
            .into_iter()
            .map(|file| (file.path, file.hash))
            .collect(),
        loaded,
        primary_conninfo,
    })
}

/// How passwords are stored.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Passwords {
    /// That of the role that asks: as MD5; else as SCRAM, or not at all.
    pub own_is_md5: bool,
    /// The other roles that may log in and whose passwords are stored as MD5: the first hundred of
    /// them.
    pub md5_roles: Vec<ServerText>,
}

/// Of roles a hundred, to be named to people.
const PASSWORDS: &str = "
    select pg_catalog.json_build_object(
        'own_is_md5', exists (select from pg_catalog.pg_authid
                              where rolname = current_user and pg_catalog.starts_with(rolpassword, 'md5'::pg_catalog.text)),
        'md5_roles', array(select rolname::pg_catalog.text from pg_catalog.pg_authid
                           where rolname <> current_user and rolcanlogin
                                 and pg_catalog.starts_with(rolpassword, 'md5'::pg_catalog.text)
                           order by rolname limit 100))";

/// Asks a server how passwords are stored. The role that asks must be a superuser.
pub async fn passwords(session: &Session) -> Result<Passwords, ProbeError> {
    session.ask(PASSWORDS).await
}

/// Keeps what this session does from whoever may look at other sessions, and from the server's log:
/// of all that a server writes there about a statement nothing is as bad as a panic (PostgreSQL
/// documentation, "When To Log").
const QUIETLY: &str = "set track_activities = off; set log_min_messages = 'panic'; set default_transaction_read_only = off";

/// Stores a role's password anew, in this way. It is hashed here, and the session is quiet and
/// writes from then on: an MD5 hash is as good as the password to whoever reads it. The role that
/// asks must be a superuser.
///
/// No event trigger sees it: roles are shared by all databases (PostgreSQL documentation, "Event
/// Triggers").
pub async fn store_password(
    session: &Session,
    role: &str,
    password: &SecretString,
    way: PasswordEncryption,
) -> Result<(), ProbeError> {
    let password = password.expose_secret().as_bytes();
    let hash = match way {
        PasswordEncryption::Md5 => md5(password, role),
        PasswordEncryption::Scram => scram_sha_256(password),
    };
    // On its own: a batch is shown as a whole, before any of it is done.
    session.run(QUIETLY).await?;
    session
        .run(&format!(
            "alter role {} password {}",
            escape_identifier(role),
            escape_literal(&hash)
        ))
        .await
}

/// Re-reads settings, `pg_hba.conf` and the certificate files. Patroni's own reload does not, when
/// only the content of a certificate file has changed.
pub async fn reload(session: &Session) -> Result<(), ProbeError> {
    session.run("select pg_catalog.pg_reload_conf()").await
}

/// The physical replication slots that nobody uses right now, by name.
pub async fn idle_slots(session: &Session) -> Result<Vec<String>, ProbeError> {
    const SLOTS: &str = "
        select pg_catalog.to_json(array(
            select slot_name::pg_catalog.text from pg_catalog.pg_replication_slots
            where slot_type = 'physical' and not active limit 1000))";
    session.ask(SLOTS).await
}

/// What a server says when it is to write.
#[derive(Deserialize)]
struct WriteCheckRow {
    read_only: bool,
}

/// Whether the server takes writes: it commits a record of a few bytes, in its write-ahead log
/// alone.
///
/// The record is a message for whoever decodes the log of database `postgres` and asks for
/// messages, under the prefix `pgrekey`; there is no smaller one that waits for the disk. That the
/// transaction reads only by default does not keep it from being written, so what every client gets
/// by default is looked at: a database that was set to read only takes no writes, whatever it
/// could.
pub async fn write_check(session: &Session) -> Result<(), ProbeError> {
    const WRITE: &str = "
        select pg_catalog.json_build_object(
            'read_only', (select reset_val from pg_catalog.pg_settings where name = 'default_transaction_read_only')::pg_catalog.bool,
            'at', pg_catalog.pg_logical_emit_message(true, 'pgrekey'::pg_catalog.text, ''::pg_catalog.text))";
    let WriteCheckRow { read_only } = session.ask(WRITE).await?;
    if read_only {
        Err(ProbeError::Query(
            "default_transaction_read_only is on".into(),
        ))
    } else {
        Ok(())
    }
}
