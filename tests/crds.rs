//! The generated definitions and the examples agree with the code.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use pgrekey::api::{Postgres, PostgresOpsRequest};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder exists")
        .map(|e| e.expect("an entry").path())
        .collect();
    files.sort();
    files
}

#[test]
fn the_committed_definitions_are_those_that_the_program_prints() {
    let fresh = tempfile::tempdir().expect("a temporary directory");
    Command::cargo_bin("pgrekey")
        .expect("the binary")
        .arg("crds")
        .arg("--output")
        .arg(fresh.path())
        .assert()
        .success();

    let committed = repository().join("charts/pgrekey-crds/templates");
    let names = |folder: &Path| {
        files(folder)
            .iter()
            .map(|f| f.file_name().expect("a name").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&committed),
        names(fresh.path()),
        "run `make generate`"
    );
    for file in files(fresh.path()) {
        let name = file.file_name().expect("a name");
        let read = |path: &Path| std::fs::read_to_string(path).expect("a readable file");
        assert!(
            read(&committed.join(name)) == read(&file),
            "{name:?} has drifted: run `make generate`"
        );
    }
}

#[test]
fn printed_and_written_definitions_are_equal() {
    let printed = Command::cargo_bin("pgrekey")
        .expect("the binary")
        .arg("crds")
        .assert()
        .success();
    let printed = String::from_utf8(printed.get_output().stdout.clone()).expect("UTF-8");
    let kinds: Vec<String> = serde_saphyr::from_multiple::<Value>(&printed)
        .expect("YAML")
        .iter()
        .map(|crd| {
            crd["spec"]["names"]["kind"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "PostgresVersion",
            "Postgres",
            "PostgresOpsRequest",
            "PetSet"
        ]
    );
}

#[test]
fn a_directory_that_cannot_be_made_is_named_in_the_error() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let output = Command::cargo_bin("pgrekey")
        .expect("the binary")
        .arg("crds")
        .arg("--output")
        .arg(file.path())
        .assert();
    let error =
        String::from_utf8(output.failure().code(1).get_output().stderr.clone()).expect("UTF-8");
    assert!(
        error.contains(&file.path().display().to_string()),
        "{error}"
    );
}

/// `kubectl apply` keeps the last applied object in an annotation, and annotations may take 256
/// KiB.
#[test]
fn each_definition_is_small_enough_for_client_side_apply() {
    for crd in pgrekey::api::crds() {
        let size = serde_json::to_string(&crd).expect("JSON").len();
        assert!(size < 250 * 1024, "{}: {size} bytes", crd.spec.names.kind);
    }
}

/// Every value of the example survives decoding: nothing in it is unknown to the types.
fn survives<T: DeserializeOwned + Serialize>(file: &Path, document: &Value) {
    let typed: T = serde_json::from_value(document.clone())
        .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let again = serde_json::to_value(typed).expect("JSON");
    if let Some(lost) = missing(document, &again, String::new()) {
        panic!("{}: {lost} is unknown", file.display());
    }
}

/// The path of the first value of `a` that is not in `b`.
fn missing(a: &Value, b: &Value, path: String) -> Option<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => a.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            b.get(key)
                .map_or(Some(path.clone()), |other| missing(value, other, path))
        }),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(i, (a, b))| missing(a, b, format!("{path}[{i}]"))),
        (a, b) => (a != b).then_some(path),
    }
}

#[test]
fn the_examples_decode_and_nothing_in_them_is_unknown() {
    let mut kinds = std::collections::BTreeMap::<String, usize>::new();
    for file in files(&repository().join("examples")) {
        if file.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a readable file");
        for document in serde_saphyr::from_multiple::<Value>(&text)
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()))
        {
            let kind = document["kind"].as_str().unwrap_or_default().to_owned();
            match kind.as_str() {
                "Postgres" => survives::<Postgres>(&file, &document),
                "PostgresOpsRequest" => survives::<PostgresOpsRequest>(&file, &document),
                _ => {}
            }
            *kinds.entry(kind).or_default() += 1;
        }
    }
    assert!(kinds.get("Postgres").is_some_and(|n| *n >= 2), "{kinds:?}");
    assert!(
        kinds.get("PostgresOpsRequest").is_some_and(|n| *n >= 5),
        "{kinds:?}"
    );
}

#[test]
fn an_unknown_value_is_noticed() {
    let document = serde_json::json!({"a": [{"b": 1, "c": 2}]});
    let decoded = serde_json::json!({"a": [{"b": 1}]});
    assert_eq!(
        missing(&document, &decoded, String::new()),
        Some(".a[0].c".to_owned())
    );
}
