//! The certificates of a database, and the names that go with them.

pub use crate::api::names::Alias;

impl Alias {
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
    fn a_long_name_is_cut_before_its_suffix() {
        assert_eq!(Alias::Server.certificate_name("pg"), "pg-server-cert");
        let long = "d".repeat(52);
        let name = Alias::MetricsExporter.certificate_name(&long);
        assert_eq!((name.len(), name.ends_with("d-metrics-exporter-cert")), (63, true));
        assert_eq!(with_suffix(&"d".repeat(58), "pods"), format!("{}-pods", "d".repeat(58)));
    }
}
