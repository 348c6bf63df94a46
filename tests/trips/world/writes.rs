//! The writes to the API server that an action makes, one after the other: pgrekey may die between
//! them. They are those of `src/controller/execute`.

use pgrekey::api::postgres::PostgresSpec;
use pgrekey::plan::{Action, ClusterAction};
use pgrekey::tls::Alias;

use super::World;

/// One write, or all that an action does that makes no more than one.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// All that the action does.
    Action(Box<Action>),
    /// The Certificate of a trial is made.
    AskTrial(Alias),
    /// It is deleted. Its Secret stays.
    DeleteTrial(Alias),
    /// The Secret of a trial is deleted.
    DeleteTrialSecret(Alias),
    /// A Certificate is applied.
    Certificate(Alias, Box<PostgresSpec>),
    /// An annotation says that a new certificate is asked for.
    MarkReissue {
        /// The Certificate.
        alias: Alias,
        /// Its revision.
        revision: i64,
    },
    /// cert-manager is told to issue.
    Issue(Alias),
}

/// What there is of the trial of one certificate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SimTrial {
    /// When it is issued; `None` if there is no Certificate.
    pub(super) issued_at: Option<i64>,
    /// There is a Secret.
    pub(super) has_secret: bool,
}

impl Write {
    /// How many objects of the API server it writes. Servers and agents are asked directly.
    pub(crate) fn count(&self) -> usize {
        let Self::Action(action) = self else { return 1 };
        let is_direct = matches!(
            action.as_ref(),
            Action::Cluster(
                ClusterAction::ReloadServer(_)
                    | ClusterAction::ReloadPatroni(_)
                    | ClusterAction::SetPassword(_),
            )
        );
        usize::from(!is_direct)
    }
}

impl World {
    /// The writes that an action makes now.
    pub(crate) fn writes(&self, action: &Action) -> Vec<Write> {
        let each = |write: fn(&Self, Alias) -> Vec<Write>| {
            let aliases = Alias::ALL.into_iter();
            aliases.flat_map(|alias| write(self, alias)).collect()
        };
        match action {
            Action::Cluster(ClusterAction::StartTrial) => each(Self::writes_to_start_trial),
            Action::Cluster(ClusterAction::EndTrial) => each(Self::writes_to_end_trial),
            Action::Cluster(ClusterAction::RequestCertificates(spec)) => Alias::ALL
                .map(|alias| Write::Certificate(alias, spec.clone()))
                .into(),
            Action::Cluster(ClusterAction::Reissue { alias, revision }) => {
                let (alias, revision) = (*alias, *revision);
                let certificate = self.certificates.get(&alias).expect("a certificate");
                if certificate.revision == revision && certificate.issued_at.is_none() {
                    vec![Write::MarkReissue { alias, revision }, Write::Issue(alias)]
                } else {
                    vec![]
                }
            }
            action => vec![Write::Action(Box::new(action.clone()))],
        }
    }

    fn writes_to_start_trial(&self, alias: Alias) -> Vec<Write> {
        let trial = self.trial_of(alias);
        if trial.issued_at.is_some() {
            return vec![];
        }
        // cert-manager would take an old Secret for the answer.
        let old = trial.has_secret.then_some(Write::DeleteTrialSecret(alias));
        old.into_iter().chain([Write::AskTrial(alias)]).collect()
    }

    fn writes_to_end_trial(&self, alias: Alias) -> Vec<Write> {
        let trial = self.trial_of(alias);
        let certificate = trial.issued_at.map(|_| Write::DeleteTrial(alias));
        let secret = trial.has_secret.then_some(Write::DeleteTrialSecret(alias));
        certificate.into_iter().chain(secret).collect()
    }

    pub(super) fn trial_of(&self, alias: Alias) -> SimTrial {
        self.trial.get(&alias).copied().unwrap_or_default()
    }

    /// The effect of one write.
    pub(crate) fn write(&mut self, write: &Write) {
        let second = self.second;
        match write {
            Write::Action(action) => self.perform(action),
            Write::AskTrial(alias) => {
                self.trial.entry(*alias).or_default().issued_at = Some(second + 1);
            }
            Write::DeleteTrial(alias) => self.trial.entry(*alias).or_default().issued_at = None,
            Write::DeleteTrialSecret(alias) => {
                self.trial.entry(*alias).or_default().has_secret = false;
            }
            Write::Certificate(alias, spec) => self.certify(*alias, spec),
            Write::MarkReissue { alias, revision } => {
                self.certificates.get_mut(alias).expect("one").asked = Some(*revision);
            }
            Write::Issue(alias) => {
                self.certificates.get_mut(alias).expect("one").issued_at = Some(second + 2);
            }
        }
    }
}
