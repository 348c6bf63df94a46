//! The faults that hit one effect of a trip.

/// The fault that hits one effect, the `at`th of a trip. Effects are status writes and actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No effect fails.
    None,
    /// pgrekey dies before it, and starts again 10 s later.
    CrashBefore(usize),
    /// pgrekey dies after it, and starts again 10 s later.
    CrashAfter(usize),
    /// It fails, once.
    Once(usize),
    /// It happens, and the answer is lost.
    Unheard(usize),
    /// Every effect of this kind fails from then on, until the operation turns back.
    Forever(usize),
    /// The same, also on the way back: until the end.
    Hopeless(usize),
    /// A pod dies then.
    PodDies(usize),
    /// The primary hands over by itself then.
    FailsOver(usize),
    /// Nothing is known about pods, certificates and the budget for half a minute from then on.
    Blind(usize),
    /// No status can be written for half a minute from then on.
    Mute(usize),
    /// No effect fails: the test itself disturbs the world.
    Elsewhere,
}

impl Fault {
    /// Whether pods may go for other reasons than ours.
    pub(crate) fn disturbs(self) -> bool {
        matches!(
            self,
            Self::PodDies(_) | Self::FailsOver(_) | Self::Elsewhere
        )
    }
}
