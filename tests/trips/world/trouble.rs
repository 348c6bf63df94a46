//! What goes wrong in a simulated cluster, and for how long.

use std::ops::Range;

/// What goes wrong, and how often.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one trouble, and they are combined"
)]
pub(crate) struct Trouble {
    /// Nothing about the pods is known until then.
    pub(crate) blind_until: i64,
    /// The disruption budget lets no pod go until then.
    pub(crate) budget_closed_until: i64,
    /// In these seconds others have all the places.
    pub(crate) crowded: Range<i64>,
    /// Somebody else has a budget for the pods until then.
    pub(crate) second_budget_until: i64,
    /// Standbys are far behind until then.
    pub(crate) behind_until: i64,
    /// The issuer is never ready.
    pub(crate) issuer_is_never_ready: bool,
    /// The trial is refused.
    pub(crate) trial_fails: bool,
    /// What is issued is not good.
    pub(crate) bad_leaf: Option<&'static str>,
    /// Second at which what was served at the beginning expires.
    pub(crate) leaves_end_at: Option<i64>,
    /// What standbys presented at the beginning has expired.
    pub(crate) client_is_expired: bool,
    /// Servers do not load leaves that were issued since.
    pub(crate) leaves_are_refused: bool,
    /// A pod that is made with what an operation asks for never becomes ready.
    pub(crate) new_pods_fail: bool,
    /// Data end with their pod.
    pub(crate) is_ephemeral: bool,
}
