//! `pgrekey check` applies the rules offline, and reports the position of each finding.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::Path;

use assert_cmd::Command;
use serde_json::{Value, json};
use tempfile::TempDir;

const REQUEST: &str = "# a request with two mistakes
apiVersion: ops.kubedb.com/v1alpha1
kind: PostgresOpsRequest
metadata: {name: add-tls, namespace: demo}
spec:
  type: ReconfigureTLS
  databaseRef: {name: plain}
  tls:
    issuerRef: {name: pg-issuer}
    certificates:
      - alias: server
        dnsNames: [db.example, not_a_name]
      - alias: sever
";

fn check(arguments: &[&str], input: &str) -> (i32, String) {
    let mut command = Command::cargo_bin("pgrekey").expect("pgrekey is built");
    let output = command
        .arg("check")
        .args(arguments)
        .write_stdin(input)
        .output()
        .expect("pgrekey runs");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    (
        output.status.code().expect("an exit code"),
        stdout + &stderr,
    )
}

fn checked_as_json(arguments: &[&str], input: &str) -> (i32, Value) {
    let (code, text) = check(&[arguments, &["-o", "json"]].concat(), input);
    (
        code,
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")),
    )
}

/// The cluster of the rules' cases, as files.
fn world() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(
        directory.path().join("world.yaml"),
        include_str!("rules/world.yaml"),
    )
    .expect("written");
    std::fs::write(directory.path().join("README.md"), "not: [a manifest").expect("written");
    directory
}

fn rules(report: &Value) -> Vec<&str> {
    report["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|f| f["rule"].as_str())
        .collect()
}

#[test]
fn a_finding_has_file_line_and_column() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("add-tls.yaml");
    std::fs::write(&file, REQUEST).expect("written");
    let file = file.to_str().expect("UTF-8");
    let (code, text) = check(&[file], "");
    assert_eq!(code, 1, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with(&format!(
        "{file}:12:32: refused: [san-valid] spec.tls.certificates[0].dnsNames[1]: "
    )));
    assert!(lines[1].starts_with(&format!(
        "{file}:13:16: refused: [alias-known] spec.tls.certificates[1].alias: "
    )));
    assert!(lines[2].starts_with(
        "PostgresOpsRequest: left out, for want of --facts or --cluster: rotate-needs-tls, "
    ));
    assert_eq!(
        lines.last(),
        Some(&"1 judged, 0 of other kinds: 2 refused, 0 warnings")
    );
    let (code, report) = checked_as_json(&["-"], REQUEST);
    assert_eq!(code, 1);
    assert_eq!(rules(&report), ["san-valid", "alias-known"]);
    let position = |finding: &Value| {
        [
            finding["file"].clone(),
            finding["line"].clone(),
            finding["column"].clone(),
        ]
    };
    assert_eq!(
        position(&report["findings"][1]),
        [json!("-"), json!(13), json!(16)]
    );
    let left_out = report["leftOut"].as_array().expect("a list");
    let entry = |rule: &str, whole: bool| json!({"kind": "PostgresOpsRequest", "rule": rule, "whole": whole});
    assert!(
        left_out.contains(&entry("add-needs-issuer", true)),
        "{left_out:?}"
    );
    assert!(
        left_out.contains(&entry("issuer-exists", false)),
        "{left_out:?}"
    );
}

#[test]
fn the_examples_pass() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files: Vec<_> = std::fs::read_dir(examples)
        .expect("examples")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    files.sort();
    let (code, report) = checked_as_json(
        &files
            .iter()
            .filter_map(|file| file.to_str())
            .collect::<Vec<_>>(),
        "",
    );
    assert_eq!((code, rules(&report)), (0, vec!["remove-lowers-security"]));
    assert_eq!(report["judged"], 8);
}

#[test]
fn with_facts_no_rule_is_left_out_and_later_documents_count() {
    let world = world();
    let facts = ["--facts", world.path().to_str().expect("UTF-8"), "-"];
    let request = REQUEST
        .replace(", not_a_name", "")
        .replace("      - alias: sever\n", "");
    let (code, report) = checked_as_json(&facts, &request);
    assert_eq!(
        (code, rules(&report), &report["leftOut"]),
        (0, vec![], &json!([])),
        "{report}"
    );
    let request = request
        .replace("pg-issuer", "fresh-issuer")
        .replace("{name: plain}", "{name: fresh}");
    assert_eq!(
        rules(&checked_as_json(&facts, &request).1),
        ["database-exists", "issuer-exists"]
    );
    let companions = "---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: fresh-issuer, namespace: demo}
spec: {ca: {secretName: postgres-ca}}
---
apiVersion: kubedb.com/v1
kind: Postgres
metadata: {name: fresh, namespace: demo}
spec: {version: '17.12', storageType: Ephemeral, replicas: 3}
";
    let (code, report) = checked_as_json(&facts, &format!("{request}{companions}"));
    assert_eq!(
        (code, rules(&report)),
        (0, vec!["issuer-not-ready"]),
        "it is not Ready yet: {report}"
    );
    assert_eq!(
        (&report["judged"], &report["other"]),
        (&json!(2), &json!(1))
    );
}

#[test]
fn an_object_that_the_cluster_has_is_judged_as_an_update() {
    let world = world();
    let facts = [
        "--facts",
        world.path().to_str().expect("UTF-8"),
        "--namespace",
        "demo",
        "-",
    ];
    let stored = "
apiVersion: kubedb.com/v1
kind: Postgres
metadata: {name: plain}
spec: {version: '17.12', replicas: 3, storageType: Ephemeral}
";
    let (code, report) = checked_as_json(&facts, stored);
    assert_eq!(
        (code, rules(&report)),
        (1, vec!["immutable-field"]),
        "{report}"
    );
    assert_eq!(report["findings"][0]["line"], 5);
}

#[test]
fn defaults_are_filled_in_before_the_rules_judge() {
    let database = "
apiVersion: kubedb.com/v1
kind: Postgres
metadata: {name: a, namespace: demo}
spec: {version: '17.12', replicas: 3, storageType: Ephemeral, tls: {}}
";
    assert_eq!(
        rules(&checked_as_json(&["-"], database).1),
        ["tls-needs-issuer"]
    );
    let with_default = ["--default-issuer", "ClusterIssuer/ca", "-"];
    assert_eq!(checked_as_json(&with_default, database).0, 0);
}

#[test]
fn an_unreadable_document_is_a_finding_with_a_place() {
    let (code, report) = checked_as_json(&["-"], "kind: Postgres\nspec: {a: [1\n");
    assert_eq!((code, rules(&report)), (1, vec!["decodes"]));
    let wrong_type =
        "apiVersion: kubedb.com/v1\nkind: Postgres\nmetadata: {name: a}\nspec:\n  version: 17.12\n";
    let (code, text) = check(&["-"], wrong_type);
    assert_eq!(code, 1);
    assert!(
        text.starts_with("-:5:12: refused: [decodes] spec.version: "),
        "{text}"
    );
    let (code, text) = check(&["no-such-file.yaml"], "");
    assert_eq!(code, 1);
    assert!(text.contains("cannot read no-such-file.yaml"), "{text}");
}

#[test]
fn several_documents_and_lists_are_read() {
    let list = format!(
        "kind: List\napiVersion: v1\nitems:\n- {}",
        REQUEST
            .trim_start_matches("# a request with two mistakes\n")
            .replace('\n', "\n  ")
    );
    let (code, report) = checked_as_json(&["-"], &format!("---\n---\n{list}\n---\n{REQUEST}"));
    assert_eq!(code, 1);
    assert_eq!(
        rules(&report),
        ["san-valid", "alias-known", "san-valid", "alias-known"]
    );
    assert_eq!(report["judged"], 2);
}
