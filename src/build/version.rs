//! Which PostgresVersion a database is built of: the one that its spec names, unless the data are of another major version.
//!
//! PostgreSQL 18 does not start on the data of 17. A template with its image would wait, unseen, for the next restart.

use crate::api::postgres_version::{PostgresVersionSpec, major};

/// Annotation of ConfigMap `NAME-patroni`: the PostgresVersion that the database is built of. Unlike the PetSet, this object stays
/// while the database is halted.
pub const BUILT_OF: &str = "pgrekey.dev/version";

/// A PostgresVersion by its name.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is, if it is there.
    pub spec: Option<&'a PostgresVersionSpec>,
}

impl Named<'_> {
    /// PostgreSQL's major version; of a PostgresVersion that has gone, what its name says.
    fn major(&self) -> Option<u32> {
        self.spec.map_or_else(|| major(self.name), PostgresVersionSpec::major)
    }
}

/// Why a database that is built of one version goes on with it, although its spec wishes for another; nothing where it follows.
#[must_use]
pub fn kept(built: Named<'_>, wished: Named<'_>) -> Option<String> {
    let (from, to) = (built.name, wished.name);
    let why = match (built.major(), wished.major()) {
        _ if from == to => return None,
        _ if wished.spec.is_none() => format!("there is no PostgresVersion {to}"),
        (Some(built), Some(wished)) if built == wished => return None,
        (Some(built), Some(wished)) => format!("{to} is PostgreSQL {wished}, and the data are PostgreSQL {built}'s"),
        (None, _) => format!("there is no PostgresVersion {from}, so nobody knows which PostgreSQL the data are of"),
        (_, None) => format!("PostgresVersion {to} does not say which PostgreSQL it is"),
    };
    Some(format!(
        "spec.version: {why}: the pods stay at {from}; put that back, or create another Postgres and move the data there"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: &str) -> PostgresVersionSpec {
        PostgresVersionSpec { version: version.to_owned(), ..PostgresVersionSpec::default() }
    }

    fn named<'a>(name: &'a str, spec: &'a PostgresVersionSpec) -> Named<'a> {
        Named { name, spec: Some(spec) }
    }

    #[test]
    fn a_database_follows_its_spec_within_its_major_version() {
        let (older, newer) = (version("17.11"), version("17.12"));
        for (built, wished) in [
            (named("17.11", &older), named("17.12", &newer)),
            (named("17.12", &newer), named("17.11", &older)),
            // The catalog has been tidied up; the name says enough.
            (Named { name: "17.11", spec: None }, named("seventeen", &newer)),
            // Whether it is there at all is asked elsewhere.
            (Named { name: "gone", spec: None }, Named { name: "gone", spec: None }),
        ] {
            assert_eq!(kept(built, wished), None, "{built:?} {wished:?}");
        }
    }

    #[test]
    fn a_database_stays_where_its_data_are_when_the_spec_goes_elsewhere() {
        let (old, new, odd) = (version("17.12"), version("18.1"), version("latest"));
        for (built, wished, why) in [
            (named("17.12", &old), named("18.1", &new), "18.1 is PostgreSQL 18, and the data are PostgreSQL 17's"),
            (named("18.1", &new), named("17.12", &old), "17.12 is PostgreSQL 17, and the data are PostgreSQL 18's"),
            // The name says 17 and the object 18: the object counts.
            (named("17.12", &old), named("17.13", &new), "17.13 is PostgreSQL 18, and the data are PostgreSQL 17's"),
            (Named { name: "ten", spec: None }, named("17.12", &old), "there is no PostgresVersion ten"),
            (named("17.12", &old), Named { name: "17.13", spec: None }, "there is no PostgresVersion 17.13"),
            (named("17.12", &old), named("odd", &odd), "PostgresVersion odd does not say"),
        ] {
            let said = kept(built, wished).unwrap_or_default();
            assert!(said.contains(why) && said.contains(&format!("stay at {}", built.name)), "{said}");
        }
    }
}
