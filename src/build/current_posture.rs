//! The posture in which a cluster is: the one that its objects say, or, for objects that are lost,
//! the one that its spec asks for.
//!
//! The reconcile of a database never takes a running cluster to another posture: it applies again
//! what the objects say. A walk writes these objects itself.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::api::PetSet;
use crate::build::Cluster;
use crate::build::applied::{PostureManifests, UnreadablePosture, has_files, read_posture};
use crate::build::paths::PATRONI_YML;
use crate::build::patroni::dynamic::DynamicConfig;
use crate::build::patroni::{dynamic, local};
use crate::pki::issued::{Issued, ServedMaterial};
use crate::tls::posture::{Files, Posture};

/// The objects in which a posture is written, each `None` if it does not exist.
#[derive(Debug)]
pub struct PostureObjects {
    /// Secret `NAME-tls`.
    pub tls: Option<Secret>,
    /// ConfigMap `NAME-config`, with Patroni's shared configuration.
    pub shared: Option<ConfigMap>,
    /// ConfigMap `NAME-patroni`, with `patroni.yml`.
    pub patroni: Option<ConfigMap>,
    /// The PetSet.
    pub pet_set: Option<PetSet>,
}

/// The posture in which a cluster is.
#[derive(Debug)]
pub struct CurrentPosture {
    /// The posture.
    pub posture: Posture,
    /// The certificates that servers serve in it, if they serve any.
    pub served: Option<ServedMaterial>,
}

/// Why the posture of a cluster is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostureUnknown {
    /// The cluster is new, and its certificates have not been issued yet.
    NotIssued,
    /// An object is lost or damaged and cannot be made again: in words.
    Lost(String),
}

impl PostureObjects {
    /// Whether the cluster has never been built.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.is_none() && self.patroni.is_none() && self.pet_set.is_none()
    }

    /// The certificates in Secret `NAME-tls`; `None` if they are damaged, because servers must not
    /// get them again.
    #[must_use]
    pub fn served_material(&self) -> Option<ServedMaterial> {
        ServedMaterial::from_data(self.tls.as_ref()?.data.as_ref()?, "")
            .filter(|served| served.material().is_some())
    }

    /// The certificates that were served before the operation that is under way: it goes back to
    /// them if it fails.
    #[must_use]
    pub fn previous_material(&self) -> Option<ServedMaterial> {
        ServedMaterial::from_data(self.tls.as_ref()?.data.as_ref()?, "previous.")
    }

    /// Patroni's shared configuration, if it can be read.
    #[must_use]
    pub fn shared_config(&self) -> Option<DynamicConfig> {
        shared_config(self.shared.as_ref()?)
    }

    /// `patroni.yml`.
    #[must_use]
    pub fn local_config(&self) -> Option<&String> {
        self.patroni.as_ref()?.data.as_ref()?.get(PATRONI_YML)
    }
}

/// Patroni's shared configuration in ConfigMap `NAME-config`, if it can be read.
#[must_use]
pub fn shared_config(shared: &ConfigMap) -> Option<DynamicConfig> {
    DynamicConfig::from_config_map(shared)
}

/// The posture in which the cluster is. `desired` is the one that its spec asks for, `issued` the
/// certificates that were issued for it: each `None` while it is not known.
///
/// # Errors
/// [`PostureUnknown`] if an object is missing and `desired` or `issued` would be needed instead.
pub fn current_posture(
    cluster: &Cluster,
    objects: &PostureObjects,
    desired: Option<&Posture>,
    issued: Option<&Issued>,
) -> Result<CurrentPosture, PostureUnknown> {
    if objects.is_empty() {
        // Without TLS the desired posture is always known.
        let desired = desired.cloned().ok_or(PostureUnknown::NotIssued)?;
        return Ok(with_issued(desired, issued));
    }
    let desired_instead_of = |lost: &str| {
        desired.ok_or_else(|| {
            PostureUnknown::Lost(format!(
                "{lost} is lost or damaged, and what the spec asks for has not been issued"
            ))
        })
    };
    let shared = match objects.shared_config() {
        Some(shared) => shared,
        None => dynamic::config(cluster, desired_instead_of("the shared configuration")?),
    };
    let local = match objects.local_config() {
        Some(local) => local.clone(),
        None => patroni_yml(cluster, desired_instead_of("patroni.yml")?),
    };
    let tls = objects.tls.as_ref().and_then(|secret| secret.data.as_ref());
    let read = |dynamic: &DynamicConfig, local: &str, files| {
        read_posture(&PostureManifests {
            tls,
            dynamic,
            local,
            files,
        })
    };
    // A halted cluster has no pods. It had files if the Secret holds certificates, or if its
    // settings need them.
    let needs_files = || read(&shared, &local, false).is_ok_and(|posture| posture.needs_files());
    let files = match &objects.pet_set {
        Some(set) => has_files(set),
        None => objects.served_material().is_some() || needs_files(),
    };
    let posture = match read(&shared, &local, files) {
        Ok(posture) => posture,
        Err(UnreadablePosture::Files) => {
            // The certificates are lost. Those that were issued take their place.
            let issued = issued.ok_or_else(|| {
                PostureUnknown::Lost(format!(
                    "Secret {} is damaged, and nothing has been issued to mend it",
                    cluster.names().tls_secret()
                ))
            })?;
            let rest = match read(&shared, &local, false) {
                Ok(posture) => posture,
                Err(_) => desired_instead_of("the configuration")?.clone(),
            };
            let files = Some(Files::trusting_its_signers(issued.material));
            return Ok(with_issued(Posture { files, ..rest }, Some(issued)));
        }
        // The configuration was edited by hand.
        Err(UnreadablePosture::Dynamic(_) | UnreadablePosture::Local(_)) => {
            let desired = desired_instead_of("the configuration")?;
            let (shared, local) = (
                dynamic::config(cluster, desired),
                patroni_yml(cluster, desired),
            );
            read(&shared, &local, files).unwrap_or_else(|_| desired.clone())
        }
    };
    let served = objects.served_material();
    if served.is_some() && posture.files.is_some() {
        Ok(CurrentPosture { posture, served })
    } else {
        Ok(with_issued(posture, issued))
    }
}

fn with_issued(posture: Posture, issued: Option<&Issued>) -> CurrentPosture {
    let served = issued
        .filter(|_| posture.files.is_some())
        .map(|issued| issued.served.clone());
    CurrentPosture { posture, served }
}

fn patroni_yml(cluster: &Cluster, posture: &Posture) -> String {
    let data = local::config_map(cluster, posture).data.unwrap_or_default();
    data.get(PATRONI_YML).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;

    use super::*;
    use crate::api::Postgres;
    use crate::api::names::DEFAULT_CLUSTER_DOMAIN;
    use crate::api::postgres_version::PostgresVersionSpec;
    use crate::api::tls::SslMode;
    use crate::build::{BuildInputs, pet_set, secrets};
    use crate::pki::issued::tests::{Authority, issue};
    use crate::tls::Method;

    fn cluster() -> Cluster {
        let spec = "{version: '17', storageType: Ephemeral, tls: {issuerRef: {name: i}}}";
        let mut postgres = Postgres::new("pg", serde_saphyr::from_str(spec).expect("a spec"));
        postgres.metadata.namespace = Some("demo".to_owned());
        let version = PostgresVersionSpec {
            version: "17.12".to_owned(),
            ..Default::default()
        };
        Cluster::build(
            &postgres,
            &BuildInputs {
                version: &version,
                superuser: "postgres",
                user_conf: None,
                live_pods: 0,
                cluster_domain: DEFAULT_CLUSTER_DOMAIN,
            },
        )
        .expect("a cluster")
    }

    fn issued() -> Issued {
        let ca = Authority::new("ca");
        issue(&ca, &ca)
    }

    fn tls(issued: &Issued) -> Posture {
        Posture::tls(SslMode::VerifyFull, Method::Scram, issued.material)
    }

    /// The objects of a cluster that is there.
    fn objects(posture: &Posture, issued: &Issued) -> PostureObjects {
        let cluster = cluster();
        PostureObjects {
            tls: posture
                .files
                .as_ref()
                .map(|_| secrets::tls(&cluster, &issued.served, None)),
            shared: Some(dynamic::config_map(&cluster, posture)),
            patroni: Some(local::config_map(&cluster, posture)),
            pet_set: Some(pet_set::pet_set(&cluster, posture)),
        }
    }

    fn posture_here(
        objects: &PostureObjects,
        wished: Option<&Posture>,
        issued: Option<&Issued>,
    ) -> Option<(Posture, bool)> {
        current_posture(&cluster(), objects, wished, issued)
            .ok()
            .map(|here| (here.posture, here.served.is_some()))
    }

    #[test]
    fn a_new_cluster_begins_at_its_spec_and_waits_for_its_certificates() {
        let none = PostureObjects {
            tls: None,
            shared: None,
            patroni: None,
            pet_set: None,
        };
        let issued = issued();
        let wished = tls(&issued);
        assert_eq!(
            posture_here(&none, Some(&wished), Some(&issued)),
            Some((wished, true))
        );
        let plain = Posture::plain(Method::Md5);
        assert_eq!(
            posture_here(&none, Some(&plain), None),
            Some((plain, false))
        );
        assert!(matches!(
            current_posture(&cluster(), &none, None, None),
            Err(PostureUnknown::NotIssued)
        ));
    }

    #[test]
    fn a_cluster_that_runs_stays_where_it_is_whatever_its_spec_wants() {
        let (served, renewed) = (issued(), issued());
        let there = tls(&served);
        for (wished, issued) in [
            (Some(tls(&renewed)), Some(&renewed)),
            (Some(Posture::plain(Method::Scram)), None),
            (None, None),
        ] {
            let here = posture_here(&objects(&there, &served), wished.as_ref(), issued);
            assert_eq!(here, Some((there.clone(), true)));
        }
        let plain = Posture::plain(Method::Md5);
        let here = posture_here(&objects(&plain, &served), Some(&there), Some(&served));
        assert_eq!(here, Some((plain, false)));
    }

    type Lose = fn(&mut PostureObjects);

    /// The server's, by the client's.
    fn replace_a_key(objects: &mut PostureObjects) {
        let data = objects
            .tls
            .as_mut()
            .and_then(|secret| secret.data.as_mut())
            .expect("data");
        let other = data["client.key"].clone();
        data.insert("server.key".to_owned(), other);
    }

    #[test]
    fn a_lost_object_is_made_again_from_the_spec() {
        let issued = issued();
        let there = tls(&issued);
        let lose: [(&str, Lose); 9] = [
            ("the shared configuration", |p| p.shared = None),
            ("its annotation", |p| {
                p.shared
                    .iter_mut()
                    .for_each(|map| map.annotations_mut().clear());
            }),
            ("sense", |p| {
                let damaged = r#"{"postgresql": {"parameters": {"ssl": "?"}}}"#.to_owned();
                p.shared.iter_mut().for_each(|map| {
                    drop(
                        map.annotations_mut()
                            .insert("config".to_owned(), damaged.clone()),
                    );
                });
            }),
            ("patroni.yml", |p| p.patroni = None),
            ("the set", |p| p.pet_set = None),
            ("the Secret", |p| p.tls = None),
            ("a key", |p| {
                p.tls
                    .iter_mut()
                    .for_each(|secret| drop(secret.data.as_mut().map(|d| d.remove("client.key"))));
            }),
            ("a key that fits", replace_a_key),
            ("a key that fits, of a cluster that is halted", |p| {
                replace_a_key(p);
                p.pet_set = None;
            }),
        ];
        for (what, lose) in lose {
            let mut objects = objects(&there, &issued);
            lose(&mut objects);
            let mended = current_posture(&cluster(), &objects, Some(&there), Some(&issued))
                .unwrap_or_else(|_| panic!("{what}"));
            assert_eq!(mended.posture, there, "{what}");
            assert_eq!(
                mended.served.and_then(|served| served.material()),
                Some(issued.material),
                "{what}"
            );
            let known = posture_here(&objects, None, None);
            assert_eq!(known.is_some(), what == "the set", "{what}");
        }
    }
}
