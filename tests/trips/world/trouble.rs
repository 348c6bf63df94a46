//! The troubles of a simulated cluster, and how long each lasts.

use std::ops::Range;

/// The troubles of a cluster. By default there are none.
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
    /// In these seconds other operations have all the slots.
    pub(crate) crowded: Range<i64>,
    /// A second disruption budget selects the pods until then.
    pub(crate) second_budget_until: i64,
    /// Standbys are far behind until then.
    pub(crate) behind_until: i64,
    /// The issuer is never ready.
    pub(crate) issuer_is_never_ready: bool,
    /// The trial is refused.
    pub(crate) trial_fails: bool,
    /// Certificates are issued with this defect.
    pub(crate) bad_leaf: Option<&'static str>,
    /// libpq knows no channel binding for the server certificate of the beginning.
    pub(crate) lacks_channel_binding: bool,
    /// The certificates of the beginning are not good for what the request asks for.
    pub(crate) bad_for_goal: Option<&'static str>,
    /// Second at which the server certificate of the beginning expires.
    pub(crate) leaves_end_at: Option<i64>,
    /// The client certificate of the beginning, which standbys present, has expired.
    pub(crate) client_is_expired: bool,
    /// Servers do not load leaves that were issued since.
    pub(crate) leaves_are_refused: bool,
    /// A pod that an operation has replaced never becomes ready.
    pub(crate) new_pods_fail: bool,
    /// Pods have no volumes of their own: data end with their pod.
    pub(crate) is_ephemeral: bool,
}
