//! Flags that `run`, `check` and `plan` share: what an installation fills in, and what it allows.

use std::sync::Arc;

use crate::rules::allowed::{Allowed, PodSecurity};
use crate::rules::defaults::{DefaultIssuer, InstallationDefaults};

/// What admission fills in and lets pass
#[derive(Debug, clap::Args)]
pub(crate) struct Defaults {
    /// Issuer for objects that name none, as `pgrekey run` has it: Issuer/NAME or
    /// ClusterIssuer/NAME
    #[arg(long, env = "PGREKEY_DEFAULT_ISSUER", value_name = "ISSUER")]
    default_issuer: Option<DefaultIssuer>,
    #[command(flatten)]
    tenancy: Tenancy,
}

impl Defaults {
    /// The installation that would judge.
    pub(crate) fn installation(self) -> InstallationDefaults {
        let Self {
            default_issuer,
            tenancy,
        } = self;
        InstallationDefaults {
            issuer: default_issuer,
            allowed: Arc::new(tenancy.allowed()),
            ..InstallationDefaults::default()
        }
    }
}

/// What databases may have
#[derive(Debug, clap::Args)]
pub(crate) struct Tenancy {
    /// What pods of databases may be, by Kubernetes' Pod Security Standards: restricted, baseline
    /// or privileged
    #[arg(
        long,
        env = "PGREKEY_POD_SECURITY",
        value_name = "LEVEL",
        default_value = "restricted"
    )]
    pod_security: PodSecurity,
    /// ServiceAccounts with the label pgrekey.dev/usable-by-databases=true that pods of databases
    /// may run as, besides their own
    #[arg(
        long,
        env = "PGREKEY_SERVICE_ACCOUNTS",
        value_name = "NAME",
        value_delimiter = ','
    )]
    service_accounts: Vec<String>,
    /// Let Services of databases have external IPs
    #[arg(long, env = "PGREKEY_ALLOW_EXTERNAL_IPS")]
    allow_external_ips: bool,
}

impl Tenancy {
    pub(crate) fn allowed(self) -> Allowed {
        let Self {
            pod_security,
            service_accounts,
            allow_external_ips,
        } = self;
        Allowed {
            pod_security,
            service_accounts,
            external_ips: allow_external_ips,
        }
    }
}
