//! One value in Patroni's configuration.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The value of a key that pgrekey writes.
///
/// Patroni takes `"30"` for `30`, and so users may write it. A value of another type than pgrekey's
/// must not make the rest of the configuration unreadable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Field<T> {
    /// A value of the type that pgrekey writes.
    Ours(T),
    /// Any other value.
    Foreign(Value),
}

/// A value that pgrekey writes.
#[expect(clippy::unnecessary_wraps, reason = "every field may be missing")]
pub(super) fn ours<T>(value: impl Into<T>) -> Option<Field<T>> {
    Some(Field::Ours(value.into()))
}

/// The value of a key, if it has the type that pgrekey writes.
pub(super) fn known<T>(field: Option<&Field<T>>) -> Option<&T> {
    match field {
        Some(Field::Ours(value)) => Some(value),
        Some(Field::Foreign(_)) | None => None,
    }
}
