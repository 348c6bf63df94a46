use std::time::Duration;

use super::*;
use crate::cluster::optional::tests::Fake;

async fn becomes_true(condition: impl Fn() -> bool) {
    let soon = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), soon)
        .await
        .expect("it becomes true within 20 s");
}

#[tokio::test(start_paused = true)]
async fn cert_manager_may_be_absent_come_and_go_and_nothing_is_started_again() {
    let cluster = Fake::without("/apis/cert-manager.io/");
    let (stores, fill) = watch(&cluster.client());
    let filling = tokio::spawn(fill);
    becomes_true(|| stores.unknown().is_empty()).await;
    assert!(stores.lacks("Issuer") && stores.lacks("ClusterIssuer") && !stores.lacks("Postgres"));

    cluster.set_objects(Some(vec!["ca"]));
    becomes_true(|| stores.issuer("demo", "ca").is_some() && !stores.lacks("Issuer")).await;

    cluster.set_objects(None);
    becomes_true(|| stores.issuer("demo", "ca").is_none() && stores.lacks("Issuer")).await;
    assert!(stores.unknown().is_empty());

    cluster.set_objects(Some(vec!["ca", "another"]));
    becomes_true(|| stores.issuer("demo", "another").is_some() && !stores.lacks("Issuer")).await;
    filling.abort();
}

#[tokio::test]
async fn a_snapshot_has_no_issuers_without_cert_manager() {
    let cluster = Fake::without("/apis/cert-manager.io/");
    let snapshot = snapshot(&cluster.client()).await.expect("a snapshot");
    assert_eq!(
        (snapshot.issuers.len(), snapshot.lacks),
        (0, vec!["Issuer", "ClusterIssuer"])
    );
    // The absence of a kind of pgrekey's own is an error.
    let cluster = Fake::without("/postgresversions");
    assert!(super::snapshot(&cluster.client()).await.is_err());
}
