//! Flags that `run`, `check` and `plan` share: the defaults and the limits of an installation.

use std::sync::Arc;

use crate::rules::allowed::{Allowed, PodSecurity};
use crate::rules::defaults::{DefaultIssuer, InstallationDefaults};

/// Defaults and limits of admission
#[derive(Debug, clap::Args)]
pub(crate) struct AdmissionFlags {
    /// Issuer for objects that name none, as in `pgrekey run`: Issuer/NAME or ClusterIssuer/NAME
    #[arg(long, env = "PGREKEY_DEFAULT_ISSUER", value_name = "ISSUER")]
    default_issuer: Option<DefaultIssuer>,
    #[command(flatten)]
    tenancy: TenancyFlags,
}

impl AdmissionFlags {
    /// The installation with these flags.
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

/// Limits for databases
#[derive(Debug, clap::Args)]
pub(crate) struct TenancyFlags {
    /// Pod Security Standard that pods of databases must meet: restricted, baseline or privileged
    #[arg(
        long,
        env = "PGREKEY_POD_SECURITY",
        value_name = "LEVEL",
        default_value = "restricted"
    )]
    pod_security: PodSecurity,
    /// ServiceAccounts that pods of databases may run as, besides their own; they need the label
    /// pgrekey.dev/usable-by-databases=true too
    #[arg(
        long,
        env = "PGREKEY_SERVICE_ACCOUNTS",
        value_name = "NAME",
        value_delimiter = ','
    )]
    service_accounts: Vec<String>,
    /// Allow external IPs in Services of databases
    #[arg(long, env = "PGREKEY_ALLOW_EXTERNAL_IPS")]
    allow_external_ips: bool,
}

impl TenancyFlags {
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
