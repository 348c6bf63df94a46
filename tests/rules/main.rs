//! The rules, tested against their specification: `postgres_ops_request.yaml` and `postgres.yaml`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod buildable;
mod cases;
mod defaulting;
mod limits;

use std::collections::BTreeSet;

use cases::Case;
use pgrekey::rules;
use pgrekey::rules::defaults;
use pgrekey::rules::defaults::InstallationDefaults;
use pgrekey::rules::{AdmissionOperation, ClusterFacts, Finding, Needs, Review, Rule, judge};
use serde::de::DeserializeOwned;
use serde_json::Value;

fn decoded<K: DeserializeOwned>(case: &Case, document: Value) -> K {
    serde_json::from_value(document).unwrap_or_else(|e| panic!("{}: {e}", case.title()))
}

fn review<K: DeserializeOwned>(case: &Case, object: Value, old: Option<Value>) -> Review<K> {
    let old = old.map(|old| decoded(case, old));
    Review {
        operation: case.operation(),
        object: decoded(case, object),
        old,
        allowed: case.allowed(),
    }
}

/// The findings of the rules of the case's kind.
fn found(
    case: &Case,
    object: Value,
    old: Option<Value>,
    facts: Option<&dyn ClusterFacts>,
) -> Vec<Finding> {
    match case.kind {
        "Postgres" => judge(rules::postgres::rules(), &review(case, object, old), facts),
        _ => judge(
            rules::ops_request::rules(),
            &review(case, object, old),
            facts,
        ),
    }
}

/// The object after the mutating webhook.
fn defaulted(case: &Case, object: Value, old: Option<Value>, facts: &dyn ClusterFacts) -> Value {
    match case.kind {
        "Postgres" => defaults::postgres(
            object.clone(),
            &review(case, object, old),
            facts,
            &InstallationDefaults::default(),
        ),
        _ => defaults::ops_request(
            object.clone(),
            &review(case, object, old),
            facts,
            &InstallationDefaults::default(),
        ),
    }
}

#[test]
fn each_case_is_judged_as_it_says() {
    for case in cases::all() {
        let facts = cases::facts(case.queued());
        let found = found(&case, case.manifest(), case.old(), Some(&facts));
        as_the_case_says(&case, &found);
    }
}

fn as_the_case_says(case: &Case, found: &[Finding]) {
    let listing = found
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    let title = format!("{}\nfound:\n{listing}\n", case.title());
    let ids: BTreeSet<&str> = found.iter().map(|f| f.rule).collect();
    let expected: BTreeSet<&str> = case
        .rule
        .iter()
        .chain(&case.also)
        .map(String::as_str)
        .collect();
    assert_eq!(ids, expected, "{title}");
    let of_rule: Vec<&Finding> = found
        .iter()
        .filter(|f| Some(f.rule) == case.rule.as_deref())
        .collect();
    assert_eq!(
        of_rule.iter().map(|f| f.field.as_str()).collect::<Vec<_>>(),
        case.fields(),
        "{title}"
    );
    if let Some(text) = &case.text {
        assert_eq!(of_rule[0].to_string(), *text, "{title}");
    }
}

#[test]
fn defaults_do_not_change_the_findings_of_the_rules() {
    for case in cases::all() {
        let facts = cases::facts(case.queued());
        let old = case.old().map(|old| defaulted(&case, old, None, &facts));
        let object = defaulted(&case, case.manifest(), old.clone(), &facts);
        as_the_case_says(&case, &found(&case, object, old, Some(&facts)));
    }
}

#[test]
fn every_rule_has_a_case_and_every_case_a_rule() {
    let of = |kind: &str| -> BTreeSet<String> {
        cases::all()
            .into_iter()
            .filter(|case| case.kind == kind)
            .filter_map(|case| case.rule)
            .collect()
    };
    assert_eq!(of("Postgres"), ids(rules::postgres::rules()));
    assert_eq!(of("PostgresOpsRequest"), ids(rules::ops_request::rules()));
}

fn ids<K: 'static>(rules: impl Iterator<Item = &'static Rule<K>>) -> BTreeSet<String> {
    rules.map(|rule| rule.id.to_owned()).collect()
}

/// `pgrekey check` lists the rules that it skipped without facts, so the table must be right about
/// them.
#[test]
fn each_rule_needs_the_facts_that_the_table_says() {
    let mut partly = BTreeSet::new();
    for case in cases::all() {
        let Some(rule) = &case.rule else { continue };
        let needs = match case.kind {
            "Postgres" => rules::postgres::rules()
                .find(|r| r.id == rule)
                .map(|r| r.needs),
            _ => rules::ops_request::rules()
                .find(|r| r.id == rule)
                .map(|r| r.needs),
        };
        let facts = cases::facts(case.queued());
        let of = |facts| {
            let mut found = found(&case, case.manifest(), case.old(), facts);
            found.retain(|f| f.rule == rule);
            found
        };
        let (with, without) = (of(Some(&facts as &dyn ClusterFacts)), of(None));
        match needs.expect("a rule") {
            Needs::Nothing => assert_eq!(without, with, "{}", case.title()),
            Needs::Facts => assert!(without.is_empty(), "{}", case.title()),
            Needs::SomeFacts => {
                assert!(without.iter().all(|f| with.contains(f)), "{}", case.title());
                partly.insert((case.kind, rule.clone(), without.is_empty()));
            }
        }
    }
    for (kind, rule, silent) in &partly {
        assert!(
            partly.contains(&(*kind, rule.clone(), !silent)),
            "{kind}: {rule} does not need some facts"
        );
    }
}

#[test]
fn every_finding_names_fault_and_remedy_without_secrets() {
    for case in cases::all() {
        let facts = cases::facts(case.queued());
        for finding in found(&case, case.manifest(), case.old(), Some(&facts)) {
            let text = finding.to_string();
            for part in [&finding.field, &finding.problem, &finding.remedy] {
                assert!(
                    !part.is_empty() && part.trim() == part && !part.ends_with('.'),
                    "{text}"
                );
            }
            assert!(!text.contains("hunter2"), "{text}");
            if finding.effect == rules::Effect::Warn {
                assert_eq!(finding.warning(), text, "a warning of a plain case is cut");
            }
        }
    }
}

#[test]
fn no_rule_judges_the_deletion_of_a_request() {
    assert!(rules::ops_request::rules().all(|rule| !rule.on.contains(&AdmissionOperation::Delete)));
}

#[test]
fn the_document_of_the_rules_follows_the_tables() {
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_pgrekey"))
        .arg("rules")
        .output()
        .expect("pgrekey runs");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rules.md");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    let printed = String::from_utf8(printed.stdout).expect("UTF-8");
    assert!(
        committed == printed,
        "docs/rules.md is not what `pgrekey rules` prints: run `make generate`"
    );
    for id in ids(rules::postgres::rules())
        .into_iter()
        .chain(ids(rules::ops_request::rules()))
    {
        assert!(committed.contains(&format!("`{id}`\n\n")), "{id}");
    }
}
