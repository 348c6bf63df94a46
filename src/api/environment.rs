//! The environment variables of the pods that are pgrekey's.

/// Which server the exporter looks at.
pub const DATA_SOURCE: &str = "DATA_SOURCE_NAME";

/// The variables that pgrekey sets, and the one that says where data would be, had Patroni not been
/// told otherwise.
const OURS: [&str; 5] = [
    "POSTGRES_USER",
    "POSTGRES_PASSWORD",
    "PGUSER",
    "PGDATA",
    DATA_SOURCE,
];

/// Whether a variable is pgrekey's, or Patroni would take it for its configuration.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("PATRONI_") || OURS.contains(&name)
}
