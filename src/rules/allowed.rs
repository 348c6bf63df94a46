//! The permissions of databases beyond their own objects, as the installation sets them.
//!
//! A user who may create a Postgres has pgrekey create pods and Services, possibly with rights that
//! the user does not have.

use std::str::FromStr;

/// A level of Kubernetes' Pod Security Standards, strictest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodSecurity {
    /// Hardened pods.
    #[default]
    Restricted,
    /// Pods without known privilege escalations.
    Baseline,
    /// Anything.
    Privileged,
}

impl PodSecurity {
    const ALL: [Self; 3] = [Self::Restricted, Self::Baseline, Self::Privileged];

    /// The level in Kubernetes' spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Restricted => "restricted",
            Self::Baseline => "baseline",
            Self::Privileged => "privileged",
        }
    }
}

impl FromStr for PodSecurity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let level = Self::ALL.into_iter().find(|level| level.as_str() == text);
        level.ok_or_else(|| {
            format!(
                "{} is no level: use restricted, baseline or privileged",
                crate::rules::quoted(text)
            )
        })
    }
}

/// The permissions of databases. By default there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// The Pod Security level of their pods.
    pub pod_security: PodSecurity,
    /// Names of the ServiceAccounts that their pods may use, besides their own. Such an account
    /// also needs the label [`USABLE_BY_DATABASES`](crate::api::annotations::USABLE_BY_DATABASES).
    pub service_accounts: Vec<String>,
    /// Whether their Services may have external IPs.
    pub external_ips: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_read_as_it_is_written_and_the_strictest_is_the_default() {
        for level in PodSecurity::ALL {
            assert_eq!(level.as_str().parse(), Ok(level));
        }
        assert_eq!(PodSecurity::default(), PodSecurity::ALL[0]);
        assert!(
            "Restricted"
                .parse::<PodSecurity>()
                .is_err_and(|why| why.contains("use restricted"))
        );
    }
}
