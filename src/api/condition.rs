//! KubeDB's condition, and how to write one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// Reason of condition `Blocked` of a Postgres: pgrekey cannot use the version in its spec.
pub const VERSION_NOT_TAKEN: &str = "VersionNotTaken";

/// Reason of condition `Blocked`: PostgreSQL would not take the settings of a Secret.
pub const CONFIGURATION_NOT_TAKEN: &str = "ConfigurationNotTaken";

/// Type of a condition of a Postgres: a CA ends before a certificate below it. pgrekey's own, and
/// gone when none does.
pub const CA_ENDS_EARLY: &str = "CAEndsEarly";

/// One observation about an object. Unlike Kubernetes' own condition, `reason` is optional.
#[skip_serializing_none]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type of the condition, in CamelCase, such as `Ready` or `Successful`. There is at most one
    /// condition of a type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// When `status` last changed.
    pub last_transition_time: Time,
    /// Reason, as one CamelCase word for programs.
    pub reason: Option<String>,
    /// Reason, as a sentence for people.
    pub message: Option<String>,
    /// The `metadata.generation` that the condition is about.
    pub observed_generation: Option<i64>,
    /// How serious a `False` is: `Error`, `Warning`, `Info`, or empty.
    pub severity: Option<String>,
}

impl Condition {
    /// A condition that is `True`.
    #[must_use]
    pub fn new(type_: &str, now: Time) -> Self {
        Self {
            type_: type_.to_owned(),
            status: "True".to_owned(),
            last_transition_time: now,
            reason: None,
            message: None,
            observed_generation: None,
            severity: None,
        }
    }

    /// The condition with `status` `True` or `False`.
    #[must_use]
    pub fn with_status(mut self, holds: bool) -> Self {
        if holds { "True" } else { "False" }.clone_into(&mut self.status);
        self
    }

    /// The condition with a reason (CamelCase) and a message (a sentence).
    #[must_use]
    pub fn because(mut self, reason: &str, message: impl Into<String>) -> Self {
        self.reason = Some(reason.to_owned());
        self.message = Some(message.into());
        self
    }

    /// The condition with a message and no reason.
    #[must_use]
    pub fn saying(mut self, message: &str) -> Self {
        self.message = Some(message.to_owned());
        self
    }

    /// The condition, about this `metadata.generation`.
    #[must_use]
    pub fn of_generation(mut self, generation: Option<i64>) -> Self {
        self.observed_generation = generation;
        self
    }

    /// Whether `status` is `True`.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.status == "True"
    }
}

/// The condition of this type. `None` if it is missing.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition of this type is `True`. A missing condition is not.
#[must_use]
pub fn holds(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(Condition::holds)
}

/// The message of the condition of this type. `None` if the condition or its message is missing.
#[must_use]
pub fn message<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a str> {
    find(conditions, type_)?.message.as_deref()
}

/// Writes one condition as KubeDB does. Returns whether anything changed.
///
/// A new type goes to the end, and a known type keeps its place: the list is in the order of first
/// appearance. An older generation never replaces a newer one. The transition time moves only when
/// `status` changes.
pub fn set(conditions: &mut Vec<Condition>, new: Condition) -> bool {
    let Some(old) = conditions.iter_mut().find(|c| c.type_ == new.type_) else {
        conditions.push(new);
        return true;
    };
    if new.observed_generation < old.observed_generation {
        return false;
    }
    let moved = old.status != new.status;
    let new = Condition {
        last_transition_time: if moved {
            new.last_transition_time
        } else {
            old.last_transition_time.clone()
        },
        ..new
    };
    let changed = *old != new;
    *old = new;
    changed
}

/// Removes the condition of this type. Returns whether it was there.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|c| c.type_ != type_);
    conditions.len() != before
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn at(seconds: i64) -> Time {
        Time(Timestamp::from_second(seconds).expect("a time in range"))
    }

    fn types(conditions: &[Condition]) -> Vec<&str> {
        conditions.iter().map(|c| c.type_.as_str()).collect()
    }

    #[test]
    fn the_list_stays_in_first_seen_order() {
        let mut list = vec![];
        for type_ in ["RestartNodes", "EvictPod", "RestartNodes"] {
            set(
                &mut list,
                Condition::new(type_, at(1)).because(type_, "again"),
            );
        }
        assert_eq!(types(&list), ["RestartNodes", "EvictPod"]);
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let mut list = vec![Condition::new("Ready", at(1))];
        assert!(set(
            &mut list,
            Condition::new("Ready", at(2)).because("Checked", "still ready")
        ));
        assert_eq!(list[0].last_transition_time, at(1));
        assert!(set(
            &mut list,
            Condition::new("Ready", at(3)).with_status(false)
        ));
        assert_eq!(list[0].last_transition_time, at(3));
    }

    #[test]
    fn an_older_generation_never_overwrites_a_newer_one() {
        let mut list = vec![Condition::new("Ready", at(1)).of_generation(Some(2))];
        for older in [Some(1), None] {
            assert!(!set(
                &mut list,
                Condition::new("Ready", at(2))
                    .with_status(false)
                    .of_generation(older)
            ));
        }
        assert!(holds(&list, "Ready"));
        assert!(set(
            &mut list,
            Condition::new("Ready", at(2))
                .with_status(false)
                .of_generation(Some(2))
        ));
    }

    #[test]
    fn writing_the_same_again_changes_nothing() {
        let mut list = vec![Condition::new("Ready", at(1)).because("Checked", "ready")];
        assert!(!set(
            &mut list,
            Condition::new("Ready", at(9)).because("Checked", "ready")
        ));
        assert_eq!(list[0].last_transition_time, at(1));
    }

    #[test]
    fn a_removed_condition_no_longer_holds() {
        let mut list = vec![Condition::new("Paused", at(1))];
        assert!(remove(&mut list, "Paused") && !remove(&mut list, "Paused"));
        assert!(!holds(&list, "Paused"));
    }
}
