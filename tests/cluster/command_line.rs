//! The command line, as people use it on a database of two pods: what it says is so.

use serde_json::{Value, json};

use crate::harness::{
    Answer, Cluster, Installation, TestNamespace, example, issuers, pgrekey, show, uids, versions,
};

const NAMESPACE: &str = "command-line";
const DATABASE: &str = "command-line/ha-postgres";
const HYBRID: &str = "X25519MLKEM768";

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_do_as_they_say() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let versions = versions(&cluster);
    let (_installation, namespace) = Installation::make(&cluster, NAMESPACE).await;
    let namespace = &namespace;
    issuers(namespace);
    namespace.apply(&example(
        "ha-postgres.yaml",
        "ha-postgres",
        2,
        &versions[&18],
    ));
    namespace.until_phase("ha-postgres", "Ready", 180).await;
    is_refused(
        namespace,
        &["rotate", DATABASE, "--wait"],
        "spec.tls.rotateCertificates: [rotate-needs-tls] ",
    );
    tls_is_added_and_followed_to_its_end(namespace);
    the_hybrid_group_is_used_and_shown(namespace);
    a_request_is_found_by_its_database(namespace);
    a_reload_restarts_no_pod(namespace);
    the_issued_certificate_is_the_served_one(namespace);
    a_request_in_the_cluster_is_planned(namespace);
    let nobody = ["change-issuer", DATABASE, "--issuer", "nobody", "--wait"];
    is_refused(
        namespace,
        &nobody,
        "spec.tls.issuerRef.name: [issuer-exists] there is no Issuer \"nobody\"",
    );
    a_failed_command_says_why_in_its_last_line(namespace);
    tls_is_removed(namespace);
    namespace.clear();
}

/// Runs a command, which knows the cluster by its kubeconfig.
fn say(namespace: &TestNamespace<'_>, arguments: &[&str]) -> Answer {
    let said = namespace.cluster.run(&mut pgrekey(arguments), "");
    println!(
        "$ pgrekey {}\n{}{}",
        arguments.join(" "),
        said.stdout(),
        said.stderr()
    );
    said
}

/// What a command prints for programs.
fn json_of(namespace: &TestNamespace<'_>, arguments: &[&str]) -> Value {
    let said = say(namespace, &[arguments, &["-o", "json"]].concat()).must_succeed();
    serde_json::from_str(&said).expect("JSON")
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

/// Says where and why, and makes nothing.
fn is_refused(namespace: &TestNamespace<'_>, arguments: &[&str], reason: &str) {
    let requests = || namespace.kubectl(&["get", "pgops", "-o", "name"]);
    let before = requests();
    let said = say(namespace, arguments);
    assert_eq!((said.code(), said.stdout().as_str()), (Some(1), ""));
    let refused = said.must_fail();
    assert!(refused.contains(&format!("\n  {reason}")), "{refused}");
    assert_eq!(requests(), before);
}

fn tls_is_added_and_followed_to_its_end(namespace: &TestNamespace<'_>) {
    assert_eq!(show(namespace, "ha-postgres-0", "ssl"), "off");
    let followed = say(
        namespace,
        &["add-tls", DATABASE, "--issuer", "pg-issuer", "--wait"],
    )
    .must_succeed();
    assert!(
        last_line(&followed).ends_with(" Successful: done, and proved on the wire"),
        "{followed}"
    );
    assert_eq!(show(namespace, "ha-postgres-0", "ssl"), "on");
}

/// PostgreSQL 18 with an image that has it.
fn the_hybrid_group_is_used_and_shown(namespace: &TestNamespace<'_>) {
    let request = json_of(namespace, &["status", DATABASE]);
    let pods = request["status"]["pods"].as_array().expect("a list");
    let groups: Vec<&Value> = pods.iter().map(|pod| &pod["tls"]["group"]).collect();
    assert_eq!(groups, [HYBRID; 2]);
    let shown = say(namespace, &["certs", DATABASE, "-o", "wide"]).must_succeed();
    assert!(shown.contains(HYBRID), "{shown}");
}

fn a_request_is_found_by_its_database(namespace: &TestNamespace<'_>) {
    let table = say(namespace, &["status", DATABASE]).must_succeed();
    assert!(
        table
            .lines()
            .nth(1)
            .is_some_and(|line| line.starts_with("Successful ")),
        "{table}"
    );
    let request = json_of(namespace, &["status", DATABASE]);
    assert_eq!(
        (&request["kind"], &request["status"]["phase"]),
        (&json!("PostgresOpsRequest"), &json!("Successful"))
    );
    assert_eq!(request["spec"]["tls"]["issuerRef"]["name"], "pg-issuer");
}

fn a_reload_restarts_no_pod(namespace: &TestNamespace<'_>) {
    let before = uids(namespace);
    say(
        namespace,
        &[
            "rotate", DATABASE, "--name", "rotation", "--reload", "--wait",
        ],
    )
    .must_succeed();
    assert_eq!(uids(namespace), before);
}

fn the_issued_certificate_is_the_served_one(namespace: &TestNamespace<'_>) {
    let all = json_of(namespace, &["certs", DATABASE]);
    let [database] = all.as_array().expect("a list").as_slice() else {
        panic!("one database: {all}")
    };
    let certificates = database["certificates"].as_array().expect("a list");
    assert_eq!(certificates.len(), 3);
    for certificate in certificates {
        let (issued, served) = (
            &certificate["issued"]["serial"],
            &certificate["served"]["serial"],
        );
        assert!(
            issued.is_string() && issued == served && certificate["drift"] == false,
            "{certificate}"
        );
    }
    let served = &certificates
        .iter()
        .find(|each| each["alias"] == "server")
        .expect("the server's")["served"];
    let shown: Vec<&Value> = database["wire"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|p| &p["servingSerial"])
        .collect();
    assert_eq!(shown, [&served["serial"]; 2]);
}

fn a_request_in_the_cluster_is_planned(namespace: &TestNamespace<'_>) {
    let plan = say(namespace, &["plan", "rotation", "-n", NAMESPACE]).must_succeed();
    assert!(
        plan.starts_with("rotation: rotate the certificates of command-line/ha-postgres\n"),
        "{plan}"
    );
    let plan = json_of(namespace, &["plan", "rotation", "-n", NAMESPACE]);
    assert_eq!(
        (&plan[0]["restarts"], &plan[0]["primaryIsKnown"]),
        (&json!([]), &json!(true))
    );
}

fn a_failed_command_says_why_in_its_last_line(namespace: &TestNamespace<'_>) {
    let no_ca = [
        "--issuer",
        "empty-issuer",
        "--timeout",
        "5s",
        "--retries",
        "0",
        "--wait",
    ];
    let change = say(
        namespace,
        &[&["change-issuer", DATABASE], &no_ca[..]].concat(),
    );
    assert_eq!(change.code(), Some(1));
    let said = change.stdout();
    let last = last_line(&said);
    assert!(
        last.contains(" Failed: ") && last.contains("Issuer empty-issuer to be ready"),
        "{said}"
    );
    assert_eq!(say(namespace, &["status", DATABASE]).code(), Some(1));
}

fn tls_is_removed(namespace: &TestNamespace<'_>) {
    say(namespace, &["remove-tls", DATABASE, "--wait"]).must_succeed();
    assert_eq!(show(namespace, "ha-postgres-0", "ssl"), "off");
    assert_eq!(
        say(namespace, &["certs", DATABASE]).must_succeed(),
        "command-line/ha-postgres\nno TLS\n"
    );
}
