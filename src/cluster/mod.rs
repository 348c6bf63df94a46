//! The API server.

pub mod apply;
pub mod cache;
pub mod drift;
pub mod error;
pub mod finalizer;
pub mod optional;
pub mod webhook_ca;

pub use crate::cluster::apply::{ApplyOutcome, Objects};
pub use crate::cluster::error::{Error, NameConflict, ObjectName};

/// Who pgrekey is to the API server's record of who owns which field.
pub const FIELD_MANAGER: &str = "pgrekey";
