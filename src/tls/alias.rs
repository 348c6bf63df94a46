//! The certificates of a database, and the names that go with them.

/// Which certificate of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alias {
    /// What servers serve.
    Server,
    /// What the cluster's own clients present.
    Client,
    /// What the metrics exporter serves.
    MetricsExporter,
}

impl Alias {
    /// Every certificate.
    pub const ALL: [Self; 3] = [Self::Server, Self::Client, Self::MetricsExporter];

    /// The alias as a spec writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::MetricsExporter => "metrics-exporter",
        }
    }

    /// The certificate that a spec calls so, if there is one.
    #[must_use]
    pub fn parse(alias: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == alias)
    }

    /// Name of the Certificate, and of its Secret if the spec names none: `NAME-server-cert`.
    #[must_use]
    pub fn certificate_name(self, database: &str) -> String {
        with_suffix(database, &format!("{}-cert", self.as_str()))
    }
}

/// `base-suffix` in 63 characters, as KubeDB makes it: the base is cut, so that the suffix survives.
#[must_use]
pub fn with_suffix(base: &str, suffix: &str) -> String {
    let room = 63_usize.saturating_sub(suffix.len() + 1);
    let base = base.char_indices().nth(room).map_or(base, |(end, _)| &base[..end]);
    format!("{base}-{suffix}").trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_read_as_it_is_written() {
        for alias in Alias::ALL {
            assert_eq!(Alias::parse(alias.as_str()), Some(alias));
        }
        assert_eq!(Alias::parse("archiver"), None);
    }

    #[test]
    fn a_long_name_is_cut_before_its_suffix() {
        assert_eq!(Alias::Server.certificate_name("pg"), "pg-server-cert");
        let long = "d".repeat(52);
        let name = Alias::MetricsExporter.certificate_name(&long);
        assert_eq!((name.len(), name.ends_with("d-metrics-exporter-cert")), (63, true));
        assert_eq!(with_suffix(&"d".repeat(58), "pods"), format!("{}-pods", "d".repeat(58)));
    }
}
