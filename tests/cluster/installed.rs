//! The chart, installed: two replicas, and the leader dies in the midst of an operation.

use std::collections::BTreeMap;

use serde_json::json;

use crate::harness::{
    Cluster, Installed, OPERATOR, TestNamespace, Traffic, ended, example, issuers, steps, tutorial,
    uids, versions,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_in_the_midst_of_an_operation_changes_nothing_in_its_outcome() {
    const NAMESPACE: &str = "installed";
    let Some(cluster) = Cluster::connect_alone().await else {
        return;
    };
    let versions = versions(&cluster);
    let installed = Installed::install(&cluster);
    let namespace = &TestNamespace::make(&cluster, NAMESPACE);
    issuers(namespace);
    namespace.apply(&example(
        "ha-postgres.yaml",
        "ha-postgres",
        3,
        &versions[&17],
    ));
    namespace.until_phase("ha-postgres", "Ready", 180).await;
    namespace.apply(&tutorial("add-tls.yaml"));
    assert_eq!(ended(namespace, "add-tls", 180).await, "Successful");

    let traffic = Traffic::start(&cluster.client, NAMESPACE, "ha-postgres").await;
    let before = uids(namespace);
    namespace.apply(&tutorial("change-issuer.yaml"));
    let restarted = || -> BTreeMap<String, String> {
        uids(namespace)
            .into_iter()
            .filter(|(pod, uid)| before.get(pod).is_some_and(|old| old != uid))
            .collect()
    };
    namespace
        .until("a pod is replaced", 120, || !restarted().is_empty())
        .await;
    let (replicas, leader) = installed.replicas();
    assert!(
        replicas.len() == 2 && replicas.contains(&leader),
        "{leader} leads, of {replicas:?}"
    );
    let kept = restarted();
    namespace
        .cluster
        .kubectl(
            &["delete", "pod", "-n", OPERATOR, &leader, "--wait=false"],
            "",
        )
        .must_succeed();
    assert_eq!(ended(namespace, "change-issuer", 180).await, "Successful");
    let seen = traffic.stop().await;
    let (_, next) = installed.replicas();
    println!(
        "the leader {leader} died, {next} took over: longest write gap {:.2} s, {} TLS connections, refused: {:?}\n{}",
        seen.gap.as_secs_f32(),
        seen.tries,
        seen.refused,
        steps(namespace, "change-issuer"),
    );
    assert_ne!(next, leader);
    assert_eq!(seen.refused, Vec::<String>::new());
    let after = restarted();
    assert_eq!(after.len(), before.len(), "every pod is restarted");
    assert!(
        kept.iter().all(|(pod, uid)| after.get(pod) == Some(uid)),
        "none is restarted twice: {kept:?} {after:?}"
    );
    namespace.until_phase("ha-postgres", "Ready", 60).await;

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
    namespace.clear();
}
