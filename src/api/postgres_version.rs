//! `PostgresVersion` (`catalog.kubedb.com/v1alpha1`): the images of a version of PostgreSQL.

use std::collections::BTreeSet;

use kube::{CustomResource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::api::annotations::TLS_GROUPS;

/// The images of a version of PostgreSQL, and how they run.
#[skip_serializing_none]
#[derive(
    CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq,
)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "catalog.kubedb.com",
    version = "v1alpha1",
    kind = "PostgresVersion",
    plural = "postgresversions",
    singular = "postgresversion",
    shortname = "pgversion",
    category = "catalog",
    category = "kubedb",
    category = "appscode",
    derive = "PartialEq",
    doc = "PostgresVersion says which images make up a version of PostgreSQL.",
    annotation("helm.sh/resource-policy", "keep"),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".spec.version",
        description = "Version of PostgreSQL"
    ),
    printcolumn(
        name = "Distribution",
        type_ = "string",
        json_path = ".spec.distribution",
        description = "Who makes the image"
    ),
    printcolumn(
        name = "DB_IMAGE",
        type_ = "string",
        json_path = ".spec.db.image",
        description = "Image of the database"
    ),
    printcolumn(
        name = "Deprecated",
        type_ = "boolean",
        json_path = ".spec.deprecated",
        description = "Whether new databases should use it"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since creation"
    )
)]
pub struct PostgresVersionSpec {
    /// Version of PostgreSQL in the image, such as `17.12`.
    pub version: String,
    /// Publisher of the image, such as `Official`.
    pub distribution: Option<String>,
    /// Image of the database.
    pub db: DatabaseImage,
    /// Image of the metrics exporter.
    pub exporter: Image,
    /// Image of KubeDB's coordinator. pgrekey runs none and ignores it.
    pub coordinator: Option<Image>,
    /// Image of KubeDB's init container. pgrekey runs none and ignores it.
    pub init_container: Option<Image>,
    /// New databases should not use this version; admission warns. False if left out.
    pub deprecated: Option<bool>,
    /// User that the image runs as.
    pub security_context: Option<VersionSecurityContext>,
    /// Versions to which a database of this version may be updated.
    pub update_constraints: Option<UpdateConstraints>,
    /// TLS settings of this version.
    pub tls: Option<VersionTls>,
}

impl PostgresVersionSpec {
    /// PostgreSQL's major version. `None` if `version` does not begin with a number.
    #[must_use]
    pub fn major(&self) -> Option<u32> {
        major(&self.version)
    }
}

impl PostgresVersion {
    /// The groups that annotation [`TLS_GROUPS`] names.
    #[must_use]
    pub fn tls_groups(&self) -> BTreeSet<String> {
        let annotation = self.annotations().get(TLS_GROUPS);
        let groups = annotation.into_iter().flat_map(|text| text.split(','));
        groups
            .map(|group| group.trim().to_owned())
            .filter(|group| !group.is_empty())
            .collect()
    }
}

/// The major version: the 17 of `17.12`.
#[must_use]
pub fn major(version: &str) -> Option<u32> {
    let digits = version
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(version.len());
    version[..digits].parse().ok()
}

/// Image of the database.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseImage {
    /// Image with PostgreSQL and Patroni.
    pub image: String,
    /// Distribution the image is built on, such as `debian`.
    #[serde(rename = "baseOS")]
    pub base_os: Option<String>,
}

/// An image.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Name of the image, with tag or digest.
    pub image: String,
}

/// User that an image runs as.
#[skip_serializing_none]
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VersionSecurityContext {
    /// Numeric user and group. 999 if left out.
    #[schemars(range(min = 1))]
    pub run_as_user: Option<i64>,
    /// Whether the image runs as any user but root. False if left out.
    pub run_as_any_non_root: Option<bool>,
}

/// Versions to which a database may be updated, as semver constraints.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UpdateConstraints {
    /// Versions that are allowed, such as `>= 17.0`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowlist: Vec<String>,
    /// Versions that are not allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denylist: Vec<String>,
}

/// TLS settings of a version.
#[skip_serializing_none]
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VersionTls {
    /// Whether the server must not resume TLS sessions. False if left out.
    #[serde(rename = "disableSSLSessionResumption")]
    pub disable_ssl_session_resumption: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_of_an_image_are_listed_with_commas() {
        let mut version = PostgresVersion::new("18", PostgresVersionSpec::default());
        assert_eq!(version.tls_groups(), BTreeSet::new());
        let text = "X25519MLKEM768, brainpoolP256r1,,".to_owned();
        version
            .annotations_mut()
            .insert(TLS_GROUPS.to_owned(), text);
        let groups = ["X25519MLKEM768", "brainpoolP256r1"].map(str::to_owned);
        assert_eq!(version.tls_groups(), BTreeSet::from(groups));
    }

    #[test]
    fn a_version_begins_with_its_major_version() {
        for (version, number) in [
            ("17.12", Some(17)),
            ("18", Some(18)),
            ("16beta1", Some(16)),
            ("9.6-alpine", Some(9)),
            ("ten", None),
            ("", None),
        ] {
            assert_eq!(major(version), number, "{version}");
        }
    }
}
