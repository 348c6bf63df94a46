//! The steps of an operation: the names in `status.steps` of a request.

use std::fmt;
use std::str::FromStr;

/// The kind of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// The request gets its finalizer, and remembers its database and pods.
    Begin,
    /// Conditions that must hold before anything changes are checked, and the issuers are tried.
    Preflight,
    /// The database's own reconciler pauses.
    Pause,
    /// cert-manager issues the certificates.
    Issue,
    /// Pods get the certificate files.
    MountCertificates,
    /// Servers accept both the old and the new.
    Expand,
    /// Clients get time to take over the new trust bundle, or their new certificates.
    ClientGracePeriod,
    /// Servers serve the new leaves; standbys connect as the target wants.
    Migrate,
    /// Servers accept and trust the target only.
    Contract,
    /// One pod is replaced.
    Restart,
    /// Another pod becomes the primary.
    SwitchOver,
    /// The database's spec is written.
    UpdateDatabase,
    /// The database's own reconciler resumes.
    Resume,
    /// The operation was given up.
    Rollback,
    /// The rollback was given up too.
    RollbackFailed,
    /// The pods could not be observed.
    Observe,
}

impl StepKind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::Begin,
        Self::Preflight,
        Self::Pause,
        Self::Issue,
        Self::MountCertificates,
        Self::Expand,
        Self::ClientGracePeriod,
        Self::Migrate,
        Self::Contract,
        Self::Restart,
        Self::SwitchOver,
        Self::UpdateDatabase,
        Self::Resume,
        Self::Rollback,
        Self::RollbackFailed,
        Self::Observe,
    ];

    /// The word in a step's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "Begin",
            Self::Preflight => "Preflight",
            Self::Pause => "Pause",
            Self::Issue => "Issue",
            Self::MountCertificates => "MountCertificates",
            Self::Expand => "Expand",
            Self::ClientGracePeriod => "ClientGracePeriod",
            Self::Migrate => "Migrate",
            Self::Contract => "Contract",
            Self::Restart => "Restart",
            Self::SwitchOver => "SwitchOver",
            Self::UpdateDatabase => "UpdateDatabase",
            Self::Resume => "Resume",
            Self::Rollback => "Rollback",
            Self::RollbackFailed => "RollbackFailed",
            Self::Observe => "Observe",
        }
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The direction of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Course {
    /// To the spec that the request asks for.
    Forward,
    /// Back to the database's own spec.
    Rollback,
}

/// One step of an operation. Its text is the name in `status.steps`: `Expand`,
/// `Restart ha-postgres-2`, `Rollback Expand`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StepId {
    /// The direction.
    pub course: Course,
    /// The kind.
    pub kind: StepKind,
    /// The pod that a `Restart` is about.
    pub pod: Option<String>,
}

impl StepId {
    /// The step `Restart POD`.
    #[must_use]
    pub const fn restart(pod: String) -> Self {
        Self {
            course: Course::Forward,
            kind: StepKind::Restart,
            pod: Some(pod),
        }
    }

    /// The same step on this course.
    #[must_use]
    pub fn on(self, course: Course) -> Self {
        Self { course, ..self }
    }

    /// The kind by which metrics and events sort steps: `Rollback` for each step of a rollback.
    #[must_use]
    pub const fn category(&self) -> StepKind {
        match self.course {
            Course::Forward => self.kind,
            Course::Rollback => StepKind::Rollback,
        }
    }
}

impl From<StepKind> for StepId {
    fn from(kind: StepKind) -> Self {
        Self {
            course: Course::Forward,
            kind,
            pod: None,
        }
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.course == Course::Rollback {
            write!(f, "{} ", StepKind::Rollback)?;
        }
        write!(f, "{}", self.kind)?;
        self.pod.iter().try_for_each(|pod| write!(f, " {pod}"))
    }
}

/// A text that names no step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no step of an operation has this name")]
pub struct NoStep;

impl FromStr for StepId {
    type Err = NoStep;

    fn from_str(name: &str) -> Result<Self, NoStep> {
        let kind_of = |word: &str| {
            let found = StepKind::ALL.into_iter().find(|kind| kind.as_str() == word);
            found.ok_or(NoStep)
        };
        let mut words = name.split(' ').peekable();
        let mut kind = kind_of(words.next().unwrap_or_default())?;
        let mut course = Course::Forward;
        if let (StepKind::Rollback, Some(word)) = (kind, words.peek()) {
            (course, kind) = (Course::Rollback, kind_of(word)?);
            words.next();
        }
        let pod = words.next().map(str::to_owned);
        let step = Self { course, kind, pod };
        // Anything else in the text would be lost.
        (step.to_string() == name).then_some(step).ok_or(NoStep)
    }
}

/// One try of a step, as `action` of an Event names it: `Restart ha-postgres-2 #1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepAttempt {
    /// The step.
    pub step: StepId,
    /// The number of the try, from 1.
    pub attempt: i32,
}

impl fmt::Display for StepAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{}", self.step, self.attempt)
    }
}

impl FromStr for StepAttempt {
    type Err = NoStep;

    fn from_str(text: &str) -> Result<Self, NoStep> {
        let (step, attempt) = text.rsplit_once(" #").ok_or(NoStep)?;
        Ok(Self {
            step: step.parse()?,
            attempt: attempt.parse().map_err(|_| NoStep)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_read_as_it_was_written() {
        for kind in StepKind::ALL {
            for course in [Course::Forward, Course::Rollback] {
                for pod in [None, Some("ha-postgres-2".to_owned())] {
                    let step = StepId { course, kind, pod };
                    // `Rollback Expand` is Expand on the way back; no pod is called Expand.
                    assert_eq!(
                        step.to_string().parse().as_ref() == Ok(&step),
                        kind != StepKind::Rollback
                            || course == Course::Forward && step.pod.is_none()
                            || course == Course::Rollback,
                        "{step}"
                    );
                    let attempt = StepAttempt { step, attempt: 3 };
                    if kind != StepKind::Rollback {
                        assert_eq!(attempt.to_string().parse(), Ok(attempt));
                    }
                }
            }
        }
    }

    #[test]
    fn a_text_that_names_no_step_is_refused() {
        for text in [
            "",
            "Nonsense",
            "Rollback Nonsense",
            "Expand  x",
            "Expand x y",
        ] {
            assert_eq!(text.parse::<StepId>(), Err(NoStep), "{text:?}");
        }
        for text in ["Expand", "Expand #", "Expand #x", "#1"] {
            assert_eq!(text.parse::<StepAttempt>(), Err(NoStep), "{text:?}");
        }
    }
}
