//! The commands that people use, as far as they need no cluster.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use assert_cmd::Command;
use serde_json::{Value, json};

/// Exit code, standard output and standard error of our program, with no cluster to be found.
fn pgrekey(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::cargo_bin("pgrekey").expect("pgrekey is built");
    let nowhere = Path::new(env!("CARGO_MANIFEST_DIR")).join("no-such-kubeconfig");
    command.env("KUBECONFIG", nowhere).env_remove("KUBERNETES_SERVICE_HOST");
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.args(arguments).write_stdin(input).output().expect("pgrekey runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

fn succeeds(arguments: &[&str], input: &str) -> String {
    let (code, stdout, stderr) = pgrekey(arguments, input);
    assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
    stdout
}

/// Every command that people use.
const COMMANDS: [&str; 14] = [
    "status",
    "certs",
    "plan",
    "add-tls",
    "rotate",
    "change-issuer",
    "remove-tls",
    "doctor",
    "run",
    "check",
    "crds",
    "webhook-config",
    "completion",
    "rules",
];

#[test]
fn every_command_has_help_with_examples() {
    let help = succeeds(&["--help"], "");
    for command in COMMANDS {
        let own = succeeds(&[command, "--help"], "");
        assert!(own.contains("Usage: pgrekey"), "{own}");
        if command != "rules" {
            assert!(help.contains(command), "{command}: {help}");
            assert!(own.contains("Examples:") || command == "run", "{command}: {own}");
        }
    }
    assert!(succeeds(&["--version"], "").starts_with("pgrekey "));
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = succeeds(&["completion", shell], "");
        for command in ["change-issuer", "doctor", "status"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn as_a_plugin_of_kubectl_we_are_called_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let plugin = directory.path().join("kubectl-pgrekey");
    std::os::unix::fs::symlink(assert_cmd::cargo::cargo_bin("pgrekey"), &plugin).expect("linked");
    let help = |arguments: &[&str]| {
        let output = std::process::Command::new(&plugin).args(arguments).output().expect("the plugin runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert!(help(&["--help"]).contains("Usage: kubectl pgrekey"), "{}", help(&["--help"]));
    let own = help(&["rotate", "--help"]);
    assert!(
        own.contains("Usage: kubectl pgrekey rotate") && own.contains("  kubectl pgrekey rotate ha-postgres"),
        "{own}"
    );
}

#[test]
fn a_dry_run_prints_what_would_be_made() {
    let cases: &[(&[&str], Value)] = &[
        (
            &[
                "add-tls",
                "demo/pg",
                "--issuer",
                "ClusterIssuer/ca",
                "--ssl-mode",
                "verify-ca",
                "--client-auth-mode",
                "cert",
            ],
            json!({"issuerRef": {"apiGroup": "cert-manager.io", "kind": "ClusterIssuer", "name": "ca"},
                   "sslMode": "verify-ca", "clientAuthMode": "cert"}),
        ),
        (&["add-tls", "demo/pg"], json!({"sslMode": "verify-full"})),
        (&["rotate", "pg", "-n", "demo"], json!({"rotateCertificates": true})),
        (
            &["change-issuer", "demo/pg", "--issuer", "new"],
            json!({"issuerRef": {"apiGroup": "cert-manager.io", "kind": "Issuer", "name": "new"}}),
        ),
        (&["remove-tls", "demo/pg", "--client-auth-mode", "scram"], json!({"remove": true, "clientAuthMode": "scram"})),
    ];
    for (arguments, tls) in cases {
        let yaml = succeeds(&[arguments, &["--dry-run", "--timeout", "5m", "--reload"][..]].concat(), "");
        let request: Value = serde_saphyr::from_str(&yaml).expect("YAML");
        assert_eq!((&request["kind"], &request["spec"]["tls"]), (&json!("PostgresOpsRequest"), tls), "{yaml}");
        assert_eq!(request["metadata"]["namespace"], "demo");
        assert_eq!(request["metadata"]["annotations"]["pgrekey.dev/strategy"], "Reload");
        assert_eq!((&request["spec"]["timeout"], &request["spec"]["apply"]), (&json!("5m"), &json!("IfReady")));
        let name = request["metadata"]["name"].as_str().expect("a name");
        assert!(name.starts_with("pg-") && name.len() > "pg-rotate-tls-".len(), "{name}");
        // What we make is what admission takes.
        succeeds(&["check", "-"], &yaml);
    }
    let named = succeeds(&["rotate", "pg", "--name", "mine", "--dry-run"], "");
    assert!(named.contains("name: mine\n") && named.contains("namespace: default\n"), "{named}");
}

#[test]
fn what_cannot_be_meant_is_refused_by_the_command_line() {
    for (arguments, says) in [
        (&["rotate", "pg", "--timeout", "soon", "--dry-run"][..], "not a duration such as 30s"),
        (&["add-tls", "pg", "--ssl-mode", "disable", "--dry-run"], "possible values: allow, prefer"),
        (&["remove-tls", "pg", "--client-auth-mode", "cert", "--dry-run"], "possible values: md5, scram"),
        (&["change-issuer", "pg", "--dry-run"], "--issuer <ISSUER>"),
        (&["change-issuer", "pg", "--issuer", "Secret/ca"], "use NAME, Issuer/NAME or ClusterIssuer/NAME"),
        (&["rotate", "pg", "--dry-run", "--wait"], "cannot be used with"),
    ] {
        let (code, stdout, stderr) = pgrekey(arguments, "");
        assert_eq!(code, 2, "{arguments:?}: {stdout}{stderr}");
        assert!(stderr.contains(says), "{arguments:?}: {stderr}");
    }
}

#[test]
fn without_a_cluster_it_is_said_how_to_name_one() {
    for command in [&["status", "pg"][..], &["certs"], &["doctor"], &["rotate", "pg"], &["plan", "pg"]] {
        let (code, stdout, stderr) = pgrekey(command, "");
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains("set KUBECONFIG or name a --context"), "{command:?}: {stderr}");
    }
}

#[test]
fn the_tutorial_is_planned_offline_each_request_from_where_the_last_one_leads() {
    let files = ["add-tls", "rotate-tls", "change-issuer", "update-tls", "remove-tls", "restart"];
    let files: Vec<String> = files.iter().map(|name| format!("examples/{name}.yaml")).collect();
    let arguments: Vec<&str> =
        ["plan", "--facts", "examples"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let (_, plan, stderr) = pgrekey(&arguments, "");
    assert_eq!(stderr, "");
    insta::assert_snapshot!(plan);
}

#[test]
fn a_plan_for_programs_says_the_same() {
    let plan = succeeds(&["plan", "--facts", "examples", "examples/add-tls.yaml", "-o", "json"], "");
    let plan: Value = serde_json::from_str(&plan).expect("JSON");
    let plan = &plan[0];
    assert_eq!((&plan["operation"], &plan["database"]), (&"add TLS".into(), &"demo/ha-postgres".into()));
    assert_eq!(plan["restarts"], json!(["ha-postgres-2", "ha-postgres-1", "ha-postgres-0"]));
    let walk = plan["walk"].as_array().expect("a walk");
    assert_eq!((&walk[0]["servedBy"], &walk[0]["plaintext"]), (&Value::Null, &"md5".into()));
    let last = walk.last().expect("an end");
    assert_eq!((&last["tls"], &last["plaintext"]), (&"cert".into(), &Value::Null));
    let server = plan["certificates"].as_array().expect("certificates").iter().find(|c| c["alias"] == "server");
    assert_eq!(server.expect("the server's")["fate"], "issue");
}

#[test]
fn a_plan_of_what_would_be_refused_says_so() {
    let (code, plan, _) = pgrekey(&["plan", "examples/remove-tls.yaml", "--facts", "examples"], "");
    assert_eq!(code, 1, "{plan}");
    assert!(plan.contains("refused: [remove-needs-tls]"), "{plan}");
    let (code, _, stderr) =
        pgrekey(&["plan", "--facts", "examples", "-"], &succeeds(&["rotate", "other", "--dry-run"], ""));
    assert_eq!(code, 1);
    assert!(stderr.contains("there is no database default/other in the facts"), "{stderr}");
    let (code, _, stderr) = pgrekey(&["plan", "--facts", "examples", "examples/issuer.yaml"], "");
    assert_eq!(code, 1);
    assert!(stderr.contains("there is no PostgresOpsRequest in examples/issuer.yaml"), "{stderr}");
}

#[test]
fn the_document_shows_what_is_printed() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let document = std::fs::read_to_string(document).expect("the document");
    let shown = [
        succeeds(&["plan", "examples/add-tls.yaml", "--facts", "examples"], ""),
        succeeds(&["add-tls", "demo/ha-postgres", "--issuer", "pg-issuer", "--name", "add-tls", "--dry-run"], ""),
    ];
    for text in shown {
        assert!(document.contains(text.trim_end()), "docs/cli.md lacks:\n{text}");
    }
    for command in COMMANDS {
        assert!(
            command == "rules"
                || document.contains(&format!("`{command}"))
                || document.contains(&format!("pgrekey {command}")),
            "{command}"
        );
    }
}
