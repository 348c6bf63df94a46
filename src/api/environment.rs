//! The environment variables of pods that are reserved for pgrekey.

/// The exporter's connection string.
pub const DATA_SOURCE: &str = "DATA_SOURCE_NAME";

/// The variables that pgrekey sets; and `PGDATA`, which would name another data directory than
/// Patroni's configuration.
const OURS: [&str; 5] = [
    "POSTGRES_USER",
    "POSTGRES_PASSWORD",
    "PGUSER",
    "PGDATA",
    DATA_SOURCE,
];

/// Whether a variable is reserved. Patroni takes every `PATRONI_` variable for its configuration.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("PATRONI_") || OURS.contains(&name)
}
