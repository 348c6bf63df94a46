//! How much of anything an object may ask for.
//!
//! Whoever writes an object is a stranger, and what they write is looped over, copied and kept. The
//! numbers stand here once: the schema has them, rules say them in words, and who uses a number
//! holds it to them again, because schema and webhooks may be older, or off.

use std::time::Duration;

/// The most pods of a database. Each more is a connection, a slot and a copy of the whole log for
/// the primary; `max_wal_senders` and `max_replication_slots` have to have room for it from the
/// start.
pub const MAX_REPLICAS: i32 = 32;

/// The longest that one step of a request may take: one that waits holds a place that others wait
/// for.
pub const MAX_TIMEOUT: Duration = Duration::from_hours(24);

/// The most times that a step is tried again.
pub const MAX_RETRIES: i32 = 10;

/// The longest time that clients get: an operation keeps its database paused meanwhile.
pub const MAX_CLIENT_GRACE_PERIOD: Duration = Duration::from_hours(7 * 24);

/// The longest time between two health checks, in seconds: what nobody has looked at for longer,
/// nobody knows.
pub const MAX_CHECK_PERIOD: i32 = 3600;

/// The longest that a health check may take, in seconds: it holds one of the places that all
/// databases share.
pub const MAX_CHECK_TIMEOUT: i32 = 300;

/// The most health checks in a row that may fail before it counts.
pub const MAX_CHECK_FAILURES: i32 = 100;

/// The most certificates of an object that are looked at. There are three aliases: what is beyond
/// is double or unknown.
pub const MAX_CERTIFICATES: usize = 16;

/// The most names that users may add to one certificate, of all kinds together. A wildcard covers
/// many.
pub const MAX_NAMES: usize = 250;

/// The most bytes that these names may have together. A server sends its whole chain in one message
/// of the handshake, with room for no more than 32 KiB where the other end is Java, 64 KiB where it
/// is rustls (as pgrekey is), and 100 kB where it is OpenSSL.
pub const MAX_NAME_BYTES: usize = 16 * 1024;

/// The most bytes of `user.conf`. Patroni keeps its configuration in annotations, and those of an
/// object take 256 KiB.
pub const MAX_CONF: usize = 64 * 1024;

/// The most settings in `user.conf`: PostgreSQL has about 400, and extensions bring some more.
pub const MAX_SETTINGS: usize = 1000;

/// The number of pods that is meant, whoever says it: within what a database may have.
#[must_use]
pub fn replicas(asked: i32) -> i32 {
    asked.clamp(0, MAX_REPLICAS)
}
