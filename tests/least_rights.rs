//! The rights that the chart gives are those that the suite has used: `make test-cluster` runs this
//! after it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Helm, skip};

/// A verb and what it is about, such as `patch postgreses.kubedb.com/status`.
type Right = String;

/// What the suite does not use, and why it is given.
const UNUSED: &[(&str, &str)] = &[
    (
        "get pods",
        "the pods' own Role has it, and nobody may grant what he may not do",
    ),
    (
        "update configmaps",
        "the pods' own Role has it, and nobody may grant what he may not do",
    ),
    (
        "create servicemonitors.monitoring.coreos.com",
        "the dev cluster has no Prometheus operator",
    ),
    (
        "patch servicemonitors.monitoring.coreos.com",
        "the dev cluster has no Prometheus operator",
    ),
    (
        "delete servicemonitors.monitoring.coreos.com",
        "the dev cluster has no Prometheus operator",
    ),
];

fn right(verb: &str, group: &str, resource: &str) -> Right {
    let (resource, part) = resource
        .split_once('/')
        .map_or((resource, None), |(resource, part)| (resource, Some(part)));
    let group = if group.is_empty() {
        String::new()
    } else {
        format!(".{group}")
    };
    format!(
        "{verb} {resource}{group}{}",
        part.map(|part| format!("/{part}")).unwrap_or_default()
    )
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// The rights in the chart's roles.
fn given() -> BTreeSet<Right> {
    let template = [
        "template",
        "pgrekey",
        "charts/pgrekey",
        "--show-only",
        "templates/rbac.yaml",
    ];
    let text = Helm::find()
        .expect("a dev cluster has a helm")
        .run(&template)
        .expect("a rendering");
    let roles = serde_saphyr::from_multiple::<Value>(&text).expect("YAML");
    let rules = roles
        .iter()
        .flat_map(|role| role["rules"].as_array().into_iter().flatten());
    let rights = rules.flat_map(|rule| {
        let of = move |group| {
            texts(&rule["resources"])
                .flat_map(move |r| texts(&rule["verbs"]).map(move |v| right(v, group, r)))
        };
        texts(&rule["apiGroups"]).flat_map(of)
    });
    rights.collect()
}

/// What the operators of the suite have asked for, and what of it was forbidden, by the audit log
/// of the API server.
fn used() -> Option<(BTreeSet<Right>, BTreeSet<Right>)> {
    let (Some(log), Ok(since)) = (
        std::env::var_os("PGREKEY_AUDIT_LOG"),
        std::env::var("PGREKEY_SUITE_BEGAN"),
    ) else {
        skip("PGREKEY_AUDIT_LOG and PGREKEY_SUITE_BEGAN are not set: run `make test-cluster`");
        return None;
    };
    // The API server begins a new file when one is full, and puts the time behind the name of the
    // old one.
    let log = Path::new(&log);
    let parts = std::fs::read_dir(log.parent().expect("a folder")).expect("the folder of the log");
    let parts = parts.map(|entry| entry.expect("an entry").path());
    let is_part = |path: &PathBuf| path.to_string_lossy().starts_with(&*log.to_string_lossy());
    let text: String = parts
        .filter(is_part)
        .map(|path| std::fs::read_to_string(path).expect("the audit log"))
        .collect();
    let (mut used, mut forbidden) = (BTreeSet::new(), BTreeSet::new());
    for entry in text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
    {
        let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &entry["objectRef"];
        if of(&entry["requestReceivedTimestamp"]) < since || object["resource"].is_null() {
            continue;
        }
        let part = object["subresource"]
            .as_str()
            .map(|part| format!("/{part}"))
            .unwrap_or_default();
        let right = right(
            &of(&entry["verb"]),
            &of(&object["apiGroup"]),
            &(of(&object["resource"]) + &part),
        );
        if entry["annotations"]["authorization.k8s.io/decision"] == "forbid" {
            forbidden.insert(right);
        } else {
            // An application of what is not there yet is a patch that takes the right to create.
            if entry["responseStatus"]["code"] == 201 {
                used.insert(right.replacen("patch ", "create ", 1));
            }
            used.insert(right);
        }
    }
    Some((used, forbidden))
}

#[test]
fn the_given_rights_are_the_used_rights() {
    let Some((used, forbidden)) = used() else {
        return;
    };
    let unused: BTreeSet<Right> = given().difference(&used).cloned().collect();
    println!("given and unused: {unused:#?}");
    assert_eq!(
        forbidden,
        BTreeSet::new(),
        "the suite needed what the chart does not give"
    );
    let known: BTreeSet<Right> = UNUSED
        .iter()
        .map(|(right, _)| (*right).to_owned())
        .collect();
    assert_eq!(
        unused, known,
        "what is given and not used is given for a reason, and what is used needs none"
    );
}
