//! The chart `charts/pgrekey`, as Helm renders it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use pgrekey::api::StepKind;
use pgrekey::metrics::{
    ConnectionEnd, Metrics, OperationKind, OperationOutcome, ReviewOutcome, Shed,
};
use pgrekey::serve::table::WEBHOOKS;
use serde_json::{Value, json};

use crate::support::{Helm, skip};

const CHART: &str = "charts/pgrekey";
const DEFINITIONS: &str = "charts/pgrekey-crds";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What Helm makes of the chart with these arguments, or why it makes nothing of it.
fn template(helm: &Helm, arguments: &[&str]) -> Result<String, String> {
    template_of(helm, CHART, arguments)
}

fn template_of(helm: &Helm, chart: &str, arguments: &[&str]) -> Result<String, String> {
    let template = [
        "template",
        "pgrekey",
        chart,
        "--namespace",
        "pgrekey",
        "--kube-version",
        "1.34.4",
    ];
    helm.run(&[&template[..], arguments].concat())
}

/// The name of each, and its file.
fn value_sets() -> BTreeMap<String, String> {
    let folder = std::fs::read_dir(repository().join("tests/chart/values")).expect("the folder");
    let files = folder.map(|entry| {
        entry
            .expect("an entry")
            .file_name()
            .into_string()
            .expect("UTF-8")
    });
    let set = |file: String| {
        (
            file.trim_end_matches(".yaml").to_owned(),
            format!("tests/chart/values/{file}"),
        )
    };
    files.map(set).collect()
}

fn rendered(helm: &Helm, values: &str) -> String {
    template(helm, &["--values", values]).unwrap_or_else(|why| panic!("{why}"))
}

fn objects(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple::<Value>(text)
        .expect("YAML")
        .into_iter()
        .filter(|object| !object.is_null())
        .collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect()
}

#[test]
fn the_main_value_sets_render_to_the_committed_files() {
    let Some(helm) = Helm::find() else { return };
    for (name, values) in value_sets() {
        let first = rendered(&helm, &values);
        assert_eq!(
            first,
            rendered(&helm, &values),
            "{name}: two renderings differ, and GitOps would see drift"
        );
        insta::assert_snapshot!(name, first);
    }
}

#[test]
fn helm_finds_no_fault_with_the_charts() {
    let Some(helm) = Helm::find() else { return };
    let lint = |arguments: &[&str]| helm.run(&[&["lint", "--strict"], arguments].concat());
    let ours = value_sets()
        .into_values()
        .map(|values| lint(&[CHART, "--values", &values]));
    let faults: Vec<_> = ours
        .chain([lint(&[DEFINITIONS])])
        .filter_map(Result::err)
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn an_api_server_takes_the_rendered_chart() {
    let Some(kubeconfig) = std::env::var_os("PGREKEY_KUBECONFIG") else {
        skip(
            "PGREKEY_KUBECONFIG is not set: run `make test-cluster`, which brings up a cluster and sets it",
        );
        return;
    };
    let helm = Helm::find().expect("a dev cluster has a helm");
    let kubectl = |arguments: &[&str], input: &str| {
        let mut command = Command::new("kubectl");
        command
            .env("KUBECONFIG", &kubeconfig)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl runs");
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(input.as_bytes())
            .expect("kubectl reads");
        let output = child.wait_with_output().expect("kubectl ends");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let definitions = template_of(&helm, DEFINITIONS, &[]).expect("a rendering");
    kubectl(
        &["apply", "--server-side", "--force-conflicts", "-f", "-"],
        &definitions,
    );
    kubectl(
        &[
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "crd",
            "--all",
        ],
        "",
    );
    // The others need kinds or namespaces that not every cluster has.
    for name in ["default", "cert-manager", "webhooks-only"] {
        let arguments = ["--values", &value_sets()[name], "--namespace", "default"];
        let text = template(&helm, &arguments).expect("a rendering");
        kubectl(
            &[
                "apply",
                "--server-side",
                "--force-conflicts",
                "--dry-run=server",
                "-f",
                "-",
            ],
            &text,
        );
    }
}

#[test]
fn the_webhooks_are_registered_as_the_program_says() {
    let Some(helm) = Helm::find() else { return };
    let of = |text: &str| -> BTreeMap<String, Value> {
        let all = objects(text).into_iter();
        let registered = all.filter(|o| {
            o["kind"]
                .as_str()
                .is_some_and(|k| k.ends_with("WebhookConfiguration"))
        });
        registered
            .map(|o| (format!("{} {}", o["kind"], o["metadata"]["name"]), o))
            .collect()
    };
    let mut ca = tempfile::NamedTempFile::new().expect("a file");
    ca.write_all(b"-----BEGIN CERTIFICATE-----")
        .expect("written");
    let bundle = format!("--ca-bundle={}", ca.path().display());
    let annotation = "--annotation=cert-manager.io/inject-ca-from=pgrekey/pgrekey-serving";
    // What the value set says, and how the program is told; of the namespaces it is not told.
    for (name, argument, namespaces) in [
        ("default", None, None),
        ("cert-manager", Some(annotation), None),
        ("webhooks-only", Some(bundle.as_str()), None),
        (
            "one-namespace",
            None,
            Some(("demo", json!({"databases": "yes"}))),
        ),
    ] {
        let chart = of(&rendered(&helm, &value_sets()[name]));
        assert_eq!(chart.len(), WEBHOOKS.len());
        let labels = chart.values().next().expect("a webhook")["metadata"]["labels"].clone();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrekey"));
        command
            .args([
                "webhook-config",
                "--namespace",
                "pgrekey",
                "--service",
                "pgrekey",
            ])
            .args(argument);
        for (key, value) in labels.as_object().expect("labels") {
            command
                .arg("--label")
                .arg(format!("{key}={}", value.as_str().expect("a text")));
        }
        let mut program = of(&String::from_utf8_lossy(
            &command.output().expect("pgrekey runs").stdout,
        ));
        for configuration in program.values_mut() {
            let Some((namespace, labels)) = &namespaces else {
                continue;
            };
            let selector = &mut configuration["webhooks"][0]["namespaceSelector"];
            selector["matchLabels"] = labels.clone();
            selector["matchExpressions"]
                .as_array_mut()
                .expect("expressions")
                .push(json!(
                    {"key": "kubernetes.io/metadata.name", "operator": "In", "values": [namespace]}
                ));
        }
        assert_eq!(chart, program, "{name}");
    }
}

#[test]
fn the_program_takes_the_arguments_of_the_deployment() {
    let Some(helm) = Helm::find() else { return };
    for (name, values) in value_sets() {
        let all = objects(&rendered(&helm, &values));
        let container =
            &of_kind(&all, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
        let arguments: Vec<_> = container["args"]
            .as_array()
            .expect("arguments")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        // With a port that cannot be had it ends before it does anything, but after it has read its
        // command line.
        let output = Command::new(env!("CARGO_BIN_EXE_pgrekey"))
            .args(&arguments)
            .arg("--health-address=192.0.2.1:1")
            .output()
            .expect("pgrekey runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1) && said.contains("192.0.2.1:1"),
            "{name}: {arguments:?}: {said}"
        );
    }
}

#[test]
fn rights_are_least() {
    let Some(helm) = Helm::find() else { return };
    for (name, values) in value_sets() {
        let all = objects(&rendered(&helm, &values));
        let roles = of_kind(&all, "ClusterRole")
            .into_iter()
            .chain(of_kind(&all, "Role"));
        for role in roles {
            for rule in role["rules"].as_array().into_iter().flatten() {
                let list = |key: &str| -> Vec<&str> {
                    rule[key]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .collect()
                };
                let (resources, verbs) = (list("resources"), list("verbs"));
                assert!(
                    !resources.contains(&"*")
                        && !verbs.contains(&"*")
                        && !list("apiGroups").contains(&"*"),
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
                assert!(
                    !verbs.iter().any(|verb| dangerous.contains(verb)),
                    "{name}: {rule}"
                );
            }
        }
        let writes = |role: &&Value| role["rules"].to_string().contains("secrets");
        let everywhere = of_kind(&all, "ClusterRole")
            .into_iter()
            .filter(writes)
            .count();
        assert_eq!(
            everywhere,
            usize::from(!["one-namespace", "webhooks-only"].contains(&name.as_str())),
            "{name}"
        );
    }
}

/// A resource with its group, as a rule of RBAC or of a policy names it.
fn resources(rule: &Value) -> Vec<(&str, &str)> {
    let list = |key: &str| {
        rule[key]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    };
    list("apiGroups")
        .flat_map(|group| list("resources").map(move |resource| (group, resource)))
        .collect()
}

#[test]
fn every_write_that_rbac_gives_is_walled() {
    let Some(helm) = Helm::find() else { return };
    let all = objects(&rendered(&helm, "tests/chart/values/default.yaml"));
    let policies = of_kind(&all, "ValidatingAdmissionPolicy").into_iter();
    let rules = policies.flat_map(|policy| {
        policy["spec"]["matchConstraints"]["resourceRules"]
            .as_array()
            .expect("rules")
    });
    let walled: BTreeSet<_> = rules.flat_map(|rule| resources(rule)).collect();
    let roles = of_kind(&all, "ClusterRole")
        .into_iter()
        .chain(of_kind(&all, "Role"));
    let rules = roles.flat_map(|role| role["rules"].as_array().into_iter().flatten());
    let writes = rules.filter(|rule| {
        let mut verbs = rule["verbs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        verbs.any(|verb| !["get", "list", "watch"].contains(&verb))
    });
    let given: BTreeSet<_> = writes.flat_map(|rule| resources(rule)).collect();
    let open: Vec<_> = given.difference(&walled).copied().collect();
    // Its own lease, what it tells people, and the statuses that are its own to write.
    let known = [
        ("coordination.k8s.io", "leases"),
        ("events.k8s.io", "events"),
        ("kubedb.com", "postgreses/status"),
        ("ops.kubedb.com", "postgresopsrequests/status"),
    ];
    assert_eq!(open, known, "add the kind to the wall");
}

#[test]
fn the_wall_is_as_strict_as_the_values_say() {
    let Some(helm) = Helm::find() else { return };
    let policies = |set: &str| -> BTreeMap<String, String> {
        let text = template(&helm, &["--set", set]).unwrap_or_else(|why| panic!("{why}"));
        let all = objects(&text);
        let bound: BTreeSet<_> = of_kind(&all, "ValidatingAdmissionPolicyBinding")
            .iter()
            .map(|binding| name_of(binding))
            .collect();
        let policies: BTreeMap<_, _> = of_kind(&all, "ValidatingAdmissionPolicy")
            .iter()
            .map(|policy| (name_of(policy), policy["spec"].to_string()))
            .collect();
        assert_eq!(
            policies.keys().cloned().collect::<BTreeSet<_>>(),
            bound,
            "{set}: a policy that is not bound is none"
        );
        policies
    };
    let has = |set: &str, name: &str| policies(set).contains_key(&format!("pgrekey-wall-{name}"));
    for (level, baseline, restricted) in [
        ("restricted", true, true),
        ("baseline", true, false),
        ("privileged", false, false),
    ] {
        let set = format!("podSecurity.level={level}");
        assert_eq!(
            (has(&set, "baseline"), has(&set, "restricted")),
            (baseline, restricted),
            "{level}"
        );
    }
    let named = policies("podSecurity.serviceAccounts={backup,ci}");
    for name in ["workloads", "rolebindings"] {
        assert!(
            named[&format!("pgrekey-wall-{name}")].contains(r#"[\"backup\",\"ci\"]"#),
            "{name}"
        );
    }
    assert!(
        policies("externalIPs.allowed=true")["pgrekey-wall-services"]
            .contains("true || object.spec.?externalIPs")
    );
    let account = policies("serviceAccount.name=other");
    assert!(
        account
            .values()
            .all(|spec| spec.contains("== 'system:serviceaccount:pgrekey:other'"))
    );
    assert!(policies("wall.enabled=false").is_empty());
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_owned()
}

#[test]
fn values_that_cannot_work_are_refused_before_the_installation() {
    let Some(helm) = Helm::find() else { return };
    for (set, said) in [
        ("replcas=3", "replcas"),
        ("replicas=0", "replicas"),
        ("certificate.source=vault", "source"),
        ("certificate.source=secret", "set certificate."),
        ("defaultIssuer=pg-issuer", "defaultIssuer"),
        ("clusterDomain=*.local", "clusterDomain"),
        ("petSets.controller=nobody", "controller"),
        ("podSecurity.level=lax", "level"),
        ("podSecurity.serviceAccounts[0]=A'B", "serviceAccounts"),
        ("watchNamespace=pgrekey", "a namespace of its own"),
        ("certificate.certManager.issuerRef.kind=Issuer", "name"),
        ("resources.request.cpu=1", "request"),
        ("resources.limits.memory=lots", "memory"),
        ("tolerations[0].efect=NoSchedule", "efect"),
        ("topologySpreadConstraints[0].maxSkew=1", "topologyKey"),
        ("networkPolicy.apiServerPorts[0]=70000", "apiServerPorts"),
    ] {
        let why = template(&helm, &["--set", set]).expect_err(set);
        assert!(why.contains(said), "{set}: {why}");
    }
}

#[test]
fn the_notes_name_the_next_commands() {
    let Some(helm) = Helm::find() else { return };
    for (set, said, not_said) in [
        ("wall.enabled=false", "wall.enabled is off", "sed"),
        (
            "replicas=2",
            "create namespace demo\n   kubectl apply -f examples/ha-postgres.yaml",
            "sed",
        ),
        (
            "watchNamespace=here",
            "s/namespace: demo/namespace: here/' examples/ha-postgres.yaml",
            "-n demo",
        ),
        (
            "features.opsManager=false",
            "examples/ha-postgres.yaml",
            "docs/tutorial.md",
        ),
        (
            "features.provisioner=false",
            "--all-namespaces get",
            "examples/",
        ),
        (
            "features.provisioner=false,watchNamespace=here",
            "--namespace here get",
            "examples/",
        ),
    ] {
        let install = [
            "install",
            "pgrekey",
            CHART,
            "--namespace=pgrekey",
            "--dry-run=client",
            "--set",
            set,
        ];
        let output = helm.run(&install).unwrap_or_else(|why| panic!("{why}"));
        let (_, notes) = output.split_once("\nNOTES:\n").expect("notes");
        assert!(
            notes.contains(said) && !notes.contains(not_said),
            "{set}: {notes}"
        );
    }
}

#[test]
fn the_annotations_name_every_image_and_every_definition() {
    let [operator, definitions] =
        [CHART, DEFINITIONS].map(|chart| read(&format!("{chart}/Chart.yaml")));
    for image in read("charts/pgrekey/values.yaml")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("image: "))
    {
        assert!(operator.contains(&format!("image: {image}\n")), "{image}");
    }
    for file in
        std::fs::read_dir(repository().join(DEFINITIONS).join("templates")).expect("the folder")
    {
        let file = file
            .expect("an entry")
            .file_name()
            .into_string()
            .expect("UTF-8");
        let (group, plural) = file
            .trim_end_matches(".yaml")
            .split_once('_')
            .expect("GROUP_PLURAL.yaml");
        let name = format!("name: {plural}.{group}\n");
        assert!(
            operator.contains(&name) && definitions.contains(&name),
            "{name}"
        );
    }
}

/// The table of values: a row for each, described by the comment above it.
fn table() -> String {
    let text = read("charts/pgrekey/values.yaml");
    let values: Value = serde_saphyr::from_str(&text).expect("YAML");
    let mut rows = vec![
        "| value | default | what it is |".to_owned(),
        "|---|---|---|".to_owned(),
    ];
    let (mut path, mut comment) = (vec![], vec![]);
    for line in text.lines() {
        let words = line.trim_start();
        if let Some(words) = words.strip_prefix("# ") {
            comment.push(words);
            continue;
        }
        let about = std::mem::take(&mut comment).join(" ");
        let Some((key, default)) = words.split_once(':') else {
            continue;
        };
        path.truncate((line.len() - words.len()) / 2);
        path.push(key);
        // What is in a list is described with it.
        let Some(value) = values.pointer(&format!("/{}", path.join("/"))) else {
            continue;
        };
        let is_group = value.as_object().is_some_and(|group| !group.is_empty());
        assert_eq!(
            about.is_empty(),
            is_group,
            "{}: a value needs a comment, and a group has none",
            path.join(".")
        );
        if !is_group {
            let shown = if default.is_empty() {
                "a list".to_owned()
            } else {
                format!("`{}`", default.trim())
            };
            rows.push(format!("| `{}` | {shown} | {about} |", path.join(".")));
        }
    }
    rows.join("\n") + "\n"
}

#[test]
fn the_table_of_values_follows_the_comments_of_values_yaml() {
    let committed = read("charts/pgrekey/README.md");
    let (above, _) = committed
        .split_once("| value |")
        .expect("a table of values");
    let generated = format!("{above}{}", table());
    if std::env::var_os("PGREKEY_GENERATE").is_some() {
        std::fs::write(repository().join("charts/pgrekey/README.md"), generated).expect("written");
    } else {
        assert!(
            committed == generated,
            "the table in charts/pgrekey/README.md is old: run `make generate`"
        );
    }
}

/// The names of all series that the program can write.
fn series() -> BTreeSet<String> {
    let metrics = Metrics::new();
    metrics.webhook_server.ended(ConnectionEnd::Closed);
    metrics.webhook_server.shed(Shed::Timeout);
    metrics
        .reviews
        .count(WEBHOOKS[0].name, ReviewOutcome::Denied, ["a-rule"]);
    metrics
        .controllers
        .ended(OperationKind::ChangeTls, OperationOutcome::Failed);
    metrics
        .controllers
        .step(StepKind::Issue, std::time::Duration::from_secs(1));
    let text = metrics.text().expect("text");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split(['{', ' ']).next().unwrap_or_default().to_owned())
        .collect()
}

/// The names of ours in a query.
fn named(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("pgrekey_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_exist() {
    let alerts: Value =
        serde_saphyr::from_str(&read("charts/pgrekey/files/alerts.yaml")).expect("YAML");
    let rules = alerts["groups"][0]["rules"].as_array().expect("rules");
    assert_eq!(rules.len(), 7);
    let dashboard: Value =
        serde_json::from_str(&read("charts/pgrekey/files/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let queries: Vec<&str> = rules
        .iter()
        .chain(targets)
        .map(|rule| rule["expr"].as_str().expect("a query"))
        .collect();
    let known = series();
    let guide = read("docs/operations.md");
    for query in &queries {
        let names = named(query);
        assert!(
            !names.is_empty() && names.is_subset(&known),
            "{query}: {:?}",
            names.difference(&known)
        );
    }
    for rule in rules {
        let name = rule["alert"].as_str().expect("a name");
        assert!(
            guide.contains(&format!("`{name}`")),
            "docs/operations.md does not say what to do about {name}"
        );
    }
    for name in &known {
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name);
        assert!(
            guide.contains(&format!("`{family}`")),
            "docs/operations.md does not explain {family}"
        );
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
        skip("there is no promtool: `make test-cluster` fetches it");
        return;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
