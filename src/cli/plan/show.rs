//! A plan as lines for people, and as JSON for programs.

use kube::ResourceExt;
use serde_json::{Value, json};

use crate::cli::output::{Cell, Detail, Screen, Tone};
use crate::cli::plan::extra_ca::CandidateCas;
use crate::cli::plan::planner::{Certainty, RequestPlan};
use crate::cli::status::progress::words;
use crate::plan::preview;
use crate::plan::preview::{Fate, LineChange, PlannedCertificate, PlannedStage, Preview};
use crate::rules::{Effect, Finding};
use crate::tls::{Method, Posture};

impl RequestPlan {
    /// The operation in a few words.
    fn operation_words(&self) -> String {
        let (walk, spec) = (&self.preview.walk, &self.request.spec);
        match (
            &walk[0].served,
            walk.last().and_then(|stop| stop.served.as_ref()),
        ) {
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
    pub(crate) fn to_json(&self) -> Value {
        let Self {
            findings, preview, ..
        } = self;
        let effect = |effect| {
            if effect == Effect::Refuse {
                "refuse"
            } else {
                "warn"
            }
        };
        let finding = |f: &Finding| json!({"effect": effect(f.effect), "message": f.to_string()});
        json!({
            "request": self.request.name_any(),
            "database": self.database(),
            "operation": self.operation_words(),
            "findings": findings.iter().map(finding).collect::<Vec<_>>(),
            "certificates": preview.certificates.iter().map(certificate_json).collect::<Vec<_>>(),
            "extraCACandidates": self.candidate_cas.as_ref().map(CandidateCas::to_json),
            "settings": lines_json(&preview.settings),
            "pgHba": lines_json(&preview.hba),
            "walk": preview.walk.iter().map(stage_json).collect::<Vec<_>>(),
            "restarts": preview.restarts,
            "primaryIsKnown": self.primary == Certainty::Known,
            "majorVersionIsGuessed": self.major_version == Certainty::Guessed,
            "switchesOver": preview.switches_over,
            "interruption": interruption(preview),
        })
    }
}

fn certificate_json(planned: &PlannedCertificate) -> Value {
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
        "uris": spec.uris,
        "emailAddresses": spec.email_addresses,
        "changedNames": {
            "added": planned.names.iter().filter_map(come).collect::<Vec<_>>(),
            "removed": planned.names.iter().filter_map(gone).collect::<Vec<_>>(),
        },
        "privateKey": spec.private_key,
        "usages": spec.usages,
    })
}

fn come(line: &LineChange) -> Option<&String> {
    match line {
        LineChange::Comes(text) => Some(text),
        LineChange::Stays(_) | LineChange::Goes(_) => None,
    }
}

fn gone(line: &LineChange) -> Option<&String> {
    match line {
        LineChange::Goes(text) => Some(text),
        LineChange::Stays(_) | LineChange::Comes(_) => None,
    }
}

/// The lines before the operation, and those after it.
fn lines_json(lines: &[LineChange]) -> Value {
    let select =
        |is: fn(&LineChange) -> Option<&String>| lines.iter().filter_map(is).collect::<Vec<_>>();
    let before = select(|line| match line {
        LineChange::Stays(text) | LineChange::Goes(text) => Some(text),
        LineChange::Comes(_) => None,
    });
    let after = select(|line| match line {
        LineChange::Stays(text) | LineChange::Comes(text) => Some(text),
        LineChange::Goes(_) => None,
    });
    json!({"before": before, "after": after})
}

fn stage_json(stop: &PlannedStage) -> Value {
    let Posture {
        accept, conninfo, ..
    } = &stop.posture;
    json!({
        "step": stop.step.as_ref().map(ToString::to_string),
        "servedBy": stop.served,
        "plaintext": accept.plain.map(method),
        "tls": accept.tls.map(method),
        "replication": {"sslmode": conninfo.mode.as_str(), "clientCertificate": conninfo.sends_client_cert},
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

/// The plans with an empty line between them.
pub(crate) fn lines(plans: &[RequestPlan], detail: Detail, screen: Screen) -> Vec<String> {
    let all: Vec<Vec<String>> = plans
        .iter()
        .map(|plan| plan_lines(plan, detail, screen))
        .collect();
    all.join(&String::new())
}

fn plan_lines(plan: &RequestPlan, detail: Detail, screen: Screen) -> Vec<String> {
    let RequestPlan {
        request,
        findings,
        major_version,
        primary,
        preview,
        to,
        candidate_cas,
    } = plan;
    let title = |text: &str| [String::new(), screen.line(Tone::Strong, text)];
    let heading = format!(
        "{}: {} of {}",
        request.name_any(),
        plan.operation_words(),
        plan.database()
    );
    let mut lines = vec![screen.line(Tone::Strong, &heading)];
    for finding in findings {
        let (word, tone) = match finding.effect {
            Effect::Refuse => ("refused", Tone::Bad),
            Effect::Warn => ("warning", Tone::Busy),
        };
        lines.push(format!(
            "{} {finding}",
            screen.paint(tone, &format!("{word}:"))
        ));
    }
    if *major_version == Certainty::Guessed {
        let version = &to.spec().version;
        lines.push(format!(
            "the PostgresVersion {version} is not known: taken for PostgreSQL {}",
            to.major()
        ));
    }

    lines.extend(title("Certificates"));
    if preview.certificates.is_empty() {
        lines.push("none".to_owned());
    } else {
        let rows: Vec<Vec<Cell>> = preview
            .certificates
            .iter()
            .map(|planned| certificate_row(planned, detail))
            .collect();
        lines.extend(screen.table(&["", "CERTIFICATE", "ISSUER", "LIFE", "NAMES"], &rows));
        for planned in preview.certificates.iter().filter(|c| !c.names.is_empty()) {
            let name = planned.certificate.name_any();
            lines.extend(title(&format!("Names of {name}")));
            lines.extend(planned.names.iter().map(|line| changed(line, screen)));
        }
    }
    if let Some(candidate_cas) = candidate_cas {
        lines.extend(title("CAs beside those of the issuer"));
        lines.extend(candidate_cas.lines());
    }
    lines.extend(title("Settings"));
    lines.extend(preview.settings.iter().map(|line| changed(line, screen)));
    lines.extend(title("pg_hba"));
    lines.extend(preview.hba.iter().map(|line| changed(line, screen)));
    lines.extend(title("Walk"));
    let rows: Vec<Vec<Cell>> = preview.walk.iter().map(stage_row).collect();
    lines.extend(screen.table(
        &[
            "POSTURE",
            "SERVES",
            "PLAINTEXT",
            "TLS",
            "REPLICATION",
            "TRUSTS",
            "",
        ],
        &rows,
    ));
    lines.extend(title("Pods"));
    lines.extend(pods(preview, *primary));
    lines.extend(title("Interruption"));
    lines.push(interruption(preview).to_owned());
    lines
}

fn certificate_row(planned: &PlannedCertificate, detail: Detail) -> Vec<Cell> {
    let certificate = &planned.certificate;
    let (word, tone) = fate(planned.fate);
    let spec = &certificate.spec;
    let common = spec.common_name.as_deref().map(|name| format!("CN={name}"));
    let names = preview::names(certificate);
    let names = match (common, names.len()) {
        (common, _) if detail == Detail::Full => common
            .iter()
            .chain(&names)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", "),
        (Some(common), 0) => common,
        (Some(common), more) => format!("{common} and {more} more"),
        (None, all) => all.to_string(),
    };
    let name = certificate.name_any();
    let secret = if spec.secret_name == name {
        String::new()
    } else {
        format!(" (Secret {})", spec.secret_name)
    };
    vec![
        Cell::new(tone, word),
        format!("{name}{secret}").into(),
        preview::words(&spec.issuer_ref).into(),
        spec.duration
            .clone()
            .unwrap_or_else(|| "2160h".to_owned())
            .into(),
        names.into(),
    ]
}

fn changed(line: &LineChange, screen: Screen) -> String {
    match line {
        LineChange::Stays(text) => format!("  {text}"),
        LineChange::Goes(text) => screen.line(Tone::Bad, &format!("- {text}")),
        LineChange::Comes(text) => screen.line(Tone::Good, &format!("+ {text}")),
    }
}

fn stage_row(stop: &PlannedStage) -> Vec<Cell> {
    let Posture {
        accept, conninfo, ..
    } = &stop.posture;
    let taken = |by: Option<Method>| {
        by.map_or_else(|| Cell::new(Tone::Dim, "refused"), |by| method(by).into())
    };
    let stage = stop
        .step
        .as_ref()
        .map_or("now".to_owned(), ToString::to_string);
    let client_cert = if conninfo.sends_client_cert {
        " +cert"
    } else {
        ""
    };
    vec![
        stage.into(),
        stop.served
            .clone()
            .map_or_else(|| "plaintext".into(), Cell::from),
        taken(accept.plain),
        taken(accept.tls),
        format!("{}{client_cert}", conninfo.mode.as_str()).into(),
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

fn pods(preview: &Preview, primary: Certainty) -> Vec<String> {
    let count = preview.restarts.len();
    let Some((last, standbys)) = preview.restarts.split_last() else {
        return vec!["none is restarted: servers reload".to_owned()];
    };
    let guess = if primary == Certainty::Known {
        ""
    } else {
        ", if it leads,"
    };
    let mut lines: Vec<String> = standbys
        .iter()
        .enumerate()
        .map(|(at, pod)| format!("{}. restart {pod}", at + 1))
        .collect();
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
        (_, true) => {
            "one switchover: for a few seconds nothing is written, and sessions with the old primary end"
        }
        (_, false) => "the restart of the only pod: until it is back no client is served",
    }
}
