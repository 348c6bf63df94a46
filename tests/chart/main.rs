//! The chart `charts/pgrekey`, as Helm renders it.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pgrekey::metrics::{ConnectionEnd, Metrics, OperationKind, OperationOutcome, ReviewOutcome, Shed, StepKind};
use pgrekey::serve::webhooks::WEBHOOKS;
use serde_json::Value;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn chart() -> PathBuf {
    repository().join("charts/pgrekey")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Helm: of the path, or of the dev cluster. Nothing where there is none, with the reason printed.
///
/// # Panics
/// When there is none although `PGREKEY_REQUIRE_CLUSTER=1` says that there must be.
fn helm() -> Option<PathBuf> {
    let works = |helm: &Path| Command::new(helm).arg("version").output().is_ok_and(|output| output.status.success());
    let environment = Command::new(repository().join("dev/cluster/cluster")).arg("env").output();
    let environment =
        environment.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let ours = environment.lines().find_map(|line| line.strip_prefix("BIN=")).map(|bin| Path::new(bin).join("helm"));
    let found = [Some(PathBuf::from("helm")), ours].into_iter().flatten().find(|helm| works(helm));
    if found.is_none() {
        let why = "there is no helm: `make cluster` builds one";
        assert!(std::env::var("PGREKEY_REQUIRE_CLUSTER").as_deref() != Ok("1"), "helm is required: {why}");
        println!("skipped: {why}");
    }
    found
}

/// What Helm makes of the chart with these arguments, or why it makes nothing of it.
fn template(helm: &Path, arguments: &[&str]) -> Result<String, String> {
    template_of(helm, &chart(), arguments)
}

fn template_of(helm: &Path, chart: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(helm);
    command.args(["template", "pgrekey"]).arg(chart).args(["--namespace", "pgrekey", "--kube-version", "1.34.4"]);
    let output = command.args(arguments).output().expect("helm runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn value_sets() -> Vec<(String, PathBuf)> {
    let folder = repository().join("tests/chart/values");
    let files = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let mut sets: Vec<_> =
        files.map(|path| (path.file_stem().expect("a name").to_string_lossy().into_owned(), path)).collect();
    sets.sort();
    sets
}

fn rendered(helm: &Path, values: &Path) -> String {
    template(helm, &["--values", &values.to_string_lossy()]).unwrap_or_else(|why| panic!("{}: {why}", values.display()))
}

fn objects(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple::<Value>(text).expect("YAML").into_iter().filter(|object| !object.is_null()).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

#[test]
fn the_main_value_sets_render_to_what_is_committed() {
    let Some(helm) = helm() else { return };
    for (name, values) in value_sets() {
        let first = rendered(&helm, &values);
        assert_eq!(first, rendered(&helm, &values), "{name}: two renderings differ, and GitOps would see drift");
        insta::assert_snapshot!(name, first);
    }
}

#[test]
fn helm_finds_no_fault_with_the_charts() {
    let Some(helm) = helm() else { return };
    let sets = value_sets();
    let mut runs: Vec<Vec<String>> = sets
        .iter()
        .map(|(_, path)| vec![chart().display().to_string(), format!("--values={}", path.display())])
        .collect();
    runs.push(vec![repository().join("charts/pgrekey-crds").display().to_string()]);
    for arguments in runs {
        let output = Command::new(&helm).args(["lint", "--strict"]).args(&arguments).output().expect("helm runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn an_api_server_takes_what_is_rendered() {
    let Some(kubeconfig) = std::env::var_os("PGREKEY_KUBECONFIG") else {
        let why = "PGREKEY_KUBECONFIG is not set: run `make test-cluster`, which brings up a cluster and sets it";
        assert!(std::env::var("PGREKEY_REQUIRE_CLUSTER").as_deref() != Ok("1"), "a cluster is required: {why}");
        println!("skipped: {why}");
        return;
    };
    let helm = helm().expect("a dev cluster has a helm");
    let kubectl = |arguments: &[&str], input: &str| {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", &kubeconfig).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("kubectl runs");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("kubectl reads");
        let output = child.wait_with_output().expect("kubectl ends");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let definitions = template_of(&helm, &repository().join("charts/pgrekey-crds"), &[]).expect("a rendering");
    kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &definitions);
    kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"], "");
    // The others need kinds or namespaces that not every cluster has.
    for name in ["default", "cert-manager", "webhooks-only"] {
        let values = repository().join(format!("tests/chart/values/{name}.yaml"));
        let arguments = ["--values", &values.to_string_lossy(), "--namespace", "default"];
        let text = template(&helm, &arguments).expect("a rendering");
        kubectl(&["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"], &text);
    }
}

#[test]
fn the_webhooks_are_registered_as_the_program_says() {
    let Some(helm) = helm() else { return };
    let of = |text: &str| -> BTreeMap<String, Value> {
        let all = objects(text);
        let registered =
            all.into_iter().filter(|o| o["kind"].as_str().is_some_and(|k| k.ends_with("WebhookConfiguration")));
        let key = |o: &Value| format!("{} {}", o["kind"], o["metadata"]["name"]);
        registered.map(|o| (key(&o), o)).collect()
    };
    for (source, annotation) in
        [("self", None), ("certManager", Some("cert-manager.io/inject-ca-from=pgrekey/pgrekey-serving"))]
    {
        let chart = of(&template(&helm, &["--set", &format!("certificate.source={source}")]).expect("a rendering"));
        assert_eq!(chart.len(), WEBHOOKS.len());
        let labels = chart.values().next().expect("a webhook")["metadata"]["labels"].clone();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrekey"));
        command.args(["webhook-config", "--namespace", "pgrekey", "--service", "pgrekey"]);
        for (key, value) in labels.as_object().expect("labels") {
            command.arg("--label").arg(format!("{key}={}", value.as_str().expect("a text")));
        }
        command.args(annotation.into_iter().flat_map(|annotation| ["--annotation", annotation]));
        let output = command.output().expect("pgrekey runs");
        assert_eq!(chart, of(&String::from_utf8_lossy(&output.stdout)), "{source}");
    }
}

#[test]
fn the_program_takes_the_arguments_of_the_deployment() {
    let Some(helm) = helm() else { return };
    for (name, values) in value_sets() {
        let all = objects(&rendered(&helm, &values));
        let container = &of_kind(&all, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
        let arguments: Vec<_> =
            container["args"].as_array().expect("arguments").iter().filter_map(Value::as_str).collect();
        // With a port that cannot be had it ends before it does anything, but after it has read its command line.
        let output = Command::new(env!("CARGO_BIN_EXE_pgrekey"))
            .args(&arguments)
            .arg("--health-address=192.0.2.1:1")
            .output()
            .expect("pgrekey runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("192.0.2.1:1"), "{name}: {arguments:?}: {said}");
    }
}

#[test]
fn rights_are_least() {
    let Some(helm) = helm() else { return };
    for (name, values) in value_sets() {
        let all = objects(&rendered(&helm, &values));
        let roles = of_kind(&all, "ClusterRole").into_iter().chain(of_kind(&all, "Role"));
        for role in roles {
            for rule in role["rules"].as_array().into_iter().flatten() {
                let list = |key: &str| -> Vec<&str> {
                    rule[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
                };
                let (resources, verbs) = (list("resources"), list("verbs"));
                assert!(
                    !resources.contains(&"*") && !verbs.contains(&"*") && !list("apiGroups").contains(&"*"),
                    "{name}: {rule}"
                );
                assert!(!resources.contains(&"pods/exec"), "{name}: {rule}");
                let reads_all = verbs.contains(&"list") || verbs.contains(&"watch");
                let named = list("resourceNames") == ["pgrekey-webhook"];
                assert!(
                    !(resources.contains(&"secrets") && reads_all) || named,
                    "{name}: Secrets can be listed: {rule}"
                );
                let dangerous = ["escalate", "bind", "impersonate"];
                assert!(!verbs.iter().any(|verb| dangerous.contains(verb)), "{name}: {rule}");
            }
        }
        let writes = |role: &&Value| role["rules"].to_string().contains("secrets");
        let everywhere = of_kind(&all, "ClusterRole").into_iter().filter(writes).count();
        assert_eq!(everywhere, usize::from(!["one-namespace", "webhooks-only"].contains(&name.as_str())), "{name}");
    }
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_installed() {
    let Some(helm) = helm() else { return };
    for (set, said) in [
        ("replcas=3", "replcas"),
        ("replicas=0", "replicas"),
        ("certificate.source=vault", "source"),
        ("certificate.source=secret", "set certificate."),
        ("defaultIssuer=pg-issuer", "defaultIssuer"),
        ("petSets.controller=nobody", "controller"),
        ("certificate.certManager.issuerRef.kind=Issuer", "name"),
        ("networkPolicy.apiServerPorts[0]=70000", "apiServerPorts"),
    ] {
        let why = template(&helm, &["--set", set]).expect_err(set);
        assert!(why.contains(said), "{set}: {why}");
    }
}

/// Every value by its path. What is empty or a list is one value.
fn leaves(path: &str, value: &Value, into: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                leaves(&if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, into);
            }
        }
        value => into.push((path.to_owned(), value.clone())),
    }
}

#[test]
fn the_table_of_values_is_complete_and_true() {
    let values: Value = serde_saphyr::from_str(&read("charts/pgrekey/values.yaml")).expect("YAML");
    let mut known = vec![];
    leaves("", &values, &mut known);
    let readme = read("charts/pgrekey/README.md");
    let rows: BTreeMap<String, String> = readme
        .lines()
        .skip_while(|line| !line.starts_with("## Values"))
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.trim_matches('`').to_owned()))
        })
        .collect();
    let paths: BTreeSet<&String> = known.iter().map(|(path, _)| path).collect();
    assert_eq!(rows.keys().collect::<BTreeSet<_>>(), paths);
    for (path, value) in
        known.iter().filter(|(_, value)| !value.to_string().contains('{') || *value == serde_json::json!({}))
    {
        let plain = value.as_str().filter(|text| !text.is_empty() && text.parse::<i64>().is_err()).map(str::to_owned);
        let text = plain.unwrap_or_else(|| value.to_string().replace(',', ", "));
        assert_eq!(rows[path], text, "{path}");
    }
}

/// The names of all series that the program can write.
fn series() -> BTreeSet<String> {
    let metrics = Metrics::new();
    metrics.webhook_server.ended(ConnectionEnd::Closed);
    metrics.webhook_server.shed(Shed::Timeout);
    metrics.reviews.count(WEBHOOKS[0].name, ReviewOutcome::Denied, ["a-rule"]);
    metrics.loops.ended(OperationKind::ChangeTls, OperationOutcome::Failed);
    metrics.loops.step(StepKind::Issue, std::time::Duration::from_secs(1));
    let text = metrics.text().expect("text");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(['{', ' ']).next().unwrap_or_default().to_owned()).collect()
}

/// The names of ours in a query.
fn named(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("pgrekey_")).map(str::to_owned).collect()
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_exist() {
    let alerts: Value = serde_saphyr::from_str(&read("charts/pgrekey/files/alerts.yaml")).expect("YAML");
    let rules = alerts["groups"][0]["rules"].as_array().expect("rules");
    assert_eq!(rules.len(), 6);
    let dashboard: Value = serde_json::from_str(&read("charts/pgrekey/files/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let queries: Vec<&str> = rules.iter().chain(targets).map(|rule| rule["expr"].as_str().expect("a query")).collect();
    let known = series();
    let guide = read("docs/operations.md");
    for query in &queries {
        let names = named(query);
        assert!(!names.is_empty() && names.is_subset(&known), "{query}: {:?}", names.difference(&known));
    }
    for rule in rules {
        let name = rule["alert"].as_str().expect("a name");
        assert!(guide.contains(&format!("`{name}`")), "docs/operations.md does not say what to do about {name}");
    }
    for name in &known {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(guide.contains(&format!("`{family}`")), "docs/operations.md does not explain {family}");
    }
}

#[test]
fn each_alert_fires_when_it_should_and_not_before() {
    let program = std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into());
    let output = Command::new(program)
        .args(["test", "rules", "alerts.yaml"])
        .current_dir(repository().join("tests/chart"))
        .output();
    let Ok(output) = output else {
        println!("skipped: there is no promtool; it is in Debian's package prometheus");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
