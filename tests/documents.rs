//! What the documents show is true: each command in them is run by a test or says that it is not,
//! and what is taken from a recording is in it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

use pgrekey::api::postgres_version::PostgresVersionSpec;
use pgrekey::build::certificates::certificates;
use pgrekey::build::{BuildInputs, Cluster};
use serde_json::{Value, json};

/// Says at the end of a line that no test runs it.
const NOT_RUN: &str = "# †";

/// What the checks themselves are made of.
const RUN_BY_CI: [&str; 2] = ["make cluster", "make test"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents that people write.
fn documents() -> Vec<PathBuf> {
    let folders = [
        "",
        "docs",
        "dev",
        "certs-dev",
        "examples",
        "charts/pgrekey",
        "charts/pgrekey-crds",
    ];
    let files = folders
        .iter()
        .flat_map(|folder| fs::read_dir(root().join(folder)).expect("a folder"));
    let files = files.map(|file| file.expect("a file").path());
    let mut files: Vec<PathBuf> = files
        .filter(|file| file.extension().is_some_and(|end| end == "md"))
        .collect();
    files.sort();
    files
}

/// The blocks of a document, each with the word after its fence.
fn blocks(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut blocks = vec![];
    let mut open: Option<(&str, Vec<&str>)> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => open = Some((language, vec![])),
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    blocks
}

/// The commands of a block. In a console, where there are prompts, what has none is what was
/// printed.
fn commands<'d>(language: &str, lines: &[&'d str]) -> Vec<&'d str> {
    if !["sh", "bash", "console"].contains(&language) {
        return vec![];
    }
    let has_prompts = lines.iter().any(|line| line.starts_with("$ "));
    let mut continues = false;
    let mut commands = vec![];
    for line in lines {
        let command = if has_prompts {
            line.strip_prefix("$ ")
        } else {
            Some(line.trim())
        };
        let command = command.filter(|command| !command.is_empty() && !command.starts_with('#'));
        commands.extend(command.filter(|_| !continues));
        continues = line.ends_with('\\');
    }
    commands
}

#[test]
fn each_command_is_run_by_a_test_or_says_that_it_is_not() {
    let tutorial = read(&root().join("docs/tutorial.md"));
    // `dev/demo/tutorial`, which the cluster suite runs.
    let told: Vec<&str> = blocks(&tutorial)
        .into_iter()
        .filter(|(language, _)| *language == "sh")
        .flat_map(|(_, lines)| lines)
        .collect();
    let mut unknown = vec![];
    for document in documents() {
        let text = read(&document);
        let is_run = |command: &str| {
            let bare = command.split(" #").next().unwrap_or_default().trim();
            // `the_document_shows_the_real_output` runs every command with a prompt and no mark, and
            // `tests/cluster/clients.rs` the line of each driver.
            document.ends_with("docs/cli.md")
                || document.ends_with("docs/clients.md")
                || told
                    .iter()
                    .any(|line| line.split(" #").next().unwrap_or_default().trim() == bare)
                || RUN_BY_CI.contains(&bare)
        };
        for (language, lines) in blocks(&text) {
            let commands = commands(language, &lines);
            let left = commands
                .into_iter()
                .filter(|command| !command.contains(NOT_RUN) && !is_run(command));
            unknown.extend(left.map(|command| format!("{}: {command}", document.display())));
        }
    }
    assert!(
        unknown.is_empty(),
        "mark them with {NOT_RUN}, or have them run:\n{}",
        unknown.join("\n")
    );
}

#[test]
fn the_code_for_pgx_is_that_of_the_client_that_the_cluster_suite_runs() {
    let text = read(&root().join("docs/clients.md"));
    let code: Vec<String> = blocks(&text)
        .into_iter()
        .filter(|(language, lines)| *language == "go" && lines.len() > 1)
        .flat_map(|(_, lines)| lines.into_iter().map(|line| format!("\t{line}\n")))
        .collect();
    assert!(code.len() > 1, "the document has code");
    let program = read(&root().join("dev/images/clients/pgx/main.go"));
    assert!(program.contains(&code.concat()), "{}", code.concat());
}

#[test]
fn the_postures_of_each_operation_are_those_that_plan_shows() {
    let recorded =
        read(&root().join(
            "tests/snapshots/cli__the_tutorial_is_planned_offline_each_request_from_where_the_last_one_leads.snap",
        ));
    let text = read(&root().join("docs/how-it-works.md"));
    let tables: Vec<String> = blocks(&text)
        .into_iter()
        .filter(|(language, lines)| {
            *language == "text"
                && lines
                    .first()
                    .is_some_and(|line| line.starts_with("POSTURE"))
        })
        .map(|(_, lines)| lines.join("\n"))
        .collect();
    assert!(
        tables.len() >= 4,
        "one for each operation: {}",
        tables.len()
    );
    for table in tables {
        assert!(recorded.contains(&table), "no plan shows this:\n{table}");
    }
}

/// A block of the operations guide, as the Certificates of a database: what each asks for.
fn documented(section: &str, nth: usize) -> Value {
    let text = read(&root().join("docs/operations.md"));
    let (_, section) = text.split_once(section).expect("the section");
    let blocks = blocks(section);
    let (language, lines) = &blocks[nth];
    assert_eq!(*language, "yaml");
    let yaml = lines
        .join("\n")
        .replace("NAMESPACE", "demo")
        .replace("DOMAIN", "k8s.example")
        .replace("NAME", "pg");
    serde_saphyr::from_str(&yaml).expect("YAML")
}

/// What the Certificates of a database with one pod ask for.
fn asked_for(annotations: &Value) -> Value {
    let database = json!({
        "apiVersion": "kubedb.com/v1", "kind": "Postgres",
        "metadata": {"name": "pg", "namespace": "demo", "annotations": annotations},
        "spec": {"version": "17", "storageType": "Ephemeral", "tls": {"issuerRef": {"name": "i"}}},
    });
    let version = PostgresVersionSpec {
        version: "17.12".to_owned(),
        ..PostgresVersionSpec::default()
    };
    let inputs = BuildInputs {
        version: &version,
        superuser: "postgres",
        user_conf: None,
        live_pods: 0,
        cluster_domain: "k8s.example",
    };
    let database = serde_json::from_value(database).expect("a database");
    let cluster = Cluster::build(&database, &inputs).expect("a cluster");
    let asked = certificates(&cluster).into_iter().map(|certificate| {
        let spec = json!(certificate.spec);
        let keys = [
            "commonName",
            "dnsNames",
            "ipAddresses",
            "uris",
            "emailAddresses",
            "usages",
        ];
        let given = keys
            .into_iter()
            .filter(|key| !spec[key].is_null())
            .map(|key| (key.to_owned(), spec[key].clone()));
        (
            certificate.metadata.name.unwrap_or_default(),
            Value::Object(given.collect()),
        )
    });
    Value::Object(asked.collect())
}

/// The same with sorted names.
fn sorted(mut certificates: Value) -> Value {
    let certificates_mut = certificates.as_object_mut().expect("Certificates");
    for certificate in certificates_mut.values_mut() {
        let names = certificate.get_mut("dnsNames");
        if let Some(names) = names.and_then(Value::as_array_mut) {
            names.sort_by_key(ToString::to_string);
        }
    }
    certificates
}

#[test]
fn an_issuer_must_allow_exactly_the_names_and_usages_that_the_guide_lists() {
    let section = "\n### What an issuer must allow\n";
    let services = json!({"pgrekey.dev/server-names": "Services"});
    for (nth, annotations) in [(0, json!({})), (1, services)] {
        assert_eq!(
            sorted(documented(section, nth)),
            sorted(asked_for(&annotations)),
            "{annotations}"
        );
    }
}
