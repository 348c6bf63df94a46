//! Certificates as lines for people, and as JSON for programs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::api::ops_request::{NegotiatedTls, PodStatus};
use crate::cli::certs::collect::{AliasCertificates, DatabaseCertificates, WireObservation};
use crate::cli::output::{Cell, Detail, Screen, Tone, days, expiry, serial};
use crate::pki::certificate::CertificateSummary;
use crate::tls::Alias;

pub(crate) fn lines(
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
        let wire = wire.as_ref();
        let mut described: Vec<String> = describe_wire(aliases, wire, detail).into_iter().collect();
        if detail == Detail::Full {
            described.extend(wire.into_iter().flat_map(describe_negotiated));
        }
        lines.extend(described.iter().map(|text| screen.line(Tone::Plain, text)));
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
        .map(|served| expiry(now, served.ends))
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

/// What the pods negotiated when a request last observed them: a line for each different answer.
fn describe_negotiated(WireObservation { pods, .. }: &WireObservation) -> Vec<String> {
    let mut pods_by_tls: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for pod in pods {
        if let Some(NegotiatedTls {
            protocol,
            cipher,
            group,
        }) = &pod.tls
        {
            let group = group.as_deref().unwrap_or("no group");
            let pods = pods_by_tls.entry(format!("{protocol}, {cipher}, {group}"));
            pods.or_default().push(&pod.name);
        }
    }
    let line = |(tls, pods): (String, Vec<&str>)| format!("{} negotiated {tls}", pods.join(", "));
    pods_by_tls.into_iter().map(line).collect()
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
    /// The earliest end of the leaf and the CAs above it.
    usable_until: Timestamp,
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
        ends,
        ..
    } = known?;
    let days_left = days(now, *ends);
    Some(LeafJson {
        serial,
        signer,
        not_before: *not_before,
        not_after: *not_after,
        usable_until: *ends,
        days_left,
    })
}

pub(crate) fn databases_json(all: &[DatabaseCertificates], now: Timestamp) -> impl Serialize {
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
        .collect::<Vec<_>>()
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
            ends: not_after.parse().expect("a time"),
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
        let screen = Screen::of_columns(80);
        let now = "2026-11-24T10:00:00Z".parse().expect("a time");
        let lines = lines(&[certificates(), plain], now, Detail::Short, screen);
        assert!(
            lines.iter().all(|line| line.chars().count() <= 80),
            "{lines:#?}"
        );
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn pods_that_negotiate_the_same_stand_in_one_line() {
        let pod = |name: &str, group: Option<&str>| PodStatus {
            name: name.to_owned(),
            tls: Some(NegotiatedTls {
                protocol: "TLSv1.3".to_owned(),
                cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
                group: group.map(str::to_owned),
            }),
            ..PodStatus::default()
        };
        let wire = WireObservation {
            request: "rotate-tls".to_owned(),
            pods: vec![
                pod("pg-0", Some("X25519MLKEM768")),
                pod("pg-1", Some("X25519")),
                pod("pg-2", Some("X25519MLKEM768")),
                PodStatus::default(),
            ],
        };
        assert_eq!(
            describe_negotiated(&wire),
            [
                "pg-1 negotiated TLSv1.3, TLS_AES_256_GCM_SHA384, X25519",
                "pg-0, pg-2 negotiated TLSv1.3, TLS_AES_256_GCM_SHA384, X25519MLKEM768",
            ]
        );
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
