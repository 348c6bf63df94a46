//! What the objects of a database are called, as in KubeDB.

use crate::api::names;
use crate::api::names::{METRICS_PORT, with_suffix};
use crate::build::Cluster;
use crate::tls::Alias;

pub use crate::api::names::{EXPORTER, POSTGRES};

/// PostgreSQL's port, and its name.
pub const DB_PORT: (i32, &str) = (5432, "db");
/// The port of Patroni's REST API, and its name.
pub const PATRONI_PORT: (i32, &str) = (8008, "patroni");
/// The exporter's port if the spec names none, and its name.
pub const EXPORTER_PORT: (i32, &str) = (56790, METRICS_PORT);
/// The domain of cluster names, by Kubernetes' default.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

impl Cluster {
    /// The database's own name: its PetSet, primary Service, ServiceAccount, Role, RoleBinding and
    /// PodDisruptionBudget.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name that the superuser logs in by.
    #[must_use]
    pub fn superuser(&self) -> &str {
        &self.superuser
    }

    /// The headless Service that gives pods their names.
    #[must_use]
    pub fn pods_service(&self) -> String {
        with_suffix(&self.name, "pods")
    }

    /// The Service of the standbys.
    #[must_use]
    pub fn standby_service(&self) -> String {
        with_suffix(&self.name, "standby")
    }

    /// The Service of the metrics, and the ServiceMonitor.
    #[must_use]
    pub fn stats_service(&self) -> String {
        with_suffix(&self.name, "stats")
    }

    /// The Secret of the superuser.
    #[must_use]
    pub fn auth_secret(&self) -> String {
        self.spec.auth_secret_of(&self.name)
    }

    /// The ConfigMap with `patroni.yml`, and the Secret with the credentials of Patroni's REST API.
    #[must_use]
    pub fn patroni(&self) -> String {
        names::patroni(&self.name)
    }

    /// The ConfigMap with what clients should trust.
    #[must_use]
    pub fn ca_config_map(&self) -> String {
        with_suffix(&self.name, "ca")
    }

    /// The Secret with what is served.
    #[must_use]
    pub fn tls_secret(&self) -> String {
        names::tls_secret(&self.name)
    }

    /// The Secret with the settings that come from a Secret.
    #[must_use]
    pub fn user_conf_secret(&self) -> String {
        names::user_conf_secret(&self.name)
    }

    /// The Certificate of this alias.
    #[must_use]
    pub fn certificate(&self, alias: Alias) -> String {
        names::certificate(&self.name, alias)
    }

    /// The Secret into which the certificate of this alias is issued.
    #[must_use]
    pub fn certificate_secret(&self, alias: Alias) -> String {
        let wish = self
            .spec
            .tls
            .as_ref()
            .and_then(|tls| tls.certificate(alias.as_str()));
        wish.and_then(|wish| wish.secret_name.clone())
            .unwrap_or_else(|| self.certificate(alias))
    }

    /// Patroni's own ConfigMaps, which it makes beside the cluster: its settings, leader,
    /// switchovers and synchronous standbys. Patroni puts the suffix on whatever it is told, so
    /// nothing is cut here.
    #[must_use]
    pub fn patroni_config_maps(&self) -> [String; 4] {
        ["config", "leader", "failover", "sync"].map(|suffix| format!("{}-{suffix}", self.name))
    }

    /// The pod with this number.
    #[must_use]
    pub fn pod(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.name)
    }

    /// The ServiceAccount of the pods.
    #[must_use]
    pub fn service_account(&self) -> &str {
        self.pod_settings()
            .and_then(|pod| pod.service_account_name.as_deref())
            .unwrap_or(&self.name)
    }

    /// The name of a Service inside the cluster: `SERVICE.NAMESPACE.svc`.
    #[must_use]
    pub fn host(&self, service: &str) -> String {
        format!("{service}.{}.svc", self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use crate::build::cluster::tests::{cluster, postgres};

    #[test]
    fn the_superusers_secret_is_the_one_that_is_named_if_one_is() {
        for (wish, name) in [
            ("{kind: Secret, name: mine}", "mine"),
            ("{kind: Secret, name: ''}", "pg-auth"),
            ("null", "pg-auth"),
        ] {
            assert_eq!(
                cluster(&postgres(&format!("{{version: '17', authSecret: {wish}}}"))).auth_secret(),
                name
            );
        }
    }
}
