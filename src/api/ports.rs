//! The ports of a pod.

/// A port of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Number of the port.
    pub number: u16,
    /// Name of the port, by which Services and probes refer to it.
    pub name: &'static str,
}

/// PostgreSQL's port.
pub const POSTGRES_PORT: Port = Port {
    number: 5432,
    name: "db",
};

/// The port of Patroni's REST API.
pub const PATRONI_PORT: Port = Port {
    number: 8008,
    name: "patroni",
};

/// The metrics exporter's port, if the spec names none.
pub const EXPORTER_PORT: Port = Port {
    number: 56790,
    name: "prom-http",
};
