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

use super::cluster::Cluster;
use super::rights::OPERATOR;

/// Controllers that run in this process.
pub(crate) struct Controllers {
    stop: CancellationToken,
    run: JoinHandle<()>,
    facts: JoinHandle<()>,
}

impl Controllers {
    pub(crate) async fn start(cluster: &Cluster, namespace: &str) -> Self {
        Self::with(
            &Client::try_from(cluster.rights().config().await).expect("a client"),
            namespace,
        )
    }

    /// The same, through this client.
    pub(crate) fn with(client: &Client, namespace: &str) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let (stores, fill) = cache::watch(client);
        let stop = CancellationToken::new();
        let settings = Settings {
            namespace: Some(namespace.to_owned()),
            lease: Some(Lease {
                namespace: OPERATOR.to_owned(),
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
