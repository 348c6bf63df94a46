//! The laws of defaulting, for the objects of the cases after damage: fields removed, changed and
//! added; and the defaults themselves.

use std::collections::BTreeSet;
use std::sync::Arc;

use json_patch::PatchOperation;
use pgrekey::api::annotations::OPS_REQUEST_FINALIZER;
use pgrekey::api::{Postgres, PostgresOpsRequest};
use pgrekey::rules::defaults;
use pgrekey::rules::defaults::{DefaultIssuer, InstallationDefaults};
use pgrekey::rules::kind::ReviewedKind;
use pgrekey::rules::{
    AdmissionOperation, ClusterFacts, Finding, Review, Snapshot, judge, ops_request, postgres,
};
use proptest::prelude::*;
use proptest::sample::Index;
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::cases;

/// A damage to one object within a document.
#[derive(Clone, Debug)]
enum Damage {
    Removed,
    Nulled,
    Decorated,
}

/// A case's object with some damage.
fn documents() -> impl Strategy<Value = Value> {
    let damage = prop_oneof![
        Just(Damage::Removed),
        Just(Damage::Nulled),
        Just(Damage::Decorated)
    ];
    let damages = prop::collection::vec((damage, any::<Index>()), 0..6);
    let manifests: Vec<Value> = cases::all().iter().map(cases::Case::manifest).collect();
    (prop::sample::select(manifests), damages).prop_map(|(mut document, damages)| {
        for (damage, at) in damages {
            let mut places = vec![];
            fields(&document["spec"], "/spec", &mut places);
            let Some(place) = places.get(at.index(places.len().max(1))) else {
                continue;
            };
            let (parent, key) = place.rsplit_once('/').expect("a path");
            let value = document.pointer_mut(place).expect("a place");
            match damage {
                Damage::Nulled => *value = Value::Null,
                Damage::Decorated => {
                    if let Some(object) = value.as_object_mut() {
                        object.insert(
                            "fromTheFuture".to_owned(),
                            json!({"kept": [1, null, {"x": "y"}]}),
                        );
                    }
                }
                Damage::Removed => {
                    if let Some(object) =
                        document.pointer_mut(parent).and_then(Value::as_object_mut)
                    {
                        object.remove(key);
                    }
                }
            }
        }
        document
    })
}

/// Every field below a value, as a JSON pointer; keys of the cases need no escape but a slash.
fn fields(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}/{}", key.replace('/', "~1"));
                found.push(path.clone());
                fields(value, &path, found);
            }
        }
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate() {
                fields(value, &format!("{path}/{i}"), found);
            }
        }
        _ => {}
    }
}

fn review<K: DeserializeOwned>(document: &Value, old: Option<&Value>) -> Option<Review<K>> {
    let operation = if old.is_some() {
        AdmissionOperation::Update
    } else {
        AdmissionOperation::Create
    };
    let decoded = |document: &Value| K::deserialize(document).ok();
    let object = decoded(document)?;
    Some(Review {
        operation,
        object,
        old: old.and_then(decoded),
        allowed: Arc::default(),
    })
}

fn is_database(document: &Value) -> bool {
    document["kind"] == "Postgres"
}

/// The document with its defaults. `None` if it does not decode; the schema then refuses it.
fn mutated(
    document: &Value,
    old: Option<&Value>,
    facts: &dyn ClusterFacts,
    default: Option<&str>,
) -> Option<Value> {
    let issuer = default.map(|text| text.parse().expect("an issuer"));
    let installation = InstallationDefaults {
        issuer,
        ops_manager: true,
        ..InstallationDefaults::default()
    };
    Some(if is_database(document) {
        defaults::postgres(
            document.clone(),
            &review::<Postgres>(document, old)?,
            facts,
            &installation,
        )
    } else {
        let review = review::<PostgresOpsRequest>(document, old)?;
        defaults::ops_request(document.clone(), &review, facts, &installation)
    })
}

/// The fields of the document that the defaults read or change, before and after defaulting.
fn part_filled<K: ReviewedKind>(
    document: &Value,
    old: Option<&Value>,
    facts: &Snapshot,
) -> (Value, Value) {
    let issuer = INSTALLATION.map(|text| text.parse().expect("an issuer"));
    let installation = InstallationDefaults {
        issuer,
        ops_manager: true,
        namespace: None,
        ..InstallationDefaults::default()
    };
    let review = review::<K>(document, old).expect("it decodes");
    let part = K::defaulted_fields(&review)
        .select(&document.to_string())
        .expect("JSON");
    (
        part.clone(),
        K::defaulted(part, &review, facts, &installation),
    )
}

fn found(document: &Value, old: Option<&Value>, facts: &dyn ClusterFacts) -> Vec<Finding> {
    if is_database(document) {
        judge(
            postgres::rules(),
            &review(document, old).expect("it decodes"),
            Some(facts),
        )
    } else {
        judge(
            ops_request::rules(),
            &review(document, old).expect("it decodes"),
            Some(facts),
        )
    }
}

/// Whether `after` has every value of `before`, except for nulls, at the same path.
fn keeps(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Null, _) => true,
        (Value::Object(before), Value::Object(after)) => before
            .iter()
            .all(|(key, value)| after.get(key).is_some_and(|after| keeps(value, after))),
        (Value::Array(before), Value::Array(after)) => {
            before.len() <= after.len()
                && before
                    .iter()
                    .zip(after)
                    .all(|(before, after)| keeps(before, after))
        }
        (before, after) => before == after,
    }
}

const INSTALLATION: Option<&str> = Some("ClusterIssuer/cluster-issuer");

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn doing_it_twice_changes_nothing(document in documents()) {
        let facts = cases::facts([]);
        if let Some(once) = mutated(&document, None, &facts, INSTALLATION) {
            prop_assert_eq!(mutated(&once, None, &facts, INSTALLATION), Some(once));
        }
    }

    #[test]
    fn nothing_that_is_there_is_changed(document in documents(), old in documents()) {
        let facts = cases::facts([]);
        for old in [None, Some(&old).filter(|old| old["kind"] == document["kind"])] {
            if let Some(after) = mutated(&document, old, &facts, INSTALLATION) {
                prop_assert!(keeps(&document, &after), "{}\n{}", document, after);
            }
        }
    }

    #[test]
    fn the_patch_only_adds_and_says_it_all(document in documents()) {
        let Some(after) = mutated(&document, None, &cases::facts([]), INSTALLATION) else { return Ok(()) };
        let patch = json_patch::diff(&document, &after);
        for operation in patch.iter() {
            let place = operation.path().to_string();
            match operation {
                PatchOperation::Add(_) => prop_assert!(document.pointer(&place).is_none(), "{} is there", place),
                PatchOperation::Replace(_) => prop_assert_eq!(document.pointer(&place), Some(&Value::Null)),
                other => prop_assert!(false, "{}", other),
            }
        }
        let mut patched = document.clone();
        json_patch::patch(&mut patched, &patch).expect("the patch applies");
        prop_assert_eq!(patched, after);
    }

    /// The webhooks parse only the fields that the defaults read or change.
    #[test]
    fn the_patch_of_the_part_that_is_touched_is_that_of_the_whole(document in documents(), old in documents()) {
        let facts = cases::facts([]);
        for old in [None, Some(&old).filter(|old| old["kind"] == document["kind"])] {
            let Some(after) = mutated(&document, old, &facts, INSTALLATION) else { continue };
            let (part, filled) = if is_database(&document) {
                part_filled::<Postgres>(&document, old, &facts)
            } else {
                part_filled::<PostgresOpsRequest>(&document, old, &facts)
            };
            prop_assert_eq!(json_patch::diff(&part, &filled), json_patch::diff(&document, &after));
        }
    }

    /// A default that cannot work is a finding of its own rule; other rules find no more than
    /// without defaults.
    #[test]
    fn defaults_break_no_rules(document in documents()) {
        let facts = cases::facts([]);
        let Some(after) = mutated(&document, None, &facts, INSTALLATION) else { return Ok(()) };
        let of = |document: &Value| -> BTreeSet<(&str, String)> {
            found(document, None, &facts).into_iter().map(|f| (f.rule, f.field)).collect()
        };
        let before = of(&document);
        for (rule, field) in of(&after) {
            let speaks_of_defaults = ["synchronous-valid", "secret-name-unique", "cert-shared-issuer"].contains(&rule);
            prop_assert!(speaks_of_defaults || before.contains(&(rule, field.clone())), "[{}] {}\n{}", rule, field, after);
        }
    }

    /// A PUT of the same file after the cluster's defaults changed.
    #[test]
    fn the_same_file_again_is_not_an_edit(document in documents()) {
        let Some(stored) = mutated(&document, None, &cases::facts([]), INSTALLATION) else { return Ok(()) };
        let later = Snapshot::default();
        let again = mutated(&document, Some(&stored), &later, None).expect("it decodes");
        if is_database(&document) {
            let of = |document: &Value| Postgres::deserialize(document).expect("it decodes").spec;
            prop_assert_eq!(of(&stored), of(&again));
        } else {
            let of = |document: &Value| PostgresOpsRequest::deserialize(document).expect("it decodes").spec;
            prop_assert_eq!(of(&stored), of(&again));
        }
        prop_assert_eq!(found(&again, Some(&stored), &later), vec![]);
    }
}

fn request(spec: &Value) -> Value {
    let mut request = json!({
        "apiVersion": "ops.kubedb.com/v1alpha1",
        "kind": "PostgresOpsRequest",
        "metadata": {"name": "request", "namespace": "demo"},
        "spec": {"type": "ReconfigureTLS", "databaseRef": {"name": "plain"}},
    });
    json_patch::merge(&mut request["spec"], spec);
    request
}

fn database(spec: &Value) -> Value {
    let mut database = json!({
        "apiVersion": "kubedb.com/v1",
        "kind": "Postgres",
        "metadata": {"name": "db", "namespace": "demo"},
        "spec": {"version": "17.12"},
    });
    json_patch::merge(&mut database["spec"], spec);
    database
}

fn issuer(kind: &str, name: &str) -> Value {
    json!({"apiGroup": "cert-manager.io", "kind": kind, "name": name})
}

/// The spec after defaulting, in the cluster of the cases.
fn spec(document: &Value, old: Option<&Value>, default: Option<&str>) -> Map<String, Value> {
    let after = mutated(document, old, &cases::facts([]), default).expect("it decodes");
    after["spec"].as_object().expect("a spec").clone()
}

#[test]
fn a_database_of_few_words_becomes_a_whole_one() {
    assert_eq!(
        Value::Object(spec(
            &database(&json!({"tls": {"issuerRef": {"name": "pg-issuer"}}})),
            None,
            None
        )),
        json!({
            "version": "17.12",
            "replicas": 1,
            "standbyMode": "Hot",
            "storageType": "Durable",
            "deletionPolicy": "Delete",
            "sslMode": "verify-full",
            "clientAuthMode": "md5",
            "healthChecker": {"periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 1},
            "tls": {
                "issuerRef": issuer("Issuer", "pg-issuer"),
                "certificates": [
                    {"alias": "server", "secretName": "db-server-cert"},
                    {"alias": "client", "secretName": "db-client-cert"},
                    {"alias": "metrics-exporter", "secretName": "db-metrics-exporter-cert"},
                ],
            },
        })
    );
}

#[test]
fn a_dependent_default_follows_its_source() {
    let cases = [
        (json!({}), "sslMode", json!("disable")),
        (json!({"version": "17.12"}), "clientAuthMode", json!("md5")),
        (json!({"version": "18.1"}), "clientAuthMode", json!("scram")),
        (json!({"version": "ten"}), "clientAuthMode", json!("md5")),
        (
            json!({"version": "18.0-unknown"}),
            "clientAuthMode",
            json!("scram"),
        ),
        (json!({"halted": true}), "deletionPolicy", json!("Halt")),
        (
            json!({"halted": true, "deletionPolicy": "WipeOut"}),
            "deletionPolicy",
            json!("WipeOut"),
        ),
        (json!({"halted": false}), "deletionPolicy", json!("Delete")),
        (
            json!({"streamingMode": "Synchronous", "synchronousReplicationConfig": {"numSyncReplicas": 2}}),
            "synchronousReplicationConfig",
            json!({"mode": "Any", "numSyncReplicas": 2, "commitLevel": "RemoteWrite"}),
        ),
    ];
    for (given, field, expected) in cases {
        assert_eq!(
            spec(&database(&given), None, None)[field],
            expected,
            "{given}"
        );
    }
    assert!(
        !spec(
            &database(&json!({"streamingMode": "Asynchronous"})),
            None,
            None
        )
        .contains_key("synchronousReplicationConfig")
    );
}

#[test]
fn a_request_that_is_to_be_carried_out_is_kept_from_vanishing() {
    let facts = cases::facts([]);
    let document = request(&json!({"tls": {"rotateCertificates": true}}));
    let finalizers = |document: &Value, old: Option<&Value>| {
        mutated(document, old, &facts, None).expect("it decodes")["metadata"]
            .get("finalizers")
            .cloned()
    };
    assert_eq!(
        finalizers(&document, None),
        Some(json!([OPS_REQUEST_FINALIZER]))
    );
    let mut owned = document.clone();
    owned["metadata"]["finalizers"] = json!(["example.com/owner"]);
    assert_eq!(
        finalizers(&owned, None),
        Some(json!(["example.com/owner", OPS_REQUEST_FINALIZER]))
    );
    // The finalizer of a finished request was removed, and an edit does not add it again.
    assert_eq!(finalizers(&document, Some(&document)), None);
    assert_eq!(finalizers(&database(&json!({})), None), None);
    let review = review::<PostgresOpsRequest>(&document, None).expect("it decodes");
    let of = |ops_manager: bool, namespace: Option<&str>| {
        let installation = InstallationDefaults {
            ops_manager,
            namespace: namespace.map(str::to_owned),
            ..InstallationDefaults::default()
        };
        defaults::ops_request(document.clone(), &review, &facts, &installation)["metadata"]
            .get("finalizers")
            .cloned()
    };
    assert_eq!(
        [of(false, None), of(true, Some("elsewhere"))],
        [None, None],
        "nobody would let it go"
    );
    assert_eq!(of(true, Some("demo")), Some(json!([OPS_REQUEST_FINALIZER])));
}

#[test]
fn without_a_name_no_secret_is_named() {
    let mut document = database(&json!({"tls": {"issuerRef": {"name": "pg-issuer"}}}));
    document["metadata"] = json!({"generateName": "db-", "namespace": "demo"});
    assert_eq!(
        spec(&document, None, None)["tls"],
        json!({"issuerRef": issuer("Issuer", "pg-issuer")})
    );
}

#[test]
fn the_nearest_issuer_is_taken() {
    let add = json!({"tls": {"sslMode": "verify-full"}});
    let with = |namespace: &str, mut document: Value, default: Option<&str>| {
        document["metadata"]["namespace"] = json!(namespace);
        spec(&document, None, default)["tls"]
            .get("issuerRef")
            .cloned()
    };
    let of_namespace = Some(issuer("ClusterIssuer", "cluster-issuer"));
    for document in [request(&add), database(&json!({"tls": {}}))] {
        assert_eq!(with("demo", document.clone(), None), None);
        assert_eq!(
            with("demo", document.clone(), Some("Issuer/mine")),
            Some(issuer("Issuer", "mine"))
        );
        assert_eq!(with("defaulted", document.clone(), None), of_namespace);
        assert_eq!(
            with("defaulted", document.clone(), Some("Issuer/mine")),
            of_namespace
        );
        let mut named = document;
        named["spec"]["tls"]["issuerRef"] = json!({"name": "own"});
        assert_eq!(
            with("defaulted", named, Some("Issuer/mine")),
            Some(issuer("Issuer", "own"))
        );
    }
}

#[test]
fn no_issuer_is_filled_in_where_none_is_needed() {
    let default = Some("Issuer/mine");
    let own = |alias: &str| json!({"alias": alias, "issuerRef": {"name": "own"}});
    let each =
        json!({"tls": {"certificates": [own("server"), own("client"), own("metrics-exporter")]}});
    for spec_ in [
        json!({"databaseRef": {"name": "secure"}, "tls": {"sslMode": "require"}}),
        json!({"databaseRef": {"name": "secure"}, "tls": {"rotateCertificates": true}}),
        json!({"databaseRef": {"name": "gone"}, "tls": {"sslMode": "require"}}),
        json!({"tls": {"remove": true}}),
        json!({"tls": {"rotateCertificates": true}}),
        json!({"tls": {}}),
        json!({"type": "Restart", "tls": {"sslMode": "require"}}),
        each.clone(),
    ] {
        assert_eq!(
            spec(&request(&spec_), None, default)["tls"].get("issuerRef"),
            None,
            "{spec_}"
        );
    }
    let stays = spec(&database(&each), None, default);
    assert_eq!(stays["tls"].get("issuerRef"), None);
    assert_eq!(
        stays["tls"]["certificates"][0]["issuerRef"],
        issuer("Issuer", "own")
    );
}

#[test]
fn an_annotation_that_cannot_be_read_counts_as_none() {
    let facts = Snapshot {
        default_issuers: vec![("demo".into(), "Vault/x".into())],
        ..Snapshot::default()
    };
    let after = mutated(
        &database(&json!({"tls": {}})),
        None,
        &facts,
        Some("Issuer/mine"),
    )
    .expect("it decodes");
    assert_eq!(after["spec"]["tls"]["issuerRef"], issuer("Issuer", "mine"));
    for text in [
        "",
        "mine",
        "/",
        "Issuer/",
        "Issuer/A_B",
        "issuer/mine",
        "Vault/mine",
        "Issuer/a/b",
        "Issuer/mine ",
    ] {
        assert!(
            text.parse::<DefaultIssuer>()
                .is_err_and(|e| e.contains("use Issuer/NAME")),
            "{text:?}"
        );
    }
}

#[test]
fn tls_can_be_removed_by_a_put() {
    let with =
        database(&json!({"tls": {"issuerRef": {"name": "pg-issuer"}}, "clientAuthMode": "cert"}));
    let stored = mutated(&with, None, &cases::facts([]), None).expect("it decodes");
    let after = spec(&database(&json!({})), Some(&stored), None);
    assert_eq!(
        (&after["sslMode"], &after["clientAuthMode"]),
        (&json!("disable"), &json!("md5"))
    );
    assert!(!after.contains_key("tls"));
    let mut put = database(&json!({}));
    put["spec"] = Value::Object(after);
    put["spec"]["storage"] = json!({"resources": {"requests": {"storage": "1Gi"}}});
    let found: Vec<&str> = found(&put, Some(&stored), &cases::facts([]))
        .iter()
        .map(|f| f.rule)
        .collect();
    assert_eq!(found, ["tls-edited-directly"; 3], "said, not refused");
}

#[test]
fn fields_that_a_put_leaves_out_stay() {
    let chosen = json!({"replicas": 5, "standbyMode": "Warm", "deletionPolicy": "WipeOut", "healthChecker": {"periodSeconds": 3}});
    let stored = mutated(&database(&chosen), None, &cases::facts([]), None).expect("it decodes");
    let after = spec(&database(&json!({"version": "18.1"})), Some(&stored), None);
    for (field, value) in stored["spec"].as_object().expect("a spec") {
        let expected = if field == "version" {
            &json!("18.1")
        } else {
            value
        };
        assert_eq!(&after[field], expected, "{field}");
    }
}
