//! The container that answers scrapes: `prometheus-postgres-exporter`.

use k8s_openapi::api::core::v1::{Container, EnvVar};
use serde_json::json;

use crate::api::environment::DATA_SOURCE;
use crate::api::names::EXPORTER;
use crate::api::ports::EXPORTER_PORT;
use crate::api::security;
use crate::build::Cluster;
use crate::build::container::{container_port, is_users_variable, shared_mounts};
use crate::build::paths::{CONFIG, SOCKETS, WEB_YML};
use crate::build::session::SAFE;
use crate::tls::{Posture, layout};

/// The container, where the spec asks for metrics.
///
/// It looks at its own pod's server through the socket, so no change of TLS concerns it. It serves
/// TLS where the pod has certificates, and reads them anew with each connection.
#[must_use]
pub fn container(cluster: &Cluster, posture: &Posture) -> Option<Container> {
    cluster.monitor()?;
    let exporter = cluster.exporter().cloned().unwrap_or_default();
    let wish = cluster
        .container_settings(EXPORTER)
        .cloned()
        .unwrap_or_default();
    let port = port(cluster);
    let listen = format!("--web.listen-address=:{port}");
    let tls = posture
        .files
        .as_ref()
        .map(|_| format!("--web.config.file={CONFIG}/{WEB_YML}"));
    let source = EnvVar {
        name: DATA_SOURCE.to_owned(),
        value: Some(data_source(cluster)),
        value_from: None,
    };
    Some(Container {
        name: EXPORTER.to_owned(),
        image: Some(cluster.version.exporter.image.clone()),
        args: Some(
            [listen]
                .into_iter()
                .chain(tls)
                .chain(exporter.args)
                .collect(),
        ),
        env: Some(
            [source]
                .into_iter()
                .chain(
                    exporter
                        .env
                        .into_iter()
                        .chain(wish.env)
                        .filter(is_users_variable),
                )
                .collect(),
        ),
        ports: Some(vec![container_port(port, EXPORTER_PORT.name)]),
        resources: wish.resources.or(exporter.resources),
        security_context: Some(security::container(
            wish.security_context.or(exporter.security_context),
        )),
        volume_mounts: Some(shared_mounts(posture)),
        ..Default::default()
    })
}

/// The exporter's port.
#[must_use]
pub fn port(cluster: &Cluster) -> i32 {
    cluster
        .exporter()
        .and_then(|exporter| exporter.port)
        .unwrap_or(i32::from(EXPORTER_PORT.number))
}

/// Where the exporter's certificate is. It is there without TLS too, unused: a key that came and
/// went would hold up the pods' volumes.
pub(super) fn web_config() -> String {
    let config = json!({
        "tls_server_config": { "cert_file": layout::EXPORTER_CERTIFICATE, "key_file": layout::EXPORTER_KEY },
    });
    serde_saphyr::to_string(&config).unwrap_or_else(|_| config.to_string())
}

/// Settings of the exporter's session beyond [`SAFE`]. It logs in as superuser, and only reads.
///
/// What it asks names most things without their schema, hence `search_path`. Its own patience is a
/// minute and longer, and a scrape that was given up leaves its queries behind, hence the timeouts.
const SETTINGS: &[(u32, &str, &str)] = &[
    (0, "application_name", "exporter"),
    (0, "search_path", "pg_catalog"),
    (0, "default_transaction_read_only", "on"),
    (0, "statement_timeout", "10s"),
    (0, "lock_timeout", "2s"),
    (0, "idle_in_transaction_session_timeout", "10s"),
    (17, "transaction_timeout", "10s"),
];

/// A connection string as libpq reads it: quotes and backslashes in a name are escaped.
///
/// What its driver does not know goes into the start-up packet as settings, which win over every
/// default. The exporter cuts the string at commas, to find several, and wants a `=` between any
/// two spaces: values have neither commas nor spaces.
fn data_source(cluster: &Cluster) -> String {
    let quoted = |value: &str| format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"));
    let user = quoted(&cluster.superuser);
    // Not quoted: it is the label `server` of every metric, as it is written.
    let address = format!("host={SOCKETS} user={user} dbname=postgres sslmode=disable");
    let settings = SAFE
        .iter()
        .chain(SETTINGS)
        .filter(|(since, ..)| *since <= cluster.major());
    let settings = settings.map(|(_, name, value)| format!("{name}={}", quoted(value)));
    let words: Vec<String> = [address]
        .into_iter()
        .chain(settings)
        .chain([format!("session_authorization={user}")])
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exporter_reads_its_settings_as_they_are_meant() {
        for (_, name, value) in SAFE.iter().chain(SETTINGS) {
            assert!(!value.contains([' ', ',', '=']), "{name}={value}");
        }
    }
}
