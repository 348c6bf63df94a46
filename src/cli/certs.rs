//! `pgrekey certs`: what is issued and what is served, side by side.

use std::process::ExitCode;

use anyhow::anyhow;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde::Serialize;

use crate::api::cert_manager::{Certificate, holds};
use crate::api::names::Names;
use crate::api::ops_request::PodStatus;
use crate::api::{Postgres, PostgresOpsRequest};
use crate::cli::kubeconfig::{
    ApiConnection, Scope, block_on, explain_api_error, is_missing, print,
};
use crate::cli::output::{Cell, Output, Screen, Tone, days, end, json, serial, yaml};
use crate::pki::certificate::{CertificateSummary, summarize_pem};
use crate::plan::preview;
use crate::tls::Alias;

/// Show what certificates are issued and what is served
///
/// Issued is what cert-manager has put into the Secrets of the Certificates. Served is what the
/// pods of the database mount, and only pgrekey moves the one to the other. What the pods showed on
/// the wire is taken from the latest request.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey certs                                # every database of the namespace
  pgrekey certs demo/ha-postgres
  pgrekey certs -A                             # every database of the cluster
  pgrekey certs ha-postgres -o json | jq '.[].certificates[] | select(.drift)'")]
pub(crate) struct Args {
    /// A database: NAME or NAMESPACE/NAME; every database of the namespace if left out
    name: Option<String>,
    /// Every database of the cluster
    #[arg(long, short = 'A', conflicts_with_all = ["name", "namespace"])]
    all_namespaces: bool,
    /// How it is printed
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {
        name,
        all_namespaces,
        output,
        scope,
    } = args;
    block_on(async {
        let cluster = scope.connect().await?;
        let databases = databases(&cluster, name.as_deref(), all_namespaces).await?;
        let mut all = vec![];
        for database in &databases {
            all.push(collect(&cluster, database).await?);
        }
        let lines = match output {
            Output::Json => json(&shown(&all, Timestamp::now()))?,
            Output::Yaml => yaml(&shown(&all, Timestamp::now()))?,
            Output::Table => lines(&all, Timestamp::now(), false, Screen::new()),
            Output::Wide => lines(
                &all,
                Timestamp::now(),
                true,
                Screen {
                    size: None,
                    ..Screen::new()
                },
            ),
        };
        print(&lines)?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn databases(
    cluster: &ApiConnection,
    name: Option<&str>,
    everywhere: bool,
) -> anyhow::Result<Vec<Postgres>> {
    let Some(name) = name else {
        let api: Api<Postgres> = if everywhere {
            Api::all(cluster.client.clone())
        } else {
            Api::namespaced(cluster.client.clone(), &cluster.namespace)
        };
        let found = api
            .list(&ListParams::default())
            .await
            .map_err(|error| explain_api_error("list databases", error))?
            .items;
        if found.is_empty() {
            let place = if everywhere {
                "the cluster".to_owned()
            } else {
                format!("namespace {}", cluster.namespace)
            };
            return Err(anyhow!(
                "there is no database in {place}: -n names another namespace, -A means all"
            ));
        }
        return Ok(found);
    };
    let (namespace, name) = cluster.locate(name);
    let api: Api<Postgres> = Api::namespaced(cluster.client.clone(), &namespace);
    let found = api
        .get_opt(&name)
        .await
        .map_err(|error| explain_api_error("read databases", error))?;
    found.map(|database| vec![database]).ok_or_else(|| {
        anyhow!(
            "there is no database {namespace}/{name}; `kubectl get pg -A` lists them, and -n names another namespace"
        )
    })
}

/// The certificates of one database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Certificates {
    pub(crate) database: String,
    pub(crate) each: Vec<AliasCertificates>,
    /// The pods as the latest request saw them, and which request that was.
    pub(crate) wire: Option<(String, Vec<PodStatus>)>,
}

/// One certificate of a database.
#[derive(Clone, Debug)]
pub(crate) struct AliasCertificates {
    pub(crate) alias: Alias,
    pub(crate) issuer: String,
    /// cert-manager says that it is ready; nothing if there is no Certificate.
    pub(crate) ready: Option<bool>,
    pub(crate) issued: Option<CertificateSummary>,
    pub(crate) served: Option<CertificateSummary>,
}

impl AliasCertificates {
    /// Whether another certificate is issued than is served.
    pub(crate) fn drifts(&self) -> bool {
        let fingerprint =
            |known: &Option<CertificateSummary>| known.as_ref().map(|known| known.fingerprint);
        fingerprint(&self.issued) != fingerprint(&self.served)
    }
}

/// Reads the certificates of one database: every object by its name.
pub(crate) async fn collect(
    cluster: &ApiConnection,
    database: &Postgres,
) -> anyhow::Result<Certificates> {
    let (namespace, name) = (
        database.namespace().unwrap_or_default(),
        database.name_any(),
    );
    let mut found = Certificates {
        database: format!("{namespace}/{name}"),
        ..Certificates::default()
    };
    if database.spec.tls.is_none() {
        return Ok(found);
    }
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &namespace);
    let certificates: Api<Certificate> = Api::namespaced(cluster.client.clone(), &namespace);
    let leaf = async |secret: &str, key: &str| {
        let secret = secrets
            .get_opt(secret)
            .await
            .map_err(|error| explain_api_error("read the Secrets of certificates", error))?;
        Ok::<_, anyhow::Error>(secret.and_then(|secret| summarize_pem(&secret.data?.get(key)?.0)))
    };
    let served = secrets.get_opt(&Names::new(&name).tls_secret()).await;
    let served =
        served.map_err(|error| explain_api_error("read the Secret of what is served", error))?;
    let served = |key: &str| {
        let ByteString(chain) = served.as_ref()?.data.as_ref()?.get(key)?;
        summarize_pem(chain)
    };
    for alias in Alias::ALL {
        let certificate = match certificates
            .get_opt(&Names::new(&name).certificate(alias))
            .await
        {
            Ok(certificate) => certificate,
            Err(error) if is_missing(&error) => None,
            Err(error) => return Err(explain_api_error("read Certificates", error)),
        };
        let key = match alias {
            Alias::Server => "server.crt",
            Alias::Client => "client.crt",
            Alias::MetricsExporter => "exporter.crt",
        };
        let issued = match &certificate {
            Some(certificate) => leaf(&certificate.spec.secret_name, "tls.crt").await?,
            None => None,
        };
        let issuer = certificate
            .as_ref()
            .map(|certificate| &certificate.spec.issuer_ref);
        found.each.push(AliasCertificates {
            alias,
            issuer: issuer.map(preview::words).unwrap_or_default(),
            ready: certificate.as_ref().map(|certificate| {
                certificate
                    .status
                    .as_ref()
                    .is_some_and(|status| holds(&status.conditions, "Ready"))
            }),
            issued,
            served: served(key),
        });
    }
    found.wire = wire(cluster, &namespace, &name).await?;
    Ok(found)
}

/// The pods as the latest request of a database saw them.
async fn wire(
    cluster: &ApiConnection,
    namespace: &str,
    database: &str,
) -> anyhow::Result<Option<(String, Vec<PodStatus>)>> {
    let api: Api<PostgresOpsRequest> = Api::namespaced(cluster.client.clone(), namespace);
    let requests = api
        .list(&ListParams::default())
        .await
        .map_err(|error| explain_api_error("list requests", error))?
        .items;
    let of_database = requests
        .into_iter()
        .filter(|request| request.spec.database_ref.name == database);
    let seen = of_database.filter_map(|request| {
        let status = request.status.clone()?;
        let last = status
            .steps
            .iter()
            .filter_map(|step| step.started_at.as_ref())
            .map(|time| time.0)
            .max();
        (!status.pods.is_empty()).then(|| (last, request.name_any(), status.pods))
    });
    Ok(seen
        .max_by_key(|(last, ..)| *last)
        .map(|(_, request, pods)| (request, pods)))
}

fn lines(all: &[Certificates], now: Timestamp, wide: bool, screen: Screen) -> Vec<String> {
    let mut lines = vec![];
    for Certificates {
        database,
        each,
        wire,
    } in all
    {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(screen.line(Tone::Strong, database));
        if each.is_empty() {
            lines.push("no TLS".to_owned());
            continue;
        }
        let rows: Vec<Vec<Cell>> = each.iter().map(|each| row(each, now, wide)).collect();
        let header = [
            "ALIAS",
            "DRIFT",
            "ISSUED",
            "SERVED",
            "SERVED UNTIL",
            "ISSUER",
            "SIGNED BY",
        ];
        lines.extend(screen.table(&header[..if wide { 7 } else { 6 }], &rows));
        lines.extend(
            on_the_wire(each, wire.as_ref(), wide).map(|text| screen.line(Tone::Plain, &text)),
        );
    }
    lines
}

fn row(each: &AliasCertificates, now: Timestamp, wide: bool) -> Vec<Cell> {
    let number = |known: &Option<CertificateSummary>| {
        known.as_ref().map(|known| serial(&known.serial, wide))
    };
    let issued = match (number(&each.issued), each.ready) {
        (Some(number), _) => number.into(),
        (None, None) => Cell::new(Tone::Bad, "not asked for"),
        (None, Some(_)) => Cell::new(Tone::Bad, "not issued"),
    };
    let served = number(&each.served).map_or_else(|| Cell::new(Tone::Bad, "nothing"), Cell::from);
    let until = each
        .served
        .as_ref()
        .map(|served| end(now, served.not_after))
        .unwrap_or_default();
    let drift = if each.drifts() {
        Cell::new(Tone::Busy, "yes")
    } else {
        Cell::new(Tone::Good, "no")
    };
    let signer = each
        .served
        .as_ref()
        .map(|served| served.signer.clone())
        .unwrap_or_default();
    let mut row = vec![
        each.alias.as_str().into(),
        drift,
        issued,
        served,
        until,
        each.issuer.clone().into(),
    ];
    row.extend(wide.then(|| signer.into()));
    row
}

/// How many pods showed what is served when they were last looked at.
fn on_the_wire(
    each: &[AliasCertificates],
    wire: Option<&(String, Vec<PodStatus>)>,
    wide: bool,
) -> Option<String> {
    let (request, pods) = wire?;
    let served = each
        .iter()
        .find(|each| each.alias == Alias::Server)?
        .served
        .as_ref()?;
    let is_it = |pod: &&PodStatus| pod.serving_serial.as_deref() == Some(served.serial.as_str());
    let others: Vec<String> = pods
        .iter()
        .filter(|pod| !is_it(pod))
        .map(|pod| {
            let shown = pod
                .serving_serial
                .as_deref()
                .map_or("none".to_owned(), |number| serial(number, wide));
            format!("{} showed {shown}", pod.name)
        })
        .collect();
    let count = pods.len() - others.len();
    let others = if others.is_empty() {
        String::new()
    } else {
        format!("; {}", others.join(", "))
    };
    Some(format!(
        "on the wire, as {request} last saw it: {count} of {} pods show it{others}",
        pods.len()
    ))
}

/// The same for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    database: &'a str,
    certificates: Vec<ShownEach<'a>>,
    wire: Vec<&'a PodStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownEach<'a> {
    alias: &'static str,
    issuer: &'a str,
    ready: Option<bool>,
    issued: Option<ShownLeaf<'a>>,
    served: Option<ShownLeaf<'a>>,
    drift: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownLeaf<'a> {
    serial: &'a str,
    signer: &'a str,
    not_before: Timestamp,
    not_after: Timestamp,
    days_left: i64,
}

fn shown_each(each: &AliasCertificates, now: Timestamp) -> ShownEach<'_> {
    let AliasCertificates {
        alias,
        issuer,
        ready,
        issued,
        served,
    } = each;
    let (issued, served) = (
        shown_leaf(issued.as_ref(), now),
        shown_leaf(served.as_ref(), now),
    );
    ShownEach {
        alias: alias.as_str(),
        issuer,
        ready: *ready,
        issued,
        served,
        drift: each.drifts(),
    }
}

fn shown_leaf(known: Option<&CertificateSummary>, now: Timestamp) -> Option<ShownLeaf<'_>> {
    let CertificateSummary {
        serial,
        signer,
        not_before,
        not_after,
        ..
    } = known?;
    let days_left = days(now, *not_after);
    Some(ShownLeaf {
        serial,
        signer,
        not_before: *not_before,
        not_after: *not_after,
        days_left,
    })
}

fn shown(all: &[Certificates], now: Timestamp) -> Vec<Shown<'_>> {
    all.iter()
        .map(|all| Shown {
            database: &all.database,
            certificates: all.each.iter().map(|each| shown_each(each, now)).collect(),
            wire: all.wire.iter().flat_map(|(_, pods)| pods).collect(),
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::pki::Fingerprint;

    pub(crate) fn leaf(name: u8, not_after: &str) -> CertificateSummary {
        CertificateSummary {
            fingerprint: Fingerprint([name; 32]),
            serial: format!("{name:02x}").repeat(20),
            signer: "ca".to_owned(),
            not_before: "2026-11-24T10:00:00Z".parse().expect("a time"),
            not_after: not_after.parse().expect("a time"),
        }
    }

    fn certificates() -> Certificates {
        let each = |alias, issued: u8, served: u8| AliasCertificates {
            alias,
            issuer: "pg-new-issuer".to_owned(),
            ready: Some(true),
            issued: Some(leaf(issued, "2027-02-22T10:00:00Z")),
            served: Some(leaf(served, "2027-02-20T10:00:00Z")),
        };
        let pod = |name: &str, leaf: u8| PodStatus {
            name: name.to_owned(),
            serving_serial: Some(format!("{leaf:02x}").repeat(20)),
            ..PodStatus::default()
        };
        Certificates {
            database: "demo/ha-postgres".to_owned(),
            each: vec![
                each(Alias::Server, 1, 1),
                each(Alias::Client, 2, 2),
                each(Alias::MetricsExporter, 3, 0xaa),
            ],
            wire: Some((
                "rotate-tls".to_owned(),
                vec![pod("ha-postgres-0", 1), pod("ha-postgres-1", 9)],
            )),
        }
    }

    #[test]
    fn issued_and_served_stand_side_by_side_in_80_columns() {
        let plain = Certificates {
            database: "demo/plain".to_owned(),
            ..Certificates::default()
        };
        let screen = Screen {
            color: false,
            size: Some((80, 24)),
        };
        let now = "2026-11-24T10:00:00Z".parse().expect("a time");
        let lines = lines(&[certificates(), plain], now, false, screen);
        assert!(
            lines.iter().all(|line| line.chars().count() <= 80),
            "{lines:#?}"
        );
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn programs_are_told_the_same() {
        let all = [certificates()];
        let shown =
            serde_json::to_value(shown(&all, "2026-11-24T10:00:00Z".parse().expect("a time")))
                .expect("JSON");
        assert_eq!(shown[0]["certificates"][0]["served"]["daysLeft"], 88);
        assert_eq!(shown[0]["certificates"][2]["drift"], true);
        assert_eq!(shown[0]["wire"][1]["name"], "ha-postgres-1");
    }

    #[test]
    fn what_was_never_issued_is_said() {
        let mut each = certificates().each.remove(0);
        (each.issued, each.served, each.ready) = (None, None, None);
        let row = row(&each, Timestamp::UNIX_EPOCH, false);
        assert_eq!(
            [
                row[2].text.as_str(),
                row[3].text.as_str(),
                row[4].text.as_str()
            ],
            ["not asked for", "nothing", ""]
        );
    }
}
