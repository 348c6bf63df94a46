//! The checks of settings, scripts, ports, external IPs and amounts of memory.
//!
//! They use the same parsers as `build`. An admitted object that cannot be built would block the
//! reconciliation of its database, and so the renewal of its certificates.

use crate::api::Postgres;
use crate::api::names::POSTGRES;
use crate::api::postgres::{TlsConfig, USER_CONF};
use crate::api::quantity;
use crate::api::tls::KeyAlgorithm;
use crate::api::{postgresql_conf, postgresql_settings, reserved_settings};
use crate::tls::server_settings::{Obstacle, ServerFacts, obstacles};

use crate::rules::shared::probable_major;
use crate::rules::{ClusterFacts, Findings, Review, quoted};

/// The field with the settings.
const SETTINGS: &str = "spec.configuration.inline.user.conf";

fn user_conf(database: &Postgres) -> Option<&String> {
    database
        .spec
        .configuration
        .as_ref()?
        .inline
        .as_ref()?
        .get(USER_CONF)
}

pub(super) fn configuration_valid(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let inline = review
        .object
        .spec
        .configuration
        .as_ref()
        .and_then(|c| c.inline.as_ref());
    for key in inline
        .into_iter()
        .flat_map(|inline| inline.keys())
        .filter(|key| *key != USER_CONF)
    {
        let problem = format!("the key {} is not read", quoted(key));
        findings.add(
            "spec.configuration.inline",
            problem,
            "use the key user.conf",
        );
    }
    if let Some(Err(bad)) = user_conf(&review.object).map(|text| postgresql_conf::parse(text)) {
        findings.add(
            SETTINGS,
            bad.to_string(),
            "write one setting a line, as in postgresql.conf",
        );
    }
}

pub(super) fn setting_ignored(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let settings = user_conf(&review.object)
        .and_then(|text| postgresql_conf::parse(text).ok())
        .unwrap_or_default();
    for owned in settings
        .keys()
        .filter_map(|name| reserved_settings::reserved_setting(name))
    {
        findings.add(
            SETTINGS,
            format!("{} is ignored", owned.name),
            format!("it follows from {}", owned.follows_from),
        );
    }
    for (name, least) in reserved_settings::LEAST {
        if settings.get(name).is_some_and(|value| {
            postgresql_settings::whole_number(value).is_none_or(|number| number < least)
        }) {
            findings.add(
                SETTINGS,
                format!("{name} is raised to {least}"),
                "32 pods need the room",
            );
        }
    }
}

/// The obstacles among the inline settings of a database, each as `SETTING = VALUE PROBLEM`, with its
/// remedy. `key` is the algorithm of the server's key; `None` without TLS.
pub(super) fn tls_obstacles(
    database: &Postgres,
    key: Option<KeyAlgorithm>,
    facts: Option<&dyn ClusterFacts>,
) -> Vec<(String, &'static str)> {
    let settings = user_conf(database).and_then(|text| postgresql_conf::parse(text).ok());
    let name = &database.spec.version;
    let version = facts.and_then(|facts| facts.version(name));
    let server = ServerFacts {
        major: probable_major(name, facts),
        groups: version
            .map(|version| version.tls_groups())
            .unwrap_or_default(),
        key,
    };
    let found = obstacles(&settings.unwrap_or_default(), &server);
    let lines = found.into_iter().map(|obstacle| {
        let Obstacle {
            setting,
            value,
            problem,
            remedy,
        } = obstacle;
        (format!("{setting} = {} {problem}", quoted(&value)), remedy)
    });
    lines.collect()
}

pub(super) fn tls_settings_usable(
    review: &Review<Postgres>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let tls = review.object.spec.tls.as_ref();
    let key = tls.map(TlsConfig::server_key);
    for (problem, remedy) in tls_obstacles(&review.object, key, facts) {
        findings.add(SETTINGS, problem, remedy);
    }
}

pub(super) fn init_script_valid(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    const FIELD: &str = "spec.init.script";
    let Some(script) = review
        .object
        .spec
        .init
        .as_ref()
        .and_then(|init| init.script.as_ref())
    else {
        return;
    };
    if !script.has_one_source() {
        let problem = if script.secret.is_some() {
            "has two sources"
        } else {
            "has no source"
        };
        findings.add(FIELD, problem, "name either a configMap or a secret");
    }
    if !script.stays_inside() {
        let problem = format!(
            "{} leads out of the volume",
            quoted(script.script_path.as_deref().unwrap_or_default())
        );
        findings.add(
            format!("{FIELD}.scriptPath"),
            problem,
            "write a folder inside it, such as schema",
        );
    }
}

pub(super) fn service_port_known(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    for (i, template) in review.object.spec.service_templates.iter().enumerate() {
        let (alias, known) = (template.alias.as_str(), template.alias.port_name());
        let ports = template
            .spec
            .iter()
            .flat_map(|service| &service.ports)
            .enumerate();
        for (j, port) in ports.filter(|(_, port)| port.name != known) {
            let field = format!("spec.serviceTemplates[{i}].spec.ports[{j}].name");
            let problem = format!("the Service {alias} has no port {}", quoted(&port.name));
            findings.add(field, problem, format!("use {known}, its one port"));
        }
    }
}

pub(super) fn external_ips(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    if review.allowed.external_ips {
        return;
    }
    for (i, template) in review.object.spec.service_templates.iter().enumerate() {
        if template
            .spec
            .as_ref()
            .is_some_and(|service| !service.external_ips.is_empty())
        {
            let field = format!("spec.serviceTemplates[{i}].spec.externalIPs");
            let remedy = "use type LoadBalancer or NodePort; only an installation with externalIPs.allowed has them";
            findings.add(field, "are not allowed in this installation", remedy);
        }
    }
}

pub(super) fn memory_valid(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let pod = review
        .object
        .spec
        .pod_template
        .as_ref()
        .and_then(|template| template.spec.as_ref());
    let containers = pod.iter().flat_map(|pod| pod.containers.iter().enumerate());
    for (i, container) in containers.filter(|(_, container)| container.name == POSTGRES) {
        let Some(resources) = &container.resources else {
            continue;
        };
        for (list, amounts) in [
            ("requests", &resources.requests),
            ("limits", &resources.limits),
        ] {
            let Some(amount) = amounts.as_ref().and_then(|amounts| amounts.get("memory")) else {
                continue;
            };
            if quantity::bytes(amount).is_none() {
                let field =
                    format!("spec.podTemplate.spec.containers[{i}].resources.{list}.memory");
                findings.add(
                    field,
                    format!("{} is no amount of memory", quoted(&amount.0)),
                    "write one such as 2Gi",
                );
            }
        }
    }
}
