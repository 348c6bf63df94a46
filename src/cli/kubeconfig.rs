//! Which cluster and which namespace a command is about, and what to tell a user whom the API
//! server does not answer.

use anyhow::{Context, anyhow};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::cli::crypto::install_crypto_provider;

/// How long until a cluster that does not answer counts as away.
const CONNECT: std::time::Duration = std::time::Duration::from_secs(10);

/// Which cluster and which namespace
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Where")]
pub(crate) struct Scope {
    /// Context of the kubeconfig; the current one if left out
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Namespace; the context's own if left out
    #[arg(long, short, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
}

/// A cluster that can be asked.
#[derive(Clone)]
pub(crate) struct ApiConnection {
    pub(crate) client: Client,
    /// The namespace of names that say none.
    pub(crate) namespace: String,
}

impl Scope {
    /// A client of the cluster.
    pub(crate) async fn connect(&self) -> anyhow::Result<ApiConnection> {
        install_crypto_provider();
        let mut config = match &self.context {
            Some(context) => {
                let options = KubeConfigOptions {
                    context: Some(context.clone()),
                    ..KubeConfigOptions::default()
                };
                Config::from_kubeconfig(&options).await.map_err(|error| {
                    anyhow!("the context {context} cannot be used ({error}): `kubectl config get-contexts` lists them")
                })?
            }
            None => Config::infer().await.map_err(|error| {
                anyhow!("no cluster is configured: set KUBECONFIG or name a --context ({error})")
            })?,
        };
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT);
        let namespace = self
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("the kubeconfig cannot be used")?;
        Ok(ApiConnection { client, namespace })
    }

    /// The namespace, without asking anybody: `default` where there is no kubeconfig.
    pub(crate) fn namespace(&self) -> String {
        let named = || {
            let kubeconfig = Kubeconfig::read().ok()?;
            let current = self.context.clone().or(kubeconfig.current_context)?;
            let context = kubeconfig
                .contexts
                .into_iter()
                .find(|context| context.name == current)?
                .context?;
            context.namespace.filter(|namespace| !namespace.is_empty())
        };
        self.namespace
            .clone()
            .or_else(named)
            .unwrap_or_else(|| "default".to_owned())
    }
}

impl ApiConnection {
    /// Namespace and name of what a user calls `NAME` or `NAMESPACE/NAME`.
    pub(crate) fn locate(&self, name: &str) -> (String, String) {
        locate(&self.namespace, name)
    }
}

/// Namespace and name of what a user calls `NAME` or `NAMESPACE/NAME`.
pub(crate) fn locate(namespace: &str, name: &str) -> (String, String) {
    let (namespace, name) = name.split_once('/').unwrap_or((namespace, name));
    (namespace.to_owned(), name.to_owned())
}

/// Runs a command that talks to a cluster.
pub(crate) fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?
        .block_on(command)
}

/// What to tell a user when the API server did not do something, such as `read the Postgres
/// demo/pg`.
pub(crate) fn explain_api_error(what: &str, error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => match status.code {
            401 => anyhow!(
                "cannot {what}: the API server does not know you; renew the login of your kubeconfig"
            ),
            403 => {
                // The object is named twice in what Kubernetes says.
                let said = status
                    .message
                    .split_once(" is forbidden: ")
                    .map_or(status.message.as_str(), |(_, said)| said);
                anyhow!("cannot {what}: {said}; ask for that right, or use another --context")
            }
            404 if status.reason != "NotFound" || status.message.contains("requested resource") => {
                anyhow!(
                    "cannot {what}: the cluster does not know this kind; install it with \
                 `pgrekey crds | kubectl apply --server-side -f -`, and see `pgrekey doctor`"
                )
            }
            _ => anyhow!("cannot {what}: {}", status.message),
        },
        error => {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            anyhow!(
                "cannot {what}: no answer from the API server ({cause}); is the cluster up, and --context right?"
            )
        }
    }
}

/// Whether the API server says that there is no such object or no such kind.
pub(crate) fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_name_may_say_its_namespace() {
        assert_eq!(locate("demo", "pg"), ("demo".to_owned(), "pg".to_owned()));
        assert_eq!(
            locate("demo", "lead/pg"),
            ("lead".to_owned(), "pg".to_owned())
        );
    }

    #[test]
    fn whoever_gets_no_answer_is_told_what_to_do() {
        let of = |code: u16, reason: &str| {
            let status = Status {
                code,
                reason: reason.to_owned(),
                message: "no".to_owned(),
                ..Status::default()
            };
            explain_api_error(
                "read the Postgres demo/pg",
                kube::Error::Api(status.boxed()),
            )
            .to_string()
        };
        for (code, reason, says) in [
            (401, "Unauthorized", "renew the login"),
            (403, "Forbidden", "ask for that right"),
            (404, "", "pgrekey crds"),
            (422, "Invalid", "cannot read the Postgres demo/pg: no"),
        ] {
            assert!(
                of(code, reason).contains(says),
                "{code}: {}",
                of(code, reason)
            );
        }
    }
}
