//! Clients of a database while something is done to it: one that opens connections, one that
//! writes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::Client;
use kube::api::Api;
use pgrekey::pki::issued::ders;
use pgrekey::pki::key_pair::CertificateAndKey;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::client::{Failure, Known};

/// What clients saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Connections that were tried with TLS.
    pub(crate) tries: usize,
    /// Those that failed in the handshake or at the login: what no operation may cause.
    pub(crate) refused: Vec<String>,
    /// Those that reached no server that serves: a switchover.
    pub(crate) away: usize,
    /// Rows whose insertion was acknowledged.
    pub(crate) written: Vec<i64>,
    /// The longest time between two acknowledged rows.
    pub(crate) gap: Duration,
}

impl Seen {
    fn wrote(&mut self, n: i64, last: Option<Instant>) {
        self.written.push(n);
        self.gap = self
            .gap
            .max(last.map_or(Duration::ZERO, |last| last.elapsed()));
    }
}

/// Clients at work, until they are stopped.
pub(crate) struct Traffic {
    stop: CancellationToken,
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<JoinHandle<()>>,
    client: Client,
    namespace: String,
    database: String,
}

impl Traffic {
    pub(crate) async fn start(client: &Client, namespace: &str, database: &str) -> Self {
        let stop = CancellationToken::new();
        let known = Arc::new(Mutex::new(known(client, namespace, database).await));
        let mut traffic = Self {
            stop: stop.clone(),
            seen: Arc::default(),
            tasks: vec![],
            client: client.clone(),
            namespace: namespace.to_owned(),
            database: database.to_owned(),
        };
        let (learns, seen) = (
            learn(client.clone(), namespace, database, &known),
            &traffic.seen,
        );
        let connects = connect(Arc::clone(&known), Arc::clone(seen));
        let writes = write(known, Arc::clone(seen));
        let until_stopped = |work: BoxFuture<'static, ()>| {
            let stop = stop.clone();
            tokio::spawn(async move { stop.run_until_cancelled(work).await.unwrap_or_default() })
        };
        traffic.tasks = vec![
            until_stopped(learns.boxed()),
            until_stopped(connects.boxed()),
            until_stopped(writes.boxed()),
        ];
        traffic
    }

    /// Stops, and checks that every acknowledged row is there.
    pub(crate) async fn stop(self) -> Seen {
        let Self {
            stop,
            seen,
            tasks,
            client,
            namespace,
            database,
        } = self;
        stop.cancel();
        for task in tasks {
            task.await.expect("a client ends");
        }
        let seen = std::mem::take(&mut *seen.lock().expect("the lock"));
        let known = known(&client, &namespace, &database).await;
        let session = any_way(&known).await.expect("a login after all");
        let rows = session
            .query("select n from traffic", &[])
            .await
            .expect("the rows");
        let there: std::collections::BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        let lost: Vec<&i64> = seen.written.iter().filter(|n| !there.contains(n)).collect();
        assert_eq!(lost, Vec::<&i64>::new(), "acknowledged rows were lost");
        session
            .batch_execute("drop table traffic")
            .await
            .expect("no table");
        seen
    }
}

/// Where the Service of a database is.
async fn address(client: &Client, namespace: &str, database: &str) -> SocketAddr {
    let services = Api::<Service>::namespaced(client.clone(), namespace);
    let service = services.get(database).await.expect("the Service");
    let address = service
        .spec
        .and_then(|spec| spec.cluster_ip)
        .expect("an address");
    format!("{address}:5432").parse().expect("an address")
}

/// What clients know: whom to trust, and the certificate that was issued to them. Pods have both in
/// volumes.
async fn known(client: &Client, namespace: &str, database: &str) -> Known {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    let (ca, auth, issued) = (
        maps.get_opt(&format!("{database}-ca")).await.ok().flatten(),
        secrets
            .get_opt(&format!("{database}-auth"))
            .await
            .ok()
            .flatten(),
        secrets
            .get_opt(&format!("{database}-client-cert"))
            .await
            .ok()
            .flatten(),
    );
    let bundle = ca
        .and_then(|map| map.data?.remove("ca.crt"))
        .unwrap_or_default();
    let text = |secret: Option<Secret>, key: &str| {
        let value = secret.and_then(|secret| secret.data?.remove(key))?;
        String::from_utf8(value.0).ok()
    };
    let pair = CertificateAndKey::parse(
        text(issued.clone(), "tls.crt")
            .unwrap_or_default()
            .as_bytes(),
        text(issued, "tls.key").unwrap_or_default().as_bytes(),
    );
    Known {
        address: address(client, namespace, database).await,
        host: format!("{database}.{namespace}.svc"),
        password: text(auth, "password").unwrap_or_default(),
        pair: pair.ok(),
        roots: ders(&bundle),
    }
}

/// Volumes are brought up to date now and then.
fn learn(
    client: Client,
    namespace: &str,
    database: &str,
    into: &Arc<Mutex<Known>>,
) -> impl Future<Output = ()> + use<> {
    let (namespace, database, into) = (namespace.to_owned(), database.to_owned(), Arc::clone(into));
    async move {
        loop {
            let now = known(&client, &namespace, &database).await;
            *into.lock().expect("the lock") = now;
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

/// Opens connections with `verify-full`, for as long as there is somebody to trust, 20 a second.
async fn connect(known: Arc<Mutex<Known>>, seen: Arc<Mutex<Seen>>) {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let mut has_connected = false;
    loop {
        tick.tick().await;
        let known = known.lock().expect("the lock").clone();
        if known.roots.is_empty() {
            has_connected = false;
            continue;
        }
        let outcome = known.log_in().await;
        let mut seen = seen.lock().expect("the lock");
        match outcome {
            Ok(_) => {
                has_connected = true;
                seen.tries += 1;
            }
            // Before TLS has come, and after it has gone, there is none to be had.
            Err(_) if !has_connected => {}
            Err(Failure::Away) => seen.away += 1,
            Err(Failure::Refused(why)) => {
                seen.tries += 1;
                seen.refused.push(why);
            }
        }
    }
}

/// TLS if there is any, else plaintext: the writer outlives TLS.
async fn any_way(known: &Known) -> Result<tokio_postgres::Client, Failure> {
    match known.log_in().await {
        Ok(client) => Ok(client),
        Err(_) => known.log_in_plainly().await,
    }
}

/// Writes a row every 20 ms through one session, and through another one when that breaks.
async fn write(known: Arc<Mutex<Known>>, seen: Arc<Mutex<Seen>>) {
    let mut n = 0_i64;
    let mut last: Option<Instant> = None;
    loop {
        let now = known.lock().expect("the lock").clone();
        let Ok(session) = any_way(&now).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let made = session
            .batch_execute("create table if not exists traffic (n bigint)")
            .await;
        while made.is_ok() {
            n += 1;
            let insert = async {
                session
                    .execute("insert into traffic values ($1)", &[&n])
                    .await
            };
            let Ok(Ok(1)) = tokio::time::timeout(Duration::from_secs(5), insert).await else {
                break;
            };
            seen.lock().expect("the lock").wrote(n, last);
            last = Some(Instant::now());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Counts what a client writes, by kind of object; events apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writes(Arc<Mutex<BTreeMap<String, usize>>>);

impl Writes {
    /// A client like this one, whose writes are counted.
    pub(crate) fn counting(&self, config: kube::Config) -> Client {
        let counts = self.clone();
        let count = move |request: http::Request<kube::client::Body>| {
            counts.note(request.method(), request.uri().path());
            request
        };
        let builder = kube::client::ClientBuilder::try_from(config).expect("a client");
        builder
            .with_layer(&tower::util::MapRequestLayer::new(count))
            .build()
    }

    fn note(&self, method: &http::Method, path: &str) {
        if method == http::Method::GET || path.contains("/leases/") {
            return;
        }
        let parts: Vec<&str> = path.split('/').collect();
        let at = parts
            .iter()
            .position(|part| *part == "namespaces")
            .map_or(0, |at| at + 2);
        let kind = parts.get(at).copied().unwrap_or("?");
        let part = parts
            .get(at + 2)
            .map(|part| format!("/{part}"))
            .unwrap_or_default();
        let gone = if method == http::Method::DELETE {
            " gone"
        } else {
            ""
        };
        *self
            .0
            .lock()
            .expect("the lock")
            .entry(format!("{kind}{part}{gone}"))
            .or_default() += 1;
    }

    /// What was written since the last call.
    pub(crate) fn take(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut *self.0.lock().expect("the lock"))
    }
}
