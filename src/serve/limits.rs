//! The limits of a server, for all callers together and for each of them.

use std::time::Duration;

/// For the TLS handshake. The API server needs two round trips.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// For the head of a request. A review has a few hundred bytes, which the API server sends at once;
/// a slower caller holds a slot on purpose.
const HEADER: Duration = Duration::from_secs(5);

/// For a request without `?timeout=`, by which the API server says how long it waits: Kubernetes'
/// default for webhooks.
const REQUEST: Duration = Duration::from_secs(10);

/// Kubernetes registers no webhook with a longer timeout.
const REQUEST_AT_MOST: Duration = Duration::from_secs(30);

/// Two objects and their envelope. etcd stores no object of more than 1.5 MiB
/// (`--max-request-bytes`), an update carries two, and the API server takes no request of more than
/// 3 MiB. A larger review is about an object that cannot be stored.
const BODY: usize = 13 * 256 * 1024;

/// A body crosses a cluster's network in milliseconds. Shorter than the 3 s of the registration, so
/// that the caller still gets the reason.
const BODY_TIME: Duration = Duration::from_secs(2);

/// Room for seven bodies of the largest size, of which five at full speed. It is a tenth of the 256
/// MiB that the chart gives pgrekey; the caches and the decoding of one review at a time need the
/// rest. The quarter of one address has room for one of them.
const MEMORY: usize = 24 * 1024 * 1024;

/// A review with many values takes some tens of milliseconds, one at a time: the last of 16 is done
/// long before its caller times out. One address gets a quarter.
const QUEUE: usize = 16;

/// An API server keeps a few connections. 512 connections have at most some 30 MiB of buffers.
const CONNECTIONS: usize = 512;

/// A review takes microseconds, so this many at a time are an overload. A quick refusal leaves the
/// API server time to try another replica.
const IN_FLIGHT: usize = 256;

/// Longer than the 90 s after which the API server's client closes an idle connection. If the
/// server closed first, it could lose a request that is just arriving.
const IDLE: Duration = Duration::from_mins(2);

/// Endpoints and kube-proxy take about this long to send no more connections to a terminating pod.
const LINGER: Duration = Duration::from_secs(5);

/// For running requests after [`LINGER`]. Both together are shorter than Kubernetes' grace period
/// of 30 s.
const DRAIN: Duration = Duration::from_secs(20);

/// The limits of one server. `Default` is for production; tests shorten the times.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until the TLS handshake is done.
    pub handshake: Duration,
    /// From the end of the handshake, or from the first byte of a later request, until a request's
    /// head has been read.
    pub header: Duration,
    /// For a whole request without `?timeout=`.
    pub request: Duration,
    /// For a whole request, whatever its `?timeout=`.
    pub request_at_most: Duration,
    /// Bytes of a request's body.
    pub body: usize,
    /// For a request's body, if its `?timeout=` is not shorter.
    pub body_time: Duration,
    /// Bytes of all bodies together. One address has a quarter.
    pub memory: usize,
    /// Reviews with many values at a time: one is answered, the others wait. One address has a
    /// quarter.
    pub queue: usize,
    /// Connections at a time.
    pub connections: usize,
    /// Requests at a time.
    pub in_flight: usize,
    /// Between two requests of one connection.
    pub idle: Duration,
    /// From the shutdown signal until the listener closes.
    pub linger: Duration,
    /// From then until unfinished requests are dropped.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: HANDSHAKE,
            header: HEADER,
            request: REQUEST,
            request_at_most: REQUEST_AT_MOST,
            body: BODY,
            body_time: BODY_TIME,
            memory: MEMORY,
            queue: QUEUE,
            connections: CONNECTIONS,
            in_flight: IN_FLIGHT,
            idle: IDLE,
            linger: LINGER,
            drain: DRAIN,
        }
    }
}

impl Limits {
    /// For the port of probes and metrics: the kubelet and a few scrapers, tiny requests, no drain.
    #[must_use]
    pub fn of_health_port() -> Self {
        Self {
            body: 1024,
            memory: 64 * 1024,
            connections: 64,
            in_flight: 32,
            linger: Duration::ZERO,
            drain: Duration::from_secs(1),
            ..Self::default()
        }
    }
}
