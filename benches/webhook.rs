//! The real HTTPS server under load, on loopback: how many reviews a core answers, what one costs,
//! how long it takes.
//!
//! The server is a process of its own with one worker thread, so that what it uses can be read from
//! the kernel; the clients run in this one. Every load is bounded in time.
//!
//! The last part is a server of another kind, with as many threads as the program has, under the
//! worst that strangers may do to it: what its memory came to at most, and how an API server fared
//! meanwhile, from an address of its own and from one of theirs.

#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]

#[path = "review_body.rs"]
mod review_body;
#[allow(dead_code, reason = "the test of memory says which one it was")]
#[path = "worst_body.rs"]
mod worst_body;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgrekey::metrics::Metrics;
use pgrekey::pki::key_pair::CertificateAndKey;
use pgrekey::rules::defaults::InstallationDefaults;
use pgrekey::serve::certificate::ServedCertificate;
use pgrekey::serve::limits::Limits;
use pgrekey::serve::server::{HttpsServer, Transport, tls};
use pgrekey::serve::table::{WEBHOOKS, WebhookType};
use pgrekey::serve::webhooks::{Admission, router};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

const CONNECTIONS: usize = 25;
const WARM_UP: Duration = Duration::from_secs(1);
const LOAD: Duration = Duration::from_secs(8);
/// Requests per second of the steady load.
const STEADY: u32 = 1_000;

fn main() {
    let is_asked = |what: &str| std::env::args().any(|a| a == what);
    if is_asked("--serve") {
        return Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(serve());
    }
    if is_asked("--serve-as-the-program") {
        return Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(serve());
    }
    // `cargo test` runs benchmarks too, with this: nothing to measure then.
    if !is_asked("--bench") {
        return;
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    if !is_asked("worst") {
        with_server("--serve", |client, server| {
            runtime.block_on(measure(client, server));
        });
    }
    with_server("--serve-as-the-program", |client, server| {
        worst(&runtime, client, server);
    });
}

fn with_server(how: &str, work: impl FnOnce(&Client, &mut Child)) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .arg(how)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut greeting = BufReader::new(child.stdout.take().expect("its output")).lines();
    let address: SocketAddr = greeting
        .next()
        .expect("a line")
        .expect("text")
        .parse()
        .expect("an address");
    let root: String = greeting
        .map_while(Result::ok)
        .take_while(|l| !l.is_empty())
        .collect::<Vec<_>>()
        .join("\n");
    // A benchmark that fails must not leave its server behind.
    let worked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        work(&Client::new(address, &root), &mut child);
    }));
    child.kill().expect("the server ends");
    child.wait().expect("the server has ended");
    if let Err(why) = worked {
        std::panic::resume_unwind(why);
    }
}

async fn serve() {
    let issued =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let pair = CertificateAndKey::parse(
        issued.cert.pem().as_bytes(),
        issued.signing_key.serialize_pem().as_bytes(),
    )
    .expect("a pair");
    let metrics = Metrics::new();
    let served = ServedCertificate::new();
    served.serve(Arc::new(pair), &metrics);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!(
        "{}\n{}\n",
        listener.local_addr().expect("an address"),
        issued.cert.pem().trim()
    );
    let admission = Arc::new(Admission {
        facts: Arc::new(review_body::facts()),
        installation: InstallationDefaults {
            ops_manager: true,
            ..InstallationDefaults::default()
        },
        observe: Box::new(|_, _| {}),
    });
    let server = HttpsServer {
        listener,
        transport: Transport::Tls(tls(Arc::new(served)).expect("TLS")),
        router: router(&admission),
        limits: Limits::default(),
        metrics: metrics.webhook_server.clone(),
    };
    server.run(CancellationToken::new()).await;
}

async fn measure(client: &Client, server: &mut Child) {
    println!(
        "body {} bytes, {CONNECTIONS} connections, 1 server thread\n",
        client.body
    );
    println!(
        "{:<34} {:>10} {:>12} {:>10} {:>9} {:>9}",
        "load", "req/s", "req/s/core", "CPU/req", "p50", "p99"
    );
    closed(client, WARM_UP).await;
    row(
        server,
        "keep-alive, as fast as it goes",
        closed(client, LOAD),
    )
    .await;
    row(
        server,
        &format!("keep-alive, {STEADY} req/s"),
        steady(client, LOAD),
    )
    .await;
    row(
        server,
        "a new connection for each request",
        anew(client, LOAD),
    )
    .await;
    println!(
        "\nresident set size of the server: {:.1} MiB",
        memory(server.id(), "VmRSS:")
    );
}

async fn row(server: &Child, name: &str, load: impl Future<Output = Vec<Duration>>) {
    let (cpu, started) = (cpu(server.id()), Instant::now());
    let mut times = load.await;
    let (wall, cpu) = (
        started.elapsed(),
        self::cpu(server.id()).saturating_sub(cpu),
    );
    times.sort_unstable();
    let at = |quantile: f64| times[((times.len() - 1) as f64 * quantile) as usize];
    println!(
        "{name:<34} {:>10.0} {:>12.0} {:>7.1} µs {:>6} µs {:>6} µs",
        times.len() as f64 / wall.as_secs_f64(),
        times.len() as f64 / cpu.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / times.len() as f64,
        at(0.5).as_micros(),
        at(0.99).as_micros(),
    );
}

/// Time that all threads of a process have run, from the kernel's scheduler.
fn cpu(process: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("the process");
    let nanoseconds = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// A line of the kernel's about a process' memory, in MiB.
fn memory(process: u32, what: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process");
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix(what))
        .expect("a line");
    line.split_whitespace()
        .next()
        .expect("a number")
        .parse::<f64>()
        .expect("a number")
        / 1024.0
}

struct Client {
    address: SocketAddr,
    connector: TlsConnector,
    request: Vec<u8>,
    body: usize,
}

impl Client {
    fn new(address: SocketAddr, root: &str) -> Self {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(root.as_bytes()).expect("PEM"))
            .expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        let webhook = WEBHOOKS
            .iter()
            .find(|w| w.kind == "PostgresOpsRequest" && w.webhook_type == WebhookType::Validate);
        let (path, body) = (webhook.expect("a webhook").path, review_body::body());
        let request = [head(path, body.len()).as_bytes(), &body].concat();
        Self {
            address,
            connector: TlsConnector::from(Arc::new(config)),
            request,
            body: body.len(),
        }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        self.connect_from(1).await.expect("a connection")
    }

    /// From this address of the loopback network, of which all are there.
    async fn connect_from(&self, last: u8) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into())?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a name");
        self.connector.connect(name, stream).await
    }

    /// One review; the answer must let the object in.
    async fn ask(&self, stream: &mut TlsStream<TcpStream>) {
        stream.write_all(&self.request).await.expect("sent");
        let mut answer = Vec::with_capacity(2048);
        loop {
            assert!(
                stream.read_buf(&mut answer).await.expect("an answer") > 0,
                "the server hung up"
            );
            let text = std::str::from_utf8(&answer).expect("text");
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head.lines().find_map(|l| {
                l.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            });
            if body.len() == length.unwrap_or(0) {
                assert!(
                    head.starts_with("HTTP/1.1 200") && body.contains(r#""allowed":true"#),
                    "{text}"
                );
                return;
            }
        }
    }
}

fn head(path: &str, length: usize) -> String {
    format!(
        "POST {path}?timeout=3s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// Runs one worker per connection until the time is over and gathers how long each review took.
async fn gather(
    workers: impl IntoIterator<Item = impl Future<Output = Vec<Duration>>>,
) -> Vec<Duration> {
    futures::future::join_all(workers).await.concat()
}

async fn closed(client: &Client, load: Duration) -> Vec<Duration> {
    let end = Instant::now() + load;
    gather((0..CONNECTIONS).map(|_| async move {
        let (mut stream, mut times) = (client.connect().await, vec![]);
        while Instant::now() < end {
            let started = Instant::now();
            client.ask(&mut stream).await;
            times.push(started.elapsed());
        }
        times
    }))
    .await
}

/// Requests at fixed times, whatever the answers: a late answer delays no request on another
/// connection.
async fn steady(client: &Client, load: Duration) -> Vec<Duration> {
    let connections = u32::try_from(CONNECTIONS).expect("a number");
    let (period, begin) = (
        Duration::from_secs(1) * connections / STEADY,
        Instant::now(),
    );
    let rounds = (load.as_secs_f64() / period.as_secs_f64()) as u32;
    gather((0..connections).map(|worker| async move {
        let (mut stream, mut times) = (client.connect().await, vec![]);
        for round in 0..rounds {
            let due = begin + period * round + period * worker / connections;
            tokio::time::sleep_until(due.into()).await;
            let started = Instant::now();
            client.ask(&mut stream).await;
            times.push(started.elapsed());
        }
        times
    }))
    .await
}

async fn anew(client: &Client, load: Duration) -> Vec<Duration> {
    let end = Instant::now() + load;
    gather((0..4).map(|_| async move {
        let mut times = vec![];
        while Instant::now() < end {
            let started = Instant::now();
            client.ask(&mut client.connect().await).await;
            times.push(started.elapsed());
        }
        times
    }))
    .await
}

/// What a caller like the API server met with.
#[derive(Default)]
struct Fared {
    at_once: usize,
    after_a_retry: usize,
    failed: Vec<String>,
    slowest: Duration,
}

/// The requests of the worst mix: every shape for every webhook of its kind, and two deep documents.
fn worst_bodies(long: usize) -> Vec<Vec<u8>> {
    worst_body::SHAPES
        .iter()
        .flat_map(|shape| {
            let webhooks = WEBHOOKS.iter().filter(|w| w.kind == shape.kind());
            let bodies = [
                (shape.entries(9_900), true),
                (shape.entries(9_900), false),
                (shape.entries(11_000), true),
            ];
            webhooks.flat_map(move |webhook| {
                bodies.map(|(entries, is_long)| {
                    let bare = shape.update(entries, 0).len();
                    let body = shape.update(
                        entries,
                        if is_long {
                            long.saturating_sub(bare) / 2
                        } else {
                            0
                        },
                    );
                    [head(webhook.path, body.len()).as_bytes(), &body].concat()
                })
            })
        })
        .chain([("[", "]"), (r#"{"a":"#, "}")].map(|(open, close)| {
            let deep = [open.repeat(long / 8), close.repeat(long / 8)].concat();
            [
                head(WEBHOOKS[0].path, deep.len()).as_bytes(),
                deep.as_bytes(),
            ]
            .concat()
        }))
        .collect()
}

fn worst(runtime: &Runtime, client: &Client, server: &mut Child) {
    runtime.block_on(closed(client, WARM_UP));
    let before = memory(server.id(), "VmHWM:");
    let long = Limits::default().body;
    let bodies = worst_bodies(long);
    let (end, bodies) = (Instant::now() + LOAD, &bodies);
    // Half-sent bodies on 256 connections, and 64 long ones at once; eight addresses each.
    let halves = (0..256_u16).map(|i| {
        half_sent(
            client,
            2 + (i % 8) as u8,
            if i % 2 == 0 { 100_000 } else { long },
            end,
        )
    });
    let whole =
        (0..64_u16).map(|i| hammer(client, 2 + (i % 16) as u8, bodies, usize::from(i), end));
    // On threads of their own, so that what they measure is the server and not this process.
    let (answered, own, shared) = std::thread::scope(|scope| {
        let like_the_api_server = |from| {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(like_the_api_server(client, from, end))
        };
        let (own, shared) = (
            scope.spawn(move || like_the_api_server(100)),
            scope.spawn(move || like_the_api_server(2)),
        );
        let attack = futures::future::join(
            futures::future::join_all(halves),
            futures::future::join_all(whole),
        );
        let (_, answered) = runtime.block_on(attack);
        (
            answered,
            own.join().expect("no panic"),
            shared.join().expect("no panic"),
        )
    });
    println!(
        "\nthe worst mix, {} s: half-sent bodies on 256 connections, 64 bodies of up to {long} bytes at once\n",
        LOAD.as_secs()
    );
    for (name, fared) in [
        ("an address of its own", own),
        ("an address of theirs", shared),
    ] {
        let Fared {
            at_once,
            after_a_retry,
            failed,
            slowest,
        } = fared;
        println!(
            "reviews from {name:<22} {at_once} answered at once, {after_a_retry} after a retry, {} not; slowest {} ms",
            failed.len(),
            slowest.as_millis()
        );
        failed.iter().take(3).for_each(|why| println!("  {why}"));
    }
    println!(
        "answers to the 64: {:?}",
        answered
            .into_iter()
            .flatten()
            .fold(BTreeMap::<u16, usize>::new(), |mut sum, status| {
                *sum.entry(status).or_default() += 1;
                sum
            })
    );
    let peak = memory(server.id(), "VmHWM:");
    println!(
        "resident set size of the server at most: {peak:.1} MiB (before: {before:.1} MiB, after: {:.1} MiB)",
        memory(server.id(), "VmRSS:")
    );
    assert!(peak < 128.0, "half of what the chart gives a pod");
}

/// All of a body but its last byte, and again when the server has had enough of it.
async fn half_sent(client: &Client, from: u8, length: usize, end: Instant) {
    let part = [
        head(WEBHOOKS[0].path, length).as_bytes(),
        &vec![b' '; length - 1],
    ]
    .concat();
    let work = async {
        loop {
            let Ok(mut stream) = client.connect_from(from).await else {
                continue;
            };
            let _ = stream.write_all(&part).await;
            let _ = stream.read_to_end(&mut vec![]).await;
        }
    };
    let _ = tokio::time::timeout_at(end.into(), work).await;
}

/// Long and heavy bodies, one after the other, on a new connection whenever one ends.
async fn hammer(
    client: &Client,
    from: u8,
    bodies: &[Vec<u8>],
    first: usize,
    end: Instant,
) -> Vec<u16> {
    let mut answered = vec![];
    let work = async {
        for body in bodies.iter().cycle().skip(first) {
            let Ok(stream) = client.connect_from(from).await else {
                continue;
            };
            let (mut reader, mut writer) = tokio::io::split(stream);
            let answer = async {
                let mut status = [0; 12];
                reader.read_exact(&mut status).await.map(|_| status)
            };
            let (_, answer) = futures::join!(writer.write_all(body), answer);
            answered.push(
                answer
                    .ok()
                    .and_then(|s| std::str::from_utf8(&s[9..]).ok()?.parse().ok())
                    .unwrap_or(0),
            );
        }
    };
    let _ = tokio::time::timeout_at(end.into(), work).await;
    answered
}

/// A hundred small reviews a second, each tried again after a second when the server says so, for
/// three seconds in all.
async fn like_the_api_server(client: &Client, from: u8, end: Instant) -> Fared {
    let mut fared = Fared::default();
    let mut idle = None;
    while Instant::now() < end {
        let (began, mut tries) = (Instant::now(), 0);
        let outcome = tokio::time::timeout(Duration::from_secs(3), async {
            loop {
                tries += 1;
                let mut stream = match idle.take().filter(|stream| !has_ended(stream)) {
                    Some(stream) => stream,
                    None => client
                        .connect_from(from)
                        .await
                        .map_err(|error| format!("connecting: {error}"))?,
                };
                let (status, answer) = exchange(&mut stream, &client.request).await?;
                match status {
                    200 if answer.contains(r#""allowed":true"#) => {
                        idle = Some(stream);
                        return Ok(());
                    }
                    429 | 503 if answer.to_ascii_lowercase().contains("retry-after: 1") => {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    _ => return Err(answer),
                }
            }
        });
        match outcome.await {
            Ok(Ok(())) if tries == 1 => fared.at_once += 1,
            Ok(Ok(())) => fared.after_a_retry += 1,
            Ok(Err(why)) => fared.failed.push(why),
            Err(_) => fared.failed.push("no answer in 3 s".to_owned()),
        }
        fared.slowest = fared.slowest.max(began.elapsed());
        tokio::time::sleep_until((began + Duration::from_millis(10)).into()).await;
    }
    fared
}

/// Whether the server has closed this connection while it was idle, as Go's client notices.
fn has_ended(stream: &TlsStream<TcpStream>) -> bool {
    !matches!(stream.get_ref().0.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

async fn exchange(
    stream: &mut TlsStream<TcpStream>,
    request: &[u8],
) -> Result<(u16, String), String> {
    stream
        .write_all(request)
        .await
        .map_err(|error| format!("writing: {error}"))?;
    let mut answer = vec![];
    loop {
        match stream.read_buf(&mut answer).await {
            Ok(0) => return Err("the server hung up".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(format!("reading: {error}")),
        }
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|l| {
            l.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        });
        if body.len() >= length.unwrap_or(0) {
            return Ok((
                head.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0),
                text.into_owned(),
            ));
        }
    }
}
