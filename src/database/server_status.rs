//! The state of a server, as it reports it in SQL.
//!
//! Every session has only `pg_catalog` on its search path, so operators are PostgreSQL's own. All
//! functions and tables are named with their schema, and arguments with their declared types:
//! objects that users created are never called.

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

/// The state of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// The timeline that it is on; it grows with each promotion.
    pub timeline: i32,
    /// The position in the write-ahead log: written on a primary, replayed on a standby.
    pub position: Lsn,
    /// Setting `ssl`, as loaded.
    pub ssl: bool,
    /// The lines of `pg_hba.conf`, in order, each with its error if it has one.
    pub hba: Vec<HbaLine>,
    /// The standbys that stream from this server, by application name, which is the pod's name.
    pub standbys: BTreeMap<String, StatReplication>,
}

/// One line of `pg_hba.conf` as the server parses the file, which may not be loaded yet.
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
    /// Why the line is invalid. The server then keeps the lines that it had loaded before.
    pub error: Option<ServerText>,
}

/// The line as in `pg_hba.conf`.
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

/// The state of one standby's replication.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct StatReplication {
    /// `streaming` once it has caught up; `startup`, `catchup` or `backup` before.
    pub state: String,
    /// The replayed position.
    pub replayed: Lsn,
    /// Whether the connection is encrypted.
    pub ssl: bool,
    /// Subject of the client certificate. A connection keeps the certificate with which it began.
    pub client_dn: Option<String>,
}

/// Positions are numbers of bytes. The limits on lines and standbys are far above those of our
/// databases.
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

/// The row of [`REPORT`]: empty lists are null.
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

/// Queries the state of a server.
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

/// The files that a server mounts, whether it has loaded them, and its `primary_conninfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedFiles {
    /// SHA-256 (hex) of the current files, by path. Missing files are not in the map.
    pub files: BTreeMap<String, String>,
    /// Whether the server reloaded after the last change of the files. File times are whole
    /// seconds, so a reload within the same second does not count.
    pub loaded: bool,
    /// The setting `primary_conninfo`, without secrets. Empty on a primary.
    pub primary_conninfo: String,
}

/// The files at `$PATHS` and `primary_conninfo`, in one query.
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

/// The row of [`MOUNTED`].
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

/// Queries the files at these paths and `primary_conninfo`. [`MountedFiles::loaded`] is about the
/// paths in `loads` only.
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

/// The hashes of the stored passwords.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Passwords {
    /// Whether the password of the session's role is stored as MD5. Else it is stored as SCRAM, or
    /// there is none.
    pub own_is_md5: bool,
    /// The other roles with LOGIN whose passwords are stored as MD5, at most a hundred.
    pub md5_roles: Vec<ServerText>,
}

/// A hundred roles are enough for a message to people.
const PASSWORDS: &str = "
    select pg_catalog.json_build_object(
        'own_is_md5', exists (select from pg_catalog.pg_authid
                              where rolname = current_user and pg_catalog.starts_with(rolpassword, 'md5'::pg_catalog.text)),
        'md5_roles', array(select rolname::pg_catalog.text from pg_catalog.pg_authid
                           where rolname <> current_user and rolcanlogin
                                 and pg_catalog.starts_with(rolpassword, 'md5'::pg_catalog.text)
                           order by rolname limit 100))";

/// Queries the hashes of the stored passwords. The session's role must be a superuser.
pub async fn passwords(session: &Session) -> Result<Passwords, ProbeError> {
    session.ask(PASSWORDS).await
}

/// Hides the statements of this session from other sessions and from the server's log: only a panic
/// would log them (PostgreSQL documentation, "When To Log").
const QUIETLY: &str = "set track_activities = off; set log_min_messages = 'panic'; set default_transaction_read_only = off";

/// Stores a role's password again, with this hash, which is computed here. Afterwards the session
/// hides its statements and is not read only: an MD5 hash is enough to log in. The session's role
/// must be a superuser.
///
/// No event trigger fires for roles, which all databases share (PostgreSQL documentation, "Event
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
    // A statement of its own: the server shows a batch as a whole before it runs the first part.
    session.run(QUIETLY).await?;
    session
        .run(&format!(
            "alter role {} password {}",
            escape_identifier(role),
            escape_literal(&hash)
        ))
        .await
}

/// Reloads settings, `pg_hba.conf` and the certificate files. Patroni's reload ignores a
/// certificate file of which only the content has changed.
pub async fn reload(session: &Session) -> Result<(), ProbeError> {
    session.run("select pg_catalog.pg_reload_conf()").await
}

/// The names of the physical replication slots without a connected standby.
pub async fn idle_slots(session: &Session) -> Result<Vec<String>, ProbeError> {
    const SLOTS: &str = "
        select pg_catalog.to_json(array(
            select slot_name::pg_catalog.text from pg_catalog.pg_replication_slots
            where slot_type = 'physical' and not active limit 1000))";
    session.ask(SLOTS).await
}

/// The row of the write check.
#[derive(Deserialize)]
struct WriteCheckRow {
    read_only: bool,
}

/// Checks that the server accepts writes: commits a record of a few bytes to the write-ahead log.
///
/// The record is a logical message with prefix `pgrekey`, the smallest record whose commit waits
/// for the disk. Consumers of logical decoding see it in database `postgres` if they ask for
/// messages. PostgreSQL writes it in read-only transactions too, so the default for clients is
/// checked as well: a database that is set to read only accepts no writes.
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
