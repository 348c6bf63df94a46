//! `pgrekey add-tls`, `rotate`, `change-issuer`, `remove-tls`: makes the request, and follows it if
//! asked to.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use rustls::crypto::{CryptoProvider, aws_lc_rs};

use crate::api::annotations::STRATEGY;
use crate::api::defaults::SSL_MODE_WITH_TLS;
use crate::api::duration;
use crate::api::names::Names;
use crate::api::ops_request::{Apply, DatabaseRef, OpsType, TlsChange};
use crate::api::tls::{CERT_MANAGER_GROUP, ClientAuthMode, IssuerRef, SslMode};
use crate::api::{PostgresOpsRequest, PostgresOpsRequestSpec};
use crate::cli::kubeconfig::{Scope, block_on, explain_api_error, locate, print};
use crate::cli::me;
use crate::cli::output::{Output, json, yaml};
use crate::cli::status::follow;

/// What a request is named after, and what a user may say of every one
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one flag of the command line"
)]
struct Common {
    /// The database: NAME or NAMESPACE/NAME
    #[arg(value_name = "DATABASE")]
    database: String,
    /// Name of the request; the database, the operation and five random characters if left out
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Change what can be changed without restarting a pod
    #[arg(long)]
    reload: bool,
    /// How long each step may take, such as 5m; 10 minutes if left out
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    timeout: Option<String>,
    /// How often a failed step is tried again before the operation goes back
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(i32).range(0..))]
    retries: i32,
    /// Begin whatever the database's state; without it the operation waits until the database is
    /// Ready
    #[arg(long)]
    always: bool,
    /// Print the request and make nothing
    #[arg(long)]
    dry_run: bool,
    /// Follow the request to its end; exit code 0 if it succeeded, 1 if not
    #[arg(long, short, conflicts_with = "dry_run")]
    wait: bool,
    /// How it is printed; json and yaml are the request itself, and so is what --dry-run prints
    #[arg(long, short, value_enum, default_value_t, conflicts_with = "wait")]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

/// Add TLS to a database that has none
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey add-tls ha-postgres --issuer pg-issuer --client-auth-mode cert --wait
  pgrekey add-tls demo/ha-postgres --issuer ClusterIssuer/company-ca --ssl-mode verify-ca --dry-run
  pgrekey add-tls ha-postgres                  # with the default issuer of the namespace or installation")]
pub(crate) struct AddTls {
    #[command(flatten)]
    common: Common,
    /// Issuer of the certificates: NAME, Issuer/NAME or ClusterIssuer/NAME
    #[arg(long, value_name = "ISSUER", value_parser = issuer)]
    issuer: Option<IssuerRef>,
    /// How the database's own clients connect afterwards; verify-full if left out
    #[arg(long, value_name = "MODE", value_parser = ssl_mode())]
    ssl_mode: Option<SslMode>,
    /// How clients prove who they are afterwards; as now if left out
    #[arg(long, value_name = "MODE", value_parser = client_auth_mode(&["md5", "scram", "cert"]))]
    client_auth_mode: Option<ClientAuthMode>,
}

/// Issue all certificates of a database anew
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey rotate ha-postgres --wait
  pgrekey rotate demo/ha-postgres --reload --wait     # no pod is restarted
  pgrekey rotate ha-postgres --dry-run | kubectl apply -f -")]
pub(crate) struct Rotate {
    #[command(flatten)]
    common: Common,
}

/// Move a database to certificates of another issuer
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey change-issuer ha-postgres --issuer pg-new-issuer --wait
  pgrekey change-issuer demo/ha-postgres --issuer ClusterIssuer/company-ca --reload")]
pub(crate) struct ChangeIssuer {
    #[command(flatten)]
    common: Common,
    /// The new issuer: NAME, Issuer/NAME or ClusterIssuer/NAME
    #[arg(long, value_name = "ISSUER", value_parser = issuer)]
    issuer: IssuerRef,
}

/// Take TLS away from a database
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey remove-tls ha-postgres --client-auth-mode scram --wait
  pgrekey remove-tls demo/ha-postgres --dry-run")]
pub(crate) struct RemoveTls {
    #[command(flatten)]
    common: Common,
    /// How clients log in afterwards; as now if left out, which cert cannot be
    #[arg(long, value_name = "MODE", value_parser = client_auth_mode(&["md5", "scram"]))]
    client_auth_mode: Option<ClientAuthMode>,
}

pub(crate) fn add_tls(
    AddTls {
        common,
        issuer,
        ssl_mode,
        client_auth_mode,
    }: AddTls,
) -> anyhow::Result<ExitCode> {
    // A change that says nothing at all is no operation: the mode that is the default anyway makes
    // it one.
    let is_silent = issuer.is_none() && ssl_mode.is_none() && client_auth_mode.is_none();
    let ssl_mode = ssl_mode.or(is_silent.then_some(SSL_MODE_WITH_TLS));
    make(
        &common,
        "add-tls",
        TlsChange {
            issuer_ref: issuer,
            ssl_mode,
            client_auth_mode,
            ..TlsChange::default()
        },
    )
}

pub(crate) fn rotate(Rotate { common }: Rotate) -> anyhow::Result<ExitCode> {
    make(
        &common,
        "rotate-tls",
        TlsChange {
            rotate_certificates: Some(true),
            ..TlsChange::default()
        },
    )
}

pub(crate) fn change_issuer(
    ChangeIssuer { common, issuer }: ChangeIssuer,
) -> anyhow::Result<ExitCode> {
    make(
        &common,
        "change-issuer",
        TlsChange {
            issuer_ref: Some(issuer),
            ..TlsChange::default()
        },
    )
}

pub(crate) fn remove_tls(
    RemoveTls {
        common,
        client_auth_mode,
    }: RemoveTls,
) -> anyhow::Result<ExitCode> {
    make(
        &common,
        "remove-tls",
        TlsChange {
            remove: Some(true),
            client_auth_mode,
            ..TlsChange::default()
        },
    )
}

fn make(common: &Common, operation: &str, change: TlsChange) -> anyhow::Result<ExitCode> {
    let request = request(common, operation, change)?;
    if common.dry_run {
        print(&if common.output == Output::Json {
            json(&request)?
        } else {
            yaml(&request)?
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    block_on(async {
        let cluster = common.scope.connect().await?;
        let requests: Api<PostgresOpsRequest> = Api::namespaced(
            cluster.client.clone(),
            &request.namespace().unwrap_or_default(),
        );
        let mut made = requests
            .create(&PostParams::default(), &request)
            .await
            .map_err(refused)?;
        if common.wait {
            return follow(&cluster, &made).await;
        }
        made.metadata.managed_fields = None;
        print(&match common.output {
            Output::Json => json(&made)?,
            Output::Yaml => yaml(&made)?,
            Output::Table | Output::Wide => is_made(&made),
        })?;
        Ok(ExitCode::SUCCESS)
    })
}

/// What there is, and what is next.
fn is_made(request: &PostgresOpsRequest) -> Vec<String> {
    let (namespace, name) = (request.namespace().unwrap_or_default(), request.name_any());
    vec![
        format!("postgresopsrequest.ops.kubedb.com/{name} created"),
        format!("follow it with: {} status {namespace}/{name} --watch", me()),
    ]
}

/// A denial names every reason at once: one line each.
fn refused(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 409 => {
            anyhow!(
                "there is a request of this name already: choose another --name, or leave it out"
            )
        }
        kube::Error::Api(status) if matches!(status.code, 400 | 422) => {
            let causes = status
                .details
                .as_ref()
                .map(|details| details.causes.as_slice())
                .unwrap_or_default();
            let reasons: Vec<String> = causes
                .iter()
                .map(|cause| format!("\n  {}: {}", cause.field, cause.message))
                .collect();
            if reasons.is_empty() {
                return anyhow!("the request is refused: {}", status.message);
            }
            anyhow!("the request is refused:{}", reasons.concat())
        }
        error => explain_api_error("make the request", error),
    }
}

fn request(
    common: &Common,
    operation: &str,
    change: TlsChange,
) -> anyhow::Result<PostgresOpsRequest> {
    let (namespace, database) = locate(&common.scope.namespace(), &common.database);
    let name = match &common.name {
        Some(name) => name.clone(),
        None => named(
            &database,
            operation,
            &random(&aws_lc_rs::default_provider())?,
        ),
    };
    let spec = PostgresOpsRequestSpec {
        database_ref: DatabaseRef { name: database },
        type_: OpsType::ReconfigureTLS,
        tls: Some(change),
        timeout: common.timeout.clone(),
        apply: if common.always {
            Apply::Always
        } else {
            Apply::IfReady
        },
        max_retries: common.retries,
        restart: None,
        update_version: None,
        horizontal_scaling: None,
        vertical_scaling: None,
        volume_expansion: None,
        configuration: None,
        authentication: None,
        reconnect_standby: None,
        force_fail_over: None,
        set_raft_key_pair: None,
        migration: None,
    };
    let mut request = PostgresOpsRequest::new(&name, spec);
    request.metadata.namespace = Some(namespace);
    let strategy = |()| BTreeMap::from([(STRATEGY.to_owned(), "Reload".to_owned())]);
    request.metadata.annotations = common.reload.then_some(()).map(strategy);
    Ok(request)
}

/// `DATABASE-OPERATION-xxxxx`, as long as a request's name may be.
fn named(database: &str, operation: &str, random: &str) -> String {
    Names::new(database).request(operation, random)
}

/// Five characters of the alphabet that Kubernetes makes names of: no vowels, so no words.
fn random(provider: &CryptoProvider) -> anyhow::Result<String> {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut bytes = [0_u8; 5];
    provider
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| anyhow!("there is no randomness: give the request a --name"))?;
    Ok(bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect())
}

/// An issuer as users write it.
fn issuer(text: &str) -> Result<IssuerRef, String> {
    let (kind, name) = text.split_once('/').unwrap_or(("Issuer", text));
    if !["Issuer", "ClusterIssuer"].contains(&kind) || name.is_empty() || name.contains('/') {
        return Err("use NAME, Issuer/NAME or ClusterIssuer/NAME".to_owned());
    }
    Ok(IssuerRef {
        api_group: Some(CERT_MANAGER_GROUP.to_owned()),
        kind: Some(kind.to_owned()),
        name: name.to_owned(),
    })
}

fn timeout(text: &str) -> Result<String, String> {
    match duration::parse(text) {
        Ok(duration) if duration.is_zero() => {
            Err("no step is done in no time: use a duration such as 5m".to_owned())
        }
        Ok(_) => Ok(text.to_owned()),
        Err(problem) => Err(format!("it {problem}")),
    }
}

fn ssl_mode() -> impl TypedValueParser<Value = SslMode> {
    let modes = SslMode::ALL
        .into_iter()
        .filter(|mode| *mode != SslMode::Disable);
    PossibleValuesParser::new(modes.map(SslMode::as_str)).map(|text| {
        SslMode::ALL
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .unwrap_or(SslMode::VerifyFull)
    })
}

fn client_auth_mode(
    known: &[&'static str],
) -> impl TypedValueParser<Value = ClientAuthMode> + use<> {
    PossibleValuesParser::new(known.to_vec()).map(|text| match text.as_str() {
        "md5" => ClientAuthMode::Md5,
        "cert" => ClientAuthMode::Cert,
        _ => ClientAuthMode::Scram,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_it_is_for_and_is_never_too_long() {
        assert_eq!(
            named("ha-postgres", "rotate-tls", "b2c4d"),
            "ha-postgres-rotate-tls-b2c4d"
        );
        let long = named(&"d".repeat(52), "change-issuer", "b2c4d");
        assert_eq!(
            (long.len(), long.ends_with("d-change-issuer-b2c4d")),
            (63, true)
        );
        assert_eq!(
            random(&aws_lc_rs::default_provider())
                .expect("randomness")
                .len(),
            5
        );
    }

    #[test]
    fn an_issuer_may_say_its_kind() {
        let read = |text| issuer(text).map(|issuer| (issuer.kind.unwrap_or_default(), issuer.name));
        assert_eq!(read("a"), Ok(("Issuer".to_owned(), "a".to_owned())));
        assert_eq!(
            read("ClusterIssuer/a"),
            Ok(("ClusterIssuer".to_owned(), "a".to_owned()))
        );
        for text in ["", "Secret/a", "Issuer/", "Issuer/a/b"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_denial_is_one_line_a_reason() {
        let status: kube::core::Status = serde_json::from_value(serde_json::json!({
            "code": 422, "message": "admission webhook denied the request: ..", "reason": "Invalid",
            "details": {"causes": [
                {"field": "spec.tls.issuerRef", "message": "there is no such issuer; name another", "reason": "FieldValueInvalid"},
                {"field": "spec.databaseRef", "message": "is halted", "reason": "FieldValueInvalid"},
            ]},
        }))
        .expect("a status");
        let said = refused(kube::Error::Api(status.boxed())).to_string();
        assert_eq!(
            said,
            "the request is refused:\n  spec.tls.issuerRef: there is no such issuer; name another\n  spec.databaseRef: is halted"
        );
    }
}
