//! The chart, installed.

use std::net::SocketAddr;

use super::cluster::Cluster;
use super::rights::{OPERATOR, Rights};
use crate::support::Helm;

/// The chart, uninstalled when dropped.
pub(crate) struct Installed<'a>(&'a Cluster);

fn helm(cluster: &Cluster, arguments: &[&str]) -> Result<String, String> {
    let release = [
        "--kubeconfig",
        cluster.kubeconfig().to_str().expect("UTF-8"),
        "--namespace",
        OPERATOR,
    ];
    Helm::find()
        .expect("a dev cluster has a helm")
        .run(&[&release[..], arguments].concat())
}

impl<'a> Installed<'a> {
    pub(crate) fn install(cluster: &'a Cluster) -> Self {
        let installed = Self(cluster);
        // The rest of the suite has the rights of this release already, by other means.
        let install = [
            "install",
            OPERATOR,
            "charts/pgrekey",
            "--take-ownership",
            "--wait",
            "--timeout=3m",
        ];
        let said = helm(cluster, &install).unwrap_or_else(|why| panic!("{why}"));
        assert!(
            said.contains("kubectl"),
            "NOTES.txt says what is next: {said}"
        );
        installed
    }

    /// The replicas, and who of them holds the lease.
    pub(crate) fn replicas(&self) -> (Vec<String>, String) {
        let select = "-l=app.kubernetes.io/name=pgrekey";
        let pods = [
            "get",
            "pod",
            "-n",
            OPERATOR,
            select,
            "-o",
            "jsonpath={.items[*].metadata.name}",
        ];
        let holder = [
            "get",
            "lease",
            "-n",
            OPERATOR,
            "pgrekey",
            "-o",
            "jsonpath={.spec.holderIdentity}",
        ];
        let [pods, holder] =
            [&pods[..], &holder].map(|arguments| self.0.kubectl(arguments, "").must_succeed());
        (pods.split_whitespace().map(str::to_owned).collect(), holder)
    }

    /// Where the replicas take reviews.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let address = |ip: &str| SocketAddr::new(ip.parse().expect("an address"), 9443);
        self.of_pods("{.items[*].status.podIP}")
            .split_whitespace()
            .map(address)
            .collect()
    }

    /// How often containers of the replicas were started again.
    pub(crate) fn restarts(&self) -> u32 {
        let counts = self.of_pods("{.items[*].status.containerStatuses[*].restartCount}");
        counts
            .split_whitespace()
            .map(|count| count.parse::<u32>().expect("a number"))
            .sum()
    }

    /// How the containers of the replicas ended last.
    pub(crate) fn last_ends(&self) -> String {
        self.of_pods("{.items[*].status.containerStatuses[*].lastState}")
    }

    fn of_pods(&self, path: &str) -> String {
        let output = format!("jsonpath={path}");
        let pods = [
            "get",
            "pod",
            "-n",
            OPERATOR,
            "-l=app.kubernetes.io/name=pgrekey",
            "-o",
            &output,
        ];
        self.0.kubectl(&pods, "").must_succeed()
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        // Its pods are not to outlive their rights.
        self.0.kubectl(
            &[
                "scale",
                "-n",
                OPERATOR,
                "deployment",
                OPERATOR,
                "--replicas=0",
            ],
            "",
        );
        let select = "-l=app.kubernetes.io/name=pgrekey";
        self.0.kubectl(
            &[
                "wait",
                "pod",
                "-n",
                OPERATOR,
                select,
                "--for=delete",
                "--timeout=60s",
            ],
            "",
        );
        let _ = helm(
            self.0,
            &["uninstall", OPERATOR, "--ignore-not-found", "--wait"],
        );
        // With them went the rights of the rest of the suite.
        Rights::give(self.0, OPERATOR);
    }
}
