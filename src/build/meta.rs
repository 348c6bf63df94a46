//! Labels, metadata and owners.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::Resource;

use crate::build::Cluster;

/// The kind of a database, in labels.
pub const KIND: &str = "postgreses.kubedb.com";
/// The label by which Patroni knows its cluster.
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// The label by which Services find the primary and the standbys. Patroni writes it.
pub const ROLE_LABEL: &str = "kubedb.com/role";
/// [`ROLE_LABEL`] of the primary.
pub const PRIMARY: &str = "primary";
/// [`ROLE_LABEL`] of a standby.
pub const STANDBY: &str = "standby";

/// Labels that describe the owner and not the objects that belong to it.
const NOT_HANDED_DOWN: [&str; 4] = [
    "app.kubernetes.io/name",
    INSTANCE_LABEL,
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
];

/// A map of labels.
pub(super) fn labels<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The labels that all objects of the database with this name have, and no others.
#[must_use]
pub fn selector(database: &str) -> BTreeMap<String, String> {
    labels([
        ("app.kubernetes.io/name", KIND),
        (INSTANCE_LABEL, database),
        ("app.kubernetes.io/managed-by", "kubedb.com"),
        ("postgreses.kubedb.com/database.cluster", database),
    ])
}

impl Cluster {
    /// The labels that all objects of this database have, and no others.
    #[must_use]
    pub fn selector(&self) -> BTreeMap<String, String> {
        selector(&self.name)
    }

    /// The selector of the pods in one role.
    pub(super) fn selector_of(&self, role: &str) -> BTreeMap<String, String> {
        let mut selector = self.selector();
        selector.insert(ROLE_LABEL.to_owned(), role.to_owned());
        selector
    }

    /// The selector as a LabelSelector.
    pub(super) fn label_selector(&self) -> LabelSelector {
        LabelSelector {
            match_labels: Some(self.selector()),
            ..Default::default()
        }
    }

    /// The labels of the objects of this database: the selector, and the owner's own labels.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let is_kubedbs = |key: &str| {
            let domain = key.split_once('/').map_or("", |(domain, _)| domain);
            domain == "kubedb.com" || domain.ends_with(".kubedb.com")
        };
        let mut all = self.labels.clone();
        all.retain(|key, _| !is_kubedbs(key) && !NOT_HANDED_DOWN.contains(&key.as_str()));
        all.extend(labels([("app.kubernetes.io/component", "database")]));
        all.extend(self.selector());
        all
    }

    /// Metadata of an object of this database.
    pub(super) fn meta(&self, name: impl Into<String>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels()),
            ..Default::default()
        }
    }
}

/// The object with an owner: it is deleted with its owner. An owner that was never stored has no
/// uid and can own nothing.
#[must_use]
pub fn owned_by<K: Resource, O: Resource<DynamicType = ()>>(mut object: K, owner: &O) -> K {
    object.meta_mut().owner_references = owner
        .controller_owner_ref(&())
        .map(|reference| vec![reference]);
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::cluster::tests::{cluster, postgres};
    use k8s_openapi::api::core::v1::Service;

    #[test]
    fn the_owners_labels_are_handed_down_but_not_those_that_describe_it() {
        let mut owner = postgres("version: '17'");
        owner.metadata.labels = Some(labels([
            ("team", "payments"),
            ("kubedb.com/role", "primary"),
            ("archiver.kubedb.com/x", "y"),
            ("app.kubernetes.io/instance", "helm-release"),
            ("app.kubernetes.io/version", "1.2"),
        ]));
        let all = cluster(&owner).labels();
        assert_eq!(all.get("team").map(String::as_str), Some("payments"));
        assert_eq!(all.get(INSTANCE_LABEL).map(String::as_str), Some("pg"));
        assert_eq!(all.len(), 6, "{all:?}");
    }

    #[test]
    fn an_owned_object_names_its_owner() {
        let mut owner = postgres("version: '17'");
        assert_eq!(
            owned_by(Service::default(), &owner)
                .metadata
                .owner_references,
            None
        );
        owner.metadata.uid = Some("u-1".to_owned());
        let references = owned_by(Service::default(), &owner)
            .metadata
            .owner_references
            .expect("an owner");
        assert_eq!(
            (references[0].kind.as_str(), references[0].controller),
            ("Postgres", Some(true))
        );
    }
}
