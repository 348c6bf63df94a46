//! `pgrekey add-tls`, `rotate`, `change-issuer`, `remove-tls`: create a request, and with `--wait`
//! follow it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use kube::ResourceExt;
use kube::api::{Api, PostParams};

use crate::api::annotations::STRATEGY;
use crate::api::duration;
use crate::api::names::Names;
use crate::api::ops_request::{Apply, DatabaseRef, OpsType, TlsChange};
use crate::api::tls::{CERT_MANAGER_GROUP, ClientAuthMode, IssuerRef, SslMode};
use crate::api::{PostgresOpsRequest, PostgresOpsRequestSpec};
use crate::cli::kubeconfig::{Scope, block_on, explain_api_error, locate};
use crate::cli::output::{Output, json, print_lines, yaml};
use crate::cli::program_name::program_name;
use crate::cli::status::follow;
use crate::cluster::random;

/// Flags of every command that creates a request
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one flag of the command line"
)]
struct RequestFlags {
    /// The database: NAME or NAMESPACE/NAME
    #[arg(value_name = "DATABASE")]
    database: String,
    /// Name of the request. Default: database, operation and five random characters
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Change what can be changed without restarting a pod
    #[arg(long)]
    reload: bool,
    /// How long each step may take, such as 5m. Default: 10 minutes
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    timeout: Option<String>,
    /// How often a failed step is retried before the operation is rolled back
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(i32).range(0..))]
    retries: i32,
    /// Begin in any state of the database. Default: wait until the database is Ready
    #[arg(long)]
    always: bool,
    /// Print the request without creating it
    #[arg(long)]
    dry_run: bool,
    /// Follow the request to its end. The exit code is 0 if it succeeded, else 1
    #[arg(long, short, conflicts_with = "dry_run")]
    wait: bool,
    /// Format of the output; json, yaml and --dry-run print the request itself
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
    common: RequestFlags,
    /// Issuer of the certificates: NAME, Issuer/NAME or ClusterIssuer/NAME
    #[arg(long, value_name = "ISSUER", value_parser = issuer)]
    issuer: Option<IssuerRef>,
    /// sslmode of the database's own clients afterwards. Default: verify-full
    #[arg(long, value_name = "MODE", value_parser = ssl_mode())]
    ssl_mode: Option<SslMode>,
    /// Authentication of clients afterwards. Default: as now
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
    common: RequestFlags,
}

/// Move a database to certificates of another issuer
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey change-issuer ha-postgres --issuer pg-new-issuer --wait
  pgrekey change-issuer demo/ha-postgres --issuer ClusterIssuer/company-ca --reload")]
pub(crate) struct ChangeIssuer {
    #[command(flatten)]
    common: RequestFlags,
    /// The new issuer: NAME, Issuer/NAME or ClusterIssuer/NAME
    #[arg(long, value_name = "ISSUER", value_parser = issuer)]
    issuer: IssuerRef,
}

/// Remove TLS from a database
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgrekey remove-tls ha-postgres --client-auth-mode scram --wait
  pgrekey remove-tls demo/ha-postgres --dry-run")]
pub(crate) struct RemoveTls {
    #[command(flatten)]
    common: RequestFlags,
    /// Authentication of clients afterwards; required if it is cert now. Default: as now
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
    // An empty change is no operation. The default sslmode turns it into one.
    let is_empty = issuer.is_none() && ssl_mode.is_none() && client_auth_mode.is_none();
    let ssl_mode = ssl_mode.or(is_empty.then_some(SslMode::VerifyFull));
    create(
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
    create(
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
    create(
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
    create(
        &common,
        "remove-tls",
        TlsChange {
            remove: Some(true),
            client_auth_mode,
            ..TlsChange::default()
        },
    )
}

fn create(common: &RequestFlags, operation: &str, change: TlsChange) -> anyhow::Result<ExitCode> {
    let request = build_request(common, operation, change)?;
    if common.dry_run {
        print_lines(&if common.output == Output::Json {
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
        let mut created = requests
            .create(&PostParams::default(), &request)
            .await
            .map_err(explain_refusal)?;
        if common.wait {
            return follow(&cluster, &created).await;
        }
        created.metadata.managed_fields = None;
        print_lines(&match common.output {
            Output::Json => json(&created)?,
            Output::Yaml => yaml(&created)?,
            Output::Table | Output::Wide => describe_created(&created),
        })?;
        Ok(ExitCode::SUCCESS)
    })
}

/// The name of the created request, and the command that follows it.
fn describe_created(request: &PostgresOpsRequest) -> Vec<String> {
    let (namespace, name) = (request.namespace().unwrap_or_default(), request.name_any());
    vec![
        format!("postgresopsrequest.ops.kubedb.com/{name} created"),
        format!(
            "follow it with: {} status {namespace}/{name} --watch",
            program_name()
        ),
    ]
}

/// The reasons of a denial, one line each.
fn explain_refusal(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 409 => {
            anyhow!("a request of this name exists: choose another --name, or leave it out")
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
        error => explain_api_error("create the request", error),
    }
}

fn build_request(
    common: &RequestFlags,
    operation: &str,
    change: TlsChange,
) -> anyhow::Result<PostgresOpsRequest> {
    let (namespace, database) = locate(&common.scope.namespace(), &common.database);
    let name = match &common.name {
        Some(name) => name.clone(),
        None => generated_name(
            &database,
            operation,
            &random::name_suffix().context("give the request a --name")?,
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
    // `PostgresOpsRequest::new` copies the annotations of the CRD.
    request.metadata.annotations = common
        .reload
        .then(|| BTreeMap::from([(STRATEGY.to_owned(), "Reload".to_owned())]));
    Ok(request)
}

/// `DATABASE-OPERATION-SUFFIX`. A long name of a database is cut, so that the name is valid.
fn generated_name(database: &str, operation: &str, suffix: &str) -> String {
    Names::new(database).request(operation, suffix)
}

/// Parses `NAME`, `Issuer/NAME` or `ClusterIssuer/NAME`.
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
            Err("must be longer than 0: use a duration such as 5m".to_owned())
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
    fn a_generated_name_has_database_and_operation_and_is_never_too_long() {
        assert_eq!(
            generated_name("ha-postgres", "rotate-tls", "b2c4d"),
            "ha-postgres-rotate-tls-b2c4d"
        );
        let long = generated_name(&"d".repeat(52), "change-issuer", "b2c4d");
        assert_eq!(
            (long.len(), long.ends_with("d-change-issuer-b2c4d")),
            (63, true)
        );
    }

    #[test]
    fn an_issuer_may_have_its_kind_in_front() {
        let parse =
            |text| issuer(text).map(|issuer| (issuer.kind.unwrap_or_default(), issuer.name));
        assert_eq!(parse("a"), Ok(("Issuer".to_owned(), "a".to_owned())));
        assert_eq!(
            parse("ClusterIssuer/a"),
            Ok(("ClusterIssuer".to_owned(), "a".to_owned()))
        );
        for text in ["", "Secret/a", "Issuer/", "Issuer/a/b"] {
            assert!(parse(text).is_err(), "{text}");
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
        let said = explain_refusal(kube::Error::Api(status.boxed())).to_string();
        assert_eq!(
            said,
            "the request is refused:\n  spec.tls.issuerRef: there is no such issuer; name another\n  spec.databaseRef: is halted"
        );
    }
}
