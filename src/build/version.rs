//! Which PostgresVersion a database is built of: the one that its spec names, unless the data
//! belong to another major version.
//!
//! PostgreSQL 18 does not start on data of 17. If the template had its image, the failure would
//! stay hidden until the next restart.

use std::fmt;
use std::str::FromStr;

use crate::api::annotations::BUILT_OF;
use crate::api::postgres_version::PostgresVersionSpec;
use crate::build::Cluster;

/// The version of a database's data, from [`BUILT_OF`]: `17/17.12`. The PostgresVersion of this
/// name may have changed or gone since; the data stay what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltOf {
    /// PostgreSQL's major version.
    pub major: u32,
    /// Name of the PostgresVersion.
    pub name: String,
}

impl BuiltOf {
    /// The annotation with this value.
    #[must_use]
    pub fn annotation(&self) -> (String, String) {
        (BUILT_OF.to_owned(), self.to_string())
    }
}

impl fmt::Display for BuiltOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.major, self.name)
    }
}

/// The text is not `MAJOR/NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoVersion;

impl FromStr for BuiltOf {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let (major, name) = text
            .split_once('/')
            .filter(|(_, name)| !name.is_empty())
            .ok_or(NoVersion)?;
        Ok(Self {
            major: major.parse().map_err(|_| NoVersion)?,
            name: name.to_owned(),
        })
    }
}

impl Cluster {
    /// The version of this cluster's data.
    #[must_use]
    pub fn built_of(&self) -> BuiltOf {
        BuiltOf {
            major: self.major,
            name: self.spec.version.clone(),
        }
    }
}

/// A PostgresVersion by its name.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Name of the PostgresVersion.
    pub name: &'a str,
    /// Its spec. `None` if there is no such PostgresVersion.
    pub spec: Option<&'a PostgresVersionSpec>,
}

/// The PostgresVersion for the next reconcile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The one in `spec.version`.
    Follow,
    /// The one that the database is built of already, although the spec names another. The text is
    /// the reason.
    Stay(String),
    /// None: neither fits the data. The text is the reason.
    Neither(String),
}

/// Chooses the PostgresVersion for the next reconcile. `built` is the version of the data; `there`
/// is the PostgresVersion of that name today; `wished` is the one in `spec.version`.
#[must_use]
pub fn choose(built: &BuiltOf, there: Option<&PostgresVersionSpec>, wished: Named<'_>) -> Choice {
    let BuiltOf { major, name: from } = built;
    let to = wished.name;
    let why = match wished.spec.map(PostgresVersionSpec::major) {
        Some(Some(wished)) if wished == *major => return Choice::Follow,
        // A PostgresVersion that does not exist is reported elsewhere.
        None if from == to => return Choice::Follow,
        None => format!("there is no PostgresVersion {to}"),
        Some(Some(wished)) => {
            format!("{to} is PostgreSQL {wished}, and the data are PostgreSQL {major}'s")
        }
        Some(None) => {
            format!(
                "PostgresVersion {to} does not say which PostgreSQL it is, and the data are PostgreSQL {major}'s"
            )
        }
    };
    let elsewhere = "or create another Postgres and move the data there";
    let lost = match there {
        _ if from == to => format!("it was PostgreSQL {major}"),
        Some(there) if there.major() == Some(*major) => {
            return Choice::Stay(format!(
                "spec.version: {why}: the pods stay at {from}; put that back, {elsewhere}"
            ));
        }
        Some(_) => format!("{from} is PostgreSQL {major} no more"),
        None => format!("PostgresVersion {from} has gone"),
    };
    Choice::Neither(format!(
        "spec.version: {why}; {lost}: nothing is built, and the pods stay as they are; name a PostgresVersion of PostgreSQL \
         {major}, {elsewhere}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: &str) -> PostgresVersionSpec {
        PostgresVersionSpec {
            version: version.to_owned(),
            ..PostgresVersionSpec::default()
        }
    }

    fn named<'a>(name: &'a str, spec: &'a PostgresVersionSpec) -> Named<'a> {
        Named {
            name,
            spec: Some(spec),
        }
    }

    fn built(text: &str) -> BuiltOf {
        text.parse().expect("what it is built of")
    }

    #[test]
    fn the_images_of_a_database_are_read_as_they_were_written() {
        for (text, major, name) in [
            ("17/17.12", 17, "17.12"),
            ("9/corp", 9, "corp"),
            ("18/a/b", 18, "a/b"),
        ] {
            let read = BuiltOf {
                major,
                name: name.to_owned(),
            };
            assert_eq!(text.parse(), Ok(read.clone()));
            assert_eq!(read.to_string(), text);
        }
        for text in [
            "",
            "17",
            "17.12",
            "17/",
            "/17.12",
            "x/17.12",
            "17.12/17.12",
            "-1/x",
        ] {
            assert_eq!(text.parse::<BuiltOf>(), Err(NoVersion), "{text}");
        }
    }

    #[test]
    fn a_database_follows_its_spec_within_its_major_version() {
        let (older, newer) = (version("17.11"), version("17.12"));
        for (from, there, wished) in [
            ("17/17.11", Some(&older), named("17.12", &newer)),
            ("17/17.12", Some(&newer), named("17.11", &older)),
            ("17/17.12", Some(&newer), named("17.12", &newer)),
            // Edited in place, as for a patch release.
            ("17/corp", Some(&newer), named("corp", &newer)),
            // The old PostgresVersion was deleted, and its name did not tell the version.
            ("17/corp", None, named("corp-b", &newer)),
            // The old PostgresVersion has another major version now. That does not matter.
            ("17/corp", Some(&version("18.1")), named("corp-b", &newer)),
            // A missing PostgresVersion is reported elsewhere.
            (
                "17/gone",
                None,
                Named {
                    name: "gone",
                    spec: None,
                },
            ),
        ] {
            assert_eq!(
                choose(&built(from), there, wished),
                Choice::Follow,
                "{from} {wished:?}"
            );
        }
    }

    #[test]
    fn a_database_stays_where_its_data_are_when_the_spec_goes_elsewhere() {
        let (old, new, odd) = (version("17.12"), version("18.1"), version("latest"));
        for (from, there, wished, why) in [
            (
                "17/17.12",
                &old,
                named("18.1", &new),
                "18.1 is PostgreSQL 18, and the data are PostgreSQL 17's",
            ),
            (
                "18/18.1",
                &new,
                named("17.12", &old),
                "17.12 is PostgreSQL 17, and the data are PostgreSQL 18's",
            ),
            // The name says 17 and the object says 18. The object counts.
            (
                "17/17.12",
                &old,
                named("17.13", &new),
                "17.13 is PostgreSQL 18, and the data are PostgreSQL 17's",
            ),
            (
                "17/17.12",
                &old,
                Named {
                    name: "17.13",
                    spec: None,
                },
                "there is no PostgresVersion 17.13",
            ),
            (
                "17/17.12",
                &old,
                named("odd", &odd),
                "PostgresVersion odd does not say",
            ),
        ] {
            let built = built(from);
            let Choice::Stay(said) = choose(&built, Some(there), wished) else {
                panic!("{from} {wished:?}")
            };
            assert!(
                said.contains(why) && said.contains(&format!("stay at {};", built.name)),
                "{said}"
            );
        }
    }

    #[test]
    fn nothing_is_built_where_neither_version_takes_the_data() {
        let (new, odd) = (version("18.1"), version("latest"));
        for (from, there, wished, why) in [
            // Edited in place.
            (
                "17/corp",
                Some(&new),
                named("corp", &new),
                "corp is PostgreSQL 18, and the data are PostgreSQL 17's; it was",
            ),
            (
                "17/corp",
                Some(&odd),
                named("corp", &odd),
                "PostgresVersion corp does not say which PostgreSQL it is",
            ),
            (
                "17/corp",
                Some(&new),
                named("18.1", &new),
                "corp is PostgreSQL 17 no more",
            ),
            (
                "17/corp",
                None,
                named("18.1", &new),
                "PostgresVersion corp has gone",
            ),
            (
                "17/corp",
                None,
                Named {
                    name: "corp-b",
                    spec: None,
                },
                "there is no PostgresVersion corp-b",
            ),
        ] {
            let Choice::Neither(said) = choose(&built(from), there, wished) else {
                panic!("{from} {wished:?}")
            };
            assert!(
                said.contains(why) && said.contains("a PostgresVersion of PostgreSQL 17"),
                "{said}"
            );
        }
    }
}
