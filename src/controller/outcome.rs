//! How a step of a reconcile ends.

use crate::cluster::Error;

/// Why a database is not yet what it should be.
#[derive(Debug)]
pub(crate) enum Interrupt {
    /// The world did not answer.
    Error(Error),
    /// Something must happen first, and it will.
    Wait(&'static str),
    /// Somebody has to do something first: reason and message.
    Blocked(&'static str, String),
}

impl From<Error> for Interrupt {
    fn from(error: Error) -> Self {
        match error {
            Error::InTheWay(object) => Self::Blocked("ObjectInTheWay", object.to_string()),
            Error::Refused { .. } => Self::Blocked("Refused", error.to_string()),
            Error::UnknownKind(_) => Self::Blocked("KindUnknown", error.to_string()),
            error => Self::Error(error),
        }
    }
}

/// What a step of the loop gives, or why it does not.
pub(crate) type ReconcileResult<T> = Result<T, Interrupt>;
