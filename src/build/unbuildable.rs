//! Why a `Postgres` cannot be built.

use std::fmt;

/// Why a `Postgres` cannot be built, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbuildable {
    /// Path of the field in the object.
    pub field: String,
    /// The problem.
    pub problem: String,
    /// The remedy.
    pub remedy: String,
}

impl fmt::Display for Unbuildable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.problem, self.remedy)
    }
}

/// Refuses: the field, the problem and the remedy.
pub(super) fn unbuildable<T>(
    field: impl Into<String>,
    problem: impl Into<String>,
    remedy: impl Into<String>,
) -> Result<T, Unbuildable> {
    Err(Unbuildable {
        field: field.into(),
        problem: problem.into(),
        remedy: remedy.into(),
    })
}
