//! The API server.

pub mod apply;
pub mod differs;
pub mod error;
pub mod facts;
pub mod finalizer;
pub mod optional;
pub mod own_ca;

pub use apply::{ApplyOutcome, Objects};
pub use error::{Error, NameConflict, ObjectName};

/// Who pgrekey is to the API server's record of who owns which field.
pub const FIELD_MANAGER: &str = "pgrekey";
