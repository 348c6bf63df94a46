//! The environment variables of the pods that are pgrekey's.

/// Which server the exporter looks at.
pub const DATA_SOURCE: &str = "DATA_SOURCE_NAME";

/// Whether pgrekey sets this variable itself, or Patroni would take it for its configuration.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("PATRONI_") || ["POSTGRES_USER", "POSTGRES_PASSWORD", "PGUSER", DATA_SOURCE].contains(&name)
}
