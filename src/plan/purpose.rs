//! What a decision does, and why an operation is given up: as data, with a text for people.

use std::fmt;

use crate::api::step::{StepId, StepKind};
use crate::plan::waiting::{StepProblem, Waiting};
use crate::tls::PasswordEncryption;

/// The purpose of the actions of one decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The request begins.
    Start,
    /// The issuers are asked for trial certificates.
    StartTrial,
    /// The trial certificates are deleted.
    EndTrial,
    /// The step has failed, and another try begins.
    Retry(StepProblem),
    /// The database's own reconciler pauses.
    Pause,
    /// cert-manager is asked for the certificates.
    RequestCertificates,
    /// Clients get the new trust bundle.
    PublishBundle,
    /// The next posture of the walk is applied.
    ApplyStage(StepKind),
    /// The last change is undone, because some pods never received it.
    UndoPartialWrite,
    /// Expired leaves are replaced at once.
    ReplaceExpired,
    /// The walk goes on although pods are behind, because it leads to leaves that have not expired.
    ContinueToReplaceExpired,
    /// The superuser's password is stored with another hash.
    RehashPassword(PasswordEncryption),
    /// The kubelet is made to refresh the volumes.
    RefreshVolumes,
    /// Servers load their new certificate files.
    LoadFiles,
    /// Patroni loads `patroni.yml`.
    ReloadPatroni,
    /// A pod is evicted: its name.
    Evict(String),
    /// Patroni is asked for a switchover.
    SwitchOver {
        /// The primary.
        from: String,
        /// The next primary.
        to: String,
    },
    /// The new spec is written into the database.
    WriteSpec,
    /// The database's own reconciler resumes.
    Resume,
    /// The rollback has failed, for this reason; the database resumes as it is.
    ResumeAsIs(String),
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::StartTrial => f.write_str("request trial certificates"),
            Self::EndTrial => f.write_str("delete the trial certificates"),
            Self::Retry(problem) => write!(f, "begin another try: {problem}"),
            Self::Pause => f.write_str("pause the database"),
            Self::RequestCertificates => f.write_str("request the certificates"),
            Self::PublishBundle => f.write_str("publish the CAs that clients should trust"),
            Self::ApplyStage(stage) => {
                write!(
                    f,
                    "apply the next stage ({})",
                    stage.as_str().to_lowercase()
                )
            }
            Self::UndoPartialWrite => {
                f.write_str("undo the last change, which some pods never received")
            }
            Self::ReplaceExpired => f.write_str("replace the expired certificates"),
            Self::ContinueToReplaceExpired => {
                f.write_str("go on at once, to replace the expired certificates")
            }
            Self::RehashPassword(hash) => {
                write!(f, "re-hash the superuser's password ({})", hash.as_str())
            }
            Self::RefreshVolumes => f.write_str("refresh the volumes of the pods"),
            Self::LoadFiles => f.write_str("load the new certificate files"),
            Self::ReloadPatroni => f.write_str("reload Patroni"),
            Self::Evict(pod) => write!(f, "evict {pod}"),
            Self::SwitchOver { from, to } => write!(f, "switch over from {from} to {to}"),
            Self::WriteSpec => f.write_str("write the new spec"),
            Self::Resume => f.write_str("resume the database"),
            Self::ResumeAsIs(why) => {
                write!(
                    f,
                    "the rollback failed; the database resumes as it is ({why})"
                )
            }
        }
    }
}

/// Why an operation, or its rollback, is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The request was deleted.
    RequestDeleted,
    /// The step waited until its time and tries were used up.
    TimedOut {
        /// The step.
        step: StepId,
        /// What it waited for.
        waiting: Waiting,
    },
    /// The effects of the step did not show in time.
    NotDone {
        /// The step.
        step: StepId,
        /// What was to be done.
        purpose: Purpose,
        /// Why the last effect could not be had, if it could not.
        last_failure: Option<String>,
    },
    /// The step cannot be done as things are.
    Impossible {
        /// The step.
        step: StepId,
        /// Why.
        problem: StepProblem,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestDeleted => f.write_str("the request was deleted"),
            Self::TimedOut { step, waiting } => {
                write!(f, "{step}: timed out waiting for {waiting}")
            }
            Self::NotDone {
                step,
                purpose,
                last_failure,
            } => {
                write!(f, "{step}: timed out; could not {purpose}")?;
                last_failure
                    .iter()
                    .try_for_each(|why| write!(f, " ({why})"))
            }
            Self::Impossible { step, problem } => write!(f, "{step}: {problem}"),
        }
    }
}
