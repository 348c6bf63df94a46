//! The HTTPS server on a real socket: what it takes, what it refuses, and how it ends.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pgrekey::metrics::{ConnectionEnd, ConnectionEndLabels, Metrics, Shed, ShedLabels};
use pgrekey::serve::certificate::ServedCertificate;
use pgrekey::serve::health::{self, Readiness};
use pgrekey::serve::https::{Server, Transport, listen, tls};
use pgrekey::serve::limits::Limits;
use pgrekey::tls::pair::Pair;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// Whatever takes longer than this does not come.
const DEADLINE: Duration = Duration::from_secs(20);

const MIB: usize = 1024 * 1024;

/// A server on loopback, and what its clients need.
struct Running {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    served: ServedCertificate,
    metrics: Metrics,
    signal: CancellationToken,
    task: JoinHandle<()>,
    /// How many requests for `/fine` were handled.
    handled: Arc<AtomicUsize>,
    /// How many requests are at the gate.
    waiting: Arc<AtomicUsize>,
    /// Permits to pass it.
    gate: Arc<Semaphore>,
}

fn pair() -> Pair {
    let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    Pair::parse(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).expect("a pair")
}

impl Running {
    async fn start(limits: Limits) -> Self {
        let (waiting, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (at_gate, of_gate) = (Arc::clone(&waiting), Arc::clone(&gate));
        let handled = Arc::new(AtomicUsize::new(0));
        let fine = Arc::clone(&handled);
        let router = Router::new()
            .route("/length", post(|body: Bytes| async move { body.len().to_string() }))
            .route(
                "/fine",
                get(async move || {
                    fine.fetch_add(1, Ordering::SeqCst);
                    "fine"
                }),
            )
            .route(
                "/panic",
                get(|| async {
                    // Only what may return is a handler.
                    assert!(std::env::args().count() == 0, "on purpose");
                }),
            )
            .route("/hang", get(|| async { std::future::pending::<()>().await }))
            .route(
                "/gate",
                get(async move || {
                    at_gate.fetch_add(1, Ordering::SeqCst);
                    of_gate.acquire().await.expect("open").forget();
                    "passed"
                }),
            );
        let metrics = Metrics::new();
        let (served, pair) = (ServedCertificate::new(), pair());
        let certificate = pair.chain()[0].clone();
        served.serve(Arc::new(pair), &metrics);
        let transport = Transport::Tls(tls(Arc::new(served.clone())).expect("TLS"));
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let signal = CancellationToken::new();
        let server = Server { listener, transport, router, limits, metrics: metrics.webhook_server.clone() };
        let task = tokio::spawn(server.run(signal.clone()));
        Self { address, certificate, served, metrics, signal, task, handled, waiting, gate }
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(versions).expect("versions").with_root_certificates(roots);
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    async fn connect_with(&self, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    }

    async fn connect(&self, alpn: &str) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_with(self.client(rustls::ALL_VERSIONS, &[alpn])).await
    }

    async fn http1(&self) -> TlsStream<TcpStream> {
        within(self.connect("http/1.1")).await.expect("a connection")
    }

    async fn http2(&self) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
        let io = TokioIo::new(within(self.connect("h2")).await.expect("a connection"));
        let (client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        tokio::spawn(connection);
        client
    }

    fn ended(&self, end: ConnectionEnd) -> u64 {
        self.metrics.webhook_server.connections.get_or_create(&ConnectionEndLabels { end }).get()
    }

    fn shed(&self, reason: Shed) -> u64 {
        self.metrics.webhook_server.requests_shed.get_or_create(&ShedLabels { reason }).get()
    }

    /// A request by a client that has done nothing wrong is answered, and soon.
    async fn must_serve(&self) {
        let began = Instant::now();
        let mut stream = self.http1().await;
        assert_eq!(exchange(&mut stream, "GET /fine").await, (200, "fine".to_owned()));
        assert!(began.elapsed() < Duration::from_secs(2), "served after {:?}", began.elapsed());
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    timeout(DEADLINE, future).await.expect("in time")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn request(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).expect("a request")
}

async fn text(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = within(response.into_body().collect()).await.expect("a body").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

/// Reads one HTTP/1.1 response with `Content-Length`: status, head and body.
async fn response(stream: &mut TlsStream<TcpStream>) -> std::io::Result<(u16, String, String)> {
    let mut bytes = vec![];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).expect("a length").lines().next().expect("a line");
            if body.len() >= length.parse().expect("a number") {
                return Ok((head[9..12].parse().expect("a status"), head.clone(), body.to_owned()));
            }
        }
        if within(stream.read_buf(&mut bytes)).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// One request without body on this connection, which stays open.
async fn exchange(stream: &mut TlsStream<TcpStream>, line: &str) -> (u16, String) {
    let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let (status, _, body) = response(stream).await.expect("a response");
    (status, body)
}

/// The server closes this connection without a word.
async fn must_be_closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut rest = vec![];
    // A reset is an end as well.
    let _ = within(stream.read_to_end(&mut rest)).await;
    assert_eq!(String::from_utf8_lossy(&rest), "");
}

#[tokio::test]
async fn both_versions_of_tls_and_of_http_are_served_and_nothing_is_resumed() {
    let server = Running::start(Limits::default()).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (offered, agreed) in [
            (vec!["h2", "http/1.1"], Some("h2")),
            (vec!["http/1.1"], Some("http/1.1")),
            (vec!["http/1.1", "h2"], Some("h2")),
            (vec![], None),
        ] {
            let config = server.client(&[version], &offered);
            for attempt in ["first", "second"] {
                let case = format!("{:?}, offered {offered:?}, {attempt}", version.version);
                let mut stream = within(server.connect_with(config.clone())).await.expect("a connection");
                {
                    let (_, tls) = stream.get_ref();
                    assert_eq!(tls.protocol_version(), Some(version.version), "{case}");
                    assert_eq!(tls.alpn_protocol(), agreed.map(str::as_bytes), "{case}");
                    assert_ne!(tls.handshake_kind(), Some(HandshakeKind::Resumed), "{case}");
                }
                if agreed == Some("h2") {
                    let (mut client, connection) =
                        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                            .await
                            .expect("HTTP/2");
                    tokio::spawn(connection);
                    let answer = within(client.send_request(request("https://localhost/fine"))).await;
                    assert_eq!(text(answer.expect("an answer")).await, (StatusCode::OK, "fine".to_owned()), "{case}");
                } else {
                    assert_eq!(exchange(&mut stream, "GET /fine").await, (200, "fine".to_owned()), "{case}");
                    assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0, "{case}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_body_of_7_mib_is_taken_and_one_byte_more_is_413() {
    let server = Running::start(Limits::default()).await;
    for (length, status) in [(7 * MIB, 200), (7 * MIB + 1, 413)] {
        let mut stream = server.http1().await;
        let head = format!("POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("written");
        if status == 200 {
            stream.write_all(&vec![b' '; length]).await.expect("written");
        }
        let (answered, _, body) = response(&mut stream).await.expect("a response");
        assert_eq!(answered, status, "Content-Length: {length}: {body}");

        let mut stream = server.http1().await;
        let head = "POST /length HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("written");
        stream.write_all(format!("{length:x}\r\n").as_bytes()).await.expect("written");
        stream.write_all(&vec![b' '; length]).await.expect("written");
        if status == 200 {
            stream.write_all(b"\r\n0\r\n\r\n").await.expect("written");
        }
        let (answered, _, body) = response(&mut stream).await.expect("a response");
        assert_eq!(answered, status, "chunked, {length}: {body}");

        let mut client = server.http2().await;
        let body = Full::new(Bytes::from(vec![b' '; length]));
        let request = Request::post("https://localhost/length").body(body).expect("a request");
        let answer = within(client.send_request(request)).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "HTTP/2, {length}");
    }
}

#[tokio::test]
async fn a_chunked_body_without_end_ends() {
    let server = Running::start(Limits { request: Duration::from_millis(300), ..Limits::default() }).await;
    let head = "POST /length HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    // As fast as it goes: 413, and the connection with it.
    let mut stream = server.http1().await;
    stream.write_all(head.as_bytes()).await.expect("written");
    let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
    let mut written = 0;
    while written < 100 * MIB && within(stream.write_all(&chunk)).await.is_ok() {
        written += chunk.len();
    }
    assert!(written < 30 * MIB, "{written} bytes were taken");
    // A byte now and then: the time for the whole request is over.
    let (mut reader, mut writer) = tokio::io::split(server.http1().await);
    writer.write_all(head.as_bytes()).await.expect("written");
    let drip = tokio::spawn(async move {
        while writer.write_all(b"1\r\n \r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut answer = vec![];
    let _ = within(reader.read_to_end(&mut answer)).await;
    drip.abort();
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 504"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(server.shed(Shed::Timeout), 1);
    server.must_serve().await;
}

#[tokio::test]
async fn a_request_ends_when_its_caller_stops_waiting() {
    let server = Running::start(Limits { request: Duration::from_millis(600), ..Limits::default() }).await;
    for (query, at_least, at_most) in [("?timeout=100ms", 100, 500), ("", 600, 5000), ("?timeout=1s", 1000, 5000)] {
        let mut stream = server.http1().await;
        let began = Instant::now();
        let (status, body) = exchange(&mut stream, &format!("GET /hang{query}")).await;
        let took = began.elapsed().as_millis();
        assert_eq!(status, 504, "{body}");
        assert!((at_least..at_most).contains(&took), "{query:?} took {took} ms");
        assert_eq!(exchange(&mut stream, "GET /fine").await.0, 200, "the connection lives on");
    }
}

#[tokio::test]
async fn a_panic_is_a_500_for_its_request_alone() {
    let server = Running::start(Limits::default()).await;
    let mut stream = server.http1().await;
    for _ in 0..3 {
        let (status, body) = exchange(&mut stream, "GET /panic").await;
        assert_eq!(status, 500);
        assert!(!body.contains("on purpose"), "{body}");
        assert_eq!(exchange(&mut stream, "GET /fine").await.0, 200);
    }
    let mut client = server.http2().await;
    let (panics, fine) = tokio::join!(
        client.clone().send_request(request("https://localhost/panic")),
        client.send_request(request("https://localhost/fine"))
    );
    assert_eq!(panics.expect("an answer").status(), 500);
    assert_eq!(fine.expect("an answer").status(), 200);
    assert_eq!(server.shed(Shed::Panic), 4);
}

#[tokio::test]
async fn beyond_256_requests_in_flight_the_answer_is_503_at_once() {
    let server = Running::start(Limits::default()).await;
    let mut flying = JoinSet::new();
    for _ in 0..4 {
        let client = server.http2().await;
        for _ in 0..64 {
            let mut client = client.clone();
            flying.spawn(async move { client.send_request(request("https://localhost/gate")).await });
        }
    }
    until("256 requests at the gate", || server.waiting.load(Ordering::SeqCst) == 256).await;
    let mut stream = server.http1().await;
    let began = Instant::now();
    let (status, body) = exchange(&mut stream, "GET /fine").await;
    assert_eq!((status, body.contains("256 requests are in flight")), (503, true), "{body}");
    assert!(began.elapsed() < Duration::from_secs(1), "after {:?}", began.elapsed());
    server.gate.add_permits(256);
    while let Some(answer) = within(flying.join_next()).await {
        assert_eq!(answer.expect("no panic").expect("an answer").status(), 200);
    }
    assert_eq!(exchange(&mut stream, "GET /fine").await.0, 200);
    assert_eq!(server.shed(Shed::InFlight), 1);
}

/// 512, or what the process may open: each connection takes two descriptors here.
fn many() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|l| l.starts_with("Max open files")).unwrap_or_default();
    let descriptors: usize = line.split_whitespace().nth(3).and_then(|n| n.parse().ok()).unwrap_or(1024);
    512.min((descriptors - 256) / 3)
}

#[tokio::test]
async fn clients_that_hold_every_place_do_not_keep_a_healthy_one_out() {
    let connections = many();
    // The limits of time are far away: what is proved is that a place is made, not that one becomes free.
    let long = Duration::from_mins(10);
    let limits = Limits { connections, handshake: long, header: long, idle: long, ..Limits::default() };
    let server = Running::start(limits).await;
    for what in ["nothing", "half a header", "one request", "no handshake"] {
        let (mut secure, mut raw) = (vec![], vec![]);
        let before = server.ended(ConnectionEnd::Evicted);
        for _ in 0..connections {
            if what == "no handshake" {
                raw.push(TcpStream::connect(server.address).await.expect("a connection"));
                continue;
            }
            let mut stream = server.http1().await;
            match what {
                "half a header" => stream.write_all(b"GET /fine HTTP/1.1\r\nHo").await.expect("written"),
                "one request" => assert_eq!(exchange(&mut stream, "GET /fine").await.0, 200),
                _ => {}
            }
            secure.push(stream);
        }
        let open = || usize::try_from(server.metrics.webhook_server.connections_open.get()).expect("a count");
        until("every place is taken", || open() == connections).await;
        server.must_serve().await;
        assert!(server.ended(ConnectionEnd::Evicted) > before, "{what}: nobody made way");
        drop((secure, raw));
        until("the places are free", || open() == 0).await;
    }
}

#[tokio::test]
async fn a_connection_in_use_is_not_closed_for_another() {
    let server = Running::start(Limits { connections: 2, ..Limits::default() }).await;
    let mut busy = server.http1().await;
    busy.write_all(b"GET /gate HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("written");
    until("the request is at the gate", || server.waiting.load(Ordering::SeqCst) == 1).await;
    for _ in 0..5 {
        server.must_serve().await;
    }
    server.gate.add_permits(1);
    assert_eq!(response(&mut busy).await.expect("a response").2, "passed");
}

#[tokio::test]
async fn slow_clients_are_closed_in_time() {
    let short = Duration::from_millis(200);
    let server = Running::start(Limits { handshake: short, header: short, ..Limits::default() }).await;
    let mut silent = TcpStream::connect(server.address).await.expect("a connection");
    must_be_closed(&mut silent).await;
    assert_eq!(server.ended(ConnectionEnd::HandshakeTimeout), 1);

    let mut fresh = server.http1().await;
    must_be_closed(&mut fresh).await;
    let mut half = server.http1().await;
    half.write_all(b"GET /fine HTTP/1.1\r\nHo").await.expect("written");
    must_be_closed(&mut half).await;
    // A byte now and then buys no time.
    let (mut reader, mut writer) = tokio::io::split(server.http1().await);
    writer.write_all(b"GET /fine HTTP/1.1\r\nX: ").await.expect("written");
    let drip = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    must_be_closed(&mut reader).await;
    drip.abort();
    // HTTP/2 that says hello and nothing else.
    let mut hello = within(server.connect("h2")).await.expect("a connection");
    hello.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("written");
    let mut rest = vec![];
    let _ = within(hello.read_to_end(&mut rest)).await;
    until("all are counted", || server.ended(ConnectionEnd::HeaderTimeout) == 4).await;
    server.must_serve().await;
}

#[tokio::test]
async fn an_idle_connection_is_kept_longer_than_a_header_may_take() {
    let (header, idle) = (Duration::from_millis(200), Duration::from_millis(800));
    let server = Running::start(Limits { header, idle, ..Limits::default() }).await;
    let mut stream = server.http1().await;
    let mut client = server.http2().await;
    for _ in 0..3 {
        assert_eq!(exchange(&mut stream, "GET /fine").await.0, 200);
        let answer = within(client.send_request(request("https://localhost/fine"))).await;
        assert_eq!(answer.expect("an answer").status(), 200);
        // The passing of this time is what is tested.
        tokio::time::sleep(2 * header).await;
    }
    // Half of the next header, after a request: its time is the header's.
    let mut half = server.http1().await;
    assert_eq!(exchange(&mut half, "GET /fine").await.0, 200);
    half.write_all(b"GET").await.expect("written");
    must_be_closed(&mut half).await;
    assert_eq!(server.ended(ConnectionEnd::HeaderTimeout), 1);
    must_be_closed(&mut stream).await;
    until("both idle ones are closed", || server.ended(ConnectionEnd::Idle) == 2).await;
}

/// Requests in a loop, over one connection as long as it lasts. How many were answered, once no new connection is taken.
async fn load(server: Arc<Running>) -> usize {
    let mut answered = 0;
    'connection: while let Ok(mut stream) = server.connect("http/1.1").await {
        loop {
            let written = stream.write_all(b"GET /fine HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            assert!(written.is_ok() || answered > 0, "the first request could not be written");
            let (status, head, _) = response(&mut stream).await.expect("every request is answered");
            assert_eq!(status, 200);
            answered += 1;
            if head.contains("connection: close") {
                continue 'connection;
            }
        }
    }
    answered
}

async fn load_http2(server: Arc<Running>) -> usize {
    let mut answered = 0;
    while let Ok(stream) = server.connect("h2").await {
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let Ok((mut client, connection)) = handshake.await else { break };
        tokio::spawn(connection);
        // A client that has been told (GOAWAY) is not ready any more.
        while client.ready().await.is_ok() {
            match client.send_request(request("https://localhost/fine")).await {
                Ok(answer) => {
                    assert_eq!(answer.status(), 200);
                    answered += 1;
                }
                // GOAWAY came first: the client knows that the request was not handled, and may try elsewhere.
                Err(error) if error.is_canceled() || error.is_closed() => break,
                Err(error) if format!("{error:?}").contains("GoAway(b\"\", NO_ERROR, Remote)") => break,
                Err(error) => panic!("a request was lost: {error:?}"),
            }
        }
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_under_load_loses_no_request() {
    let linger = Duration::from_millis(500);
    let mut server = Running::start(Limits { linger, ..Limits::default() }).await;
    let task = std::mem::replace(&mut server.task, tokio::spawn(async {}));
    let server = Arc::new(server);
    let mut slow = server.http1().await;
    slow.write_all(b"GET /gate HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("written");
    until("the slow request is at the gate", || server.waiting.load(Ordering::SeqCst) == 1).await;
    // Connected, and silent until the end has begun.
    let mut late = server.http1().await;
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        clients.spawn(load(Arc::clone(&server)));
        clients.spawn(load_http2(Arc::clone(&server)));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.signal.cancel();
    let mut answered = vec![];
    while let Some(count) = within(clients.join_next()).await {
        answered.push(count.expect("no request is lost"));
    }
    assert!(answered.iter().all(|count| *count > 10), "{answered:?}");
    assert_eq!(server.handled.load(Ordering::SeqCst), answered.iter().sum::<usize>(), "all that were handled");
    assert!(!task.is_finished(), "one request is still at the gate");
    assert_eq!(exchange(&mut late, "GET /fine").await.0, 200, "it was connected in time");
    server.gate.add_permits(1);
    let (status, head, body) = response(&mut slow).await.expect("a response");
    assert_eq!((status, body.as_str()), (200, "passed"));
    assert!(head.contains("connection: close"), "{head}");
    within(task).await.expect("the server ends");
}

#[tokio::test]
async fn a_request_that_does_not_end_does_not_keep_the_server_from_ending() {
    let linger = Duration::from_millis(50);
    let limits = Limits { linger, drain: Duration::from_millis(200), request: DEADLINE, ..Limits::default() };
    let mut server = Running::start(limits).await;
    let mut stuck = server.http1().await;
    stuck.write_all(b"GET /gate HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("written");
    until("the request is at the gate", || server.waiting.load(Ordering::SeqCst) == 1).await;
    let mut idle = server.http1().await;
    assert_eq!(exchange(&mut idle, "GET /fine").await.0, 200);
    server.signal.cancel();
    timeout(Duration::from_secs(5), &mut server.task).await.expect("in time").expect("no panic");
    assert_eq!(server.ended(ConnectionEnd::Abandoned), 1);
    assert_eq!(server.metrics.webhook_server.connections_open.get(), 0);
}

#[tokio::test]
async fn a_new_certificate_is_served_from_the_next_handshake_on() {
    let mut server = Running::start(Limits::default()).await;
    let mut old = server.http1().await;
    assert_eq!(exchange(&mut old, "GET /fine").await.0, 200);
    let new = pair();
    let certificate = new.chain()[0].clone();
    server.served.serve(Arc::new(new), &server.metrics);
    let refused = server.connect("http/1.1").await.expect_err("the old certificate is not served any more");
    assert!(refused.to_string().contains("certificate"), "{refused}");
    server.certificate = certificate;
    server.must_serve().await;
    assert_eq!(exchange(&mut old, "GET /fine").await.0, 200, "a connection that is there stays");
}

#[tokio::test]
async fn what_is_no_tls_does_no_harm() {
    let server = Running::start(Limits::default()).await;
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0; 100], &[0x16, 3, 1, 0xff, 0xff, 1, 2, 3]] {
        let mut stream = TcpStream::connect(server.address).await.expect("a connection");
        stream.write_all(bytes).await.expect("written");
        let _ = stream.shutdown().await;
        let mut rest = vec![];
        let _ = within(stream.read_to_end(&mut rest)).await;
        assert!(!rest.starts_with(b"HTTP"));
    }
    server.must_serve().await;
}

#[tokio::test]
async fn the_health_port_names_what_is_not_ready() {
    let (readiness, ready) = (Readiness::new(), CancellationToken::new());
    let facts = ready.clone();
    readiness.add("facts", move || if facts.is_cancelled() { Ok(()) } else { Err("Postgres not synced".to_owned()) });
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let signal = CancellationToken::new();
    let server = Server {
        listener,
        transport: Transport::Plain,
        router: health::router(readiness, Arc::new(Metrics::new())),
        limits: Limits::of_health_port(),
        metrics: pgrekey::metrics::ServerMetrics::default(),
    };
    let task = tokio::spawn(server.run(signal.clone()));
    let ask = async |path: &str| {
        let io = TokioIo::new(TcpStream::connect(address).await.expect("a connection"));
        let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "localhost").body(Full::<Bytes>::default()).expect("a request");
        text(within(client.send_request(request)).await.expect("an answer")).await
    };
    assert_eq!(ask("/livez").await, (StatusCode::OK, "ok\n".to_owned()));
    assert_eq!(ask("/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, "facts: Postgres not synced\n".to_owned()));
    ready.cancel();
    assert_eq!(ask("/readyz").await, (StatusCode::OK, "ok\n".to_owned()));
    let (status, metrics) = ask("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(metrics.contains("pgrekey_serving_certificate_expiry_seconds 0\n"), "{metrics}");
    signal.cancel();
    within(task).await.expect("the server ends");
}
