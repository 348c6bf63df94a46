//! The container of the metrics exporter: `prometheus-postgres-exporter`.

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

/// The container. `None` if the spec asks for no metrics.
///
/// The exporter connects to its own pod's server through the socket, so a change of TLS does not
/// affect it. It serves TLS if the pod has certificates, and reads them for each new connection.
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

/// The exporter's configuration: the paths of its certificate. The key exists without TLS too,
/// unused. If it came and went, the kubelet could not refresh the volume in between.
pub(super) fn web_config() -> String {
    let config = json!({
        "tls_server_config": { "cert_file": layout::EXPORTER_CERTIFICATE, "key_file": layout::EXPORTER_KEY },
    });
    serde_saphyr::to_string(&config).unwrap_or_else(|_| config.to_string())
}

/// Settings of the exporter's session, besides [`SAFE`]. It logs in as superuser, and only reads.
///
/// `search_path`: most of its queries name tables without a schema. The timeouts: the exporter's
/// own are a minute and longer, and an abandoned scrape leaves its queries running.
const SETTINGS: &[(u32, &str, &str)] = &[
    (0, "application_name", "exporter"),
    (0, "search_path", "pg_catalog"),
    (0, "default_transaction_read_only", "on"),
    (0, "statement_timeout", "10s"),
    (0, "lock_timeout", "2s"),
    (0, "idle_in_transaction_session_timeout", "10s"),
    (17, "transaction_timeout", "10s"),
];

/// The connection string, in libpq's syntax: quotes and backslashes in the user's name are escaped.
///
/// Parameters that the driver does not know become settings in the start-up packet, which override
/// every default. The exporter splits the string at commas and needs a `=` between any two spaces.
/// So no value has a comma or a space.
fn data_source(cluster: &Cluster) -> String {
    let quoted = |value: &str| format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"));
    let user = quoted(&cluster.superuser);
    // Not quoted: the address is the label `server` of every metric, exactly as it stands here.
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
