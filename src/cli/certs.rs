//! `pgrekey certs`: issued and served certificates, side by side.

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
use crate::cli::kubeconfig::{ApiConnection, Scope, block_on, explain_api_error, is_missing};
use crate::cli::output::{
    Cell, Detail, Output, Screen, Tone, days, expiry, json, print_lines, serial, yaml,
};
use crate::pki::certificate::{CertificateSummary, summarize_pem};
use crate::plan::preview;
use crate::tls::Alias;

/// Show issued and served certificates
///
/// Issued certificates are in the Secrets that cert-manager writes. Served certificates are in the
/// Secret that the pods of the database mount, and only pgrekey writes it. The last line is from
/// the status of the latest request: the certificates that the pods showed on the wire.
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
    /// Format of the output
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
        let now = Timestamp::now();
        let lines = match output {
            Output::Json => json(&databases_json(&all, now))?,
            Output::Yaml => yaml(&databases_json(&all, now))?,
            Output::Table | Output::Wide => lines(&all, now, output.detail(), output.screen()),
        };
        print_lines(&lines)?;
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
pub(crate) struct DatabaseCertificates {
    /// As `NAMESPACE/NAME`.
    pub(crate) database: String,
    /// Empty without TLS.
    pub(crate) aliases: Vec<AliasCertificates>,
    /// `None` until a request has observed the pods.
    pub(crate) wire: Option<WireObservation>,
}

/// The pods of a database as a request observed them on the wire.
#[derive(Clone, Debug)]
pub(crate) struct WireObservation {
    /// Name of the request.
    pub(crate) request: String,
    pub(crate) pods: Vec<PodStatus>,
}

/// The certificate of one alias: issued and served.
#[derive(Clone, Debug)]
pub(crate) struct AliasCertificates {
    pub(crate) alias: Alias,
    pub(crate) issuer: String,
    /// Whether cert-manager reports it as Ready. `None` if there is no Certificate.
    pub(crate) ready: Option<bool>,
    pub(crate) issued: Option<CertificateSummary>,
    pub(crate) served: Option<CertificateSummary>,
}

impl AliasCertificates {
    /// Whether the issued certificate differs from the served one.
    pub(crate) fn drifts(&self) -> bool {
        let fingerprint =
            |known: &Option<CertificateSummary>| known.as_ref().map(|known| known.fingerprint);
        fingerprint(&self.issued) != fingerprint(&self.served)
    }
}

/// Reads the certificates of one database. Every object is read by name.
pub(crate) async fn collect(
    cluster: &ApiConnection,
    database: &Postgres,
) -> anyhow::Result<DatabaseCertificates> {
    let (namespace, name) = (
        database.namespace().unwrap_or_default(),
        database.name_any(),
    );
    let mut found = DatabaseCertificates {
        database: format!("{namespace}/{name}"),
        ..DatabaseCertificates::default()
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
    let served = served.map_err(|error| {
        explain_api_error("read the Secret with the served certificates", error)
    })?;
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
        found.aliases.push(AliasCertificates {
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
    found.wire = latest_observation(cluster, &namespace, &name).await?;
    Ok(found)
}

/// The pods as the latest request about a database observed them.
async fn latest_observation(
    cluster: &ApiConnection,
    namespace: &str,
    database: &str,
) -> anyhow::Result<Option<WireObservation>> {
    let api: Api<PostgresOpsRequest> = Api::namespaced(cluster.client.clone(), namespace);
    let requests = api
        .list(&ListParams::default())
        .await
        .map_err(|error| explain_api_error("list requests", error))?
        .items;
    let of_database = requests
        .into_iter()
        .filter(|request| request.spec.database_ref.name == database);
    let observed = of_database.filter_map(|request| {
        let status = request.status.clone()?;
        let last = status
            .steps
            .iter()
            .filter_map(|step| step.started_at.as_ref())
            .map(|time| time.0)
            .max();
        let observation = WireObservation {
            request: request.name_any(),
            pods: status.pods,
        };
        (!observation.pods.is_empty()).then_some((last, observation))
    });
    Ok(observed
        .max_by_key(|(last, _)| *last)
        .map(|(_, observation)| observation))
}

fn lines(
    all: &[DatabaseCertificates],
    now: Timestamp,
    detail: Detail,
    screen: Screen,
) -> Vec<String> {
    let mut lines = vec![];
    for DatabaseCertificates {
        database,
        aliases,
        wire,
    } in all
    {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(screen.line(Tone::Strong, database));
        if aliases.is_empty() {
            lines.push("no TLS".to_owned());
            continue;
        }
        let rows: Vec<Vec<Cell>> = aliases
            .iter()
            .map(|alias| row(alias, now, detail))
            .collect();
        let header = [
            "ALIAS",
            "DRIFT",
            "ISSUED",
            "SERVED",
            "SERVED UNTIL",
            "ISSUER",
            "SIGNED BY",
        ];
        let columns = match detail {
            Detail::Short => header.len() - 1,
            Detail::Full => header.len(),
        };
        lines.extend(screen.table(&header[..columns], &rows));
        lines.extend(
            describe_wire(aliases, wire.as_ref(), detail)
                .map(|text| screen.line(Tone::Plain, &text)),
        );
    }
    lines
}

fn row(certificates: &AliasCertificates, now: Timestamp, detail: Detail) -> Vec<Cell> {
    let number = |known: &Option<CertificateSummary>| {
        known.as_ref().map(|known| serial(&known.serial, detail))
    };
    let issued = match (number(&certificates.issued), certificates.ready) {
        (Some(number), _) => number.into(),
        (None, None) => Cell::new(Tone::Bad, "not asked for"),
        (None, Some(_)) => Cell::new(Tone::Bad, "not issued"),
    };
    let served =
        number(&certificates.served).map_or_else(|| Cell::new(Tone::Bad, "nothing"), Cell::from);
    let until = certificates
        .served
        .as_ref()
        .map(|served| expiry(now, served.not_after))
        .unwrap_or_default();
    let drift = if certificates.drifts() {
        Cell::new(Tone::Busy, "yes")
    } else {
        Cell::new(Tone::Good, "no")
    };
    let signer = certificates
        .served
        .as_ref()
        .map(|served| served.signer.clone())
        .unwrap_or_default();
    let mut row = vec![
        certificates.alias.as_str().into(),
        drift,
        issued,
        served,
        until,
        certificates.issuer.clone().into(),
    ];
    if detail == Detail::Full {
        row.push(signer.into());
    }
    row
}

/// How many pods showed the served certificate when a request last observed them.
fn describe_wire(
    aliases: &[AliasCertificates],
    wire: Option<&WireObservation>,
    detail: Detail,
) -> Option<String> {
    let WireObservation { request, pods } = wire?;
    let served = aliases
        .iter()
        .find(|certificates| certificates.alias == Alias::Server)?
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
                .map_or("none".to_owned(), |number| serial(number, detail));
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

/// The certificates of a database, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DatabaseJson<'a> {
    database: &'a str,
    certificates: Vec<AliasJson<'a>>,
    wire: Vec<&'a PodStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AliasJson<'a> {
    alias: &'static str,
    issuer: &'a str,
    ready: Option<bool>,
    issued: Option<LeafJson<'a>>,
    served: Option<LeafJson<'a>>,
    drift: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LeafJson<'a> {
    serial: &'a str,
    signer: &'a str,
    not_before: Timestamp,
    not_after: Timestamp,
    days_left: i64,
}

fn alias_json(certificates: &AliasCertificates, now: Timestamp) -> AliasJson<'_> {
    let AliasCertificates {
        alias,
        issuer,
        ready,
        issued,
        served,
    } = certificates;
    let (issued, served) = (
        leaf_json(issued.as_ref(), now),
        leaf_json(served.as_ref(), now),
    );
    AliasJson {
        alias: alias.as_str(),
        issuer,
        ready: *ready,
        issued,
        served,
        drift: certificates.drifts(),
    }
}

fn leaf_json(known: Option<&CertificateSummary>, now: Timestamp) -> Option<LeafJson<'_>> {
    let CertificateSummary {
        serial,
        signer,
        not_before,
        not_after,
        ..
    } = known?;
    let days_left = days(now, *not_after);
    Some(LeafJson {
        serial,
        signer,
        not_before: *not_before,
        not_after: *not_after,
        days_left,
    })
}

fn databases_json(all: &[DatabaseCertificates], now: Timestamp) -> Vec<DatabaseJson<'_>> {
    all.iter()
        .map(|all| DatabaseJson {
            database: &all.database,
            certificates: all
                .aliases
                .iter()
                .map(|certificates| alias_json(certificates, now))
                .collect(),
            wire: all.wire.iter().flat_map(|wire| &wire.pods).collect(),
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cli::output::ScreenSize;
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

    fn certificates() -> DatabaseCertificates {
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
        DatabaseCertificates {
            database: "demo/ha-postgres".to_owned(),
            aliases: vec![
                each(Alias::Server, 1, 1),
                each(Alias::Client, 2, 2),
                each(Alias::MetricsExporter, 3, 0xaa),
            ],
            wire: Some(WireObservation {
                request: "rotate-tls".to_owned(),
                pods: vec![pod("ha-postgres-0", 1), pod("ha-postgres-1", 9)],
            }),
        }
    }

    #[test]
    fn issued_and_served_stand_side_by_side_in_80_columns() {
        let plain = DatabaseCertificates {
            database: "demo/plain".to_owned(),
            ..DatabaseCertificates::default()
        };
        let screen = Screen {
            color: false,
            size: Some(ScreenSize {
                columns: 80,
                lines: 24,
            }),
        };
        let now = "2026-11-24T10:00:00Z".parse().expect("a time");
        let lines = lines(&[certificates(), plain], now, Detail::Short, screen);
        assert!(
            lines.iter().all(|line| line.chars().count() <= 80),
            "{lines:#?}"
        );
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn json_has_the_same_facts() {
        let all = [certificates()];
        let shown = serde_json::to_value(databases_json(
            &all,
            "2026-11-24T10:00:00Z".parse().expect("a time"),
        ))
        .expect("JSON");
        assert_eq!(shown[0]["certificates"][0]["served"]["daysLeft"], 88);
        assert_eq!(shown[0]["certificates"][2]["drift"], true);
        assert_eq!(shown[0]["wire"][1]["name"], "ha-postgres-1");
    }

    #[test]
    fn a_certificate_that_was_never_issued_is_shown_as_such() {
        let mut each = certificates().aliases.remove(0);
        (each.issued, each.served, each.ready) = (None, None, None);
        let row = row(&each, Timestamp::UNIX_EPOCH, Detail::Short);
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
