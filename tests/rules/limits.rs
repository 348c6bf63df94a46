//! For every object, the response is short and quick.

use std::time::{Duration, Instant};

use pgrekey::api::bounds::MAX_CERTIFICATES;
use pgrekey::rules::{ClusterFacts, Finding, MAX_FINDINGS_PER_RULE};
use serde_json::{Value, json};

use crate::cases::{self, Case};
use crate::found;

/// Webhooks have three seconds; a build without optimisation gets some more.
const SOON: Duration = Duration::from_secs(10);

fn case(rule: &str, kind: &str) -> Case {
    cases::all()
        .into_iter()
        .find(|c| c.kind == kind && c.rule.as_deref() == Some(rule))
        .expect("a case")
}

/// The findings for a request with this `spec.tls`, in a namespace with many databases.
fn found_soon(tls: &Value) -> Vec<Finding> {
    let case = case("alias-known", "PostgresOpsRequest");
    let mut object = case.manifest();
    object["spec"]["tls"] = tls.clone();
    let secure = cases::world()
        .into_iter()
        .find(|d| d["metadata"]["name"] == "secure")
        .expect("a database");
    let others = (0..200).map(|i| {
        let mut other = secure.clone();
        other["metadata"]["name"] = json!(format!("other-{i}"));
        other
    });
    let facts = cases::facts(others);
    let began = Instant::now();
    let found = found(&case, object, None, Some(&facts as &dyn ClusterFacts));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    found
}

fn findings_of<'f>(found: &'f [Finding], rule: &str) -> Vec<&'f Finding> {
    found.iter().filter(|f| f.rule == rule).collect()
}

#[test]
fn certificates_without_end_are_refused_soon() {
    let entry = json!({"alias": "server", "secretName": "other-1-server-cert", "issuerRef": {"name": "none"}});
    let found = found_soon(&json!({"certificates": vec![entry; 100_000]}));
    let doubles = findings_of(&found, "alias-unique");
    assert_eq!(doubles.len(), MAX_CERTIFICATES - 1);
    assert!(found.len() <= 6 * MAX_FINDINGS_PER_RULE, "{}", found.len());
}

#[test]
fn as_many_names_as_fit_are_fine_and_one_more_is_not() {
    let with = |names: usize| {
        let names: Vec<String> = (0..names).map(|i| format!("db-{i}.example.com")).collect();
        found_soon(
            &json!({"certificates": [{"alias": "server", "dnsNames": names, "ipAddresses": ["192.0.2.1"]}]}),
        )
    };
    assert_eq!(with(249), []);
    let found = with(250);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].to_string(),
        "[san-valid] spec.tls.certificates[0]: 251 names are too many for one certificate, which takes 250; name fewer; a wildcard covers many"
    );
    assert_eq!(with(300_000).len(), 1);
}

#[test]
fn service_templates_without_end_are_refused_soon() {
    let case = case("service-template-unique", "Postgres");
    let mut object = case.manifest();
    let (primary, standby) = (json!({"alias": "primary"}), json!({"alias": "standby"}));
    object["spec"]["serviceTemplates"] =
        Value::Array([vec![primary; 50_000], vec![standby; 50_000]].concat());
    let began = Instant::now();
    assert_eq!(
        found(&case, object, None, None).len(),
        MAX_FINDINGS_PER_RULE
    );
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// The JSON pointers to all strings of a document.
fn texts(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            texts(
                value,
                &format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")),
                found,
            );
        }),
        Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(i, value)| texts(value, &format!("{path}/{i}"), found));
        }
        Value::String(_) => found.push(path.to_owned()),
        _ => {}
    }
}

#[test]
fn no_text_of_a_user_makes_an_answer_long_or_forges_a_line_of_it() {
    let hostile = [
        "\u{202e}\u{0}\n".repeat(10_000),
        "9".repeat(10_000) + "h",
        format!("0.{}1h", "0".repeat(10_000)),
        "PATRONI_".repeat(10_000),
        "ok\n[issuer-kind] spec: forged".to_owned(),
        String::new(),
    ];
    for case in cases::all() {
        let facts = cases::facts(case.queued());
        let mut places = vec![];
        texts(&case.manifest()["spec"], "/spec", &mut places);
        for (place, text) in places
            .iter()
            .flat_map(|place| hostile.iter().map(move |text| (place, text)))
        {
            let mut object = case.manifest();
            *object.pointer_mut(place).expect("a place") = json!(text);
            // No rule sees an object that does not decode.
            let decodes = match case.kind {
                "Postgres" => {
                    serde_json::from_value::<pgrekey::api::Postgres>(object.clone()).is_ok()
                }
                _ => serde_json::from_value::<pgrekey::api::PostgresOpsRequest>(object.clone())
                    .is_ok(),
            };
            if !decodes {
                continue;
            }
            for finding in found(&case, object, case.old(), Some(&facts)) {
                let answer = finding.to_string();
                assert!(
                    answer.len() < 1500,
                    "{place}: {} bytes: {}",
                    answer.len(),
                    finding.rule
                );
                assert!(
                    !answer.chars().any(|c| c.is_control() || c == '\u{202e}'),
                    "{place}: {answer:?}"
                );
            }
        }
    }
}
