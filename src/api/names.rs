//! The names in a database that are fixed, and those that follow from its own.

/// Name of the container that runs PostgreSQL.
pub const POSTGRES: &str = "postgres";

/// Name of the container that answers scrapes.
pub const EXPORTER: &str = "exporter";

/// Name of the port at which it does.
pub const METRICS_PORT: &str = "prom-http";

/// The certificates of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alias {
    /// What the database serves.
    Server,
    /// What the database's own clients, such as standbys, present.
    Client,
    /// What the metrics exporter serves.
    MetricsExporter,
}

impl Alias {
    /// Every certificate of a database, in the order in which they are listed to users.
    pub const ALL: [Self; 3] = [Self::Server, Self::Client, Self::MetricsExporter];

    /// The alias as the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::MetricsExporter => "metrics-exporter",
        }
    }

    /// The alias that the API writes so, if there is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alias| alias.as_str() == text)
    }
}

/// The Certificate of an alias, and its Secret where the user names none: `NAME-server-cert`.
#[must_use]
pub fn certificate(database: &str, alias: Alias) -> String {
    format!("{database}-{}-cert", alias.as_str())
}

/// The Secret with the superuser's password, where the user names none.
#[must_use]
pub fn auth_secret(database: &str) -> String {
    format!("{database}-auth")
}

/// The Secret with the material that the pods serve.
#[must_use]
pub fn tls_secret(database: &str) -> String {
    format!("{database}-tls")
}

/// The longest name of a database, in characters.
///
/// Its pods carry the label `controller-revision-hash` with the value `NAME-` and a hash of ten characters, and a label's
/// value ends at 63. Everything else that is derived (`NAME-standby`, `NAME-pods`) is shorter.
pub const MAX_DATABASE: usize = 52;

/// The longest name of a request, in characters: it is a label's value (`ops.kubedb.com/name`) on what the request makes.
pub const MAX_REQUEST: usize = 63;
