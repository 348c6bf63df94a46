//! The rules of admission: named checks over plain data.
//!
//! # Expected flow
//! [`judge`] takes a table of rules, an object ([`Review`]) and the facts about the cluster
//! ([`ClusterFacts`]), and returns every [`Finding`]. The admission webhooks, the controllers and
//! `pgrekey check` use the same tables.
//!
//! # Guarantees
//! All rules run, whatever the others found. Their ids are public and do not change. The number of
//! findings is bounded ([`MAX_FINDINGS_PER_RULE`]), whatever the object. An update is judged by its
//! changes: a finding that the old object has too is left out, so that a deleted version or issuer
//! does not lock a database.
//!
//! # Assumptions
//! The object decodes into its type. It need not satisfy the CRD's schema.

pub mod allowed;
pub mod certificates;
mod content;
pub mod decode;
pub mod defaults;
pub mod document;
pub mod facts;
pub mod kind;
pub mod ops_request;
mod pod_security;
pub mod postgres;
pub mod queue;
mod shared;
pub mod text;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use crate::rules::allowed::Allowed;
pub use crate::rules::facts::{ClusterFacts, Snapshot};

/// The most listed findings of one rule: a list of a million bad names must not give a response of
/// a million lines.
pub const MAX_FINDINGS_PER_RULE: usize = 20;

/// The operation under review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionOperation {
    /// The object is created.
    Create,
    /// The object is updated.
    Update,
    /// The object is deleted.
    Delete,
}

/// An object under review.
#[derive(Clone, Debug)]
pub struct Review<K> {
    /// The operation.
    pub operation: AdmissionOperation,
    /// The new object; for a deletion, the stored one.
    pub object: K,
    /// The old object of an update.
    pub old: Option<K>,
    /// What the installation allows databases to have.
    pub allowed: Arc<Allowed>,
}

impl<K> Review<K> {
    /// The review of a creation.
    #[must_use]
    pub const fn create(object: K, allowed: Arc<Allowed>) -> Self {
        Self {
            operation: AdmissionOperation::Create,
            object,
            old: None,
            allowed,
        }
    }
}

/// The effect of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The object is refused.
    Refuse,
    /// The object is admitted with a warning.
    Warn,
}

/// The facts that a rule needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// None: the rule reads the object only.
    Nothing,
    /// Part of the rule needs facts about the cluster.
    SomeFacts,
    /// Without facts the rule finds nothing.
    Facts,
}

/// The function of a rule. Without facts it checks what it can.
pub type CheckFn<K> = fn(&Review<K>, Option<&dyn ClusterFacts>, &mut Findings);

/// One reason to refuse an object, or to warn about it.
pub struct Rule<K: 'static> {
    /// Public name: in denials, metrics, documents and tests.
    pub id: &'static str,
    /// The effect of its findings.
    pub effect: Effect,
    /// The operations under which the rule runs.
    pub on: &'static [AdmissionOperation],
    /// The refused content, as the end of the sentence "it refuses ..".
    pub what: &'static str,
    /// Why.
    pub why: &'static str,
    /// The relevant part of an object that breaks the rule, as YAML of its spec.
    pub example: &'static str,
    /// The facts that it needs.
    pub needs: Needs,
    /// The function that checks.
    pub check: CheckFn<K>,
}

impl<K> std::fmt::Debug for Rule<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rule")
            .field("id", &self.id)
            .field("effect", &self.effect)
            .finish_non_exhaustive()
    }
}

/// One violation of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Id of the rule.
    pub rule: &'static str,
    /// Whether it refuses or warns.
    pub effect: Effect,
    /// Path of the field, such as `spec.tls.certificates[0].alias`.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// The remedy.
    pub remedy: String,
}

/// The longest warning, in characters. Kubernetes may cut longer ones.
const LONGEST_WARNING: usize = 120;

impl Finding {
    /// The finding as a warning for the API server, cut to the longest length.
    #[must_use]
    pub fn warning(&self) -> String {
        let text = self.to_string();
        match text.char_indices().nth(LONGEST_WARNING) {
            None => text,
            Some(_) => text
                .chars()
                .take(LONGEST_WARNING - 3)
                .chain("...".chars())
                .collect(),
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "[{}] {}: {}; {}",
            self.rule, self.field, self.problem, self.remedy
        )
    }
}

/// The most findings of the old object that are compared with those of the new one.
const MAX_KNOWN: usize = 1000;

/// The findings of one rule so far.
#[derive(Debug)]
pub struct Findings {
    list: Vec<Finding>,
    rule: &'static str,
    effect: Effect,
    count: usize,
    most: usize,
    /// Fields and problems that the old object has too.
    known: BTreeSet<(String, String)>,
}

impl Findings {
    /// Runs a rule, leaving out the known findings.
    fn run<K>(
        rule: &Rule<K>,
        review: &Review<K>,
        facts: Option<&dyn ClusterFacts>,
        most: usize,
        known: BTreeSet<(String, String)>,
    ) -> Self {
        let mut findings = Self {
            list: vec![],
            rule: rule.id,
            effect: rule.effect,
            count: 0,
            most,
            known,
        };
        (rule.check)(review, facts, &mut findings);
        findings
    }

    /// Adds a finding of the running rule.
    pub fn add(
        &mut self,
        field: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let found = (field.into(), problem.into());
        if self.known.contains(&found) {
            return;
        }
        self.count += 1;
        if self.count <= self.most {
            let (field, problem) = found;
            self.list.push(Finding {
                rule: self.rule,
                effect: self.effect,
                field,
                problem,
                remedy: remedy.into(),
            });
        }
    }

    /// The findings. The last one says how many were left out.
    fn close(mut self) -> Vec<Finding> {
        let more = self.count.saturating_sub(self.most);
        if more > 0
            && let Some(last) = self.list.last_mut()
        {
            use std::fmt::Write;
            let _ = write!(last.remedy, " (and {more} more like this)");
        }
        self.list
    }
}

/// The refusals that admission would give this object now, as texts. For the controllers, because
/// the webhooks may be off.
#[must_use]
pub fn refusals<'r, K: Clone + 'static>(
    rules: impl IntoIterator<Item = &'r Rule<K>>,
    object: K,
    facts: &dyn ClusterFacts,
    allowed: &Arc<Allowed>,
) -> Vec<String> {
    let found = judge(
        rules,
        &Review::create(object, Arc::clone(allowed)),
        Some(facts),
    );
    found
        .iter()
        .filter(|finding| finding.effect == Effect::Refuse)
        .map(ToString::to_string)
        .collect()
}

/// Runs every rule of the table for this operation, and returns all findings in the table's order.
#[must_use]
pub fn judge<'r, K: Clone + 'static>(
    rules: impl IntoIterator<Item = &'r Rule<K>>,
    review: &Review<K>,
    facts: Option<&dyn ClusterFacts>,
) -> Vec<Finding> {
    let Review {
        operation,
        old,
        allowed,
        ..
    } = review;
    let as_before = |object| Review {
        operation: *operation,
        object,
        old: None,
        allowed: Arc::clone(allowed),
    };
    let before = old.clone().map(as_before);
    let rules = rules.into_iter().filter(|rule| rule.on.contains(operation));
    rules
        .flat_map(|rule| {
            let found = Findings::run(rule, review, facts, MAX_FINDINGS_PER_RULE, BTreeSet::new());
            match &before {
                Some(before) if found.count > 0 => {
                    let known = Findings::run(rule, before, facts, MAX_KNOWN, BTreeSet::new()).list;
                    let known = known
                        .into_iter()
                        .map(|finding| (finding.field, finding.problem))
                        .collect();
                    Findings::run(rule, review, facts, MAX_FINDINGS_PER_RULE, known).close()
                }
                _ => found.close(),
            }
        })
        .collect()
}

/// A user's value for a message: quoted, escaped and cut.
pub(crate) fn quoted(value: &str) -> String {
    const LONGEST: usize = 80;
    match value.char_indices().nth(LONGEST) {
        None => format!("{value:?}"),
        Some((end, _)) => format!("{:?}...", &value[..end]),
    }
}

#[cfg(test)]
mod tests;
