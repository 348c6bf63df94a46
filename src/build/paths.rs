//! Where things are in a pod: volumes, the folders where they are mounted, and files.

/// Folder of the data volume.
pub const DATA: &str = "/var/pv";
/// Folder of `patroni.yml` and the other files of ConfigMap `NAME-patroni`.
pub const CONFIG: &str = "/etc/patroni";
/// Folder of PostgreSQL's socket. PostgreSQL's programs look for it there by default.
pub const SOCKETS: &str = "/var/run/postgresql";
/// Folder of the settings that come from a Secret.
pub const USER_CONF_FOLDER: &str = "/etc/user-conf";
/// Folder of the user's init scripts.
pub const INIT_SCRIPTS: &str = "/var/initdb";

/// Name of the volume with the files of ConfigMap `NAME-patroni`.
pub(super) const CONFIG_VOLUME: &str = "patroni";
/// Name of the volume with certificates.
pub const CERTS_VOLUME: &str = "certs";
/// Name of the volume with the settings that come from a Secret.
pub const USER_CONF_VOLUME: &str = "user-conf";
/// Name of the volume with the user's init scripts.
pub(super) const INIT_VOLUME: &str = "initial-script";
/// Name of the volume with PostgreSQL's socket.
pub(super) const SOCKETS_VOLUME: &str = "run";

/// Key of Patroni's local configuration in ConfigMap `NAME-patroni`.
pub const PATRONI_YML: &str = "patroni.yml";
/// Key of the script that runs the user's scripts.
pub(super) const INIT_SH: &str = "init.sh";
/// Key of the script that runs `initdb`.
pub(super) const INITDB_SH: &str = "initdb.sh";
/// Key of the file that PostgreSQL's `postgresql.conf` includes.
pub(super) const INCLUDED: &str = "postgresql.conf";
/// Key of the exporter's own configuration.
pub(super) const WEB_YML: &str = "web.yml";
