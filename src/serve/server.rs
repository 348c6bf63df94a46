//! The accept loop: takes connections, passes requests to the router, and shuts down without a lost
//! request.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::ResolvesServerCert;
use rustls::{AlertDescription, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::{ConnectionEnd, ServerMetrics};
use crate::serve::connections::{Activity, ConnectionSlot, ConnectionSlots, Expiry, Noted};
use crate::serve::limits::Limits;
use crate::serve::request::Application;

/// The pause after an accept error that persists (no descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long a connection has to close before it is dropped.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bytes of the read buffer of a connection, and of its write buffer. Heads are far smaller, bodies
/// are passed on in pieces, and a TLS record is no longer.
const BUFFER: usize = 16 * 1024;

/// The transport of a server.
#[derive(Clone, Debug)]
pub enum Transport {
    /// Without TLS: for probes and metrics.
    Plain,
    /// TLS, as [`tls`] sets it up.
    Tls(Arc<ServerConfig>),
}

/// TLS 1.2 and 1.3 with this certificate, without resumption, and HTTP/1.1 alone. The API server
/// uses HTTP/1.1 for webhooks, to spread requests over their replicas (kubernetes issue 75791).
///
/// The API server never resumes a session, so tickets would be useless keys and bytes.
pub fn tls(certificate: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Listens on this address. `[::]` means IPv4 too, also on a machine without IPv6.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        // A kernel without IPv6 says "address family not supported"; with IPv6 disabled it says
        // "cannot assign".
        Err(error)
            if address.is_ipv6()
                && address.ip().is_unspecified()
                && matches!(
                    error.kind(),
                    io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
                ) =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// A server, not yet running.
#[derive(Debug)]
pub struct HttpsServer {
    /// The source of connections.
    pub listener: TcpListener,
    /// TLS or not.
    pub transport: Transport,
    /// The handlers. They need no limits of their own: the server limits time, size and number of
    /// requests.
    pub router: Router,
    /// The limits for callers.
    pub limits: Limits,
    /// The counters of connections and refusals.
    pub metrics: ServerMetrics,
}

impl HttpsServer {
    /// Serves until the signal, then shuts down within [`Limits::linger`] and [`Limits::drain`].
    ///
    /// *Expected flow*: at the signal the pod becomes not ready (see
    /// [`crate::serve::probes::Readiness`]). For `linger`, new connections are still accepted,
    /// since endpoints follow with a delay, and every response says `Connection: close`. Then the
    /// listener and the idle connections close, and running requests are answered. After `drain`
    /// the rest is dropped.
    ///
    /// *Guarantees*: a request that arrives within `linger` and takes less than `drain` is
    /// answered. An error of one connection, or of accepting one, affects no other.
    ///
    /// *Assumptions*: callers send no new requests once the pod is not ready.
    pub async fn run(self, signal: CancellationToken) {
        let Self {
            listener,
            transport,
            router,
            limits,
            metrics,
        } = self;
        let draining = CancellationToken::new();
        let connections = Connections {
            application: Application::new(router, limits, metrics.clone(), signal.clone()),
            transport,
            limits,
            metrics,
            draining: draining.clone(),
            abandoned: CancellationToken::new(),
        };
        let tasks = TaskTracker::new();
        let places = ConnectionSlots::new(limits.connections);
        let lingered = async {
            signal.cancelled().await;
            tokio::time::sleep(limits.linger).await;
        };
        tokio::select! {
            never = accept(&listener, &places, &connections, &tasks) => match never {},
            () = lingered => {}
        }
        drop(listener);
        draining.cancel();
        tasks.close();
        if timeout(limits.drain, tasks.wait()).await.is_err() {
            tracing::warn!(
                connections = tasks.len(),
                "requests were still in progress when the time to drain was over"
            );
            connections.abandoned.cancel();
            tasks.wait().await;
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<ConnectionSlots>,
    connections: &Connections,
    tasks: &TaskTracker,
) -> std::convert::Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let place = places.take(peer.ip().to_canonical()).await;
                tasks.spawn(connections.clone().serve(stream, peer, place));
            }
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection ended before it began");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether the error concerns only the connection that was being accepted, so that the next one can
/// be accepted at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// The state that all connections of a server share.
#[derive(Clone, Debug)]
struct Connections {
    application: Application,
    transport: Transport,
    limits: Limits,
    metrics: ServerMetrics,
    /// Cancelled when idle connections must close, and busy ones after their request.
    draining: CancellationToken,
    /// Cancelled when all connections must close at once.
    abandoned: CancellationToken,
}

impl Connections {
    async fn serve(self, stream: TcpStream, peer: SocketAddr, place: ConnectionSlot) {
        self.metrics.connections_open.inc();
        let end = tokio::select! {
            end = self.converse(stream, peer, &place.activity) => end,
            () = place.activity.evicted.cancelled() => ConnectionEnd::Evicted,
            () = self.abandoned.cancelled() => ConnectionEnd::Abandoned,
        };
        self.metrics.connections_open.dec();
        self.metrics.ended(end);
    }

    async fn converse(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        activity: &Arc<Activity>,
    ) -> ConnectionEnd {
        // Responses are small and written at once: Nagle's algorithm would only delay them.
        let _ = stream.set_nodelay(true);
        let Transport::Tls(config) = &self.transport else {
            return self.http(stream, peer, activity).await;
        };
        let stream = match timeout(
            self.limits.handshake,
            TlsAcceptor::from(Arc::clone(config)).accept(stream),
        )
        .await
        {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                log_failed_handshake(&error, peer);
                return ConnectionEnd::HandshakeFailed;
            }
            Err(_) => {
                tracing::debug!(%peer, "the handshake was not done in time");
                return ConnectionEnd::HandshakeTimeout;
            }
        };
        activity.handshaken();
        self.http(stream, peer, activity).await
    }

    async fn http<S>(&self, stream: S, peer: SocketAddr, activity: &Arc<Activity>) -> ConnectionEnd
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(Noted {
            stream,
            activity: Arc::clone(activity),
        });
        let caller = peer.ip().to_canonical();
        let service = service_fn(|request| {
            self.application
                .clone()
                .answer(caller, Arc::clone(activity), request)
        });
        let mut builder = http1::Builder::new();
        // hyper's own timeout also runs on idle connections, for which ours is longer.
        builder
            .header_read_timeout(None)
            .max_buf_size(BUFFER)
            .timer(TokioTimer::new());
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut timer = pin!(tokio::time::sleep(self.limits.header));
        let mut is_draining = false;
        let end = loop {
            tokio::select! {
                biased;
                result = connection.as_mut() => return ended(result, peer),
                () = self.draining.cancelled(), if !is_draining => {
                    is_draining = true;
                    // A connection may be about to send a request, or have sent half of one. It
                    // keeps its time for that; its response then says `Connection: close`.
                    if activity.expiry(&self.limits).is_none() || activity.is_idle() {
                        connection.as_mut().graceful_shutdown();
                    }
                }
                expiry = expired(timer.as_mut(), activity, &self.limits) => break expiry,
            }
        };
        tracing::debug!(%peer, ?end, "closing a connection that sends no request");
        connection.as_mut().graceful_shutdown();
        let _ = timeout(FAREWELL, connection).await;
        match end {
            Expiry::Header => ConnectionEnd::HeaderTimeout,
            Expiry::Idle => ConnectionEnd::Idle,
        }
    }
}

/// Resolves when the connection was without a request for too long.
///
/// Polled after each poll of the connection: only then can its state have changed.
async fn expired(mut timer: Pin<&mut Sleep>, activity: &Activity, limits: &Limits) -> Expiry {
    std::future::poll_fn(|cx| {
        let Some((at, why)) = activity.expiry(limits) else {
            return std::task::Poll::Pending;
        };
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).map(|()| why)
    })
    .await
}

fn ended(result: hyper::Result<()>, peer: SocketAddr) -> ConnectionEnd {
    match result {
        Ok(()) => ConnectionEnd::Closed,
        Err(error) => {
            tracing::debug!(%peer, %error, "a connection broke");
            ConnectionEnd::Broken
        }
    }
}

/// A caller that refuses our certificate needs an administrator; all other failures are noise.
fn log_failed_handshake(error: &io::Error, peer: SocketAddr) {
    use AlertDescription::{BadCertificate, CertificateExpired, CertificateUnknown, UnknownCA};
    let alert = match error.get_ref().and_then(|e| e.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => Some(alert),
        _ => None,
    };
    if matches!(
        alert,
        Some(BadCertificate | CertificateExpired | CertificateUnknown | UnknownCA)
    ) {
        tracing::warn!(%peer, ?alert, "a caller refused our certificate: is its CA in caBundle of the webhooks?");
    } else {
        tracing::debug!(%peer, %error, "the handshake failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_stays_makes_the_loop_pause() {
        // ECONNABORTED, EINTR; EMFILE, ENFILE, ENOBUFS, ENOMEM
        for (number, of_one) in [
            (103, true),
            (4, true),
            (24, false),
            (23, false),
            (105, false),
            (12, false),
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(is_of_one_connection(&error), of_one, "{error}");
        }
    }
}
