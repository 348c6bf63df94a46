//! `pgrekey check`: applies the rules of admission to manifests, offline.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;

use crate::api::{Postgres, PostgresOpsRequest};
use crate::cli::facts::{facts_in, read_text};
use crate::cli::flags::AdmissionFlags;
use crate::cli::kubeconfig::{Scope, block_on};
use crate::cli::manifest;
use crate::cli::manifest::{Document, ParseProblem, Position};
use crate::cli::output::{Output, json, print_lines, yaml};
use crate::cluster::cache;
use crate::rules;
use crate::rules::decode::{UNDECODABLE, decode_object};
use crate::rules::defaults::InstallationDefaults;
use crate::rules::kind::ReviewedKind;
use crate::rules::{
    AdmissionOperation, ClusterFacts, Effect, Finding, Needs, Review, Rule, Snapshot,
};

/// Judge manifests by the rules of the admission webhooks, offline
///
/// Objects of other kinds are not judged. With facts they count as part of the cluster, as if they
/// had been applied before. The exit code is 1 if an object would be refused, and 0 if there are
/// only warnings.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey check add-tls.yaml
  pgrekey check --cluster examples/*.yaml
  kubectl get pg,pgops,pgversion,issuer,clusterissuer,storageclass,namespace -A -o yaml > facts/all.yaml
  kustomize build . | pgrekey check --facts facts -
  pgrekey check -o json add-tls.yaml | jq -r '.findings[].rule'")]
pub(crate) struct Args {
    /// Files with manifests, YAML or JSON; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Directory with manifests of the objects in the cluster
    #[arg(long, value_name = "DIR", conflicts_with = "cluster")]
    facts: Option<PathBuf>,
    /// Read the objects in the cluster of the kubeconfig
    #[arg(long)]
    cluster: bool,
    #[command(flatten)]
    defaults: AdmissionFlags,
    /// Format of the output
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {
        files,
        facts,
        cluster,
        defaults,
        output,
        scope,
    } = args;
    let before = match facts {
        Some(directory) => Some(facts_in(&directory)?),
        None if cluster => Some(facts_in_cluster(&scope)?),
        None => None,
    };
    let namespace = scope.namespace();
    let mut report = CheckSummary::default();
    let mut objects = vec![];
    for file in &files {
        match manifest::parse(&read_text(file)?) {
            Ok(documents) => {
                let documents = documents.into_iter().flat_map(Document::objects);
                objects.extend(documents.map(|document| Manifest::new(file, document, &namespace)));
            }
            Err(problem) => report.unreadable(file, problem),
        }
    }
    let facts = before.clone().map(|facts| with_companions(facts, &objects));
    let check = CheckRun {
        before,
        facts,
        installation: defaults.installation(),
    };
    for object in &objects {
        match object.kind() {
            Some(ManifestKind::Postgres) => check.object::<Postgres>(object, &mut report),
            Some(ManifestKind::PostgresOpsRequest) => {
                check.object::<PostgresOpsRequest>(object, &mut report);
            }
            None => report.other += 1,
        }
    }
    print_lines(&match output {
        Output::Json => json(&report)?,
        Output::Yaml => yaml(&report)?,
        Output::Table | Output::Wide => report.lines(),
    })?;
    Ok(if report.refuses() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn facts_in_cluster(scope: &Scope) -> anyhow::Result<Snapshot> {
    block_on(async { Ok(cache::snapshot(&scope.connect().await?.client).await?) })
}

/// The facts with the given objects added. Requests are not added: each one is judged as if it came
/// next.
fn with_companions(mut facts: Snapshot, objects: &[Manifest<'_>]) -> Snapshot {
    for object in objects
        .iter()
        .filter(|object| object.kind() != Some(ManifestKind::PostgresOpsRequest))
    {
        // An object that does not decode is reported when it is judged.
        let _ = facts.learn(&object.value);
    }
    facts
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ManifestKind {
    Postgres,
    PostgresOpsRequest,
}

/// An object in a file.
struct Manifest<'f> {
    file: &'f Path,
    document: Document,
    value: Value,
}

impl<'f> Manifest<'f> {
    fn new(file: &'f Path, document: Document, namespace: &str) -> Self {
        let mut value = document.value();
        let namespaced = !matches!(
            text_at(&value, "/kind"),
            "Namespace" | "ClusterIssuer" | "StorageClass"
        );
        let metadata = value.get_mut("metadata").and_then(Value::as_object_mut);
        if let Some(metadata) = metadata
            && namespaced
        {
            metadata
                .entry("namespace")
                .or_insert_with(|| namespace.into());
        }
        Self {
            file,
            document,
            value,
        }
    }

    fn kind(&self) -> Option<ManifestKind> {
        match (
            text_at(&self.value, "/apiVersion"),
            text_at(&self.value, "/kind"),
        ) {
            ("kubedb.com/v1", "Postgres") => Some(ManifestKind::Postgres),
            ("ops.kubedb.com/v1alpha1", "PostgresOpsRequest") => {
                Some(ManifestKind::PostgresOpsRequest)
            }
            _ => None,
        }
    }
}

fn text_at<'v>(value: &'v Value, path: &str) -> &'v str {
    value
        .pointer(path)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The facts and defaults that objects are judged by.
struct CheckRun {
    /// The cluster as it is. `None` without facts.
    before: Option<Snapshot>,
    /// The cluster with the given objects in it.
    facts: Option<Snapshot>,
    installation: InstallationDefaults,
}

/// A kind that can be checked.
trait CheckedKind: ReviewedKind<DynamicType = ()> {
    /// The object of the same name that the cluster has.
    fn stored(&self, facts: &Snapshot) -> Option<Self>;
}

impl CheckedKind for Postgres {
    fn stored(&self, facts: &Snapshot) -> Option<Self> {
        let namespace = self.namespace()?;
        facts
            .database(&namespace, &self.name_any())
            .map(|stored| (*stored).clone())
    }
}

impl CheckedKind for PostgresOpsRequest {
    fn stored(&self, facts: &Snapshot) -> Option<Self> {
        let is_it = |other: &PostgresOpsRequest| {
            (other.namespace(), other.name_any()) == (self.namespace(), self.name_any())
                && !self.name_any().is_empty()
        };
        facts
            .requests
            .iter()
            .find(|other| is_it(other))
            .map(|stored| (**stored).clone())
    }
}

impl CheckRun {
    fn object<K: CheckedKind>(&self, object: &Manifest<'_>, report: &mut CheckSummary) {
        report.judged(object, self.judge::<K>(object), self.left_out::<K>());
    }

    /// The findings of admission if the object were applied: defaults first, then the rules.
    fn judge<K: CheckedKind>(&self, object: &Manifest<'_>) -> Vec<Finding> {
        let review = |value: &Value| -> Result<Review<K>, Finding> {
            let object: K = decode_object(value)?;
            let old = self
                .before
                .as_ref()
                .and_then(|before| object.stored(before));
            let operation = if old.is_some() {
                AdmissionOperation::Update
            } else {
                AdmissionOperation::Create
            };
            Ok(Review {
                operation,
                object,
                old,
                allowed: Arc::clone(&self.installation.allowed),
            })
        };
        let nothing = Snapshot::default();
        let facts = self.facts.as_ref().unwrap_or(&nothing);
        let judged = review(&object.value).and_then(|given| {
            let defaulted = K::defaulted(object.value.clone(), &given, facts, &self.installation);
            let known = self.facts.as_ref().map(|facts| facts as &dyn ClusterFacts);
            Ok(rules::judge(K::rules(), &review(&defaulted)?, known))
        });
        judged.unwrap_or_else(|finding| vec![finding])
    }

    /// The rules that cannot be applied without facts.
    fn left_out<K: CheckedKind>(&self) -> Vec<LeftOut> {
        if self.facts.is_some() {
            return vec![];
        }
        let kind = K::kind(&());
        let left_out = |rule: &'static Rule<K>| {
            (rule.needs != Needs::Nothing).then(|| LeftOut {
                kind: kind.clone().into_owned(),
                rule: rule.id,
                whole: rule.needs == Needs::Facts,
            })
        };
        K::rules().filter_map(left_out).collect()
    }
}

/// A rule that was not applied, or not all of it, because there are no facts.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct LeftOut {
    kind: String,
    rule: &'static str,
    /// `false` if only the part of the rule that reads facts was left out.
    whole: bool,
}

/// The report about all objects.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckSummary {
    findings: Vec<ReportedFinding>,
    left_out: Vec<LeftOut>,
    /// The number of objects that were judged.
    judged: usize,
    /// The number of objects whose kinds have no rules.
    other: usize,
}

#[derive(Debug, Serialize)]
struct ReportedFinding {
    file: String,
    line: u64,
    column: u64,
    kind: String,
    namespace: String,
    name: String,
    effect: &'static str,
    rule: &'static str,
    field: String,
    problem: String,
    remedy: String,
}

const REFUSED: &str = "refused";
const WARNING: &str = "warning";

impl CheckSummary {
    fn unreadable(&mut self, file: &Path, ParseProblem { position, problem }: ParseProblem) {
        let Position { line, column } = position;
        self.findings.push(ReportedFinding {
            file: file.display().to_string(),
            line,
            column,
            kind: String::new(),
            namespace: String::new(),
            name: String::new(),
            effect: REFUSED,
            rule: UNDECODABLE,
            field: "document".to_owned(),
            problem,
            remedy: "correct the YAML".to_owned(),
        });
    }

    fn judged(&mut self, object: &Manifest<'_>, findings: Vec<Finding>, left_out: Vec<LeftOut>) {
        self.judged += 1;
        if !self
            .left_out
            .iter()
            .any(|known| left_out.first().is_some_and(|first| first == known))
        {
            self.left_out.extend(left_out);
        }
        let text = |path| text_at(&object.value, path).to_owned();
        let found = |Finding {
                         rule,
                         effect,
                         field,
                         problem,
                         remedy,
                     }| {
            let Position { line, column } = object.document.position(&field);
            ReportedFinding {
                file: object.file.display().to_string(),
                line,
                column,
                kind: text("/kind"),
                namespace: text("/metadata/namespace"),
                name: text("/metadata/name"),
                effect: if effect == Effect::Refuse {
                    REFUSED
                } else {
                    WARNING
                },
                rule,
                field,
                problem,
                remedy,
            }
        };
        let mut findings: Vec<ReportedFinding> = findings.into_iter().map(found).collect();
        findings.sort_by_key(|found| (found.line, found.column));
        self.findings.extend(findings);
    }

    fn refuses(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.effect == REFUSED)
    }

    /// For people: one line for each finding, with position, problem and remedy.
    fn lines(&self) -> Vec<String> {
        let found = |found: &ReportedFinding| {
            let ReportedFinding {
                file,
                line,
                column,
                effect,
                rule,
                field,
                problem,
                remedy,
                ..
            } = found;
            format!("{file}:{line}:{column}: {effect}: [{rule}] {field}: {problem}; {remedy}")
        };
        let mut lines: Vec<String> = self.findings.iter().map(found).collect();
        let mut left_out = BTreeMap::<(&str, bool), Vec<&str>>::new();
        for LeftOut { kind, rule, whole } in &self.left_out {
            left_out.entry((kind, !whole)).or_default().push(rule);
        }
        for ((kind, in_part), rules) in left_out {
            let what = if in_part {
                "left out in part"
            } else {
                "left out"
            };
            lines.push(format!(
                "{kind}: {what}, for want of --facts or --cluster: {}",
                rules.join(", ")
            ));
        }
        let count = |effect| {
            self.findings
                .iter()
                .filter(|finding| finding.effect == effect)
                .count()
        };
        let (refused, warnings) = (count(REFUSED), count(WARNING));
        let Self { judged, other, .. } = self;
        lines.push(format!(
            "{judged} judged, {other} of other kinds: {refused} refused, {warnings} warnings"
        ));
        lines
    }
}
