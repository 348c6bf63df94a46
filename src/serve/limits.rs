//! What one server takes from all of its callers together, and from each of them.

use std::time::Duration;

/// A caller that has not finished its TLS handshake by now is not the API server: that one needs two round trips.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A review's head is a few hundred bytes that the API server writes at once; who needs longer holds a place on purpose.
const HEADER: Duration = Duration::from_secs(5);

/// The API server says with `?timeout=` how long it waits. Callers that do not say get what Kubernetes gives a webhook
/// that does not say: 10 s.
const REQUEST: Duration = Duration::from_secs(10);

/// No webhook may be registered with a longer timeout, so a caller that claims one is not served for longer.
const REQUEST_AT_MOST: Duration = Duration::from_secs(30);

/// A review carries an object and, in an update, the old one. The API server takes requests of 3 MiB; twice that, and
/// room for the envelope.
const BODY: usize = 7 * 1024 * 1024;

/// The API servers keep a few connections each; this is room for every one that goes wild, and about 20 MiB of buffers.
const CONNECTIONS: usize = 512;

/// Reviews take microseconds, so this many at once is an overload that waiting would make worse: the API server is
/// told at once, while it has time to act on it.
const IN_FLIGHT: usize = 256;

/// The API server's client drops a connection that was idle for 90 s. Whoever drops first must be the client: a server
/// that does may meet a request that is on its way, and that request is lost.
const IDLE: Duration = Duration::from_mins(2);

/// Endpoints and kube-proxy need about this long to stop sending new connections to a pod that ends.
const LINGER: Duration = Duration::from_secs(5);

/// After that, requests get this long to end. Together with [`LINGER`] it stays below Kubernetes' grace period of 30 s.
const DRAIN: Duration = Duration::from_secs(20);

/// Streams of one HTTP/2 connection. A quarter of [`IN_FLIGHT`], so that one connection cannot use it up.
const STREAMS: u32 = 64;

/// What a server takes. `Default` is what is served in production; tests shorten the waits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until the TLS handshake is done.
    pub handshake: Duration,
    /// From the end of the handshake, or from the first byte of a later request, until a request's head has been read.
    pub header: Duration,
    /// For a whole request whose caller does not say how long it waits.
    pub request: Duration,
    /// For a whole request, whatever its caller says.
    pub request_at_most: Duration,
    /// Bytes of a request's body.
    pub body: usize,
    /// Connections at a time.
    pub connections: usize,
    /// Requests at a time.
    pub in_flight: usize,
    /// Between two requests of one connection.
    pub idle: Duration,
    /// From the shutdown signal until no new connection is taken.
    pub linger: Duration,
    /// From then until requests that are still not done are given up.
    pub drain: Duration,
    /// HTTP/2 streams of one connection at a time.
    pub streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: HANDSHAKE,
            header: HEADER,
            request: REQUEST,
            request_at_most: REQUEST_AT_MOST,
            body: BODY,
            connections: CONNECTIONS,
            in_flight: IN_FLIGHT,
            idle: IDLE,
            linger: LINGER,
            drain: DRAIN,
            streams: STREAMS,
        }
    }
}

impl Limits {
    /// For the port of probes and metrics: the kubelet and a few scrapers, tiny requests, and nothing to drain.
    #[must_use]
    pub fn of_health_port() -> Self {
        Self {
            body: 1024,
            connections: 64,
            in_flight: 32,
            linger: Duration::ZERO,
            drain: Duration::from_secs(1),
            ..Self::default()
        }
    }
}
