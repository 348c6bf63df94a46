//! The steps of an operation: what `status.steps` of a request names.

use std::fmt;

/// What a step is about: the first word of its name. `Restart` stands before the pod; `TurnBack`
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
    Equip,
    /// Servers take both worlds.
    Expand,
    /// Clients take over what has changed.
    Settle,
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
    TurnBack,
    /// The pods could not be looked at.
    Look,
}

impl StepKind {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Begin,
        Self::Preflight,
        Self::Pause,
        Self::Issue,
        Self::Equip,
        Self::Expand,
        Self::Settle,
        Self::Migrate,
        Self::Contract,
        Self::Restart,
        Self::SwitchOver,
        Self::UpdateDatabase,
        Self::Resume,
        Self::TurnBack,
        Self::Look,
    ];

    /// As it stands in a name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "Begin",
            Self::Preflight => "Preflight",
            Self::Pause => "Pause",
            Self::Issue => "Issue",
            Self::Equip => "Equip",
            Self::Expand => "Expand",
            Self::Settle => "Settle",
            Self::Migrate => "Migrate",
            Self::Contract => "Contract",
            Self::Restart => "Restart",
            Self::SwitchOver => "SwitchOver",
            Self::UpdateDatabase => "UpdateDatabase",
            Self::Resume => "Resume",
            Self::TurnBack => "TurnBack",
            Self::Look => "Look",
        }
    }

    /// The kind of the step of this name, such as `Restart ha-postgres-2`; nothing if there is
    /// none.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
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
            assert_eq!(StepKind::of(&format!("{kind} ha-postgres-2")), Some(kind));
        }
        assert_eq!((StepKind::of("Nonsense"), StepKind::of("")), (None, None));
    }
}
