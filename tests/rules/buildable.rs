//! Every database that the rules admit can be built: otherwise its certificates would not be
//! renewed.

use std::sync::Arc;

use pgrekey::api::Postgres;
use pgrekey::api::names::DEFAULT_CLUSTER_DOMAIN;
use pgrekey::build::{BuildInputs as BuildFacts, Cluster, Unbuildable};
use pgrekey::rules::{ClusterFacts, Snapshot, postgres, refusals};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::cases;

/// Whether the rules admit a new database, and the result of the builder. `None` if it does not
/// decode.
fn judged(document: &Value, facts: &Snapshot) -> Option<(bool, Result<Cluster, Unbuildable>)> {
    let database: Postgres = serde_json::from_value(document.clone()).ok()?;
    let is_let_in =
        refusals(postgres::rules(), database.clone(), facts, &Arc::default()).is_empty();
    let version = facts
        .version(&database.spec.version)
        .map(|version| version.spec.clone())
        .unwrap_or_default();
    // No rule reads Secrets.
    let known = BuildFacts {
        version: &version,
        superuser: "postgres",
        user_conf: Some(""),
        live_pods: 0,
        cluster_domain: DEFAULT_CLUSTER_DOMAIN,
    };
    Some((is_let_in, Cluster::build(&database, &known)))
}

#[test]
fn every_case_that_the_rules_let_in_is_built() {
    let facts = cases::facts([]);
    let mut built = 0;
    for case in cases::all()
        .into_iter()
        .filter(|case| case.kind == "Postgres")
    {
        let mut document = case.manifest();
        if document["metadata"]["name"].is_null() {
            // The API server generates a name.
            document["metadata"]["name"] = json!("database");
        }
        let (is_let_in, cluster) = judged(&document, &facts).expect("a database");
        if is_let_in {
            cluster.unwrap_or_else(|why| panic!("{}: {why}", case.title()));
            built += 1;
        }
    }
    assert!(built > 20, "{built}");
}

/// Variables of users, reserved ones among them.
fn env() -> impl Strategy<Value = Value> {
    let names = vec![
        "TZ",
        "MY_PGDATA",
        "pguser",
        "",
        "PGDATA",
        "PGUSER",
        "DATA_SOURCE_NAME",
        "PATRONI_",
        "POSTGRES_USER",
    ];
    prop::collection::vec(select(names), 0..3).prop_map(|names| {
        names
            .into_iter()
            .map(|name| json!({"name": name, "value": "x"}))
            .collect()
    })
}

/// Settings, valid and invalid.
fn settings() -> impl Strategy<Value = String> {
    let name = select(vec![
        "work_mem",
        "ssl",
        "a.b",
        "a..b",
        "a$b.c",
        "include",
        "INCLUDE_DIR",
        "#",
        "",
        "9",
        "é",
    ]);
    let between = select(vec![" = ", "=", " ", "", " == "]);
    let value = select(vec![
        "4MB",
        "'it''s'",
        "'open",
        r"'\n'",
        r"'\101'",
        r"'\",
        "1 2",
        "-1.5 # why",
        "1.5GB",
        "a.b",
        "é",
        "",
    ]);
    let line =
        (name, between, value).prop_map(|(name, between, value)| format!("{name}{between}{value}"));
    prop::collection::vec(line, 0..3).prop_map(|lines| lines.join("\n"))
}

/// Amounts, valid and invalid.
fn amount() -> impl Strategy<Value = String> {
    "[+-]?[0-9]{0,2}[.]?[0-9]{0,1}(|Gi|Mi|M|m|e3|E|GiB| Gi|lots)"
}

/// A part of a spec that the builder reads.
fn part() -> impl Strategy<Value = Value> {
    let source = || prop::option::of(Just(()));
    let path = select(vec!["", "a", "a/b", "..", "a/..", "/a", "...", "a..b"]);
    let ports = prop::collection::vec(
        select(vec!["primary", "standby", "prom-http", "stats", "db", ""]),
        0..3,
    );
    let container = select(vec!["postgres", "exporter", "sidecar", ""]);
    let aliases = prop::collection::vec(
        select(vec!["server", "client", "metrics-exporter", "x"]),
        0..4,
    );
    prop_oneof![
        (select(vec!["17.12", "18.1", "ten", "newest", "gone"]), prop_oneof![-1..4, 31..35, Just(i32::MAX)])
            .prop_map(|(version, replicas)| json!({"version": version, "replicas": replicas})),
        (select(vec!["user.conf", "postgresql.conf"]), settings())
            .prop_map(|(key, text)| json!({"configuration": {"inline": {key: text}}})),
        (container, env(), amount()).prop_map(|(name, env, memory)| {
            let container = json!({"name": name, "env": env, "resources": {"requests": {"memory": memory}}});
            json!({"podTemplate": {"spec": {"containers": [container]}}})
        }),
        amount().prop_map(
            |memory| json!({"podTemplate": {"spec": {"containers": [{"name": "postgres", "resources": {"limits": {"memory": memory}}}]}}})
        ),
        env().prop_map(|env| json!({"monitor": {"agent": "prometheus.io", "prometheus": {"exporter": {"env": env}}}})),
        (source(), source(), path).prop_map(|(map, secret, path)| {
            let (map, secret) = (map.map(|()| json!({"name": "a"})), secret.map(|()| json!({"secretName": "a"})));
            json!({"init": {"script": {"scriptPath": path, "configMap": map, "secret": secret}}})
        }),
        (prop::collection::vec((select(vec!["primary", "standby", "stats"]), ports), 0..3)).prop_map(|all| {
            let templates: Value = all
                .into_iter()
                .map(|(alias, ports)| {
                    let ports: Value = ports.into_iter().map(|name| json!({"name": name, "port": 5000})).collect();
                    json!({"alias": alias, "spec": {"ports": ports}})
                })
                .collect();
            json!({"serviceTemplates": templates})
        }),
        (select(vec!["Durable", "Ephemeral"]), amount()).prop_map(|(kind, size)| {
            json!({"storageType": kind, "storage": {"resources": {"requests": {"storage": size}}}})
        }),
        (aliases, any::<bool>(), any::<bool>(), prop::option::of(select(vec!["disable", "require"]))).prop_map(
            |(aliases, one_for_all, one_for_each, mode)| {
                let issuer = |is_there: bool| is_there.then(|| json!({"kind": "Issuer", "name": "pg-issuer"}));
                let certificates: Value =
                    aliases.iter().map(|alias| json!({"alias": alias, "issuerRef": issuer(one_for_each)})).collect();
                json!({"sslMode": mode, "tls": {"issuerRef": issuer(one_for_all), "certificates": certificates}})
            }
        ),
    ]
}

#[test]
fn whatever_the_rules_let_in_is_built() {
    let facts = cases::facts([]);
    let base = json!({
        "apiVersion": "kubedb.com/v1",
        "kind": "Postgres",
        "metadata": {"name": "database", "namespace": "demo"},
        "spec": {"version": "17.12", "storage": {"resources": {"requests": {"storage": "1Gi"}}}},
    });
    let parts = prop::collection::vec(part(), 1..3);
    let mut runner = TestRunner::deterministic();
    let (mut built, mut refused) = (0, 0);
    for _ in 0..4000 {
        let mut document = base.clone();
        for part in parts.new_tree(&mut runner).expect("parts").current() {
            json_patch::merge(&mut document["spec"], &part);
        }
        match judged(&document, &facts) {
            Some((true, Ok(_))) => built += 1,
            Some((true, Err(why))) => panic!("let in, and not built: {why}\n{document:#}"),
            Some((false, _)) => refused += 1,
            None => {}
        }
    }
    assert!(
        built > 400 && refused > 400,
        "{built} built, {refused} refused"
    );
}
