//! The edge to the API server.

pub mod apply;
pub mod cache;
pub mod drift;
pub mod error;
pub mod finalizer;
pub mod optional;
pub mod random;
pub mod webhook_ca;

pub use crate::cluster::apply::{ApplyOutcome, Objects};
pub use crate::cluster::error::{Error, NameConflict, ObjectName};

/// The name under which the API server records the fields that pgrekey owns.
pub const FIELD_MANAGER: &str = "pgrekey";
