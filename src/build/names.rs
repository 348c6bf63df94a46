//! What the objects of a database are called, as in KubeDB.

use crate::api::names::{Names, service_host};
use crate::build::Cluster;
use crate::tls::Alias;

/// The domain of cluster names, by Kubernetes' default.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

impl Cluster {
    /// The names of the database's objects, as far as they follow from its own name.
    #[must_use]
    pub fn names(&self) -> Names<'_> {
        Names::new(&self.name)
    }

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
        self.names().pods_service()
    }

    /// The Service of the standbys.
    #[must_use]
    pub fn standby_service(&self) -> String {
        self.names().standby_service()
    }

    /// The Service of the metrics, and the ServiceMonitor.
    #[must_use]
    pub fn stats_service(&self) -> String {
        self.names().stats_service()
    }

    /// The Secret of the superuser.
    #[must_use]
    pub fn auth_secret(&self) -> String {
        self.spec.auth_secret_of(&self.name)
    }

    /// The ConfigMap with `patroni.yml`, and the Secret with the credentials of Patroni's REST API.
    #[must_use]
    pub fn patroni(&self) -> String {
        self.names().patroni()
    }

    /// The ConfigMap with what clients should trust.
    #[must_use]
    pub fn ca_config_map(&self) -> String {
        self.names().ca_config_map()
    }

    /// The Secret with what is served.
    #[must_use]
    pub fn tls_secret(&self) -> String {
        self.names().tls_secret()
    }

    /// The Secret with the settings that come from a Secret.
    #[must_use]
    pub fn user_conf_secret(&self) -> String {
        self.names().user_conf_secret()
    }

    /// The Certificate of this alias.
    #[must_use]
    pub fn certificate(&self, alias: Alias) -> String {
        self.names().certificate(alias)
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

    /// The pod with this number.
    #[must_use]
    pub fn pod(&self, ordinal: i32) -> String {
        self.names().pod(ordinal)
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
        service_host(service, &self.namespace)
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
