//! The facts about the cluster that the rules read.

use std::sync::Arc;

use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::annotations::{DEFAULT_ISSUER, USABLE_BY_DATABASES};
use crate::api::cert_manager::{ClusterIssuer, IssuanceCondition, Issuer, IssuerType};
use crate::api::{Postgres, PostgresOpsRequest, PostgresVersion};

/// The state of the cluster at one time.
///
/// Objects may be pruned to the fields that the rules read. All methods read from memory: a rule
/// must not wait.
pub trait ClusterFacts {
    /// The names of facts that are not loaded yet. No object can be judged until this is empty.
    fn unknown(&self) -> Vec<&'static str>;
    /// Whether the cluster lacks the CRD of `Issuer` or `ClusterIssuer`, and so has no such object.
    fn lacks(&self, kind: &str) -> bool;

    /// The Postgres of this name.
    fn database(&self, namespace: &str, name: &str) -> Option<Arc<Postgres>>;
    /// Every Postgres of this namespace.
    fn databases(&self, namespace: &str) -> Vec<Arc<Postgres>>;
    /// Every request about this database, in any order.
    fn requests(&self, namespace: &str, database: &str) -> Vec<Arc<PostgresOpsRequest>>;
    /// The version of this name.
    fn version(&self, name: &str) -> Option<Arc<PostgresVersion>>;
    /// The Issuer of this name.
    fn issuer(&self, namespace: &str, name: &str) -> Option<Arc<Issuer>>;
    /// Every Issuer of this namespace.
    fn issuers(&self, namespace: &str) -> Vec<Arc<Issuer>>;
    /// Namespaces that have an Issuer of this name, sorted.
    fn issuer_namespaces(&self, name: &str) -> Vec<String>;
    /// The ClusterIssuer of this name.
    fn cluster_issuer(&self, name: &str) -> Option<Arc<ClusterIssuer>>;
    /// The type of an Issuer of this namespace, or of a ClusterIssuer; `None` if there is none of
    /// this name.
    fn issuer_type(&self, namespace: &str, kind: &str, name: &str) -> Option<IssuerType> {
        if kind == "ClusterIssuer" {
            Some(self.cluster_issuer(name)?.spec.issuer.issuer_type())
        } else {
            Some(self.issuer(namespace, name)?.spec.issuer_type())
        }
    }
    /// The conditions of an Issuer of this namespace, or of a ClusterIssuer; `None` if there is none
    /// of this name.
    fn issuer_conditions(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
    ) -> Option<Vec<IssuanceCondition>> {
        let status = if kind == "ClusterIssuer" {
            self.cluster_issuer(name)?.status.clone()
        } else {
            self.issuer(namespace, name)?.status.clone()
        };
        Some(status.unwrap_or_default().conditions)
    }
    /// Every ClusterIssuer.
    fn cluster_issuers(&self) -> Vec<Arc<ClusterIssuer>>;
    /// Whether there is a ServiceAccount of this name that carries the label [`USABLE_BY_DATABASES`].
    fn service_account_is_usable(&self, namespace: &str, name: &str) -> bool;
    /// Whether there is a StorageClass of this name.
    fn storage_class_exists(&self, name: &str) -> bool;
    /// The value of the namespace's [`DEFAULT_ISSUER`].
    fn default_issuer(&self, namespace: &str) -> Option<String>;
}

/// Facts as plain lists, from files or from a listing of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Every Postgres.
    pub databases: Vec<Arc<Postgres>>,
    /// Every request.
    pub requests: Vec<Arc<PostgresOpsRequest>>,
    /// Every version.
    pub versions: Vec<Arc<PostgresVersion>>,
    /// Every Issuer.
    pub issuers: Vec<Arc<Issuer>>,
    /// Every ClusterIssuer.
    pub cluster_issuers: Vec<Arc<ClusterIssuer>>,
    /// Namespaces and names of the ServiceAccounts with the label [`USABLE_BY_DATABASES`].
    pub service_accounts: Vec<(String, String)>,
    /// Names of the StorageClasses.
    pub storage_classes: Vec<String>,
    /// Namespaces with a default issuer, and its annotation.
    pub default_issuers: Vec<(String, String)>,
    /// Kinds whose CRDs the cluster lacks.
    pub lacks: Vec<&'static str>,
    /// The names of facts that are not loaded.
    pub unknown: Vec<&'static str>,
}

impl Snapshot {
    /// Adds an object of any kind, as JSON. Returns whether the rules read objects of its kind.
    ///
    /// A later object replaces an earlier one of the same kind, namespace and name.
    pub fn learn(
        &mut self,
        document: &Value,
    ) -> Result<bool, serde_path_to_error::Error<serde_json::Error>> {
        let text = |path: &str| {
            document
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        match (
            text("/apiVersion").split('/').next().unwrap_or_default(),
            kind.as_str(),
        ) {
            ("kubedb.com", "Postgres") => put(&mut self.databases, document)?,
            ("ops.kubedb.com", "PostgresOpsRequest") => put(&mut self.requests, document)?,
            ("catalog.kubedb.com", "PostgresVersion") => put(&mut self.versions, document)?,
            ("cert-manager.io", "Issuer") => put(&mut self.issuers, document)?,
            ("cert-manager.io", "ClusterIssuer") => put(&mut self.cluster_issuers, document)?,
            ("storage.k8s.io", "StorageClass") => self.storage_classes.push(name),
            ("v1", "ServiceAccount") => {
                let account = (text("/metadata/namespace"), name);
                self.service_accounts.retain(|other| *other != account);
                let is_usable = document["metadata"]["labels"][USABLE_BY_DATABASES] == "true";
                self.service_accounts.extend(is_usable.then_some(account));
            }
            ("v1", "Namespace") => {
                let issuer = document["metadata"]["annotations"][DEFAULT_ISSUER].as_str();
                self.default_issuers
                    .retain(|(namespace, _)| *namespace != name);
                self.default_issuers
                    .extend(issuer.map(|issuer| (name, issuer.to_owned())));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Decodes an object into its list, in place of the one with the same name.
fn put<K: DeserializeOwned + ResourceExt>(
    list: &mut Vec<Arc<K>>,
    document: &Value,
) -> Result<(), serde_path_to_error::Error<serde_json::Error>> {
    let object: K = serde_path_to_error::deserialize(document)?;
    list.retain(|other| {
        (other.namespace(), other.name_any()) != (object.namespace(), object.name_any())
    });
    list.push(Arc::new(object));
    Ok(())
}

/// Whether an object is the one of this namespace and name.
fn is<K: ResourceExt>(object: &K, namespace: &str, name: &str) -> bool {
    object.namespace().as_deref() == Some(namespace) && object.name_any() == name
}

impl ClusterFacts for Snapshot {
    fn unknown(&self) -> Vec<&'static str> {
        self.unknown.clone()
    }

    fn lacks(&self, kind: &str) -> bool {
        self.lacks.contains(&kind)
    }

    fn database(&self, namespace: &str, name: &str) -> Option<Arc<Postgres>> {
        self.databases
            .iter()
            .find(|d| is(d.as_ref(), namespace, name))
            .cloned()
    }

    fn databases(&self, namespace: &str) -> Vec<Arc<Postgres>> {
        self.databases
            .iter()
            .filter(|d| d.metadata.namespace.as_deref() == Some(namespace))
            .cloned()
            .collect()
    }

    fn requests(&self, namespace: &str, database: &str) -> Vec<Arc<PostgresOpsRequest>> {
        let of = |r: &&Arc<PostgresOpsRequest>| {
            r.metadata.namespace.as_deref() == Some(namespace)
                && r.spec.database_ref.name == database
        };
        self.requests.iter().filter(of).cloned().collect()
    }

    fn version(&self, name: &str) -> Option<Arc<PostgresVersion>> {
        self.versions
            .iter()
            .find(|v| v.metadata.name.as_deref() == Some(name))
            .cloned()
    }

    fn issuer(&self, namespace: &str, name: &str) -> Option<Arc<Issuer>> {
        self.issuers
            .iter()
            .find(|i| is(i.as_ref(), namespace, name))
            .cloned()
    }

    fn issuers(&self, namespace: &str) -> Vec<Arc<Issuer>> {
        self.issuers
            .iter()
            .filter(|i| i.metadata.namespace.as_deref() == Some(namespace))
            .cloned()
            .collect()
    }

    fn issuer_namespaces(&self, name: &str) -> Vec<String> {
        let mut namespaces: Vec<String> = self
            .issuers
            .iter()
            .filter(|i| i.metadata.name.as_deref() == Some(name))
            .filter_map(|i| i.metadata.namespace.clone())
            .collect();
        namespaces.sort();
        namespaces
    }

    fn cluster_issuer(&self, name: &str) -> Option<Arc<ClusterIssuer>> {
        self.cluster_issuers
            .iter()
            .find(|i| i.metadata.name.as_deref() == Some(name))
            .cloned()
    }

    fn cluster_issuers(&self) -> Vec<Arc<ClusterIssuer>> {
        self.cluster_issuers.clone()
    }

    fn service_account_is_usable(&self, namespace: &str, name: &str) -> bool {
        self.service_accounts
            .iter()
            .any(|(of, account)| of == namespace && account == name)
    }

    fn storage_class_exists(&self, name: &str) -> bool {
        self.storage_classes.iter().any(|c| c == name)
    }

    fn default_issuer(&self, namespace: &str) -> Option<String> {
        self.default_issuers
            .iter()
            .find(|(n, _)| n == namespace)
            .map(|(_, issuer)| issuer.clone())
    }
}
