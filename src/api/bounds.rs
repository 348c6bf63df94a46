//! Limits of what an object may ask for.
//!
//! Objects come from strangers, and pgrekey loops over their content, copies it and keeps it. Each
//! limit stands here once. The schema has it, and the rules explain it. Code that uses a number
//! checks it again, because the schema and the webhooks may be older, or off.

use std::time::Duration;

/// The most pods of a database. For the primary, each pod is a connection, a slot and a copy of the
/// whole WAL. `max_wal_senders` and `max_replication_slots` must have room for it from the start.
pub const MAX_REPLICAS: i32 = 32;

/// The longest timeout of a step of a request. A waiting request holds a slot that others wait for.
pub const MAX_TIMEOUT: Duration = Duration::from_hours(24);

/// The most retries of a step.
pub const MAX_RETRIES: i32 = 10;

/// The longest grace period for clients. An operation keeps its database paused meanwhile.
pub const MAX_CLIENT_GRACE_PERIOD: Duration = Duration::from_hours(7 * 24);

/// The longest time between two health checks, in seconds. Later, the last result says nothing any
/// more.
pub const MAX_CHECK_PERIOD: i32 = 3600;

/// The longest timeout of a health check, in seconds. A check holds one of the slots that all
/// databases share.
pub const MAX_CHECK_TIMEOUT: i32 = 300;

/// The highest failure threshold of health checks.
pub const MAX_CHECK_FAILURES: i32 = 100;

/// The most certificates of an object that are read. There are three aliases: more entries are
/// doubles or unknown.
pub const MAX_CERTIFICATES: usize = 16;

/// The most names that users may add to one certificate, of all kinds together. One wildcard covers
/// many hosts.
pub const MAX_NAMES: usize = 250;

/// The most bytes of these names together. A server sends its whole chain in one message of the
/// handshake. The other end takes at most 32 KiB if it is Java, 64 KiB if it is rustls (as in
/// pgrekey), 100 kB if it is OpenSSL.
pub const MAX_NAME_BYTES: usize = 16 * 1024;

/// The most bytes of `user.conf`. Patroni keeps its configuration in annotations, and the
/// annotations of an object have room for 256 KiB.
pub const MAX_CONF: usize = 64 * 1024;

/// The most settings in `user.conf`. PostgreSQL has about 400, and extensions bring some more.
pub const MAX_SETTINGS: usize = 1000;

/// A number of pods within what a database may have, whoever wrote the number.
#[must_use]
pub fn clamp_replicas(asked: i32) -> i32 {
    asked.clamp(0, MAX_REPLICAS)
}
