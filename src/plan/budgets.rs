//! What PodDisruptionBudgets let happen to the pods of a database.

/// The budgets that select pods of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// How many pods the database's own budget lets go now; nothing if there is none.
    pub own: Option<i32>,
    /// Those that somebody else has made.
    pub others: Vec<Budget>,
}

/// A budget that somebody else has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// `NAMESPACE/NAME`.
    pub name: String,
    /// The pods of the database that it selects.
    pub pods: Vec<String>,
    /// How many pods it lets go now.
    pub allowed: i32,
}

impl Budgets {
    /// What somebody has to do about a budget of theirs before a pod can be evicted; nothing if
    /// nobody has to.
    #[must_use]
    pub fn in_the_way(&self) -> Option<String> {
        self.others.iter().enumerate().find_map(|(at, Budget { name, pods, allowed })| {
            let is_second = |pod: &&String| self.own.is_some() || self.others[..at].iter().any(|b| b.pods.contains(pod));
            match (pods.iter().find(is_second), pods.first()) {
                (Some(pod), _) => Some(format!(
                    "PodDisruptionBudget {name} to be deleted: it also selects pod {pod}, and the eviction API refuses pods with two budgets"
                )),
                (None, Some(pod)) if *allowed < 1 => {
                    Some(format!("PodDisruptionBudget {name} to let pod {pod} go: it allows no disruption"))
                }
                _ => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_budget_and_one_that_lets_nobody_go_are_named() {
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
            .in_the_way()
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
