//! The steps of an operation: what `status.steps` of a request names.

use std::fmt;

/// What a step is about: the first word of its name. `Restart` stands before the pod; `Rollback`
/// before what is done on the way back, or alone where the way turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// The request is held.
    Begin,
    /// What must hold before anything is touched is looked at, and the issuers are tried.
    Preflight,
    /// The database's own loops pause.
    Pause,
    /// cert-manager issues.
    Issue,
    /// Pods get the files.
    MountCertificates,
    /// Servers take both worlds.
    Expand,
    /// Clients take over what has changed.
    ClientGracePeriod,
    /// The new leaves are served, and standbys dial as they are to.
    Migrate,
    /// Only what was asked for is accepted and trusted.
    Contract,
    /// A pod is replaced.
    Restart,
    /// The leadership moves.
    SwitchOver,
    /// The database's spec is written.
    UpdateDatabase,
    /// The database's own loops go on.
    Resume,
    /// The operation was given up.
    Rollback,
    /// The pods could not be looked at.
    Observe,
}

impl StepKind {
    /// All of them.
    pub const ALL: [Self; 15] = [
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
        Self::Observe,
    ];

    /// As it stands in a name.
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
            Self::Observe => "Observe",
        }
    }

    /// The kind of the step of this name, such as `Restart ha-postgres-2`; nothing if there is
    /// none.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let word = name.split_whitespace().next()?;
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<StepKind> for String {
    fn from(kind: StepKind) -> Self {
        kind.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_known_by_the_first_word_of_its_name() {
        for kind in StepKind::ALL {
            assert_eq!(
                StepKind::from_name(&format!("{kind} ha-postgres-2")),
                Some(kind)
            );
        }
        assert_eq!(
            (StepKind::from_name("Nonsense"), StepKind::from_name("")),
            (None, None)
        );
    }
}
