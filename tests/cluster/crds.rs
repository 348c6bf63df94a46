//! The definitions, as a real API server takes them.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use serde_json::{Value, json};

use crate::harness::{Cluster, definitions};

#[tokio::test]
async fn the_definitions_apply_without_a_warning() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let answer = cluster.kubectl(&["apply", "--dry-run=server", "-f", "-"], &definitions());
    assert_eq!(
        answer.must_succeed().lines().count(),
        4,
        "{}",
        answer.stdout()
    );
    // Objects that were first applied from elsewhere lack kubectl's annotation; that is not about
    // the definitions.
    let warnings: Vec<String> = answer
        .stderr()
        .lines()
        .filter(|line| !line.contains("last-applied-configuration"))
        .map(Into::into)
        .collect();
    assert_eq!(warnings, Vec::<String>::new());
}

#[tokio::test]
async fn every_field_explains_itself() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    for crd in pgrekey::api::crds() {
        let version = &crd.spec.versions[0].name;
        let path = format!("/openapi/v3/apis/{}/{version}", crd.spec.group);
        let request = http::Request::get(&path).body(vec![]).expect("a request");
        let document: Value = cluster
            .client
            .request(request)
            .await
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        let schemas = document["components"]["schemas"]
            .as_object()
            .expect("schemas");
        let (_, schema) = schemas
            .iter()
            .find(|(name, _)| name.ends_with(&format!(".{}", crd.spec.names.kind)))
            .unwrap_or_else(|| panic!("{path} has no {}", crd.spec.names.kind));
        let mut silent = vec![];
        without_description(schema, &crd.spec.names.kind, &mut silent);
        assert!(silent.is_empty(), "no description: {silent:#?}");
    }
    let explained = cluster
        .kubectl(&["explain", "pgops.spec.tls.rotateCertificates"], "")
        .must_succeed();
    assert!(
        explained.contains("Issue all certificates of the database anew"),
        "{explained}"
    );
}

fn without_description(schema: &Value, path: &str, silent: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if property["description"].as_str().is_none_or(str::is_empty) {
            silent.push(path.clone());
        }
        without_description(property, &path, silent);
        without_description(&property["items"], &path, silent);
        without_description(&property["additionalProperties"], &path, silent);
    }
}

#[tokio::test]
async fn the_examples_pass_a_dry_run() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let answer = cluster.kubectl(
        &[
            "apply",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            folder,
        ],
        "",
    );
    assert!(
        answer
            .must_succeed()
            .contains("postgresopsrequest.ops.kubedb.com/add-tls created (server dry run)")
    );
}

#[tokio::test]
async fn a_field_that_is_not_carried_is_refused() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let mut database = minimal(&crd("Postgres"));
    database["spec"]["remoteReplica"] = json!({});
    let refused = cluster
        .kubectl(
            &["apply", "--dry-run=server", "-f", "-"],
            &database.to_string(),
        )
        .must_fail();
    assert!(
        refused.contains(r#"unknown field "spec.remoteReplica""#),
        "{refused}"
    );
}

#[tokio::test]
async fn the_spec_of_a_request_cannot_be_changed() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let stored = Stored::create(&cluster, &crd("PostgresOpsRequest"), "immutable").await;
    let dry_run = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    for change in [
        json!({"spec": {"timeout": "5m"}}),
        json!({"spec": {"apply": "Always"}}),
        json!({"spec": {"tls": {"remove": true}}}),
        json!({"spec": {"databaseRef": {"name": "another"}}}),
    ] {
        let refused = stored
            .api
            .patch(&stored.name, &dry_run, &Patch::Merge(&change))
            .await;
        let message = refused.expect_err("spec is immutable").to_string();
        assert!(
            message.contains("spec is immutable: delete this request and create a new one"),
            "{message}"
        );
    }
    let labels = json!({"metadata": {"labels": {"team": "a"}}});
    stored
        .api
        .patch(&stored.name, &dry_run, &Patch::Merge(&labels))
        .await
        .expect("labels may change");
    stored.delete().await;
}

#[tokio::test]
async fn requests_are_listed_with_database_and_step() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let stored = Stored::create(&cluster, &crd("PostgresOpsRequest"), "columns").await;
    let list = ["-n", "demo", "get", "pgops", &stored.name];
    let row = |text: String| {
        text.lines()
            .map(|l| l.split_whitespace().map(Into::into).collect())
            .collect::<Vec<Vec<String>>>()
    };
    let before = row(cluster.kubectl(&list, "").must_succeed());
    assert_eq!(
        before[0],
        ["NAME", "TYPE", "DATABASE", "STATUS", "STEP", "AGE"]
    );
    let status = json!({"status": {"phase": "Progressing", "steps": [{"name": "Pause"}, {"name": "Expand"}]}});
    let params = PatchParams::default();
    stored
        .api
        .patch_status(&stored.name, &params, &Patch::Merge(&status))
        .await
        .expect("a status");
    let after = row(cluster.kubectl(&list, "").must_succeed());
    assert_eq!(
        after[1][1..5],
        ["ReconfigureTLS", "ha-postgres", "Progressing", "Expand"]
    );
    stored.delete().await;
}

/// Every enum and every bound of our schemas is broken once, each in an object that is fine
/// otherwise.
#[tokio::test]
async fn each_enum_and_bound_is_enforced_with_its_path() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let mut broken = BTreeSet::new();
    for crd in pgrekey::api::crds() {
        let schema = crd.spec.versions[0]
            .schema
            .as_ref()
            .and_then(|s| s.open_api_v3_schema.as_ref())
            .expect("a schema");
        let mut limits = vec![];
        find_limits(schema, &mut vec![], &mut limits);
        let stored = Stored::create(&cluster, &crd, "limits").await;
        for limit in limits {
            let mut object = minimal(&crd);
            place(&mut object, schema, &limit.path, limit.bad.clone());
            object["metadata"]["name"] = json!("broken");
            let refused = if limit.path[0] == Part::Field("status".into()) {
                let patch = Patch::Merge(json!({"status": object["status"]}));
                let dry_run = PatchParams {
                    dry_run: true,
                    ..PatchParams::default()
                };
                stored
                    .api
                    .patch_status(&stored.name, &dry_run, &patch)
                    .await
            } else {
                let object = serde_json::from_value(object).expect("an object");
                stored
                    .api
                    .create(
                        &PostParams {
                            dry_run: true,
                            ..PostParams::default()
                        },
                        &object,
                    )
                    .await
            };
            let path = written(&limit.path);
            let message = refused
                .map(|_| ())
                .expect_err(&format!("{path} = {} is not refused", limit.bad))
                .to_string();
            assert!(message.contains(&path), "{path}: {message}");
            assert!(message.contains(limit.message), "{path}: {message}");
            broken.insert(format!("{}.{path}", crd.spec.names.kind));
        }
        stored.delete().await;
    }
    for expected in [
        "PostgresOpsRequest.spec.type",
        "Postgres.spec.sslMode",
        "Postgres.status.phase",
    ] {
        assert!(
            broken.contains(expected),
            "{expected} was not broken: {broken:#?}"
        );
    }
}

/// A value that the schema must refuse, where, and in which words the API server says so.
struct Limit {
    path: Vec<Part>,
    bad: Value,
    message: &'static str,
}

#[derive(Clone, PartialEq)]
enum Part {
    Field(String),
    Item,
}

/// The path as the API server writes it.
fn written(path: &[Part]) -> String {
    path.iter().fold(String::new(), |text, part| match part {
        Part::Field(name) if text.is_empty() => name.clone(),
        Part::Field(name) => format!("{text}.{name}"),
        Part::Item => format!("{text}[0]"),
    })
}

fn find_limits(schema: &JSONSchemaProps, path: &mut Vec<Part>, limits: &mut Vec<Limit>) {
    let mut limit = |bad: Value, message| {
        limits.push(Limit {
            path: path.clone(),
            bad,
            message,
        });
    };
    if schema.enum_.is_some() {
        limit(json!("no-such-value"), "Unsupported value");
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "our bounds are whole numbers"
    )]
    if let Some(least) = schema.minimum {
        limit(
            json!(least as i64 - 1),
            "should be greater than or equal to",
        );
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "our bounds are whole numbers"
    )]
    if let Some(most) = schema.maximum {
        limit(json!(most as i64 + 1), "should be less than or equal to");
    }
    let one_more = |most: i64| usize::try_from(most + 1).expect("a length");
    if let (Some(most), Some("string")) = (schema.max_length, schema.type_.as_deref()) {
        limit(json!("x".repeat(one_more(most))), "Too long");
    }
    if let (Some(most), Some(JSONSchemaPropsOrArray::Schema(items))) =
        (schema.max_items, &schema.items)
    {
        limit(json!(vec![sample(items); one_more(most)]), "Too many");
    }
    for (name, property) in schema.properties.iter().flatten() {
        path.push(Part::Field(name.clone()));
        find_limits(property, path, limits);
        path.pop();
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        path.push(Part::Item);
        find_limits(items, path, limits);
        path.pop();
    }
}

/// Puts a value at a path, with everything on the way that the schema requires.
fn place(object: &mut Value, schema: &JSONSchemaProps, path: &[Part], value: Value) {
    let Some((part, rest)) = path.split_first() else {
        *object = value;
        return;
    };
    match part {
        Part::Field(name) => {
            let schema = &schema.properties.as_ref().expect("properties")[name];
            let sample = sample(schema);
            let field = object
                .as_object_mut()
                .expect("an object")
                .entry(name)
                .or_insert(sample);
            place(field, schema, rest, value);
        }
        Part::Item => {
            let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items else {
                panic!("no items")
            };
            *object = json!([sample(schema)]);
            place(&mut object[0], schema, rest, value);
        }
    }
}

/// The smallest value that the schema takes.
fn sample(schema: &JSONSchemaProps) -> Value {
    if let Some(first) = schema.enum_.as_ref().and_then(|values| values.first()) {
        return first.0.clone();
    }
    match schema.type_.as_deref() {
        Some("object") => {
            let properties = schema.properties.clone().unwrap_or_default();
            let required = schema.required.iter().flatten();
            required
                .map(|name| (name.clone(), sample(&properties[name])))
                .collect::<serde_json::Map<_, _>>()
                .into()
        }
        Some("array") => json!([]),
        Some("boolean") => json!(false),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "our bounds are whole numbers"
        )]
        Some("integer" | "number") => json!(schema.minimum.unwrap_or(1.0) as i64),
        _ if schema.format.as_deref() == Some("date-time") => json!("2026-01-01T00:00:00Z"),
        _ => json!("x"),
    }
}

fn crd(kind: &str) -> CustomResourceDefinition {
    pgrekey::api::crds()
        .into_iter()
        .find(|c| c.spec.names.kind == kind)
        .expect("a definition")
}

/// The smallest object of a definition that makes sense.
fn minimal(crd: &CustomResourceDefinition) -> Value {
    let names = &crd.spec.names;
    let spec = match names.kind.as_str() {
        "Postgres" => json!({"version": "17.12"}),
        "PostgresVersion" => {
            json!({"version": "17.12", "db": {"image": "a"}, "exporter": {"image": "b"}})
        }
        "PetSet" => json!({"selector": {}, "serviceName": "x", "template": {}}),
        "PostgresOpsRequest" => json!({
            "type": "ReconfigureTLS", "databaseRef": {"name": "ha-postgres"}, "tls": {"rotateCertificates": true},
        }),
        other => panic!("no minimal {other}"),
    };
    json!({
        "apiVersion": format!("{}/{}", crd.spec.group, crd.spec.versions[0].name),
        "kind": names.kind,
        "metadata": {"name": "minimal", "namespace": (crd.spec.scope == "Namespaced").then_some("demo")},
        "spec": spec,
    })
}

/// An object that is really there, until it is deleted.
struct Stored {
    api: Api<DynamicObject>,
    name: String,
}

impl Stored {
    async fn create(cluster: &Cluster, crd: &CustomResourceDefinition, name: &str) -> Self {
        let names = &crd.spec.names;
        let resource = ApiResource {
            group: crd.spec.group.clone(),
            version: crd.spec.versions[0].name.clone(),
            api_version: format!("{}/{}", crd.spec.group, crd.spec.versions[0].name),
            kind: names.kind.clone(),
            plural: names.plural.clone(),
        };
        let client = cluster.client.clone();
        let api = match crd.spec.scope.as_str() {
            "Namespaced" => Api::namespaced_with(client, "demo", &resource),
            _ => Api::all_with(client, &resource),
        };
        let stored = Self {
            api,
            name: format!("test-{name}"),
        };
        let mut object = minimal(crd);
        object["metadata"]["name"] = json!(stored.name);
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        // An earlier run may have been ended before it cleaned up.
        let force = PatchParams::apply("pgrekey-test").force();
        stored
            .api
            .patch(&stored.name, &force, &Patch::Apply(&object))
            .await
            .expect("the object is accepted");
        stored
    }

    async fn delete(self) {
        self.api
            .delete(&self.name, &DeleteParams::default())
            .await
            .expect("the object is deleted");
    }
}
