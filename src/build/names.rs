//! Names of the objects of a database that depend on its spec. The others are in [`Names`].

use crate::api::names::{Names, service_host};
use crate::build::Cluster;
use crate::tls::Alias;

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

    /// The database's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name of the superuser, in PostgreSQL.
    #[must_use]
    pub fn superuser(&self) -> &str {
        &self.superuser
    }

    /// The Secret with the superuser's name and password.
    #[must_use]
    pub fn auth_secret(&self) -> String {
        self.spec.auth_secret_of(&self.name)
    }

    /// The Secret into which cert-manager issues the certificate of an alias.
    #[must_use]
    pub fn certificate_secret(&self, alias: Alias) -> String {
        let wish = self
            .spec
            .tls
            .as_ref()
            .and_then(|tls| tls.certificate(alias.as_str()));
        wish.and_then(|wish| wish.secret_name.clone())
            .unwrap_or_else(|| self.names().certificate(alias))
    }

    /// The ServiceAccount of the pods.
    #[must_use]
    pub fn service_account(&self) -> &str {
        self.pod_settings()
            .and_then(|pod| pod.service_account_name.as_deref())
            .unwrap_or(&self.name)
    }

    /// The DNS name of a Service inside the Kubernetes cluster: `SERVICE.NAMESPACE.svc`.
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
