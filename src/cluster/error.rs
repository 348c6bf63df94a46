//! What can go wrong at the API server.

use std::fmt;

use kube::Resource;
use kube::core::Status;

use crate::api::cert_manager;

/// The API server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer, or one that says to try later.
    #[error("the API server did not answer about {what}: {source}")]
    Transport {
        /// What was asked about.
        what: ObjectName,
        /// What the client says.
        #[source]
        source: Box<kube::Error>,
    },
    /// Somebody else was faster: look again.
    #[error("{0} has changed meanwhile")]
    Conflict(ObjectName),
    /// The name is taken by an object that is not ours.
    #[error(transparent)]
    InTheWay(NameConflict),
    /// A well-formed no: it stays a no until somebody changes something.
    #[error("the API server refuses {what}: {why}")]
    Refused {
        /// What was asked for.
        what: ObjectName,
        /// What it says.
        why: String,
    },
    /// The cluster has no objects of this kind, because it does not know the kind.
    #[error("{}", unknown(.0))]
    UnknownKind(ObjectName),
    /// What cannot be.
    #[error("{what}: {why}; this is a bug of pgrekey's")]
    Bug {
        /// What was asked about.
        what: ObjectName,
        /// What happened.
        why: String,
    },
}

impl Error {
    /// Sorts what the client says about an object.
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

/// Whether an answer says that the cluster does not know the kind that was asked about.
///
/// An object that is not there is named in the answer. What is said of a kind is plain text, in no
/// form of Kubernetes', which `Status::is_not_found` does not take for an answer.
fn is_kind_unknown(status: &Status) -> bool {
    let names_an_object = status
        .details
        .as_ref()
        .is_some_and(|details| !details.name.is_empty());
    status.code == 404 && !names_an_object
}

fn unknown(what: &ObjectName) -> String {
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
    /// The object of this kind and name.
    #[must_use]
    pub fn new<K: Resource<DynamicType = ()>>(name: &str) -> Self {
        Self {
            kind: K::kind(&()).into_owned(),
            name: name.to_owned(),
        }
    }

    /// Whether its kind is one that cert-manager brings.
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

/// An object that has a name that we need, and that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} exists and {}: rename or delete it, or give the database another name", whose(.owner.as_ref()))]
pub struct NameConflict {
    /// The object.
    pub what: ObjectName,
    /// Who owns it, if anybody does.
    pub owner: Option<ObjectName>,
}

fn whose(owner: Option<&ObjectName>) -> String {
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
    fn an_answer_is_sorted_by_what_can_be_done_about_it() {
        let of = |code: u16| {
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
        assert!(matches!(of(409), Error::Conflict(_)));
        assert!(
            matches!(of(422), Error::Refused { .. }) && matches!(of(403), Error::Refused { .. })
        );
        assert!(
            matches!(of(500), Error::Transport { .. })
                && matches!(of(429), Error::Transport { .. })
        );
        assert_eq!(of(422).to_string(), "the API server refuses Service pg: no");
    }

    #[test]
    fn a_kind_that_is_not_there_is_another_matter_than_an_object() {
        let of = |text: &str| {
            let status = serde_json::from_str(text)
                .unwrap_or_else(|_| Status::failure(text, "Failed to parse error data"));
            kube::Error::Api(status.with_code(404).boxed())
        };
        let said = Error::classify(
            ObjectName::new::<cert_manager::Certificate>("pg"),
            of("404 page not found"),
        )
        .to_string();
        assert!(
            said.starts_with("cert-manager is not installed: kind Certificate of cert-manager.io"),
            "{said}"
        );
        let said =
            Error::classify(ObjectName::new::<Service>("pg"), of("404 page not found")).to_string();
        assert_eq!(
            said,
            "Service pg: kind Service is unknown to this cluster: install its definition"
        );
        let gone = r#"{"reason": "NotFound", "message": "no", "details": {"name": "pg", "kind": "services"}}"#;
        assert!(matches!(
            Error::classify(ObjectName::new::<Service>("pg"), of(gone)),
            Error::Transport { .. }
        ));
    }

    #[test]
    fn what_is_in_the_way_is_named_with_its_owner() {
        let what = ObjectName::new::<Service>("pg");
        let nobody = NameConflict {
            what: what.clone(),
            owner: None,
        };
        assert!(
            nobody
                .to_string()
                .starts_with("Service pg exists and is not pgrekey's: rename"),
            "{nobody}"
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
