//! Errors of the API server, sorted by what can be done about them.

use std::fmt;

use kube::Resource;
use kube::core::{ApiResource, Status};

use crate::api::cert_manager;
use crate::cluster::random::NoRandomness;

/// The API server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer, or an answer that asks to retry later.
    #[error("the API server did not answer about {what}: {source}")]
    Transport {
        /// The object of the request.
        what: ObjectName,
        /// The error of the client.
        #[source]
        source: Box<kube::Error>,
    },
    /// Another client was faster: read the object again.
    #[error("{0} has changed meanwhile")]
    Conflict(ObjectName),
    /// An object with another owner has the name.
    #[error(transparent)]
    InTheWay(NameConflict),
    /// A refusal. A retry helps only after a change of the object or of the cluster.
    #[error("the API server refuses {what}: {why}")]
    Refused {
        /// The object of the request.
        what: ObjectName,
        /// The message of the API server.
        why: String,
    },
    /// The cluster does not have this kind.
    #[error("{}", describe_unknown_kind(.0))]
    UnknownKind(ObjectName),
    /// A random part of an object could not be made.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// An error that only a bug can cause.
    #[error("{what}: {why}; this is a bug of pgrekey's")]
    Bug {
        /// The object of the request.
        what: ObjectName,
        /// The cause.
        why: String,
    },
}

impl Error {
    /// Sorts an error of the client in a request about an object.
    #[must_use]
    pub fn classify(what: ObjectName, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if is_kind_unknown(&status) => Self::UnknownKind(what),
            kube::Error::Api(status) if status.code == 409 => Self::Conflict(what),
            kube::Error::Api(status) if matches!(status.code, 400 | 403 | 405 | 413 | 422) => {
                Self::Refused {
                    what,
                    why: status.message,
                }
            }
            kube::Error::SerdeError(error) => Self::Bug {
                what,
                why: error.to_string(),
            },
            kube::Error::BuildRequest(error) => Self::Bug {
                what,
                why: error.to_string(),
            },
            error => Self::Transport {
                what,
                source: Box::new(error),
            },
        }
    }
}

/// Whether an answer means that the cluster does not have the kind.
///
/// The answer for a missing object names it. The answer for a missing kind is plain text and no
/// `Status` of Kubernetes, so `Status::is_not_found` is false for it.
fn is_kind_unknown(status: &Status) -> bool {
    let names_an_object = status
        .details
        .as_ref()
        .is_some_and(|details| !details.name.is_empty());
    status.code == 404 && !names_an_object
}

fn describe_unknown_kind(what: &ObjectName) -> String {
    let kind = &what.kind;
    if what.is_of_cert_manager() {
        return format!(
            "{}: {}",
            cert_manager::not_installed(kind),
            cert_manager::INSTALL
        );
    }
    format!("{what}: kind {kind} is unknown to this cluster: install its definition")
}

/// An object, by kind and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// Its kind, such as `Service`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl ObjectName {
    /// The object of kind `K` with this name.
    #[must_use]
    pub fn new<K: Resource<DynamicType = ()>>(name: &str) -> Self {
        Self {
            kind: K::kind(&()).into_owned(),
            name: name.to_owned(),
        }
    }

    /// The object of a dynamic kind with this name.
    #[must_use]
    pub fn dynamic(kind: &ApiResource, name: &str) -> Self {
        Self {
            kind: kind.kind.clone(),
            name: name.to_owned(),
        }
    }

    /// Whether cert-manager defines the kind.
    #[must_use]
    pub fn is_of_cert_manager(&self) -> bool {
        cert_manager::KINDS.contains(&self.kind.as_str())
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// An object with another owner that has a name that we need.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} exists and {}: rename or delete it, or give the database another name", describe_owner(.owner.as_ref()))]
pub struct NameConflict {
    /// The object.
    pub what: ObjectName,
    /// The controller of the object, if it has one.
    pub owner: Option<ObjectName>,
}

fn describe_owner(owner: Option<&ObjectName>) -> String {
    owner.map_or_else(
        || "is not pgrekey's".to_owned(),
        |owner| format!("belongs to {owner}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;
    use kube::core::Status;

    #[test]
    fn an_error_is_sorted_by_its_remedy() {
        let classify = |code: u16| {
            let status = Status {
                code,
                message: "no".to_owned(),
                ..Status::default()
            };
            Error::classify(
                ObjectName::new::<Service>("pg"),
                kube::Error::Api(status.boxed()),
            )
        };
        assert!(matches!(classify(409), Error::Conflict(_)));
        assert!(
            matches!(classify(422), Error::Refused { .. })
                && matches!(classify(403), Error::Refused { .. })
        );
        assert!(
            matches!(classify(500), Error::Transport { .. })
                && matches!(classify(429), Error::Transport { .. })
        );
        assert_eq!(
            classify(422).to_string(),
            "the API server refuses Service pg: no"
        );
    }

    #[test]
    fn a_missing_kind_is_told_from_a_missing_object() {
        let not_found = |text: &str| {
            let status = serde_json::from_str(text)
                .unwrap_or_else(|_| Status::failure(text, "Failed to parse error data"));
            kube::Error::Api(status.with_code(404).boxed())
        };
        let message = Error::classify(
            ObjectName::new::<cert_manager::Certificate>("pg"),
            not_found("404 page not found"),
        )
        .to_string();
        assert!(
            message
                .starts_with("cert-manager is not installed: kind Certificate of cert-manager.io"),
            "{message}"
        );
        let message = Error::classify(
            ObjectName::new::<Service>("pg"),
            not_found("404 page not found"),
        )
        .to_string();
        assert_eq!(
            message,
            "Service pg: kind Service is unknown to this cluster: install its definition"
        );
        let gone = r#"{"reason": "NotFound", "message": "no", "details": {"name": "pg", "kind": "services"}}"#;
        assert!(matches!(
            Error::classify(ObjectName::new::<Service>("pg"), not_found(gone)),
            Error::Transport { .. }
        ));
    }

    #[test]
    fn a_name_conflict_names_object_and_owner() {
        let what = ObjectName::new::<Service>("pg");
        let without_owner = NameConflict {
            what: what.clone(),
            owner: None,
        };
        assert!(
            without_owner
                .to_string()
                .starts_with("Service pg exists and is not pgrekey's: rename"),
            "{without_owner}"
        );
        let owner = Some(ObjectName {
            kind: "Deployment".to_owned(),
            name: "web".to_owned(),
        });
        assert!(
            NameConflict { what, owner }
                .to_string()
                .contains("belongs to Deployment web")
        );
    }
}
