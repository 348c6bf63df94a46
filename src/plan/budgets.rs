//! PodDisruptionBudgets, and whether they let the pods of a database go.

use std::fmt;

/// The budgets that select pods of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// How many pods the database's own budget lets go now; `None` if there is none.
    pub own: Option<i32>,
    /// The budgets of other owners.
    pub others: Vec<Budget>,
}

/// A budget of another owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// `NAMESPACE/NAME`.
    pub name: String,
    /// The pods of the database that it selects.
    pub pods: Vec<String>,
    /// How many pods it lets go now.
    pub allowed: i32,
}

/// Why a budget that is not the database's own keeps pods from being evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BudgetConflict {
    /// It selects a pod that another budget selects too.
    Second {
        /// `NAMESPACE/NAME`.
        budget: String,
        /// The pod.
        pod: String,
    },
    /// It lets no pod go.
    Closed {
        /// `NAMESPACE/NAME`.
        budget: String,
        /// The pod.
        pod: String,
    },
}

impl fmt::Display for BudgetConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Second { budget, pod } => write!(
                f,
                "PodDisruptionBudget {budget} to be deleted: it also selects pod {pod}, and the \
                 eviction API refuses pods with two budgets"
            ),
            Self::Closed { budget, pod } => write!(
                f,
                "PodDisruptionBudget {budget} to let pod {pod} go: it allows no disruption"
            ),
        }
    }
}

impl Budgets {
    /// The first budget of another owner that has to change before a pod can be evicted.
    #[must_use]
    pub fn conflict(&self) -> Option<BudgetConflict> {
        self.others.iter().enumerate().find_map(|(at, other)| {
            let is_second = |pod: &&String| {
                let earlier = &self.others[..at];
                self.own.is_some() || earlier.iter().any(|budget| budget.pods.contains(pod))
            };
            let budget = other.name.clone();
            match (other.pods.iter().find(is_second), other.pods.first()) {
                (Some(pod), _) => Some(BudgetConflict::Second {
                    budget,
                    pod: pod.clone(),
                }),
                (None, Some(pod)) if other.allowed < 1 => Some(BudgetConflict::Closed {
                    budget,
                    pod: pod.clone(),
                }),
                _ => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_budget_and_a_closed_one_are_named() {
        let budget = |name: &str, pods: &[&str], allowed| Budget {
            name: format!("demo/{name}"),
            pods: pods.iter().map(|pod| (*pod).to_owned()).collect(),
            allowed,
        };
        let said = |own, others: &[Budget]| {
            Budgets {
                own,
                others: others.to_vec(),
            }
            .conflict()
            .map(|conflict| conflict.to_string())
            .unwrap_or_default()
        };
        for own in [Some(1), Some(0), None] {
            assert_eq!(said(own, &[]), "");
            assert_eq!(
                said(own, &[budget("idle", &[], 0)]),
                "",
                "it selects none of ours"
            );
        }
        let second = "PodDisruptionBudget demo/extra to be deleted: it also selects pod pg-0";
        assert!(said(Some(1), &[budget("extra", &["pg-0"], 1)]).starts_with(second));
        assert!(
            said(
                None,
                &[
                    budget("a", &["pg-0"], 1),
                    budget("extra", &["pg-1", "pg-0"], 1)
                ]
            )
            .starts_with(second)
        );
        assert_eq!(
            said(
                None,
                &[budget("a", &["pg-0"], 1), budget("b", &["pg-1"], 1)]
            ),
            ""
        );
        let closed = "PodDisruptionBudget demo/extra to let pod pg-0 go";
        assert!(said(None, &[budget("extra", &["pg-0"], 0)]).starts_with(closed));
    }
}
