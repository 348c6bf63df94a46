//! The tutorial as it is written: every command of the document, in its order.

use std::process::Command;

use crate::harness::{Cluster, Installation, install, read_example};

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_tutorial_do_as_it_says() {
    const NAMESPACE: &str = "tutorial";
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    // The chart names a version; the image that was built here may be of a later one.
    let database = read_example("ha-postgres.yaml");
    install(
        &cluster,
        database["spec"]["version"].as_str().expect("a version"),
        17,
    );
    let (_installation, _place) = Installation::make(&cluster, NAMESPACE).await;
    let mut tutorial = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/dev/demo/tutorial"));
    let said = cluster
        .run(tutorial.env("PGREKEY_DEMO_NAMESPACE", NAMESPACE), "")
        .must_succeed();
    println!("{said}");
    // What `|| true` lets pass: the rules refuse what cannot work, and the server whoever comes
    // without TLS.
    for refusal in [
        "spec.tls.clientAuthMode: [remove-forbids-cert]",
        "no pg_hba.conf entry for host",
    ] {
        assert!(said.contains(refusal), "{refusal}");
    }
    let rows = said.lines().filter(|line| line.contains("ReconfigureTLS"));
    let phases: Vec<&str> = rows
        .filter_map(|row| row.split_whitespace().nth(3))
        .collect();
    assert_eq!(phases, ["Successful"; 4]);
}
