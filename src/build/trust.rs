//! The CA bundle for clients.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use crate::build::Cluster;

/// ConfigMap `NAME-ca`: key `ca.crt` has the CAs of [`crate::tls::published`] as PEM.
#[must_use]
pub fn ca_config_map(cluster: &Cluster, bundle: &str) -> ConfigMap {
    ConfigMap {
        metadata: cluster.meta(cluster.names().ca_config_map()),
        data: Some(BTreeMap::from([("ca.crt".to_owned(), bundle.to_owned())])),
        ..Default::default()
    }
}
