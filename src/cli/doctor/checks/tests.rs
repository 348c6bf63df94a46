use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use serde_json::json;

use super::databases::expires_soon;
use super::*;
use crate::api;
use crate::api::tls::ClientAuthMode;
use crate::cli::certs::tests::leaf;
use crate::cli::certs::{AliasCertificates, DatabaseCertificates};
use crate::cli::doctor::installation::{
    AccountRights, AdmissionTrial, CERT_MANAGER_CRDS, ExpectedWebhook, Inquiry, WebhookClient,
    WebhookService,
};
use crate::tls::Alias;

fn now() -> Timestamp {
    "2026-11-24T10:00:00Z".parse().expect("a time")
}

fn parse<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("an object")
}

/// An installation without problems.
fn healthy() -> Installation {
    let made = "2026-11-24T09:00:00Z";
    let mut crds = api::crds();
    crds.extend(CERT_MANAGER_CRDS.map(|name| CustomResourceDefinition {
        metadata: kube::api::ObjectMeta {
            name: Some(name.to_owned()),
            ..Default::default()
        },
        ..Default::default()
    }));
    let ca = crate::pki::issued::tests::Authority::new("ca");
    let ca = crate::pki::issued::tests::issue(&ca, &ca)
        .served
        .trust
        .into_bytes();
    let alias = AliasCertificates {
        alias: Alias::Server,
        issuer: "pg-issuer".to_owned(),
        ready: Some(true),
        issued: Some(leaf(1, "2027-02-22T10:00:00Z")),
        served: Some(leaf(1, "2027-02-22T10:00:00Z")),
    };
    Installation {
        server: Ok("v1.34.4".to_owned()),
        crds: Ok(crds),
        versions: Ok(vec![parse(json!({"metadata": {"name": "17.12"},
            "spec": {"version": "17.12", "db": {"image": "a"}, "exporter": {"image": "b"}}}))]),
        webhooks: Ok(vec![ExpectedWebhook {
            name: "validators.kubedb.com".to_owned(),
            registered: Some(WebhookClient {
                ca_bundle: ca,
                service: Some(WebhookService {
                    path: "pgrekey/pgrekey".to_owned(),
                    ready_endpoints: 2,
                }),
            }),
        }]),
        trial: Ok(Inquiry::Answered(AdmissionTrial::Refused)),
        issuers: Ok(vec![parse(
            json!({"metadata": {"name": "pg-issuer", "namespace": "demo"}, "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        )]),
        cluster_issuers: Ok(vec![]),
        forbidden: Ok(vec![]),
        leases: Ok(vec![parse(
            json!({"metadata": {"name": "pgrekey", "namespace": "pgrekey"}, "spec": {
            "holderIdentity": "pgrekey-0", "leaseDurationSeconds": 15, "renewTime": "2026-11-24T09:59:55.000000Z"}}),
        )]),
        operator: Ok(Inquiry::Answered(Some(AccountRights {
            account: "pgrekey/pgrekey".to_owned(),
            forbidden: vec![],
        }))),
        databases: Ok(vec![parse(
            json!({"metadata": {"name": "pg", "namespace": "demo"}, "spec": {"version": "17.12"},
            "status": {"phase": "Ready"}}),
        )]),
        requests: Ok(vec![]),
        pet_sets: Ok(vec![parse(
            json!({"metadata": {"name": "pg", "namespace": "demo", "creationTimestamp": made,
            "generation": 1}, "spec": {"selector": {}, "serviceName": "pg", "template": {}},
            "status": {"replicas": 1, "observedGeneration": 1}}),
        )]),
        default_storage: Ok(vec!["standard".to_owned()]),
        certificates: Ok(vec![DatabaseCertificates {
            database: "demo/pg".to_owned(),
            aliases: vec![alias],
            wire: None,
        }]),
    }
}

fn condition(type_: &str) -> serde_json::Value {
    json!([{"type": type_, "status": "True", "lastTransitionTime": "2026-11-24T09:00:00Z", "message": "why"}])
}

#[test]
fn nothing_is_wrong_with_a_healthy_installation() {
    let bad: Vec<CheckReport> = examine(&healthy(), now())
        .into_iter()
        .filter(|found| found.verdict != CheckVerdict::Ok)
        .collect();
    assert_eq!(bad, []);
    assert!(CHECKS.len() >= 20);
}

#[test]
fn databases_without_tls_do_without_cert_manager() {
    let mut seen = healthy();
    let is_ours =
        |crd: &CustomResourceDefinition| !CERT_MANAGER_CRDS.contains(&crd.name_any().as_str());
    seen.crds.as_mut().expect("CRDs").retain(is_ours);
    (seen.issuers, seen.certificates) = (Ok(vec![]), Ok(vec![]));
    let worst = |seen: &Installation| {
        examine(seen, now())
            .into_iter()
            .map(|found| found.verdict)
            .max()
    };
    assert_eq!(worst(&seen), Some(CheckVerdict::Warn));
    let secure = json!({"metadata": {"name": "secure"}, "spec": {"version": "17.12", "tls": {"issuerRef": {"name": "i"}}},
        "status": {"phase": "Ready"}});
    seen.databases
        .as_mut()
        .expect("databases")
        .push(parse(secure));
    assert_eq!(worst(&seen), Some(CheckVerdict::Fail));
}

/// Breaks an installation.
type Break = fn(&mut Installation);

/// For each check an installation that fails it.
const BREAKS: &[(&str, CheckVerdict, Break)] = &[
    ("API server", CheckVerdict::Fail, |seen| {
        seen.server = Err(UnreadableObject("no answer".to_owned()));
    }),
    ("CRDs", CheckVerdict::Fail, |seen| {
        drop(seen.crds.as_mut().map(|crds| crds.remove(0)));
    }),
    ("CRD versions", CheckVerdict::Warn, |seen| {
        let crds = seen.crds.as_mut().expect("CRDs");
        crds[1].spec.versions[0].schema = None;
    }),
    ("cert-manager CRDs", CheckVerdict::Fail, |seen| {
        drop(seen.crds.as_mut().map(Vec::pop));
    }),
    ("issuers", CheckVerdict::Fail, |seen| {
        seen.issuers = Ok(vec![]);
    }),
    ("issuers ready", CheckVerdict::Warn, |seen| {
        let broken = json!({"metadata": {"name": "broken"}, "spec": {}});
        seen.cluster_issuers = Ok(vec![parse(broken)]);
    }),
    ("PostgresVersions", CheckVerdict::Fail, |seen| {
        seen.versions = Ok(vec![]);
    }),
    ("webhooks registered", CheckVerdict::Warn, |seen| {
        seen.webhooks
            .as_mut()
            .expect("webhooks")
            .push(ExpectedWebhook::default());
    }),
    ("webhook CAs", CheckVerdict::Fail, |seen| {
        let webhook = seen.webhooks.as_mut().expect("webhooks")[0]
            .registered
            .as_mut();
        webhook.expect("registered").ca_bundle = b"no PEM".to_vec();
    }),
    ("webhook endpoints", CheckVerdict::Fail, |seen| {
        let webhook = seen.webhooks.as_mut().expect("webhooks")[0]
            .registered
            .as_mut();
        let service = webhook.and_then(|webhook| webhook.service.as_mut());
        service.expect("a Service").ready_endpoints = 0;
    }),
    ("webhooks answer", CheckVerdict::Fail, |seen| {
        seen.trial = Ok(Inquiry::Answered(AdmissionTrial::NotCalled {
            message: "failed calling webhook".to_owned(),
        }));
    }),
    ("operator's rights", CheckVerdict::Fail, |seen| {
        let forbidden = vec!["create pods/eviction".to_owned()];
        seen.operator = Ok(Inquiry::Answered(Some(AccountRights {
            account: "pgrekey/pgrekey".to_owned(),
            forbidden,
        })));
    }),
    ("leader", CheckVerdict::Fail, |seen| {
        seen.leases = Ok(vec![]);
    }),
    ("your rights", CheckVerdict::Warn, |seen| {
        seen.forbidden = Ok(vec!["list postgreses".to_owned()]);
    }),
    ("PetSet controller", CheckVerdict::Fail, |seen| {
        seen.pet_sets.as_mut().expect("PetSets")[0].status = None;
    }),
    ("storage class", CheckVerdict::Warn, |seen| {
        seen.default_storage = Ok(vec![]);
    }),
    ("databases ready", CheckVerdict::Warn, |seen| {
        seen.databases.as_mut().expect("databases")[0].status = None;
    }),
    ("databases blocked", CheckVerdict::Fail, |seen| {
        let status = &mut seen.databases.as_mut().expect("databases")[0].status;
        status.as_mut().expect("a status").conditions = parse(condition("Blocked"));
    }),
    ("certificate logins", CheckVerdict::Warn, |seen| {
        let spec = &mut seen.databases.as_mut().expect("databases")[0].spec;
        spec.client_auth_mode = Some(ClientAuthMode::Cert);
        spec.tls = Some(parse(
            json!({"issuerRef": {"kind": "ClusterIssuer", "name": "corp"}}),
        ));
    }),
    ("databases paused", CheckVerdict::Fail, |seen| {
        let status = &mut seen.databases.as_mut().expect("databases")[0].status;
        status.as_mut().expect("a status").conditions = parse(condition("Paused"));
    }),
    ("requests stuck", CheckVerdict::Fail, |seen| {
        seen.requests = Ok(vec![parse(
            json!({"metadata": {"name": "r", "namespace": "demo"},
            "spec": {"type": "Restart", "databaseRef": {"name": "pg"}},
            "status": {"phase": "Progressing", "steps": [
                {"name": "Pause", "attempts": 1, "startedAt": "2026-11-24T09:00:00Z"}]}}),
        )]);
    }),
    ("requests failed", CheckVerdict::Warn, |seen| {
        seen.requests = Ok(vec![parse(
            json!({"metadata": {"name": "r", "namespace": "demo"},
            "spec": {"type": "Restart", "databaseRef": {"name": "pg"}}, "status": {"phase": "Failed"}}),
        )]);
    }),
    ("certificates issued", CheckVerdict::Fail, |seen| {
        seen.certificates.as_mut().expect("certificates")[0].aliases[0].ready = Some(false);
    }),
    ("certificates served", CheckVerdict::Warn, |seen| {
        let served = leaf(2, "2027-02-22T10:00:00Z");
        seen.certificates.as_mut().expect("certificates")[0].aliases[0].served = Some(served);
    }),
    ("certificates expiring", CheckVerdict::Fail, |seen| {
        let soon = leaf(1, "2026-11-30T10:00:00Z").not_after;
        let alias = &mut seen.certificates.as_mut().expect("certificates")[0].aliases[0];
        if let Some(leaf) = &mut alias.served {
            leaf.not_before = "2026-08-30T10:00:00Z".parse().expect("a time");
            leaf.ends = soon;
        }
    }),
];

#[test]
fn every_check_finds_its_problem() {
    for check in CHECKS {
        let (_, verdict, break_it) = BREAKS
            .iter()
            .find(|(name, ..)| *name == check.name)
            .unwrap_or_else(|| panic!("no case: {}", check.name));
        let mut seen = healthy();
        break_it(&mut seen);
        let found = examine(&seen, now())
            .into_iter()
            .find(|found| found.check == check.name)
            .expect("a check");
        assert_eq!(
            (found.verdict, found.remedy.is_empty()),
            (*verdict, false),
            "{found:?}"
        );
    }
}

#[test]
fn a_missing_right_to_ask_and_a_missing_webhook_are_no_failures() {
    let hints: &[(&str, CheckVerdict, Break)] = &[
        ("webhooks answer", CheckVerdict::Warn, |seen| {
            seen.trial = Ok(Inquiry::NotAllowed("you may not".to_owned()));
        }),
        ("webhooks answer", CheckVerdict::Warn, |seen| {
            seen.trial = Ok(Inquiry::Answered(AdmissionTrial::Admitted {
                namespace: "pgrekey".to_owned(),
            }));
        }),
        ("webhooks answer", CheckVerdict::Ok, |seen| {
            seen.webhooks = Ok(vec![ExpectedWebhook::default()]);
            seen.trial = Ok(Inquiry::Answered(AdmissionTrial::Admitted {
                namespace: "demo".to_owned(),
            }));
        }),
        ("operator's rights", CheckVerdict::Warn, |seen| {
            seen.operator = Ok(Inquiry::NotAllowed("you may not".to_owned()));
        }),
        ("operator's rights", CheckVerdict::Ok, |seen| {
            seen.operator = Ok(Inquiry::Answered(None));
        }),
    ];
    for (check, verdict, break_it) in hints {
        let mut seen = healthy();
        break_it(&mut seen);
        let found = examine(&seen, now())
            .into_iter()
            .find(|found| found.check == *check)
            .expect("a check");
        assert_eq!(
            (found.verdict, found.remedy.is_empty()),
            (*verdict, *verdict == CheckVerdict::Ok),
            "{found:?}"
        );
    }
}

#[test]
fn the_document_shows_every_check() {
    let shown = include_str!("../../../../docs/cli.md")
        .lines()
        .filter_map(|line| line.strip_prefix("ok    "));
    let shown: Vec<&str> = shown
        .map(|line| line.split("  ").next().unwrap_or_default())
        .collect();
    assert_eq!(
        shown,
        CHECKS.iter().map(|check| check.name).collect::<Vec<_>>()
    );
}

#[test]
fn a_short_life_is_judged_by_its_last_third() {
    let mut hour = leaf(1, "2026-11-24T10:50:00Z");
    assert!(!expires_soon(&hour, now()), "just issued for 50 minutes");
    hour.not_before = "2026-11-24T09:00:00Z".parse().expect("a time");
    hour.ends = "2026-11-24T10:20:00Z".parse().expect("a time");
    assert!(expires_soon(&hour, now()));
}
