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

/// `base-suffix` in 63 characters, as KubeDB makes it: the base is cut, so that the suffix
/// survives.
#[must_use]
pub fn with_suffix(base: &str, suffix: &str) -> String {
    let room = 63_usize.saturating_sub(suffix.len() + 1);
    let base = base
        .char_indices()
        .nth(room)
        .map_or(base, |(end, _)| &base[..end]);
    format!("{base}-{suffix}").trim_matches('-').to_owned()
}

/// The Certificate of an alias, and its Secret where the user names none: `NAME-server-cert`.
///
/// Of a name with more than 41 characters the end may be cut off, so two databases may want the
/// same one.
#[must_use]
pub fn certificate(database: &str, alias: Alias) -> String {
    with_suffix(database, &format!("{}-cert", alias.as_str()))
}

/// The Secret with the superuser's password, where the user names none.
#[must_use]
pub fn auth_secret(database: &str) -> String {
    with_suffix(database, "auth")
}

/// The Secret with the material that the pods serve.
#[must_use]
pub fn tls_secret(database: &str) -> String {
    with_suffix(database, "tls")
}

/// The Secret with the PostgreSQL settings that the pods include.
#[must_use]
pub fn user_conf_secret(database: &str) -> String {
    with_suffix(database, "user-conf")
}

/// The ConfigMap with `patroni.yml`, and the Secret with the credentials of Patroni's REST API.
#[must_use]
pub fn patroni(database: &str) -> String {
    with_suffix(database, "patroni")
}

/// The longest name of a database, in characters.
///
/// Its pods carry the label `controller-revision-hash` with the value `NAME-` and a hash of ten
/// characters, and a label's value ends at 63. Of what is derived otherwise only the names of
/// certificates are longer, and cut.
pub const MAX_DATABASE: usize = 52;

/// The longest name of a request, in characters: it is a label's value (`ops.kubedb.com/name`) on
/// what the request makes.
pub const MAX_REQUEST: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_before_its_suffix() {
        assert_eq!(certificate("pg", Alias::Server), "pg-server-cert");
        let long = "d".repeat(MAX_DATABASE);
        let name = certificate(&long, Alias::MetricsExporter);
        assert_eq!(
            (name.len(), name.ends_with("d-metrics-exporter-cert")),
            (63, true)
        );
        assert_eq!(
            with_suffix(&"d".repeat(58), "pods"),
            format!("{}-pods", "d".repeat(58))
        );
    }

    #[test]
    fn only_names_of_certificates_are_ever_cut() {
        let long = "d".repeat(MAX_DATABASE);
        for suffix in [
            "auth",
            "tls",
            "ca",
            "pods",
            "standby",
            "stats",
            "patroni",
            "user-conf",
        ] {
            assert_eq!(with_suffix(&long, suffix), format!("{long}-{suffix}"));
        }
        for alias in Alias::ALL {
            let uncut = "d".repeat(41);
            assert_eq!(
                certificate(&uncut, alias),
                format!("{uncut}-{}-cert", alias.as_str())
            );
        }
    }
}
