//! The annotations by which users say how.

/// Annotation of a request: how pods take over what changes, `Restart` (the default) or `Reload`.
pub const STRATEGY: &str = "pgrekey.dev/strategy";
/// Annotation of a request, or of a database for its renewals and for requests that say nothing:
/// how long clients get to see whom to trust before a leaf of another CA is served, and to take
/// over their own new certificate before the old CA is trusted no more; as a Go duration, at most 7
/// days. Pods see a changed volume within about a minute. If it is not there an operation gives
/// clients no time, and a renewal two minutes.
pub const CLIENT_GRACE_PERIOD: &str = "pgrekey.dev/client-grace-period";
/// Annotation of a request: how long it is kept after its end, as a Go duration. For ever if it is
/// not there.
pub const TTL: &str = "pgrekey.dev/ttl-after-finished";
/// Annotation of a database: how many bytes of WAL a standby may be behind and still count as up to
/// date, as a whole number.
pub const MAX_LAG: &str = "pgrekey.dev/max-lag";
