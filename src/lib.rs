//! pgrekey changes the TLS of running Postgres clusters on Kubernetes without failed connections, and proves it on the wire.

pub mod api;
pub mod cli;
pub mod rules;
pub mod tls;
