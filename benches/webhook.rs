//! The real HTTPS server under load, on loopback: how many reviews a core answers, what one costs, how long it takes.
//!
//! The server is a process of its own with one worker thread, so that what it uses can be read from the kernel; the clients
//! run in this one. Every load is bounded in time.

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

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgrekey::metrics::Metrics;
use pgrekey::rules::defaults::Installation;
use pgrekey::serve::certificate::ServedCertificate;
use pgrekey::serve::https::{Server, Transport, tls};
use pgrekey::serve::limits::Limits;
use pgrekey::serve::webhooks::{Admission, Purpose, WEBHOOKS, router};
use pgrekey::tls::pair::Pair;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

const CONNECTIONS: usize = 25;
const WARM_UP: Duration = Duration::from_secs(1);
const LOAD: Duration = Duration::from_secs(8);
/// Requests per second of the steady load.
const STEADY: u32 = 1_000;

fn main() {
    if std::env::args().any(|a| a == "--serve") {
        return Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(serve());
    }
    // `cargo test` runs benchmarks too, with this: nothing to measure then.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .arg("--serve")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut greeting = BufReader::new(child.stdout.take().expect("its output")).lines();
    let address: SocketAddr = greeting.next().expect("a line").expect("text").parse().expect("an address");
    let root: String = greeting.map_while(Result::ok).take_while(|l| !l.is_empty()).collect::<Vec<_>>().join("\n");
    let client = Client::new(address, &root);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(&client, &mut child));
    child.kill().expect("the server ends");
    child.wait().expect("the server has ended");
}

async fn serve() {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let pair =
        Pair::parse(issued.cert.pem().as_bytes(), issued.signing_key.serialize_pem().as_bytes()).expect("a pair");
    let metrics = Metrics::new();
    let served = ServedCertificate::new();
    served.serve(Arc::new(pair), &metrics);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}\n{}\n", listener.local_addr().expect("an address"), issued.cert.pem().trim());
    let admission = Arc::new(Admission {
        facts: Arc::new(review_body::facts()),
        installation: Installation { ops_manager: true, ..Installation::default() },
        observe: Box::new(|_, _| {}),
    });
    let server = Server {
        listener,
        transport: Transport::Tls(tls(Arc::new(served)).expect("TLS")),
        router: router(&admission),
        limits: Limits::default(),
        metrics: metrics.webhook_server.clone(),
    };
    server.run(CancellationToken::new()).await;
}

async fn measure(client: &Client, server: &mut Child) {
    println!("body {} bytes, {CONNECTIONS} connections, 1 server thread\n", client.body);
    println!("{:<34} {:>10} {:>12} {:>10} {:>9} {:>9}", "load", "req/s", "req/s/core", "CPU/req", "p50", "p99");
    closed(client, WARM_UP).await;
    row(server, "keep-alive, as fast as it goes", closed(client, LOAD)).await;
    row(server, &format!("keep-alive, {STEADY} req/s"), steady(client, LOAD)).await;
    row(server, "a new connection for each request", anew(client, LOAD)).await;
    println!("\nresident set size of the server: {:.1} MiB", resident(server.id()));
}

async fn row(server: &Child, name: &str, load: impl Future<Output = Vec<Duration>>) {
    let (cpu, started) = (cpu(server.id()), Instant::now());
    let mut times = load.await;
    let (wall, cpu) = (started.elapsed(), self::cpu(server.id()).saturating_sub(cpu));
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

fn resident(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
    line.split_whitespace().next().expect("a number").parse::<f64>().expect("a number") / 1024.0
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
        roots.add(CertificateDer::from_pem_slice(root.as_bytes()).expect("PEM")).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        let webhook = WEBHOOKS.iter().find(|w| w.kind == "PostgresOpsRequest" && w.purpose == Purpose::Validate);
        let (path, body) = (webhook.expect("a webhook").path, review_body::body());
        let head = format!(
            "POST {path}?timeout=3s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), &body].concat();
        Self { address, connector: TlsConnector::from(Arc::new(config)), request, body: body.len() }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.set_nodelay(true).expect("an option");
        let name = ServerName::try_from("localhost").expect("a name");
        self.connector.connect(name, stream).await.expect("a handshake")
    }

    /// One review; the answer must let the object in.
    async fn ask(&self, stream: &mut TlsStream<TcpStream>) {
        stream.write_all(&self.request).await.expect("sent");
        let mut answer = Vec::with_capacity(2048);
        loop {
            assert!(stream.read_buf(&mut answer).await.expect("an answer") > 0, "the server hung up");
            let text = std::str::from_utf8(&answer).expect("text");
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length =
                head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() == length.unwrap_or(0) {
                assert!(head.starts_with("HTTP/1.1 200") && body.contains(r#""allowed":true"#), "{text}");
                return;
            }
        }
    }
}

/// Runs one worker per connection until the time is over and gathers how long each review took.
async fn gather(workers: impl IntoIterator<Item = impl Future<Output = Vec<Duration>>>) -> Vec<Duration> {
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

/// Requests at fixed times, whatever the answers: a late answer delays no request on another connection.
async fn steady(client: &Client, load: Duration) -> Vec<Duration> {
    let connections = u32::try_from(CONNECTIONS).expect("a number");
    let (period, begin) = (Duration::from_secs(1) * connections / STEADY, Instant::now());
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
