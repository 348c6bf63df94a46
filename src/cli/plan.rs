//! `pgrekey plan`: what an operation would do.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use super::check::{facts_of, text_of};
use super::progress::words;
use super::scope::{Cluster as Connected, Scope, block_on, print, told};
use super::screen::{Cell, Output, Screen, Tone, json, yaml};
use super::yaml::{self, Document};
use crate::api::postgres_version::PostgresVersionSpec;
use crate::api::{Postgres, PostgresOpsRequest};
use crate::build::{Cluster, Facts as BuildFacts};
use crate::cluster::facts;
use crate::plan::decide::restart;
use crate::plan::ends::wished;
use crate::plan::preview::{self, Fate, Line, Planned, Preview, Stop, preview};
use crate::rules::{self, Effect, Facts as _, Finding, Operation, Review, Snapshot};
use crate::serve::review::Reviewed;
use crate::tls::{Method, Posture};

/// Show what a request would do, before it is made
///
/// A file may hold the database and its issuers too. Several requests are planned one after the other, each from where the one
/// before it leads. The exit code is 1 when a request would be refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey plan add-tls.yaml                    # against the cluster of the kubeconfig
  pgrekey plan rotate-tls -n demo              # a request that is in the cluster
  pgrekey plan examples/add-tls.yaml --facts examples          # offline
  pgrekey rotate ha-postgres --reload --dry-run | pgrekey plan -
  pgrekey plan rotate-tls -o json | jq '.[].restarts'")]
pub(super) struct Args {
    /// Files with manifests, `-` for standard input; or the name of a request in the cluster
    #[arg(required = true, value_name = "FILE|NAME")]
    what: Vec<String>,
    /// Directory with manifests of what is in the cluster; no cluster is asked then
    #[arg(long, value_name = "DIR")]
    facts: Option<PathBuf>,
    /// How it is printed
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

/// What plans are made against.
struct World {
    facts: Snapshot,
    /// The cluster to ask who leads, if there is one.
    cluster: Option<Connected>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { what, facts, output, scope } = args;
    block_on(async {
        let cluster = if facts.is_some() { None } else { Some(scope.connect().await?) };
        let namespace = cluster.as_ref().map_or_else(|| scope.namespace(), |cluster| cluster.namespace.clone());
        let mut known = match (&facts, &cluster) {
            (Some(directory), _) => facts_of(directory)?,
            (None, Some(cluster)) => facts::snapshot(&cluster.client)
                .await
                .map_err(|error| anyhow!("{error}; `--facts DIR` plans without a cluster"))?,
            (None, None) => Snapshot::default(),
        };
        let requests = requests(&what, &namespace, &mut known)?;
        // A request that was never stored is no part of the cluster.
        known.requests.retain(|request| request.metadata.uid.is_some());
        let mut world = World { facts: known, cluster };
        let mut plans = vec![];
        let mut failed = None;
        for request in &requests {
            match world.plan(request).await {
                Ok(plan) => plans.push(plan),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let lines = match output {
            Output::Json => json(&plans.iter().map(Plan::shown).collect::<Vec<_>>())?,
            Output::Yaml => yaml(&plans.iter().map(Plan::shown).collect::<Vec<_>>())?,
            Output::Table => all_lines(&plans, Screen::new()),
            Output::Wide => all_lines(&plans, Screen { size: None, ..Screen::new() }),
        };
        print(&lines)?;
        if let Some(error) = failed {
            return Err(error);
        }
        let is_refused = plans.iter().flat_map(|plan| &plan.findings).any(|f| f.effect == Effect::Refuse);
        Ok(if is_refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

/// The requests that a user names; what else is in the files becomes part of the facts.
fn requests(what: &[String], namespace: &str, facts: &mut Snapshot) -> anyhow::Result<Vec<PostgresOpsRequest>> {
    let mut found = vec![];
    for name in what {
        if name != "-" && !Path::new(name).exists() {
            let (namespace, name) = super::scope::locate(namespace, name);
            let is_it = |request: &&Arc<PostgresOpsRequest>| {
                request.name_any() == name && request.namespace().as_deref() == Some(namespace.as_str())
            };
            let request = facts.requests.iter().find(is_it).ok_or_else(|| {
                anyhow!("there is no file and no request {name} (namespace {namespace}): name either")
            })?;
            found.push(PostgresOpsRequest::clone(request));
            continue;
        }
        let text = text_of(Path::new(name))?;
        let documents = yaml::read(&text)
            .map_err(|(place, problem)| anyhow!("{name}:{}:{}: {problem}", place.line, place.column))?;
        let before = found.len();
        for document in documents.into_iter().flat_map(Document::objects) {
            let mut value = document.value();
            let is_request = value["kind"] == "PostgresOpsRequest";
            if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.entry("namespace").or_insert_with(|| namespace.into());
            }
            if is_request {
                let request: PostgresOpsRequest = serde_path_to_error::deserialize(&value)
                    .with_context(|| format!("{name} does not decode; `pgrekey check {name}` says where"))?;
                found.push(request);
            } else {
                facts.learn(&value).with_context(|| format!("{name} does not decode"))?;
            }
        }
        if found.len() == before && what.len() == 1 {
            return Err(anyhow!("there is no PostgresOpsRequest in {name}"));
        }
    }
    Ok(found)
}

impl World {
    /// The plan of one request; the world is where it leads then.
    async fn plan(&mut self, request: &PostgresOpsRequest) -> anyhow::Result<Plan> {
        let (namespace, name) = (request.namespace().unwrap_or_default(), &request.spec.database_ref.name);
        let database = self.facts.database(&namespace, name).ok_or_else(|| {
            let place = if self.cluster.is_some() { "cluster" } else { "facts" };
            anyhow!("there is no database {namespace}/{name} in the {place}: the plan begins at its spec")
        })?;
        let findings = self.judge(request)?;
        let (from, is_guessed) = self.build(&database)?;
        let mut after = Postgres::clone(&database);
        after.spec = wished(&database.spec, &request.spec, from.major());
        let (to, _) = self.build(&after)?;
        let (primary, is_known) = match self.primary(&from).await? {
            Some(primary) => (primary, true),
            None => (from.pod(0), false),
        };
        let rolls = restart(request).is_some();
        let preview = preview(&from, &to, &request.spec, rolls, &primary);
        self.facts
            .databases
            .retain(|other| (other.namespace(), other.name_any()) != (after.namespace(), after.name_any()));
        self.facts.databases.push(Arc::new(after));
        Ok(Plan { request: request.clone(), findings, is_guessed, primary_is_known: is_known, preview, to })
    }

    /// What admission would say; a request that is in the cluster has been let in.
    fn judge(&self, request: &PostgresOpsRequest) -> anyhow::Result<Vec<Finding>> {
        if request.metadata.uid.is_some() {
            return Ok(vec![]);
        }
        let review = Review { operation: Operation::Create, object: request.clone(), old: None };
        let document = serde_json::to_value(request)?;
        let defaulted = PostgresOpsRequest::defaulted(document, &review, &self.facts, None);
        let object = serde_json::from_value(defaulted)?;
        let review = Review { operation: Operation::Create, object, old: None };
        Ok(rules::judge(PostgresOpsRequest::rules(), &review, Some(&self.facts)))
    }

    /// The database as it can be built, and whether its version had to be guessed from its name.
    fn build(&self, database: &Postgres) -> anyhow::Result<(Cluster, bool)> {
        let known = self.facts.version(&database.spec.version).map(|version| version.spec.clone());
        let is_guessed = known.is_none();
        let version = known.unwrap_or_else(|| PostgresVersionSpec {
            version: database.spec.version.clone(),
            ..PostgresVersionSpec::default()
        });
        let facts = BuildFacts { version: &version, superuser: "postgres", user_conf: Some("") };
        let built = Cluster::of(database, &facts).map_err(|why| anyhow!("the database cannot be planned: {why}"))?;
        Ok((built, is_guessed))
    }

    /// The pod that leads now.
    async fn primary(&self, database: &Cluster) -> anyhow::Result<Option<String>> {
        let Some(cluster) = &self.cluster else { return Ok(None) };
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), database.namespace());
        let selector = format!("postgreses.kubedb.com/database.cluster={},kubedb.com/role=primary", database.name());
        let found = pods.list(&ListParams::default().labels(&selector)).await;
        Ok(found.map_err(|error| told("list the pods", error))?.items.first().map(ResourceExt::name_any))
    }
}

/// What would become of one request.
struct Plan {
    request: PostgresOpsRequest,
    findings: Vec<Finding>,
    /// The major version had to be guessed.
    is_guessed: bool,
    primary_is_known: bool,
    preview: Preview,
    /// The database afterwards.
    to: Cluster,
}

impl Plan {
    /// What the request does, in words.
    fn operation(&self) -> String {
        let (walk, spec) = (&self.preview.walk, &self.request.spec);
        match (&walk[0].served, walk.last().and_then(|stop| stop.served.as_ref())) {
            (None, Some(_)) => "add TLS".to_owned(),
            (Some(old), Some(new)) if old != new => "change the issuer".to_owned(),
            (Some(_), Some(_)) if words(spec) == "add or change TLS" => "change TLS".to_owned(),
            _ => words(spec),
        }
    }

    fn database(&self) -> String {
        format!("{}/{}", self.to.namespace(), self.to.name())
    }

    /// The plan for programs.
    fn shown(&self) -> Value {
        let Self { findings, preview, .. } = self;
        let effect = |effect| if effect == Effect::Refuse { "refuse" } else { "warn" };
        let finding = |f: &Finding| json!({"effect": effect(f.effect), "message": f.to_string()});
        json!({
            "request": self.request.name_any(),
            "database": self.database(),
            "operation": self.operation(),
            "findings": findings.iter().map(finding).collect::<Vec<_>>(),
            "certificates": preview.certificates.iter().map(shown_certificate).collect::<Vec<_>>(),
            "settings": shown_lines(&preview.settings),
            "pgHba": shown_lines(&preview.hba),
            "walk": preview.walk.iter().map(shown_stop).collect::<Vec<_>>(),
            "restarts": preview.restarts,
            "primaryIsKnown": self.primary_is_known,
            "majorVersionIsGuessed": self.is_guessed,
            "switchesOver": preview.switches_over,
            "interruption": interruption(preview),
        })
    }
}

fn shown_certificate(planned: &Planned) -> Value {
    let spec = &planned.certificate.spec;
    json!({
        "name": planned.certificate.name_any(),
        "alias": planned.alias.as_str(),
        "fate": fate(planned.fate).0,
        "issuer": preview::words(&spec.issuer_ref),
        "secretName": spec.secret_name,
        "duration": spec.duration,
        "commonName": spec.common_name,
        "dnsNames": spec.dns_names,
        "ipAddresses": spec.ip_addresses,
    })
}

/// What is there before, and what is there after.
fn shown_lines(lines: &[Line]) -> Value {
    let of = |is: fn(&Line) -> Option<&String>| lines.iter().filter_map(is).collect::<Vec<_>>();
    let before = of(|line| match line {
        Line::Stays(text) | Line::Goes(text) => Some(text),
        Line::Comes(_) => None,
    });
    let after = of(|line| match line {
        Line::Stays(text) | Line::Comes(text) => Some(text),
        Line::Goes(_) => None,
    });
    json!({"before": before, "after": after})
}

fn shown_stop(stop: &Stop) -> Value {
    let Posture { accept, dial, .. } = &stop.posture;
    json!({
        "step": stop.stage.as_ref().map(ToString::to_string),
        "servedBy": stop.served,
        "plaintext": accept.plain.map(method),
        "tls": accept.tls.map(method),
        "standbysDial": {"sslmode": dial.mode.as_str(), "clientCertificate": dial.present},
        "trusts": stop.trusts,
        "newPods": stop.new_pods,
        "newLeaves": stop.new_leaves,
    })
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Md5 => "md5",
        Method::Scram => "scram",
        Method::Cert => "cert",
    }
}

fn fate(fate: Fate) -> (&'static str, Tone) {
    match fate {
        Fate::Issued => ("issue", Tone::Good),
        Fate::Kept => ("keep", Tone::Dim),
        Fate::Deleted => ("delete", Tone::Bad),
    }
}

/// The plans one after the other, with an empty line in between.
fn all_lines(plans: &[Plan], screen: Screen) -> Vec<String> {
    let all: Vec<Vec<String>> = plans.iter().map(|plan| lines(plan, screen)).collect();
    all.join(&String::new())
}

fn lines(plan: &Plan, screen: Screen) -> Vec<String> {
    let Plan { request, findings, is_guessed, primary_is_known, preview, to } = plan;
    let title = |text: &str| [String::new(), screen.line(Tone::Strong, text)];
    let heading = format!("{}: {} of {}", request.name_any(), plan.operation(), plan.database());
    let mut lines = vec![screen.line(Tone::Strong, &heading)];
    for finding in findings {
        let (word, tone) = match finding.effect {
            Effect::Refuse => ("refused", Tone::Bad),
            Effect::Warn => ("warning", Tone::Busy),
        };
        lines.push(format!("{} {finding}", screen.paint(tone, &format!("{word}:"))));
    }
    if *is_guessed {
        let version = &to.spec().version;
        lines.push(format!("the PostgresVersion {version} is not known: taken for PostgreSQL {}", to.major()));
    }

    lines.extend(title("Certificates"));
    if preview.certificates.is_empty() {
        lines.push("none".to_owned());
    } else {
        let rows: Vec<Vec<Cell>> = preview.certificates.iter().map(certificate).collect();
        lines.extend(screen.table(&["", "CERTIFICATE", "ISSUER", "LIFE", "NAMES"], &rows));
    }
    lines.extend(title("Settings"));
    lines.extend(preview.settings.iter().map(|line| changed(line, screen)));
    lines.extend(title("pg_hba"));
    lines.extend(preview.hba.iter().map(|line| changed(line, screen)));
    lines.extend(title("The way there"));
    let rows: Vec<Vec<Cell>> = preview.walk.iter().map(stop).collect();
    lines.extend(screen.table(&["POSTURE", "SERVES", "PLAINTEXT", "TLS", "STANDBYS DIAL", "TRUSTS", ""], &rows));
    lines.extend(title("Pods"));
    lines.extend(pods(preview, *primary_is_known));
    lines.extend(title("Interruption"));
    lines.push(interruption(preview).to_owned());
    lines
}

fn certificate(planned: &Planned) -> Vec<Cell> {
    let certificate = &planned.certificate;
    let (word, tone) = fate(planned.fate);
    let spec = &certificate.spec;
    let names = spec.dns_names.len() + spec.ip_addresses.len() + spec.uris.len() + spec.email_addresses.len();
    let common = spec.common_name.as_deref().map(|name| format!("CN={name}"));
    let names = match (common, names) {
        (Some(common), 0) => common,
        (Some(common), more) => format!("{common} and {more} more"),
        (None, all) => all.to_string(),
    };
    let name = certificate.name_any();
    let secret = if spec.secret_name == name { String::new() } else { format!(" (Secret {})", spec.secret_name) };
    vec![
        Cell::new(tone, word),
        format!("{name}{secret}").into(),
        preview::words(&spec.issuer_ref).into(),
        spec.duration.clone().unwrap_or_else(|| "2160h".to_owned()).into(),
        names.into(),
    ]
}

fn changed(line: &Line, screen: Screen) -> String {
    match line {
        Line::Stays(text) => format!("  {text}"),
        Line::Goes(text) => screen.line(Tone::Bad, &format!("- {text}")),
        Line::Comes(text) => screen.line(Tone::Good, &format!("+ {text}")),
    }
}

fn stop(stop: &Stop) -> Vec<Cell> {
    let Posture { accept, dial, .. } = &stop.posture;
    let taken = |by: Option<Method>| by.map_or_else(|| Cell::new(Tone::Dim, "refused"), |by| method(by).into());
    let stage = stop.stage.as_ref().map_or("now".to_owned(), ToString::to_string);
    let present = if dial.present { " +cert" } else { "" };
    vec![
        stage.into(),
        stop.served.clone().map_or_else(|| "plaintext".into(), Cell::from),
        taken(accept.plain),
        taken(accept.tls),
        format!("{}{present}", dial.mode.as_str()).into(),
        stop.trusts.join(" ").into(),
        Cell::new(
            Tone::Busy,
            match (stop.new_pods, stop.new_leaves) {
                (true, _) => "new pods",
                (false, true) => "new leaves",
                (false, false) => "",
            },
        ),
    ]
}

fn pods(preview: &Preview, primary_is_known: bool) -> Vec<String> {
    let count = preview.restarts.len();
    let Some((last, standbys)) = preview.restarts.split_last() else {
        return vec!["none is restarted: servers reload".to_owned()];
    };
    let guess = if primary_is_known { "" } else { ", if it leads," };
    let mut lines: Vec<String> =
        standbys.iter().enumerate().map(|(at, pod)| format!("{}. restart {pod}", at + 1)).collect();
    if count > 1 {
        lines.push(format!(
            "{count}. hand the leadership over from {last}{guess} to the standby that is most up to date"
        ));
        lines.push(format!("{}. restart {last}", count + 1));
    } else {
        lines.push(format!("1. restart {last}"));
    }
    lines
}

fn interruption(preview: &Preview) -> &'static str {
    match (preview.restarts.as_slice(), preview.switches_over) {
        ([], _) => "none: servers reload, and sessions go on",
        (_, true) => "one switchover: for a few seconds nothing is written, and sessions with the old primary end",
        (_, false) => "the restart of the one pod: until it is back nobody is served",
    }
}
