//! The chart, installed: two replicas, and the leader dies in the midst of an operation.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::json;

use crate::harness::Cluster;
use crate::operations::{ended, issuers, steps, tutorial, uids};
use crate::provisioner::{Place, example, versions};
use crate::rights::{OPERATOR, Rights};
use crate::support::Helm;
use crate::traffic::Traffic;

/// The chart, uninstalled when dropped.
pub(crate) struct Installed<'a>(&'a Cluster);

fn helm(cluster: &Cluster, arguments: &[&str]) -> Result<String, String> {
    let place = [
        "--kubeconfig",
        cluster.kubeconfig().to_str().expect("UTF-8"),
        "--namespace",
        OPERATOR,
    ];
    Helm::find()
        .expect("a dev cluster has a helm")
        .run(&[&place[..], arguments].concat())
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
    fn replicas(&self) -> (Vec<String>, String) {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_in_the_midst_of_an_operation_changes_nothing_in_its_outcome() {
    const NAMESPACE: &str = "installed";
    let Some(cluster) = Cluster::connect_alone().await else {
        return;
    };
    let versions = versions(&cluster);
    let installed = Installed::install(&cluster);
    let place = &Place::make(&cluster, NAMESPACE);
    issuers(place);
    place.apply(&example(
        "ha-postgres.yaml",
        "ha-postgres",
        3,
        &versions[&17],
    ));
    place.until_phase("ha-postgres", "Ready", 180).await;
    place.apply(&tutorial("add-tls.yaml"));
    assert_eq!(ended(place, "add-tls", 180).await, "Successful");

    let traffic = Traffic::start(&cluster.client, NAMESPACE, "ha-postgres").await;
    let before = uids(place);
    place.apply(&tutorial("change-issuer.yaml"));
    let restarted = || -> BTreeMap<String, String> {
        uids(place)
            .into_iter()
            .filter(|(pod, uid)| before.get(pod).is_some_and(|old| old != uid))
            .collect()
    };
    place
        .until("a pod is replaced", 120, || !restarted().is_empty())
        .await;
    let (replicas, leader) = installed.replicas();
    assert!(
        replicas.len() == 2 && replicas.contains(&leader),
        "{leader} leads, of {replicas:?}"
    );
    let kept = restarted();
    place
        .cluster
        .kubectl(
            &["delete", "pod", "-n", OPERATOR, &leader, "--wait=false"],
            "",
        )
        .must_succeed();
    assert_eq!(ended(place, "change-issuer", 180).await, "Successful");
    let seen = traffic.stop().await;
    let (_, next) = installed.replicas();
    println!(
        "the leader {leader} died, {next} took over: longest write gap {:.2} s, {} TLS connections, refused: {:?}\n{}",
        seen.gap.as_secs_f32(),
        seen.tries,
        seen.refused,
        steps(place, "change-issuer"),
    );
    assert_ne!(next, leader);
    assert_eq!(seen.refused, Vec::<String>::new());
    let after = restarted();
    assert_eq!(after.len(), before.len(), "every pod is restarted");
    assert!(
        kept.iter().all(|(pod, uid)| after.get(pod) == Some(uid)),
        "none is restarted twice: {kept:?} {after:?}"
    );
    place.until_phase("ha-postgres", "Ready", 60).await;

    let wrong = json!({"apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PostgresOpsRequest",
        "metadata": {"name": "wrong", "namespace": NAMESPACE},
        "spec": {"type": "ReconfigureTLS", "databaseRef": {"name": "nobody"}, "tls": {"rotateCertificates": true}}});
    let said = cluster
        .kubectl(&["create", "-f", "-"], &wrong.to_string())
        .must_fail();
    assert!(
        said.contains("spec.databaseRef.name"),
        "the installed webhooks answer: {said}"
    );
    place.clear();
}
