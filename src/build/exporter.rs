//! The container that answers scrapes: `prometheus-postgres-exporter`.

use k8s_openapi::api::core::v1::{Container, EnvVar};
use serde_json::json;

use super::Cluster;
use super::names::{EXPORTER, EXPORTER_PORT};
use super::pod::{CONFIG, SOCKETS, container_port, is_the_users, shared_mounts};
use crate::api::environment::DATA_SOURCE;
use crate::api::security;
use crate::tls::{Posture, layout};

/// Key of the exporter's own configuration in ConfigMap `NAME-patroni`.
pub const WEB_YML: &str = "web.yml";

/// The container, where the spec asks for metrics.
///
/// It looks at its own pod's server through the socket, so no change of TLS concerns it. It serves TLS where the pod has
/// certificates, and reads them anew with each connection.
#[must_use]
pub fn container(cluster: &Cluster, posture: &Posture) -> Option<Container> {
    cluster.monitor()?;
    let exporter = cluster.exporter().cloned().unwrap_or_default();
    let wish = cluster.container_settings(EXPORTER).cloned().unwrap_or_default();
    let port = port(cluster);
    let listen = format!("--web.listen-address=:{port}");
    let tls = posture.files.as_ref().map(|_| format!("--web.config.file={CONFIG}/{WEB_YML}"));
    let source = EnvVar { name: DATA_SOURCE.to_owned(), value: Some(data_source(cluster)), value_from: None };
    Some(Container {
        name: EXPORTER.to_owned(),
        image: Some(cluster.version.exporter.image.clone()),
        args: Some([listen].into_iter().chain(tls).chain(exporter.args).collect()),
        env: Some([source].into_iter().chain(exporter.env.into_iter().chain(wish.env).filter(is_the_users)).collect()),
        ports: Some(vec![container_port((port, EXPORTER_PORT.1))]),
        resources: wish.resources.or(exporter.resources),
        security_context: Some(security::container(wish.security_context.or(exporter.security_context))),
        volume_mounts: Some(shared_mounts(posture)),
        ..Default::default()
    })
}

/// The exporter's port.
#[must_use]
pub fn port(cluster: &Cluster) -> i32 {
    cluster.exporter().and_then(|exporter| exporter.port).unwrap_or(EXPORTER_PORT.0)
}

/// Where the exporter's certificate is. It is there without TLS too, unused: a key that came and went would hold up the pods'
/// volumes.
pub(super) fn web_config() -> String {
    let config = json!({
        "tls_server_config": { "cert_file": layout::EXPORTER_CERTIFICATE, "key_file": layout::EXPORTER_KEY },
    });
    serde_saphyr::to_string(&config).unwrap_or_else(|_| config.to_string())
}

/// A connection string as libpq reads it: quotes and backslashes in a name are escaped.
fn data_source(cluster: &Cluster) -> String {
    let user = cluster.superuser.replace('\\', r"\\").replace('\'', r"\'");
    format!("host={SOCKETS} user='{user}' dbname=postgres sslmode=disable")
}
