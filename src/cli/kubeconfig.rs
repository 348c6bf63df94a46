//! The cluster and the namespace that a command works with, and explanations of the API server's
//! errors.

use anyhow::{Context, anyhow};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::cli::crypto::install_crypto_provider;

/// Time to connect to the API server.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Cluster and namespace of a command
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Where")]
pub(crate) struct Scope {
    /// Context of the kubeconfig. Default: the current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Namespace. Default: that of the context
    #[arg(long, short, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
}

/// A connection to the API server.
#[derive(Clone)]
pub(crate) struct ApiConnection {
    pub(crate) client: Client,
    /// The namespace of names without a namespace.
    pub(crate) namespace: String,
}

impl Scope {
    /// Connects to the API server.
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
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let namespace = self
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("the kubeconfig cannot be used")?;
        Ok(ApiConnection { client, namespace })
    }

    /// The namespace by the flags and the kubeconfig; `default` without a kubeconfig.
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
    /// Splits `NAMESPACE/NAME`; a plain `NAME` is in the namespace of this connection.
    pub(crate) fn locate(&self, name: &str) -> (String, String) {
        locate(&self.namespace, name)
    }
}

/// Splits `NAMESPACE/NAME`; a plain `NAME` is in the given namespace.
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

/// A sentence for the user about an error of the API server. `action` is what was tried, such as
/// `read the Postgres demo/pg`.
pub(crate) fn explain_api_error(action: &str, error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => match status.code {
            401 => anyhow!(
                "cannot {action}: the API server does not know you; renew the login of your kubeconfig"
            ),
            403 => {
                // Kubernetes names the object in front of this phrase and after it.
                let reason = status
                    .message
                    .split_once(" is forbidden: ")
                    .map_or(status.message.as_str(), |(_, reason)| reason);
                anyhow!("cannot {action}: {reason}; ask for that right, or use another --context")
            }
            404 if status.reason != "NotFound" || status.message.contains("requested resource") => {
                anyhow!(
                    "cannot {action}: the cluster does not know this kind; install it with \
                 `pgrekey crds | kubectl apply --server-side -f -`, and see `pgrekey doctor`"
                )
            }
            _ => anyhow!("cannot {action}: {}", status.message),
        },
        error => {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            anyhow!(
                "cannot {action}: no answer from the API server ({cause}); is the cluster up, and --context right?"
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
    fn a_name_may_have_its_namespace_in_front() {
        assert_eq!(locate("demo", "pg"), ("demo".to_owned(), "pg".to_owned()));
        assert_eq!(
            locate("demo", "lead/pg"),
            ("lead".to_owned(), "pg".to_owned())
        );
    }

    #[test]
    fn an_api_error_is_explained_with_a_remedy() {
        let explain = |code: u16, reason: &str| {
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
                explain(code, reason).contains(says),
                "{code}: {}",
                explain(code, reason)
            );
        }
    }
}
