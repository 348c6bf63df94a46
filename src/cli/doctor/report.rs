//! The result of a check.

use serde::Serialize;

use crate::cli::doctor::installation::UnreadableObject;

/// The verdict of a check, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckVerdict {
    Ok,
    /// It works, and an administrator should look at it.
    Warn,
    Fail,
    /// The facts for the check could not be read.
    Unknown,
}

/// The report of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CheckReport {
    pub(crate) check: &'static str,
    pub(crate) verdict: CheckVerdict,
    /// What was found, one line for each problem.
    pub(crate) found: String,
    /// What to do. Empty when all is well.
    pub(crate) remedy: String,
}

/// The result of a check, before the remedy of the check is added.
#[derive(Debug)]
pub(crate) enum CheckResult {
    /// All is well, in words.
    Well(String),
    Problems(CheckVerdict, Vec<String>),
    /// The user may not make the inquiry, which is no failure of the installation.
    NotAsked {
        why: String,
        remedy: &'static str,
    },
}

impl CheckResult {
    /// [`CheckResult::Well`] if there are no problems.
    pub(crate) fn from_problems(
        verdict: CheckVerdict,
        problems: impl IntoIterator<Item = String>,
        well: impl Into<String>,
    ) -> Self {
        let problems: Vec<String> = problems.into_iter().collect();
        if problems.is_empty() {
            Self::Well(well.into())
        } else {
            Self::Problems(verdict, problems)
        }
    }
}

/// The facts of one part of the installation.
pub(crate) fn known<T>(part: &Result<T, UnreadableObject>) -> Result<&T, UnreadableObject> {
    part.as_ref().map_err(Clone::clone)
}

/// The remedy where the user lacks the right to ask.
pub(crate) const ASK_ANOTHER: &str = "run doctor as a user who has this right";
