//! The disruption budgets that select pods of a database.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::core::{Selector, SelectorExt};

use crate::cluster::{Error, ObjectName};
use crate::controller::observe::cluster::ClusterObjects;
use crate::plan::budgets::{Budget, Budgets};

/// How many budgets of a namespace are read at most.
const MAX_BUDGETS: u32 = 500;

/// The budgets that select pods of this database, of any owner.
pub(crate) async fn observe(site: &ClusterObjects) -> Result<Budgets, Error> {
    let ClusterObjects {
        cluster,
        objects,
        pods,
        ..
    } = site;
    let listed = objects
        .api::<PodDisruptionBudget>()
        .list(&ListParams::default().limit(MAX_BUDGETS))
        .await;
    let listed = listed.map_err(|error| {
        Error::classify(
            ObjectName::new::<PodDisruptionBudget>(cluster.name()),
            error,
        )
    })?;
    let mut budgets = Budgets::default();
    for budget in listed.items {
        let allowed = budget
            .status
            .as_ref()
            .map_or(0, |status| status.disruptions_allowed);
        if budget.name_any() == cluster.name() && objects.is_owned(&budget) {
            budgets.own = Some(allowed);
            continue;
        }
        let pods = selected(&budget, pods);
        if !pods.is_empty() {
            budgets.others.push(Budget {
                name: format!("{}/{}", cluster.namespace(), budget.name_any()),
                pods,
                allowed,
            });
        }
    }
    Ok(budgets)
}

/// The pods that a budget selects. An empty selector selects all; a budget without a selector
/// selects none.
fn selected(budget: &PodDisruptionBudget, pods: &[Pod]) -> Vec<String> {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.clone());
    let Some(selector) = selector.and_then(|selector| Selector::try_from(selector).ok()) else {
        return vec![];
    };
    pods.iter()
        .filter(|pod| selector.matches(pod.labels()))
        .map(ResourceExt::name_any)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_budget_selects_pods_as_kubernetes_does() {
        let pod =
            |name: &str| json!({"metadata": {"name": name, "labels": {"app": "pg", "pod": name}}});
        let pods: Vec<Pod> =
            serde_json::from_value(json!([pod("pg-0"), pod("pg-1")])).expect("pods");
        let selected = |spec: serde_json::Value| {
            selected(
                &serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a budget"),
                &pods,
            )
        };
        let not_in = |names: &[&str]| json!({"selector": {"matchExpressions": [{"key": "pod", "operator": "NotIn", "values": names}]}});
        assert_eq!(selected(json!({"selector": {}})), ["pg-0", "pg-1"]);
        assert_eq!(
            selected(json!({"selector": {"matchLabels": {"app": "pg"}}})),
            ["pg-0", "pg-1"]
        );
        assert_eq!(selected(not_in(&["pg-0"])), ["pg-1"]);
        assert!(selected(json!({"selector": {"matchLabels": {"app": "web"}}})).is_empty());
        assert!(selected(json!({})).is_empty());
    }
}
