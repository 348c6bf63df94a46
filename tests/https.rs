//! The HTTPS server on a real socket: its limits, refusals and shutdown.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::{self, get};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pgrekey::metrics::{ConnectionEnd, ConnectionEndLabels, Metrics, Shed, ShedLabels};
use pgrekey::pki::key_pair::CertificateAndKey;
use pgrekey::serve::certificate::ServedCertificate;
use pgrekey::serve::limits::Limits;
use pgrekey::serve::probes;
use pgrekey::serve::probes::Readiness;
use pgrekey::serve::server::{HttpsServer, Transport, listen, tls};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// The deadline for everything that a test waits for.
const DEADLINE: Duration = Duration::from_secs(20);

const MIB: usize = 1024 * 1024;

/// A server on loopback, with the CA for its clients.
struct Running {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    served: ServedCertificate,
    metrics: Metrics,
    signal: CancellationToken,
    task: JoinHandle<()>,
    /// Handled requests for `/fine`.
    handled: Arc<AtomicUsize>,
    /// Requests that wait at the gate.
    waiting: Arc<AtomicUsize>,
    /// Permits to pass it.
    gate: Arc<Semaphore>,
}

fn pair() -> CertificateAndKey {
    let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    CertificateAndKey::parse(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())
        .expect("a pair")
}

impl Running {
    async fn start(limits: Limits) -> Self {
        let (waiting, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (at_gate, of_gate) = (Arc::clone(&waiting), Arc::clone(&gate));
        let handled = Arc::new(AtomicUsize::new(0));
        let fine = Arc::clone(&handled);
        let router = Router::new()
            .route(
                "/length",
                routing::post(|body: Bytes| async move { body.len().to_string() }),
            )
            .route("/echo", routing::post(|body: Bytes| async move { body }))
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
            .route(
                "/hang",
                get(|| async { std::future::pending::<()>().await }),
            )
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
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into())
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let signal = CancellationToken::new();
        let server = HttpsServer {
            listener,
            transport,
            router,
            limits,
            metrics: metrics.webhook_server.clone(),
        };
        let task = tokio::spawn(server.run(signal.clone()));
        Self {
            address,
            certificate,
            served,
            metrics,
            signal,
            task,
            handled,
            waiting,
            gate,
        }
    }

    fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    async fn connect_with(&self, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
    }

    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_with(self.client(rustls::ALL_VERSIONS, &["http/1.1"]))
            .await
    }

    async fn http1(&self) -> TlsStream<TcpStream> {
        within(self.connect()).await.expect("a connection")
    }

    /// A connection from 127.0.0.`last`.
    async fn from(&self, last: u8) -> TlsStream<TcpStream> {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind((Ipv4Addr::new(127, 0, 0, last), 0).into())
            .expect("an address of our own");
        let tcp = within(socket.connect(self.address))
            .await
            .expect("a connection");
        let config = self.client(rustls::ALL_VERSIONS, &["http/1.1"]);
        let name = ServerName::try_from("localhost").expect("a name");
        within(TlsConnector::from(Arc::new(config)).connect(name, tcp))
            .await
            .expect("a handshake")
    }

    /// A connection from this address that has sent part of a body: half of it, or enough for a
    /// large one.
    async fn half_sent(&self, last: u8, length: usize) -> TlsStream<TcpStream> {
        let mut stream = self.from(last).await;
        stream
            .write_all(post(length).as_bytes())
            .await
            .expect("written");
        stream
            .write_all(&vec![b' '; (length / 2).min(200_000)])
            .await
            .expect("written");
        stream
    }

    /// The number of open connections.
    fn open(&self) -> usize {
        usize::try_from(self.metrics.webhook_server.connections_open.get()).expect("a count")
    }

    fn ended(&self, end: ConnectionEnd) -> u64 {
        self.metrics
            .webhook_server
            .connections
            .get_or_create(&ConnectionEndLabels { end })
            .get()
    }

    fn shed(&self, reason: Shed) -> u64 {
        self.metrics
            .webhook_server
            .requests_shed
            .get_or_create(&ShedLabels { reason })
            .get()
    }

    /// A request of a well-behaved client is answered quickly.
    async fn must_serve(&self) {
        let began = Instant::now();
        let mut stream = self.http1().await;
        assert_eq!(
            exchange(&mut stream, "GET /fine").await,
            (200, "fine".to_owned())
        );
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "served after {:?}",
            began.elapsed()
        );
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

async fn text(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = within(response.into_body().collect())
        .await
        .expect("a body")
        .to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

/// Reads one HTTP/1.1 response with `Content-Length`: status, head and body.
async fn response(stream: &mut TlsStream<TcpStream>) -> std::io::Result<(u16, String, String)> {
    let mut bytes = vec![];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head
                .split("content-length: ")
                .nth(1)
                .expect("a length")
                .lines()
                .next()
                .expect("a line");
            if body.len() >= length.parse().expect("a number") {
                return Ok((
                    head[9..12].parse().expect("a status"),
                    head.clone(),
                    body.to_owned(),
                ));
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

/// The server closes this connection without a response.
async fn must_be_closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut rest = vec![];
    // A reset is an end as well.
    let _ = within(stream.read_to_end(&mut rest)).await;
    assert_eq!(String::from_utf8_lossy(&rest), "");
}

#[tokio::test]
async fn both_versions_of_tls_are_served_with_http1_alone_and_nothing_is_resumed() {
    let server = Running::start(Limits::default()).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for offered in [&["http/1.1"][..], &["h2", "http/1.1"], &[]] {
            let config = server.client(&[version], offered);
            for attempt in ["first", "second"] {
                let case = format!("{:?}, offered {offered:?}, {attempt}", version.version);
                let mut stream = within(server.connect_with(config.clone()))
                    .await
                    .expect("a connection");
                {
                    let (_, tls) = stream.get_ref();
                    assert_eq!(tls.protocol_version(), Some(version.version), "{case}");
                    let agreed = (!offered.is_empty()).then_some(b"http/1.1".as_slice());
                    assert_eq!(tls.alpn_protocol(), agreed, "{case}");
                    assert_ne!(tls.handshake_kind(), Some(HandshakeKind::Resumed), "{case}");
                }
                assert_eq!(
                    exchange(&mut stream, "GET /fine").await,
                    (200, "fine".to_owned()),
                    "{case}"
                );
                assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0, "{case}");
            }
        }
    }
    let config = server.client(rustls::ALL_VERSIONS, &["h2"]);
    assert!(
        within(server.connect_with(config)).await.is_err(),
        "HTTP/2 alone"
    );
}

/// The head of a request with a body of this length.
fn post(length: usize) -> String {
    format!("POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n")
}

#[tokio::test]
async fn the_longest_body_is_taken_and_one_byte_more_is_413() {
    let server = Running::start(Limits::default()).await;
    let most = Limits::default().body;
    for (length, status) in [(most, 200), (most + 1, 413)] {
        let mut stream = server.http1().await;
        stream
            .write_all(post(length).as_bytes())
            .await
            .expect("written");
        if status == 200 {
            stream
                .write_all(&vec![b' '; length])
                .await
                .expect("written");
        }
        let (answered, _, body) = response(&mut stream).await.expect("a response");
        assert_eq!(answered, status, "Content-Length: {length}: {body}");

        let mut stream = server.http1().await;
        let head = "POST /length HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("written");
        stream
            .write_all(format!("{length:x}\r\n").as_bytes())
            .await
            .expect("written");
        stream
            .write_all(&vec![b' '; length])
            .await
            .expect("written");
        if status == 200 {
            stream.write_all(b"\r\n0\r\n\r\n").await.expect("written");
        }
        let (answered, _, body) = response(&mut stream).await.expect("a response");
        assert_eq!(answered, status, "chunked, {length}: {body}");
    }
    assert_eq!(server.shed(Shed::TooLarge), 2);
}

#[tokio::test]
async fn a_caller_that_sends_a_whole_refused_body_gets_the_answer() {
    let server = Running::start(Limits::default()).await;
    let length = Limits::default().body + 1;
    for _ in 0..10 {
        let (mut reader, mut writer) = tokio::io::split(server.http1().await);
        let sending = tokio::spawn(async move {
            writer
                .write_all(&[post(length).as_bytes(), &vec![b' '; length]].concat())
                .await
        });
        let mut answer = vec![0; 12];
        within(reader.read_exact(&mut answer))
            .await
            .expect("an answer");
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413");
        within(sending)
            .await
            .expect("no panic")
            .expect("nobody hung up");
    }
}

#[tokio::test]
async fn half_sent_bodies_on_256_connections_do_not_delay_a_small_one() {
    let body_time = Duration::from_mins(10);
    for (length, addresses) in [
        (1000, 1),
        (100_000, 1),
        (1000, 8),
        (3 * MIB, 1),
        (3 * MIB, 8),
    ] {
        let server = Running::start(Limits {
            body_time,
            request: body_time,
            ..Limits::default()
        })
        .await;
        let mut halves = vec![];
        for i in 0..u8::MAX {
            halves.push(server.half_sent(2 + i % addresses, length).await);
        }
        for from in [1, 2] {
            let mut stream = server.from(from).await;
            for _ in 0..20 {
                let began = Instant::now();
                stream
                    .write_all(&[post(1000).as_bytes(), &[b' '; 1000]].concat())
                    .await
                    .expect("written");
                let (status, _, body) = response(&mut stream).await.expect("a response");
                assert_eq!(
                    (status, body.as_str()),
                    (200, "1000"),
                    "{length} bytes from {addresses} addresses"
                );
                assert!(
                    began.elapsed() < Duration::from_secs(1),
                    "{:?}",
                    began.elapsed()
                );
            }
        }
    }
}

#[tokio::test]
async fn half_sent_bodies_on_every_connection_keep_no_caller_out() {
    let (connections, long) = (64, Duration::from_mins(10));
    let server = Running::start(Limits {
        connections,
        body_time: long,
        request: long,
        ..Limits::default()
    })
    .await;
    let mut halves = vec![];
    for _ in 0..connections {
        halves.push(server.half_sent(2, 1000).await);
    }
    until("every place is taken", || server.open() == connections).await;
    server.must_serve().await;
    assert_eq!(server.ended(ConnectionEnd::Evicted), 1);
}

#[tokio::test]
async fn one_address_holds_no_more_than_a_quarter() {
    let limits = Limits {
        memory: 4 * MIB,
        body: MIB,
        ..Limits::default()
    };
    let server = Running::start(limits).await;
    // Large bodies get three quarters of the address' quarter.
    let length = 700 * 1024;
    let mut first = server.half_sent(2, length).await;
    until("it is being read", || server.open() == 1).await;
    let mut second = server.from(2).await;
    second
        .write_all(&[post(length).as_bytes(), &vec![b' '; length]].concat())
        .await
        .expect("written");
    let (status, head, body) = response(&mut second).await.expect("a response");
    assert_eq!(
        (status, head.contains("retry-after: 1\r\n")),
        (429, true),
        "{head}{body}"
    );
    // It was answered before its body was read, and the connection stays open.
    assert_eq!(exchange(&mut second, "GET /fine").await.0, 200);
    let mut other = server.from(3).await;
    other
        .write_all(&[post(length).as_bytes(), &vec![b' '; length]].concat())
        .await
        .expect("written");
    assert_eq!(
        response(&mut other).await.expect("a response").0,
        200,
        "another address has a quarter of its own"
    );
    first
        .write_all(&vec![b' '; length - 200_000])
        .await
        .expect("written");
    assert_eq!(
        response(&mut first).await.expect("a response").0,
        200,
        "who was first was not disturbed"
    );
    assert_eq!(server.shed(Shed::Memory), 1);
}

#[tokio::test]
async fn a_body_over_budget_is_refused_at_once_and_a_slow_one_makes_way() {
    let long = Duration::from_mins(10);
    let limits = Limits {
        memory: 4 * MIB,
        body: MIB,
        body_time: long,
        request: long,
        ..Limits::default()
    };
    let server = Running::start(limits).await;
    let length = 700 * 1024;
    let mut slow = vec![];
    for address in 2..6 {
        slow.push(server.half_sent(address, length).await);
    }
    until("four are being read", || server.open() == 4).await;
    let whole = [post(length).as_bytes(), &vec![b' '; length]].concat();
    let mut newcomer = server.from(6).await;
    newcomer.write_all(&whole).await.expect("written");
    let (status, head, body) = response(&mut newcomer).await.expect("a response");
    assert!(matches!(status, 503 | 200), "{head}{body}");
    assert_eq!(status == 503, head.contains("retry-after: 1\r\n"), "{head}");
    let deadline = Instant::now() + DEADLINE;
    // They soon count as slow; then the first of them is dropped.
    while server.shed(Shed::MadeWay) == 0 {
        assert!(Instant::now() < deadline, "nobody made way");
        newcomer.write_all(&whole).await.expect("written");
        response(&mut newcomer).await.expect("a response");
    }
    let (status, head, _) = response(&mut slow[0]).await.expect("a response");
    assert_eq!(
        (status, head.contains("retry-after: 1\r\n")),
        (503, true),
        "{head}"
    );
}

#[tokio::test]
async fn a_body_that_lies_about_its_length_ends() {
    let server = Running::start(Limits {
        body_time: Duration::from_millis(300),
        ..Limits::default()
    })
    .await;
    // Shorter than announced, and silent: it counts as slow.
    let mut stream = server.half_sent(2, 1000).await;
    let (status, head, _) = response(&mut stream).await.expect("a response");
    assert_eq!(
        (status, head.contains("connection: close")),
        (408, true),
        "{head}"
    );
    must_be_closed(&mut stream).await;
    // No longer than the caller waits.
    let mut stream = server.http1().await;
    let head = post(1000).replace("/length", "/length?timeout=100ms");
    let began = Instant::now();
    stream.write_all(head.as_bytes()).await.expect("written");
    assert_eq!(response(&mut stream).await.expect("a response").0, 408);
    assert!(
        began.elapsed() < Duration::from_millis(290),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(server.shed(Shed::SlowBody), 2);
    // Shorter than announced, and closed.
    let mut stream = server.half_sent(2, 1000).await;
    stream.shutdown().await.expect("closed");
    until("it is counted", || server.shed(Shed::BrokenBody) == 1).await;
    // Longer than announced: the rest is not a request.
    let mut stream = server.http1().await;
    stream
        .write_all(&[post(10).as_bytes(), &[b' '; 1000]].concat())
        .await
        .expect("written");
    let mut answers = String::new();
    let _ = within(stream.read_to_string(&mut answers)).await;
    assert!(
        answers.starts_with("HTTP/1.1 200") && answers.matches("HTTP/1.1 400").count() == 1,
        "{answers}"
    );
    // More than the budget.
    for length in [
        "99999999999",
        "18446744073709551615",
        "99999999999999999999999",
        "-1",
        "1e3",
    ] {
        let mut stream = server.http1().await;
        stream
            .write_all(post(7).replace(": 7", &format!(": {length}")).as_bytes())
            .await
            .expect("written");
        let (status, ..) = response(&mut stream).await.expect("a response");
        assert!(matches!(status, 400 | 413 | 431), "{length}: {status}");
    }
    server.must_serve().await;
}

#[tokio::test]
async fn many_values_wait_in_a_line_of_which_one_address_has_a_quarter() {
    let server = Running::start(Limits {
        queue: 8,
        ..Limits::default()
    })
    .await;
    let heavy = [
        "GET /gate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\n\r\n",
        &",".repeat(2000),
    ]
    .concat();
    let mut waiting = vec![];
    for (address, at_gate) in [(2, 1), (2, 2), (3, 3)] {
        let mut stream = server.from(address).await;
        stream.write_all(heavy.as_bytes()).await.expect("written");
        until("it is at the gate", || {
            server.waiting.load(Ordering::SeqCst) == at_gate
        })
        .await;
        waiting.push(stream);
    }
    let mut stream = server.from(2).await;
    stream.write_all(heavy.as_bytes()).await.expect("written");
    let (status, head, _) = response(&mut stream).await.expect("a response");
    assert_eq!(
        (status, head.contains("retry-after: 1\r\n")),
        (429, true),
        "{head}"
    );
    assert_eq!(server.shed(Shed::Heavy), 1);
    assert_eq!(
        exchange(&mut stream, "GET /fine").await.0,
        200,
        "what is light does not stand in line"
    );
    server.gate.add_permits(3);
    for mut stream in waiting {
        assert_eq!(response(&mut stream).await.expect("a response").0, 200);
    }
}

#[tokio::test]
async fn a_long_unread_answer_makes_way() {
    let server = Running::start(Limits {
        memory: 4 * MIB,
        body: MIB,
        ..Limits::default()
    })
    .await;
    let ask = |length: usize| {
        [
            post(length).replace("/length", "/echo").as_bytes(),
            &vec![b' '; length],
        ]
        .concat()
    };
    let mut deaf = vec![];
    // More than the kernel's buffers: unsent bytes stay in the budget.
    for _ in 0..20 {
        let mut stream = server.from(2).await;
        stream.write_all(&ask(700 * 1024)).await.expect("written");
        deaf.push(stream);
    }
    for _ in 0..20 {
        let mut stream = server.from(2).await;
        stream.write_all(&ask(1000)).await.expect("written");
        assert_eq!(response(&mut stream).await.expect("a response").0, 200);
    }
}

#[tokio::test]
async fn a_chunked_body_without_end_ends() {
    let server = Running::start(Limits {
        body_time: Duration::from_millis(300),
        ..Limits::default()
    })
    .await;
    let head = "POST /length HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    // At full speed: 413, and the connection closes.
    let mut stream = server.http1().await;
    stream.write_all(head.as_bytes()).await.expect("written");
    let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
    let mut written = 0;
    while written < 100 * MIB && within(stream.write_all(&chunk)).await.is_ok() {
        written += chunk.len();
    }
    assert!(written < 30 * MIB, "{written} bytes were taken");
    // A byte now and then: the time for the body is over.
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
    assert!(
        String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 408"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(server.shed(Shed::SlowBody), 1);
    server.must_serve().await;
}

#[tokio::test]
async fn a_request_ends_when_its_caller_stops_waiting() {
    let server = Running::start(Limits {
        request: Duration::from_millis(600),
        ..Limits::default()
    })
    .await;
    for (query, at_least, at_most) in [
        ("?timeout=100ms", 100, 500),
        ("", 600, 5000),
        ("?timeout=1s", 1000, 5000),
    ] {
        let mut stream = server.http1().await;
        let began = Instant::now();
        let (status, body) = exchange(&mut stream, &format!("GET /hang{query}")).await;
        let took = began.elapsed().as_millis();
        assert_eq!(status, 504, "{body}");
        assert!(
            (at_least..at_most).contains(&took),
            "{query:?} took {took} ms"
        );
        assert_eq!(
            exchange(&mut stream, "GET /fine").await.0,
            200,
            "the connection lives on"
        );
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
    assert_eq!(server.shed(Shed::Panic), 3);
}

#[tokio::test]
async fn beyond_its_requests_in_flight_the_answer_is_503_at_once() {
    let server = Running::start(Limits {
        in_flight: 32,
        ..Limits::default()
    })
    .await;
    let mut flying = vec![];
    for _ in 0..32 {
        let mut stream = server.http1().await;
        stream
            .write_all(b"GET /gate HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .expect("written");
        flying.push(stream);
    }
    until("32 requests at the gate", || {
        server.waiting.load(Ordering::SeqCst) == 32
    })
    .await;
    let mut stream = server.http1().await;
    let began = Instant::now();
    stream
        .write_all(b"GET /fine HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .expect("written");
    let (status, head, body) = response(&mut stream).await.expect("a response");
    assert_eq!(
        (status, body.contains("32 requests are in flight")),
        (503, true),
        "{body}"
    );
    assert!(head.contains("retry-after: 1\r\n"), "{head}");
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "after {:?}",
        began.elapsed()
    );
    server.gate.add_permits(32);
    for mut stream in flying {
        assert_eq!(response(&mut stream).await.expect("an answer").0, 200);
    }
    assert_eq!(exchange(&mut stream, "GET /fine").await.0, 200);
    assert_eq!(server.shed(Shed::InFlight), 1);
}

/// 512, or as many as the process may open: each connection has two descriptors here.
fn many() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find(|l| l.starts_with("Max open files"))
        .unwrap_or_default();
    let descriptors: usize = line
        .split_whitespace()
        .nth(3)
        .and_then(|n| n.parse().ok())
        .unwrap_or(1024);
    512.min((descriptors - 256) / 3)
}

#[tokio::test]
async fn clients_that_hold_every_place_do_not_keep_a_healthy_one_out() {
    let connections = many();
    // The time limits are far away: the test proves that a slot is freed for the newcomer.
    let long = Duration::from_mins(10);
    let limits = Limits {
        connections,
        handshake: long,
        header: long,
        idle: long,
        ..Limits::default()
    };
    let server = Running::start(limits).await;
    for what in ["nothing", "half a header", "one request", "no handshake"] {
        let (mut secure, mut raw) = (vec![], vec![]);
        let before = server.ended(ConnectionEnd::Evicted);
        for _ in 0..connections {
            if what == "no handshake" {
                raw.push(
                    TcpStream::connect(server.address)
                        .await
                        .expect("a connection"),
                );
                continue;
            }
            let mut stream = server.http1().await;
            match what {
                "half a header" => stream
                    .write_all(b"GET /fine HTTP/1.1\r\nHo")
                    .await
                    .expect("written"),
                "one request" => assert_eq!(exchange(&mut stream, "GET /fine").await.0, 200),
                _ => {}
            }
            secure.push(stream);
        }
        let open = || {
            usize::try_from(server.metrics.webhook_server.connections_open.get()).expect("a count")
        };
        until("every place is taken", || open() == connections).await;
        server.must_serve().await;
        assert!(
            server.ended(ConnectionEnd::Evicted) > before,
            "{what}: nobody made way"
        );
        drop((secure, raw));
        until("the places are free", || open() == 0).await;
    }
}

#[tokio::test]
async fn a_connection_in_use_is_not_closed_for_another() {
    let server = Running::start(Limits {
        connections: 2,
        ..Limits::default()
    })
    .await;
    let mut busy = server.http1().await;
    busy.write_all(b"GET /gate HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .expect("written");
    until("the request is at the gate", || {
        server.waiting.load(Ordering::SeqCst) == 1
    })
    .await;
    for _ in 0..5 {
        server.must_serve().await;
    }
    server.gate.add_permits(1);
    assert_eq!(response(&mut busy).await.expect("a response").2, "passed");
}

#[tokio::test]
async fn slow_clients_are_closed_in_time() {
    let short = Duration::from_millis(200);
    let server = Running::start(Limits {
        handshake: short,
        header: short,
        ..Limits::default()
    })
    .await;
    let mut silent = TcpStream::connect(server.address)
        .await
        .expect("a connection");
    must_be_closed(&mut silent).await;
    assert_eq!(server.ended(ConnectionEnd::HandshakeTimeout), 1);

    let mut fresh = server.http1().await;
    must_be_closed(&mut fresh).await;
    let mut half = server.http1().await;
    half.write_all(b"GET /fine HTTP/1.1\r\nHo")
        .await
        .expect("written");
    must_be_closed(&mut half).await;
    // Single bytes do not extend the time.
    let (mut reader, mut writer) = tokio::io::split(server.http1().await);
    writer
        .write_all(b"GET /fine HTTP/1.1\r\nX: ")
        .await
        .expect("written");
    let drip = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    must_be_closed(&mut reader).await;
    drip.abort();
    until("all are counted", || {
        server.ended(ConnectionEnd::HeaderTimeout) == 3
    })
    .await;
    server.must_serve().await;
}

#[tokio::test]
async fn an_idle_connection_is_kept_longer_than_a_header_may_take() {
    let (header, idle) = (Duration::from_millis(200), Duration::from_millis(800));
    let server = Running::start(Limits {
        header,
        idle,
        ..Limits::default()
    })
    .await;
    let mut stream = server.http1().await;
    for _ in 0..3 {
        assert_eq!(exchange(&mut stream, "GET /fine").await.0, 200);
        // The test is about the passing of this time.
        tokio::time::sleep(2 * header).await;
    }
    // Half of the next header after a request: the limit for headers applies.
    let mut half = server.http1().await;
    assert_eq!(exchange(&mut half, "GET /fine").await.0, 200);
    half.write_all(b"GET").await.expect("written");
    must_be_closed(&mut half).await;
    assert_eq!(server.ended(ConnectionEnd::HeaderTimeout), 1);
    must_be_closed(&mut stream).await;
    until("the idle one is closed", || {
        server.ended(ConnectionEnd::Idle) == 1
    })
    .await;
}

/// Sends requests in a loop, over one connection as long as it lasts. Returns how many were
/// answered before the server accepted no new connection.
async fn load(server: Arc<Running>) -> usize {
    let mut answered = 0;
    'connection: while let Ok(mut stream) = server.connect().await {
        loop {
            let written = stream
                .write_all(b"GET /fine HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .await;
            assert!(
                written.is_ok() || answered > 0,
                "the first request could not be written"
            );
            let (status, head, _) = response(&mut stream)
                .await
                .expect("every request is answered");
            assert_eq!(status, 200);
            answered += 1;
            if head.contains("connection: close") {
                continue 'connection;
            }
        }
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_under_load_loses_no_request() {
    let linger = Duration::from_millis(500);
    let mut server = Running::start(Limits {
        linger,
        ..Limits::default()
    })
    .await;
    let task = std::mem::replace(&mut server.task, tokio::spawn(async {}));
    let server = Arc::new(server);
    let mut slow = server.http1().await;
    slow.write_all(b"GET /gate HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .expect("written");
    until("the slow request is at the gate", || {
        server.waiting.load(Ordering::SeqCst) == 1
    })
    .await;
    // Connected, and silent until the shutdown has begun.
    let mut late = server.http1().await;
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        clients.spawn(load(Arc::clone(&server)));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.signal.cancel();
    let mut answered = vec![];
    while let Some(count) = within(clients.join_next()).await {
        answered.push(count.expect("no request is lost"));
    }
    assert!(answered.iter().all(|count| *count > 10), "{answered:?}");
    assert_eq!(
        server.handled.load(Ordering::SeqCst),
        answered.iter().sum::<usize>(),
        "all that were handled"
    );
    assert!(!task.is_finished(), "one request is still at the gate");
    assert_eq!(
        exchange(&mut late, "GET /fine").await.0,
        200,
        "it was connected in time"
    );
    server.gate.add_permits(1);
    let (status, head, body) = response(&mut slow).await.expect("a response");
    assert_eq!((status, body.as_str()), (200, "passed"));
    assert!(head.contains("connection: close"), "{head}");
    within(task).await.expect("the server ends");
}

#[tokio::test]
async fn a_request_that_does_not_end_does_not_keep_the_server_from_ending() {
    let linger = Duration::from_millis(50);
    let limits = Limits {
        linger,
        drain: Duration::from_millis(200),
        request: DEADLINE,
        ..Limits::default()
    };
    let mut server = Running::start(limits).await;
    let mut stuck = server.http1().await;
    stuck
        .write_all(b"GET /gate HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .expect("written");
    until("the request is at the gate", || {
        server.waiting.load(Ordering::SeqCst) == 1
    })
    .await;
    let mut idle = server.http1().await;
    assert_eq!(exchange(&mut idle, "GET /fine").await.0, 200);
    server.signal.cancel();
    timeout(Duration::from_secs(5), &mut server.task)
        .await
        .expect("in time")
        .expect("no panic");
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
    let refused = server
        .connect()
        .await
        .expect_err("the old certificate is not served any more");
    assert!(refused.to_string().contains("certificate"), "{refused}");
    server.certificate = certificate;
    server.must_serve().await;
    assert_eq!(
        exchange(&mut old, "GET /fine").await.0,
        200,
        "a connection that is there stays"
    );
}

#[tokio::test]
async fn bytes_that_are_no_tls_do_no_harm() {
    let server = Running::start(Limits::default()).await;
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        &[0; 100],
        &[0x16, 3, 1, 0xff, 0xff, 1, 2, 3],
    ] {
        let mut stream = TcpStream::connect(server.address)
            .await
            .expect("a connection");
        stream.write_all(bytes).await.expect("written");
        let _ = stream.shutdown().await;
        let mut rest = vec![];
        let _ = within(stream.read_to_end(&mut rest)).await;
        assert!(!rest.starts_with(b"HTTP"));
    }
    server.must_serve().await;
}

#[tokio::test]
async fn the_health_port_names_each_part_that_is_not_ready() {
    let (readiness, ready) = (Readiness::new(), CancellationToken::new());
    let facts = ready.clone();
    readiness.add("facts", move || {
        if facts.is_cancelled() {
            Ok(())
        } else {
            Err("Postgres not synced".to_owned())
        }
    });
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into())
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let signal = CancellationToken::new();
    let server = HttpsServer {
        listener,
        transport: Transport::Plain,
        router: probes::router(readiness, Arc::new(Metrics::new())),
        limits: Limits::of_health_port(),
        metrics: pgrekey::metrics::ServerMetrics::default(),
    };
    let task = tokio::spawn(server.run(signal.clone()));
    let ask = async |path: &str| {
        let io = TokioIo::new(TcpStream::connect(address).await.expect("a connection"));
        let (mut client, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .expect("HTTP/1.1");
        tokio::spawn(connection);
        let request = Request::get(path)
            .header("host", "localhost")
            .body(Full::<Bytes>::default())
            .expect("a request");
        text(
            within(client.send_request(request))
                .await
                .expect("an answer"),
        )
        .await
    };
    assert_eq!(ask("/livez").await, (StatusCode::OK, "ok\n".to_owned()));
    assert_eq!(
        ask("/readyz").await,
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "facts: Postgres not synced\n".to_owned()
        )
    );
    ready.cancel();
    assert_eq!(ask("/readyz").await, (StatusCode::OK, "ok\n".to_owned()));
    let (status, metrics) = ask("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        metrics.contains("pgrekey_serving_certificate_expiry_seconds 0\n"),
        "{metrics}"
    );
    signal.cancel();
    within(task).await.expect("the server ends");
}
