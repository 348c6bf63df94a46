//! The PodDisruptionBudget.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::build::Cluster;

/// PodDisruptionBudget `NAME`: at most half of the standbys may be missing, and one at least.
/// `None` for a single pod: its budget could only forbid every eviction, or none.
#[must_use]
pub fn disruption_budget(cluster: &Cluster) -> Option<PodDisruptionBudget> {
    (cluster.replicas() > 1).then(|| PodDisruptionBudget {
        metadata: cluster.meta(cluster.name()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(((cluster.replicas() - 1) / 2).max(1))),
            selector: Some(cluster.label_selector()),
            ..Default::default()
        }),
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::cluster::tests::{cluster, postgres};

    #[test]
    fn as_many_may_be_missing_as_a_majority_can_spare() {
        for (replicas, missing) in [
            (1, None),
            (2, Some(1)),
            (3, Some(1)),
            (4, Some(1)),
            (5, Some(2)),
            (7, Some(3)),
        ] {
            let cluster = cluster(&postgres(&format!(
                "{{version: '17', replicas: {replicas}}}"
            )));
            let budget =
                disruption_budget(&cluster).and_then(|budget| budget.spec?.max_unavailable);
            assert_eq!(budget, missing.map(IntOrString::Int), "{replicas}");
        }
    }
}
