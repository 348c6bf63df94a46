//! The checks of `podTemplate`, `serviceTemplates` and `monitor`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::EnvVar;
use serde_json::json;

use crate::api::Postgres;
use crate::api::environment::is_reserved;
use crate::api::names::{EXPORTER, POSTGRES};
use crate::api::template::ServiceTemplate;

use crate::api::annotations::USABLE_BY_DATABASES;
use crate::api::ports::{PATRONI_PORT, POSTGRES_PORT, Port};
use crate::rules::{ClusterFacts, Findings, Review, quoted};

pub(super) fn reserved_env(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let spec = &review.object.spec;
    let containers = spec
        .pod_template
        .iter()
        .filter_map(|t| t.spec.as_ref())
        .flat_map(|s| s.containers.iter().enumerate());
    let of_containers =
        containers.map(|(i, c)| (format!("spec.podTemplate.spec.containers[{i}].env"), &c.env));
    let exporter = spec
        .monitor
        .as_ref()
        .and_then(|m| m.prometheus.as_ref())
        .and_then(|p| p.exporter.as_ref());
    let of_exporter = exporter.map(|e| ("spec.monitor.prometheus.exporter.env".to_owned(), &e.env));
    let lists: Vec<(String, &Vec<EnvVar>)> = of_containers.chain(of_exporter).collect();
    for (field, variables) in lists {
        for (i, variable) in variables
            .iter()
            .enumerate()
            .filter(|(_, v)| is_reserved(&v.name))
        {
            findings.add(
                format!("{field}[{i}].name"),
                format!("{} is reserved for pgrekey", quoted(&variable.name)),
                "remove it",
            );
        }
    }
}

pub(super) fn container_known(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Some(settings) = review
        .object
        .spec
        .pod_template
        .as_ref()
        .and_then(|t| t.spec.as_ref())
    else {
        return;
    };
    let mut seen = BTreeSet::new();
    for (i, container) in settings.containers.iter().enumerate() {
        let field = format!("spec.podTemplate.spec.containers[{i}].name");
        if ![POSTGRES, EXPORTER].contains(&container.name.as_str()) {
            let problem = format!("there is no container {}", quoted(&container.name));
            findings.add(field, problem, "use postgres or exporter");
        } else if !seen.insert(&container.name) {
            findings.add(
                field,
                format!("{} is there twice", quoted(&container.name)),
                "merge the two entries",
            );
        }
    }
}

pub(super) fn run_as_user(
    review: &Review<Postgres>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    const POD: &str = "spec.podTemplate.spec.securityContext";
    let spec = &review.object.spec;
    let Some(version) = facts.and_then(|f| f.version(&spec.version)) else {
        return;
    };
    let context = version.spec.security_context.unwrap_or_default();
    let any_but_root = context.run_as_any_non_root == Some(true);
    let expected = context.run_as_user.unwrap_or(999);
    let Some(settings) = spec.pod_template.as_ref().and_then(|t| t.spec.as_ref()) else {
        return;
    };
    let pod = settings.security_context.iter().flat_map(|c| {
        [
            (format!("{POD}.runAsUser"), c.run_as_user),
            (format!("{POD}.runAsGroup"), c.run_as_group),
        ]
    });
    let containers = settings
        .containers
        .iter()
        .enumerate()
        .filter(|(_, c)| c.name == POSTGRES)
        .flat_map(|(i, c)| {
            let field = format!("spec.podTemplate.spec.containers[{i}].securityContext");
            let context = c.security_context.as_ref();
            [
                (
                    format!("{field}.runAsUser"),
                    context.and_then(|c| c.run_as_user),
                ),
                (
                    format!("{field}.runAsGroup"),
                    context.and_then(|c| c.run_as_group),
                ),
            ]
        });
    for (field, id) in pod.chain(containers) {
        if let Some(id) = id.filter(|id| {
            if any_but_root {
                *id == 0
            } else {
                *id != expected
            }
        }) {
            let problem = format!(
                "{id} is not the user of PostgresVersion {}",
                quoted(&spec.version)
            );
            findings.add(field, problem, format!("use {expected}, or leave it out"));
        }
    }
}

pub(super) fn service_account_allowed(
    review: &Review<Postgres>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Postgres { metadata, spec, .. } = &review.object;
    let settings = spec.pod_template.as_ref().and_then(|t| t.spec.as_ref());
    let Some(account) = settings.and_then(|pod| pod.service_account_name.as_ref()) else {
        return;
    };
    if metadata.name.as_ref() == Some(account) {
        return;
    }
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let problem = if !review.allowed.service_accounts.contains(account) {
        format!(
            "this installation does not allow databases to use {}",
            quoted(account)
        )
    } else if facts.is_some_and(|facts| !facts.service_account_is_usable(namespace, account)) {
        format!(
            "there is no ServiceAccount {} with the label {USABLE_BY_DATABASES}: \"true\" in {namespace}",
            quoted(account)
        )
    } else {
        return;
    };
    let remedy = "leave it out to use the database's own account; another one needs podSecurity.serviceAccounts and the label";
    findings.add("spec.podTemplate.spec.serviceAccountName", problem, remedy);
}

pub(super) fn monitor_port(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    const FIELD: &str = "spec.monitor.prometheus.exporter.port";
    /// PostgreSQL's own port and Patroni's.
    const TAKEN: [Port; 2] = [POSTGRES_PORT, PATRONI_PORT];
    let exporter = review
        .object
        .spec
        .monitor
        .as_ref()
        .and_then(|m| m.prometheus.as_ref())
        .and_then(|p| p.exporter.as_ref());
    let Some(port) = exporter.and_then(|e| e.port) else {
        return;
    };
    if !(1024..=65535).contains(&port) {
        findings.add(
            FIELD,
            format!("{port} is not between 1024 and 65535"),
            "use another port, or leave it out for 56790",
        );
    } else if TAKEN.iter().any(|taken| i32::from(taken.number) == port) {
        findings.add(
            FIELD,
            format!("{port} is the database's own"),
            "use another port, or leave it out for 56790",
        );
    }
}

pub(super) fn service_template_unique(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let mut seen = vec![];
    for (i, ServiceTemplate { alias, .. }) in
        review.object.spec.service_templates.iter().enumerate()
    {
        if seen.contains(alias) {
            let problem = format!("there is an entry for {} already", json!(alias));
            findings.add(
                format!("spec.serviceTemplates[{i}].alias"),
                problem,
                "merge the two entries",
            );
        } else {
            seen.push(*alias);
        }
    }
}
