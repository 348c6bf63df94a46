//! What an installation lets databases ask for that reaches beyond the database.
//!
//! Whoever may create a Postgres has pgrekey make pods and Services with rights that he need not
//! have himself.

use std::str::FromStr;

/// A level of Kubernetes' Pod Security Standards, strictest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodSecurity {
    /// What hardened pods need.
    #[default]
    Restricted,
    /// What pods need that are no danger to their node, as far as is known.
    Baseline,
    /// Anything.
    Privileged,
}

impl PodSecurity {
    const ALL: [Self; 3] = [Self::Restricted, Self::Baseline, Self::Privileged];

    /// The level as Kubernetes writes it.
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

/// What databases may ask for; by default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// What their pods may be.
    pub pod_security: PodSecurity,
    /// Names of ServiceAccounts that their pods may run as, besides their own. One must also carry
    /// the label [`USABLE_BY_DATABASES`](crate::api::annotations::USABLE_BY_DATABASES).
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
