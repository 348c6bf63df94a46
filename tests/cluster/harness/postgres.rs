//! Databases and requests for them: how tests make them, and what they ask of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::namespace::TestNamespace;
use super::pki::{ca, ca_secret};

/// What is in a file of the examples.
pub(crate) fn read_example(file: &str) -> Value {
    let path = format!("{}/examples/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the example");
    serde_saphyr::from_str(&text).expect("the example is YAML")
}

/// An example with this name, on a machine with little to spare.
pub(crate) fn example(file: &str, name: &str, replicas: i32, version: &str) -> Value {
    let mut object = read_example(file);
    object["metadata"] = json!({"name": name});
    object["spec"]["replicas"] = json!(replicas);
    object["spec"]["version"] = json!(version);
    let resources =
        json!({"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}});
    object["spec"]["podTemplate"] =
        json!({"spec": {"containers": [{"name": "postgres", "resources": resources}]}});
    object
}

/// The versions of the images that were built here, by major version; installed.
pub(crate) fn versions(cluster: &Cluster) -> BTreeMap<u32, String> {
    let cache = std::env::var("XDG_CACHE_HOME")
        .unwrap_or_else(|_| format!("{}/.cache", std::env::var("HOME").expect("a home")));
    let built = |major: u32| {
        let file = format!("{cache}/pgrekey/images/postgres-{major}.version");
        let version = std::fs::read_to_string(&file)
            .expect("`make images` was run")
            .trim()
            .to_owned();
        install(cluster, &version, major);
        (major, version)
    };
    [17, 18].map(built).into()
}

/// Gives the image of this major version a name that databases can have in their spec.
pub(crate) fn install(cluster: &Cluster, version: &str, major: u32) {
    let object = json!({
        "apiVersion": "catalog.kubedb.com/v1alpha1", "kind": "PostgresVersion",
        "metadata": {"name": version, "annotations": version_of_the_chart(major)["annotations"]},
        "spec": {
            "version": version,
            "db": {"image": format!("pgrekey.local/postgres:{major}"), "baseOS": "debian"},
            "exporter": {"image": "pgrekey.local/postgres-exporter:1"},
            "securityContext": {"runAsUser": 999},
        },
    });
    cluster.apply(&object.to_string());
}

/// The entry of the chart's values for the image of this major version.
pub(crate) fn version_of_the_chart(major: u32) -> Value {
    let values = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/pgrekey/values.yaml");
    let values = std::fs::read_to_string(values).expect("the values");
    let values: Value = serde_saphyr::from_str(&values).expect("YAML");
    let image = format!("pgrekey.local/postgres:{major}");
    let versions = values["postgresVersions"].as_array().expect("a list");
    let version = versions.iter().find(|one| one["db"]["image"] == image);
    version.expect("the image").clone()
}

/// What `psql` in this pod prints.
pub(crate) fn psql(
    namespace: &TestNamespace<'_>,
    pod: &str,
    connection: &str,
    query: &str,
) -> Result<String, String> {
    let arguments = [
        "-n",
        namespace.name,
        "exec",
        pod,
        "-c",
        "postgres",
        "--",
        "psql",
        connection,
        "-Atc",
        query,
    ];
    let answer = namespace.cluster.kubectl(&arguments, "");
    if answer.succeeded() {
        Ok(answer.stdout().trim().to_owned())
    } else {
        Err(answer.stderr())
    }
}

pub(crate) fn primary(namespace: &TestNamespace<'_>, name: &str) -> String {
    let selector = format!("app.kubernetes.io/instance={name},kubedb.com/role=primary");
    let pods = namespace.list("pod", &selector);
    let names = pods
        .iter()
        .filter_map(|pod| pod["metadata"]["name"].as_str());
    names.collect::<Vec<_>>().join(" ")
}

pub(crate) fn secret(namespace: &TestNamespace<'_>, name: &str, key: &str) -> String {
    let encoded = namespace.path(
        &format!("secret/{name}"),
        &format!(".data.{}", key.replace('.', "\\.")),
    );
    text(json!(encoded))
}

/// All keys of a Secret at one moment.
pub(crate) fn whole_secret(namespace: &TestNamespace<'_>, name: &str) -> BTreeMap<String, String> {
    let data = namespace.path(&format!("secret/{name}"), ".data");
    let data: BTreeMap<String, Value> = serde_json::from_str(&data).expect("data");
    let texts = data.into_iter().map(|(key, value)| (key, text(value)));
    texts.collect()
}

fn text(encoded: Value) -> String {
    let value: k8s_openapi::ByteString = serde_json::from_value(encoded).expect("base64");
    String::from_utf8(value.0).expect("UTF-8")
}

/// The CAs of the tutorial, each with an Issuer; and one Issuer whose CA is missing.
pub(crate) fn issuers(namespace: &TestNamespace<'_>) {
    for (issuer, secret, name) in [
        ("pg-issuer", "postgres-ca", "ca"),
        ("pg-new-issuer", "postgres-new-ca", "ca-updated"),
    ] {
        namespace.apply(&ca_secret(secret, &ca(name)));
        namespace.apply(&issuer_of(issuer, secret));
    }
    namespace.apply(&issuer_of("empty-issuer", "no-such-ca"));
    for issuer in ["issuer/pg-issuer", "issuer/pg-new-issuer"] {
        namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", issuer]);
    }
}

fn issuer_of(name: &str, ca: &str) -> Value {
    json!({"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": name}, "spec": {"ca": {"secretName": ca}}})
}

/// An example request of the tutorial.
pub(crate) fn tutorial(file: &str) -> Value {
    let mut object = read_example(file);
    object["metadata"] = json!({"name": object["metadata"]["name"]});
    object
}

/// Waits for the end of a request, and says how it ended.
pub(crate) async fn ended(namespace: &TestNamespace<'_>, name: &str, seconds: u64) -> String {
    let object = format!("pgops/{name}");
    let phase = || namespace.path(&object, ".status.phase");
    namespace
        .until(&format!("{name} ends"), seconds, || {
            matches!(phase().as_str(), "Successful" | "Failed")
        })
        .await;
    phase()
}

pub(crate) fn steps(namespace: &TestNamespace<'_>, name: &str) -> String {
    let status: Value = serde_json::from_str(&namespace.path(&format!("pgops/{name}"), ".status"))
        .unwrap_or_default();
    let time = |value: &Value| {
        value
            .as_str()
            .and_then(|text| text.parse::<jiff::Timestamp>().ok())
    };
    let steps = status["steps"].as_array().cloned().unwrap_or_default();
    let line = |step: &Value| {
        let took = time(&step["finishedAt"])
            .zip(time(&step["startedAt"]))
            .map(|(end, start)| end.duration_since(start));
        let message = step["message"].as_str().unwrap_or_default();
        format!(
            "    {:<24} {:>4} s  {message}",
            step["name"].as_str().unwrap_or_default(),
            took.map_or(0, |t| t.as_secs())
        )
    };
    steps.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The uids of the pods, to tell who was restarted.
pub(crate) fn uids(namespace: &TestNamespace<'_>) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let pods = namespace.list("pod", "");
    pods.iter()
        .map(|pod| &pod["metadata"])
        .map(|metadata| (text(&metadata["name"]), text(&metadata["uid"])))
        .collect()
}

/// A setting of the server in this pod.
pub(crate) fn show(namespace: &TestNamespace<'_>, pod: &str, setting: &str) -> String {
    psql(namespace, pod, "user=postgres", &format!("show {setting}")).expect("an answer")
}
