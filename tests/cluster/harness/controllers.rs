//! The controllers, in this process.

use std::sync::Arc;

use kube::Client;
use pgrekey::cluster::cache;
use pgrekey::controller;
use pgrekey::controller::{Lease, Settings};
use pgrekey::metrics::ControllerMetrics;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::traffic::Writes;
use super::turns::Seat;

/// Controllers that run in this process.
pub(crate) struct Controllers {
    stop: CancellationToken,
    run: JoinHandle<()>,
    facts: JoinHandle<()>,
}

impl Controllers {
    /// Those that look after this namespace.
    pub(crate) async fn start(seat: &Seat, namespace: &str) -> Self {
        let client = Client::try_from(seat.rights.config().await).expect("a client");
        Self::with(seat, &client, namespace)
    }

    /// The same; their writes are counted.
    pub(crate) async fn counted(seat: &Seat, namespace: &str) -> (Self, Writes) {
        let writes = Writes::default();
        let client = writes.counting(seat.rights.config().await);
        (Self::with(seat, &client, namespace), writes)
    }

    fn with(seat: &Seat, client: &Client, namespace: &str) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let (stores, fill) = cache::watch(client);
        let stop = CancellationToken::new();
        let settings = Settings {
            namespace: Some(namespace.to_owned()),
            lease: Some(Lease {
                namespace: seat.namespace.to_owned(),
                name: "pgrekey".to_owned(),
                identity: format!("test-{namespace}"),
            }),
            ..Settings::default()
        };
        let run = controller::run(
            client.clone(),
            Arc::new(stores),
            settings,
            ControllerMetrics::default(),
            stop.clone(),
        );
        Self {
            stop,
            run: tokio::spawn(run),
            facts: tokio::spawn(fill),
        }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.run.await.expect("the controllers end");
        self.facts.abort();
    }
}
