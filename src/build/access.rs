//! The rights of a database's pods: Patroni keeps its state in ConfigMaps, and needs no more than
//! that.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};

use crate::api::bounds;
use crate::build::Cluster;

/// The ServiceAccount of the pods. `None` if the spec names another.
#[must_use]
pub fn service_account(cluster: &Cluster) -> Option<ServiceAccount> {
    (cluster.service_account() == cluster.name()).then(|| ServiceAccount {
        metadata: cluster.meta(cluster.name()),
        ..Default::default()
    })
}

/// The Role of the pods.
///
/// Kubernetes cannot limit `create`, `list` and `watch` to names. So these reach every ConfigMap of
/// the namespace. Every verb that changes an object names it.
#[must_use]
pub fn role(cluster: &Cluster) -> Role {
    role_of(cluster, cluster.replicas())
}

/// The Role for this number of pods. A pod that is about to go is counted: it must be able to write
/// that it is no longer the primary.
#[must_use]
pub fn role_of(cluster: &Cluster, pods: i32) -> Role {
    let own_pods = (0..bounds::clamp_replicas(pods))
        .map(|ordinal| cluster.names().pod(ordinal))
        .collect();
    let rule = |resource: &str, verbs: &[&str], names: Option<Vec<String>>| PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec![resource.to_owned()]),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        resource_names: names,
        ..Default::default()
    };
    Role {
        metadata: cluster.meta(cluster.name()),
        rules: Some(vec![
            rule("configmaps", &["create", "list", "watch"], None),
            rule(
                "configmaps",
                &["get", "patch", "update"],
                Some(cluster.names().patroni_config_maps().all().to_vec()),
            ),
            rule("pods", &["list", "watch"], None),
            rule("pods", &["get", "patch"], Some(own_pods)),
        ]),
    }
}

/// The RoleBinding of the pods.
#[must_use]
pub fn role_binding(cluster: &Cluster) -> RoleBinding {
    RoleBinding {
        metadata: cluster.meta(cluster.name()),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: cluster.name().to_owned(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: cluster.service_account().to_owned(),
            namespace: Some(cluster.namespace().to_owned()),
            api_group: None,
        }]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::cluster::tests::{cluster, postgres};

    #[test]
    fn no_number_of_pods_makes_a_role_without_end() {
        let cluster = cluster(&postgres("version: '17'"));
        for (pods, named) in [(-1, 0), (2, 2), (32, 32), (i32::MAX, 32)] {
            let rules = role_of(&cluster, pods).rules.expect("rules");
            assert_eq!(
                rules[3].resource_names.as_ref().map(Vec::len),
                Some(named),
                "{pods}"
            );
        }
    }
}
