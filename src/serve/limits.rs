//! What one server takes from all of its callers together, and from each of them.

use std::time::Duration;

/// A caller that has not finished its TLS handshake by now is not the API server: that one needs
/// two round trips.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A review's head is a few hundred bytes that the API server writes at once; who needs longer
/// holds a place on purpose.
const HEADER: Duration = Duration::from_secs(5);

/// The API server says with `?timeout=` how long it waits. Callers that do not say get what
/// Kubernetes gives a webhook that does not say: 10 s.
const REQUEST: Duration = Duration::from_secs(10);

/// No webhook may be registered with a longer timeout, so a caller that claims one is not served
/// for longer.
const REQUEST_AT_MOST: Duration = Duration::from_secs(30);

/// A review carries an object and, in an update, the old one, and etcd stores none of more than 1.5
/// MiB (`--max-request-bytes`); the API server takes no request of more than 3 MiB. That, and room
/// for the envelope: what is larger cannot be stored, and need not be reviewed.
const BODY: usize = 13 * 256 * 1024;

/// A body crosses the network of a cluster in milliseconds. It is less than the 3 s for which the
/// webhooks are registered, so that the caller hears why.
const BODY_TIME: Duration = Duration::from_secs(2);

/// Room for seven of the largest bodies, of which five in a hurry: a tenth of the 256 MiB that the
/// chart gives the program, whose own objects and the decoding of one review at a time need the
/// rest. A quarter, for one address, has room for one of them.
const MEMORY: usize = 24 * 1024 * 1024;

/// Reviews with many values take some tens of milliseconds each, and one is answered at a time: the
/// last of so many is answered long before its caller stops waiting. A quarter of them may be one
/// address'.
const LINE: usize = 16;

/// The API servers keep a few connections each; this is room for every one that goes wild, and at
/// most some 30 MiB of buffers.
const CONNECTIONS: usize = 512;

/// Reviews take microseconds, so this many at once is an overload that waiting would make worse:
/// the API server is told at once, while it has time to act on it.
const IN_FLIGHT: usize = 256;

/// The API server's client drops a connection that was idle for 90 s. Whoever drops first must be
/// the client: a server that does may meet a request that is on its way, and that request is lost.
const IDLE: Duration = Duration::from_mins(2);

/// Endpoints and kube-proxy need about this long to stop sending new connections to a pod that
/// ends.
const LINGER: Duration = Duration::from_secs(5);

/// After that, requests get this long to end. Together with [`LINGER`] it stays below Kubernetes'
/// grace period of 30 s.
const DRAIN: Duration = Duration::from_secs(20);

/// What a server takes. `Default` is what is served in production; tests shorten the waits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until the TLS handshake is done.
    pub handshake: Duration,
    /// From the end of the handshake, or from the first byte of a later request, until a request's
    /// head has been read.
    pub header: Duration,
    /// For a whole request whose caller does not say how long it waits.
    pub request: Duration,
    /// For a whole request, whatever its caller says.
    pub request_at_most: Duration,
    /// Bytes of a request's body.
    pub body: usize,
    /// For a request's body, if its caller does not wait for less.
    pub body_time: Duration,
    /// Bytes of all bodies together. One address has a quarter.
    pub memory: usize,
    /// Reviews with many values at a time, of which one is answered and the others wait. One
    /// address has a quarter.
    pub line: usize,
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
            line: LINE,
            connections: CONNECTIONS,
            in_flight: IN_FLIGHT,
            idle: IDLE,
            linger: LINGER,
            drain: DRAIN,
        }
    }
}

impl Limits {
    /// For the port of probes and metrics: the kubelet and a few scrapers, tiny requests, and
    /// nothing to drain.
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
