//! The commands of the command line, as far as they need no cluster.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::Path;

use assert_cmd::Command;
use serde_json::{Value, json};

const NOWHERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/no-such-kubeconfig");

/// Exit code, standard output and standard error of the program, without a cluster.
fn pgrekey(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::cargo_bin("pgrekey").expect("pgrekey is built");
    command
        .env("KUBECONFIG", NOWHERE)
        .env_remove("KUBERNETES_SERVICE_HOST");
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command
        .args(arguments)
        .write_stdin(input)
        .output()
        .expect("pgrekey runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code().expect("an exit code"),
        text(output.stdout),
        text(output.stderr),
    )
}

fn succeeds(arguments: &[&str], input: &str) -> String {
    let (code, stdout, stderr) = pgrekey(arguments, input);
    assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
    stdout
}

/// All commands.
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
            assert!(
                own.contains("Examples:") || command == "run",
                "{command}: {own}"
            );
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
fn as_a_plugin_of_kubectl_the_program_has_the_plugin_s_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let plugin = directory.path().join("kubectl-pgrekey");
    std::os::unix::fs::symlink(assert_cmd::cargo::cargo_bin("pgrekey"), &plugin).expect("linked");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&plugin);
        command
            .env("KUBECONFIG", NOWHERE)
            .env_remove("KUBERNETES_SERVICE_HOST")
            .args(arguments);
        let output = command.output().expect("the plugin runs");
        (
            String::from_utf8(output.stdout).expect("UTF-8"),
            String::from_utf8(output.stderr).expect("UTF-8"),
        )
    };
    let help = |arguments: &[&str]| run(arguments).0;
    assert!(
        help(&["--help"]).contains("Usage: kubectl pgrekey"),
        "{}",
        help(&["--help"])
    );
    let own = help(&["rotate", "--help"]);
    assert!(
        own.contains("Usage: kubectl pgrekey rotate")
            && own.contains("  kubectl pgrekey rotate ha-postgres"),
        "{own}"
    );
    let typo = directory.path().join("typo.yaml");
    std::fs::write(&typo, "{kind: PostgresOpsRequest, spec: [], metadata: {}}").expect("written");
    let typo = typo.to_str().expect("UTF-8");
    let (_, said) = run(&["plan", "--facts", "examples", typo]);
    assert!(
        said.starts_with("kubectl pgrekey: ") && said.contains("`kubectl pgrekey check "),
        "{said}"
    );
}

#[test]
fn a_dry_run_prints_the_request() {
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
        (
            &["rotate", "pg", "-n", "demo"],
            json!({"rotateCertificates": true}),
        ),
        (
            &["change-issuer", "demo/pg", "--issuer", "new"],
            json!({"issuerRef": {"apiGroup": "cert-manager.io", "kind": "Issuer", "name": "new"}}),
        ),
        (
            &["remove-tls", "demo/pg", "--client-auth-mode", "scram"],
            json!({"remove": true, "clientAuthMode": "scram"}),
        ),
    ];
    for (arguments, tls) in cases {
        let yaml = succeeds(
            &[arguments, &["--dry-run", "--timeout", "5m", "--reload"][..]].concat(),
            "",
        );
        let request: Value = serde_saphyr::from_str(&yaml).expect("YAML");
        assert_eq!(
            (&request["kind"], &request["spec"]["tls"]),
            (&json!("PostgresOpsRequest"), tls),
            "{yaml}"
        );
        assert_eq!(request["metadata"]["namespace"], "demo");
        assert_eq!(
            request["metadata"]["annotations"]["pgrekey.dev/strategy"],
            "Reload"
        );
        assert_eq!(
            (&request["spec"]["timeout"], &request["spec"]["apply"]),
            (&json!("5m"), &json!("IfReady"))
        );
        let name = request["metadata"]["name"].as_str().expect("a name");
        assert!(
            name.starts_with("pg-") && name.len() > "pg-rotate-tls-".len(),
            "{name}"
        );
        // What we make is what admission takes.
        succeeds(&["check", "-"], &yaml);
    }
    let dry = ["rotate", "pg", "--name", "mine", "--dry-run"];
    let named = succeeds(&dry, "");
    assert!(
        named.contains("name: mine\n") && named.contains("namespace: default\n"),
        "{named}"
    );
    let request: Value = serde_saphyr::from_str(&named).expect("YAML");
    let as_json = succeeds(&[&dry[..], &["-o", "json"]].concat(), "");
    assert_eq!(
        serde_json::from_str::<Value>(&as_json).expect("JSON"),
        request
    );
}

#[test]
fn invalid_flags_are_refused_by_the_command_line() {
    for (arguments, says) in [
        (
            &["rotate", "pg", "--timeout", "soon", "--dry-run"][..],
            "not a duration such as 30s",
        ),
        (
            &["add-tls", "pg", "--ssl-mode", "disable", "--dry-run"],
            "possible values: allow, prefer",
        ),
        (
            &[
                "remove-tls",
                "pg",
                "--client-auth-mode",
                "cert",
                "--dry-run",
            ],
            "possible values: md5, scram",
        ),
        (&["change-issuer", "pg", "--dry-run"], "--issuer <ISSUER>"),
        (
            &["change-issuer", "pg", "--issuer", "Secret/ca"],
            "use NAME, Issuer/NAME or ClusterIssuer/NAME",
        ),
        (
            &["rotate", "pg", "--dry-run", "--wait"],
            "cannot be used with",
        ),
        (
            &["rotate", "pg", "-o", "json", "--wait"],
            "cannot be used with",
        ),
    ] {
        let (code, stdout, stderr) = pgrekey(arguments, "");
        assert_eq!(code, 2, "{arguments:?}: {stdout}{stderr}");
        assert!(stderr.contains(says), "{arguments:?}: {stderr}");
    }
}

#[test]
fn without_a_cluster_the_error_says_how_to_name_one() {
    let check = &["check", "--cluster", "examples/rotate-tls.yaml"];
    for command in [
        &["status", "pg"][..],
        &["certs"],
        &["doctor"],
        &["rotate", "pg"],
        &["plan", "pg"],
        check,
    ] {
        let (code, stdout, stderr) = pgrekey(command, "");
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(
            stderr.contains("set KUBECONFIG or name a --context"),
            "{command:?}: {stderr}"
        );
    }
}

#[test]
fn check_has_the_output_formats_and_the_namespace_of_other_commands() {
    let wrong =
        "{apiVersion: ops.kubedb.com/v1alpha1, kind: PostgresOpsRequest, metadata: {name: r},
        spec: {type: ReconfigureTLS, databaseRef: {name: ha-postgres}}}";
    let check = |more: &[&str]| pgrekey(&[&["check", "-"], more].concat(), wrong);
    let (code, table, _) = check(&["--facts", "examples", "-n", "demo"]);
    assert_eq!(code, 1, "{table}");
    assert!(
        table.starts_with("-:2:15: refused: [tls-required] spec.tls: "),
        "{table}"
    );
    assert_eq!(
        check(&["--facts", "examples", "-n", "demo", "-o", "wide"]).1,
        table
    );
    let as_json: Value =
        serde_json::from_str(&check(&["-o", "json", "--context", "no-such"]).1).expect("JSON");
    let as_yaml: Value = serde_saphyr::from_str(&check(&["-o", "yaml"]).1).expect("YAML");
    assert_eq!(as_json, as_yaml);
    assert_eq!(as_json["findings"][0]["namespace"], "default");

    let directory = tempfile::tempdir().expect("a directory");
    let kubeconfig = directory.path().join("kubeconfig");
    let contexts = json!([{"name": "mine", "context": {"cluster": "c", "user": "u", "namespace": "of-context"}}]);
    let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "mine", "contexts": contexts});
    std::fs::write(&kubeconfig, text.to_string()).expect("written");
    let mut command = Command::cargo_bin("pgrekey").expect("pgrekey is built");
    command
        .env("KUBECONFIG", kubeconfig)
        .args(["check", "-", "-o", "json"]);
    let output = command
        .write_stdin(wrong)
        .output()
        .expect("pgrekey runs")
        .stdout;
    let report: Value = serde_json::from_slice(&output).expect("JSON");
    assert_eq!(report["findings"][0]["namespace"], "of-context");
}

#[test]
fn the_tutorial_is_planned_offline_each_request_from_where_the_last_one_leads() {
    let files = [
        "add-tls",
        "rotate-tls",
        "change-issuer",
        "update-tls",
        "remove-tls",
        "restart",
    ];
    let files: Vec<String> = files
        .iter()
        .map(|name| format!("examples/{name}.yaml"))
        .collect();
    let arguments: Vec<&str> = ["plan", "--facts", "examples"]
        .into_iter()
        .chain(files.iter().map(String::as_str))
        .collect();
    let (_, plan, stderr) = pgrekey(&arguments, "");
    assert_eq!(stderr, "");
    insta::assert_snapshot!(plan);
}

#[test]
fn a_plan_in_json_has_the_same_facts() {
    let plan = succeeds(
        &[
            "plan",
            "--facts",
            "examples",
            "examples/add-tls.yaml",
            "-o",
            "json",
        ],
        "",
    );
    let plan: Value = serde_json::from_str(&plan).expect("JSON");
    let plan = &plan[0];
    assert_eq!(
        (&plan["operation"], &plan["database"]),
        (&"add TLS".into(), &"demo/ha-postgres".into())
    );
    assert_eq!(
        plan["restarts"],
        json!(["ha-postgres-2", "ha-postgres-1", "ha-postgres-0"])
    );
    let walk = plan["walk"].as_array().expect("a walk");
    assert_eq!(
        (&walk[0]["servedBy"], &walk[0]["plaintext"]),
        (&Value::Null, &"md5".into())
    );
    let last = walk.last().expect("an end");
    assert_eq!(
        (&last["tls"], &last["plaintext"]),
        (&"cert".into(), &Value::Null)
    );
    let server = plan["certificates"]
        .as_array()
        .expect("certificates")
        .iter()
        .find(|c| c["alias"] == "server");
    assert_eq!(server.expect("the server's")["fate"], "issue");
}

#[test]
fn wide_names_every_name_of_a_certificate() {
    let plan = |more: &[&str]| {
        succeeds(
            &[
                &["plan", "--facts", "examples", "examples/add-tls.yaml"],
                more,
            ]
            .concat(),
            "",
        )
    };
    let wide = plan(&["-o", "wide"]);
    let line = wide
        .lines()
        .find(|line| line.contains("ha-postgres-server-cert"))
        .expect("the server's");
    assert!(
        line.contains(" CN=ha-postgres.demo.svc, ") && line.contains(", 127.0.0.1"),
        "{line}"
    );
    let plan: Value = serde_json::from_str(&plan(&["-o", "json"])).expect("JSON");
    let names = plan[0]["certificates"][0]["dnsNames"]
        .as_array()
        .expect("names");
    assert!(
        names
            .iter()
            .all(|name| line.contains(name.as_str().expect("a name"))),
        "{line}"
    );
}

#[test]
fn a_plan_shows_the_names_that_go_and_the_domain_of_the_cluster() {
    let request = "{apiVersion: kubedb.com/v1, kind: Postgres, metadata: {name: named, namespace: demo}, spec: {version: '17.12', \
        storageType: Ephemeral, tls: {issuerRef: {kind: Issuer, name: pg-issuer}, certificates: [{alias: server, dnsNames: \
        [old.example.com]}]}}}\n---\n\
        {apiVersion: ops.kubedb.com/v1alpha1, kind: PostgresOpsRequest, metadata: {name: fewer, namespace: demo, annotations: \
        {pgrekey.dev/names: Replace, pgrekey.dev/strategy: Reload}}, spec: {type: ReconfigureTLS, databaseRef: {name: named}, \
        tls: {certificates: [{alias: server, dnsNames: [new.example.com]}]}}}\n";
    let plan = |more: &[&str]| {
        let line = [
            "plan",
            "--facts",
            "examples",
            "--cluster-domain",
            "k8s.example",
            "-",
        ];
        let (code, stdout, stderr) = pgrekey(&[&line, more].concat(), request);
        assert_eq!(code, 0, "{stdout}{stderr}");
        stdout
    };
    let text = plan(&[]);
    assert!(
        text.contains(
            "\nNames of named-server-cert\n- old.example.com\n+ new.example.com\n\nSettings\n"
        ),
        "{text}"
    );
    let json: Value = serde_json::from_str(&plan(&["-o", "json"])).expect("JSON");
    let server = &json[0]["certificates"][0];
    assert_eq!(
        server["changedNames"],
        json!({"added": ["new.example.com"], "removed": ["old.example.com"]})
    );
    let names = server["dnsNames"].as_array().expect("names");
    assert!(
        names.contains(&json!("named.demo.svc.k8s.example")),
        "{names:?}"
    );
    assert!(!names.contains(&json!("old.example.com")), "{names:?}");
}

#[test]
fn a_request_without_an_issuer_is_planned_with_the_default_one() {
    let request = succeeds(
        &[
            "add-tls",
            "demo/ha-postgres",
            "--name",
            "silent",
            "--dry-run",
        ],
        "",
    );
    let plan = |facts: &Path, more: &[&str]| {
        let facts = facts.to_str().expect("UTF-8");
        pgrekey(&[&["plan", "-", "--facts", facts], more].concat(), &request)
    };
    let directory = tempfile::tempdir().expect("a directory");
    let copied = |name: &str| {
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("examples")
            .join(name);
        std::fs::copy(from, directory.path().join(name)).expect("copied");
    };
    copied("ha-postgres.yaml");
    copied("issuer.yaml");
    let (code, stdout, stderr) = plan(directory.path(), &[]);
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(
        stderr.contains("silent would be refused:\n  [add-needs-issuer] "),
        "{stderr}"
    );
    let (code, stdout, stderr) = plan(directory.path(), &["--default-issuer", "Issuer/pg-issuer"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(
        stdout.contains("issue  ha-postgres-server-cert            pg-issuer "),
        "{stdout}"
    );
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "demo", "annotations": {"pgrekey.dev/default-issuer": "Issuer/pg-issuer"}}});
    std::fs::write(
        directory.path().join("namespace.json"),
        namespace.to_string(),
    )
    .expect("written");
    assert_eq!(plan(directory.path(), &[]), (0, stdout, String::new()));
}

#[test]
fn a_plan_of_a_refused_request_has_the_refusals() {
    let (code, plan, _) = pgrekey(
        &["plan", "examples/remove-tls.yaml", "--facts", "examples"],
        "",
    );
    assert_eq!(code, 1, "{plan}");
    assert!(plan.contains("refused: [remove-needs-tls]"), "{plan}");
    let (code, _, stderr) = pgrekey(
        &["plan", "--facts", "examples", "-"],
        &succeeds(&["rotate", "other", "--dry-run"], ""),
    );
    assert_eq!(code, 1);
    assert!(
        stderr.contains("there is no database default/other in the facts"),
        "{stderr}"
    );
    let (code, _, stderr) = pgrekey(&["plan", "--facts", "examples", "examples/issuer.yaml"], "");
    assert_eq!(code, 1);
    assert!(
        stderr.contains("there is no PostgresOpsRequest in examples/issuer.yaml"),
        "{stderr}"
    );
}

/// The commands in the console blocks of a document, each with its output.
fn commands(document: &str) -> Vec<(String, String)> {
    let (mut found, mut is_console) = (Vec::<(String, String)>::new(), false);
    for line in document.lines() {
        match (line, is_console.then(|| line.strip_prefix("$ "))) {
            ("```console", _) => is_console = true,
            ("```", _) => is_console = false,
            (_, Some(Some(command))) => found.push((command.to_owned(), String::new())),
            (_, Some(None)) => {
                let (_, printed) = found.last_mut().expect("a command before what it prints");
                *printed += line;
                printed.push('\n');
            }
            (_, None) => {}
        }
    }
    found
}

#[test]
fn the_document_shows_the_real_output() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/cli.md")).expect("the document");
    // A directory of its own, for what the commands write.
    let directory = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink(root.join("examples"), directory.path().join("examples"))
        .expect("linked");
    let program = assert_cmd::cargo::cargo_bin("pgrekey");
    let path = format!(
        "{}:{}",
        program.parent().expect("a directory").display(),
        std::env::var("PATH").expect("PATH")
    );
    let mut run = vec![];
    for (command, printed) in commands(&document) {
        if command.ends_with("# †") {
            continue;
        }
        let mut shell = std::process::Command::new("sh");
        shell
            .env("PATH", &path)
            .env("KUBECONFIG", NOWHERE)
            .env_remove("KUBERNETES_SERVICE_HOST");
        shell
            .current_dir(&directory)
            .args(["-c", &format!("exec 2>&1\n{command}")]);
        let output = shell.output().expect("a shell").stdout;
        assert_eq!(
            String::from_utf8(output).expect("UTF-8"),
            printed,
            "docs/cli.md: $ {command}"
        );
        run.push(command);
    }
    for command in [
        "plan",
        "add-tls",
        "check",
        "--version",
        "crds",
        "webhook-config",
        "completion",
    ] {
        assert!(
            run.iter()
                .any(|run| run.contains(&format!("pgrekey {command}"))),
            "{command} is run: {run:?}"
        );
    }
    for command in COMMANDS {
        let says = |how: &str| document.contains(&format!("{how}{command}"));
        assert!(
            command == "rules" || says("`") || says("pgrekey "),
            "{command}"
        );
    }
}
