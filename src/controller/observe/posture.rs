//! Where a cluster is: the posture that its objects say, or, for what they lack, the one that its
//! spec asks for.
//!
//! The loop of the databases never takes a running cluster to another posture: it writes again what
//! is written. Who walks does so by writing these objects.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use serde_json::Value;

use crate::api::PetSet;
use crate::build::Cluster;
use crate::build::applied::{PostureManifests, Unreadable, has_files, read_posture};
use crate::build::patroni::{dynamic, local};
use crate::cluster::{Error, Objects};
use crate::controller::postgres::{Interrupt, ReconcileResult};
use crate::pki::issued::{Issued, ServedMaterial};
use crate::tls::posture::{Files, Posture};

/// The objects in which a posture is written down, as far as they are there.
#[derive(Debug)]
pub(crate) struct PostureObjects {
    pub(crate) tls: Option<Secret>,
    pub(crate) shared: Option<ConfigMap>,
    pub(crate) patroni: Option<ConfigMap>,
    pub(crate) pet_set: Option<PetSet>,
}

/// Where a cluster is.
#[derive(Debug)]
pub(crate) struct CurrentPosture {
    pub(crate) posture: Posture,
    /// What is served there, if anything is.
    pub(crate) served: Option<ServedMaterial>,
}

impl PostureObjects {
    pub(crate) async fn fetch(objects: &Objects, cluster: &Cluster) -> Result<Self, Error> {
        let [shared, ..] = cluster.patroni_config_maps();
        Ok(Self {
            tls: objects.get(&cluster.tls_secret()).await?,
            shared: objects.get(&shared).await?,
            patroni: objects.get(&cluster.patroni()).await?,
            pet_set: objects.get(cluster.name()).await?,
        })
    }

    /// Whether the cluster has never been built.
    pub(crate) fn none(&self) -> bool {
        self.shared.is_none() && self.patroni.is_none() && self.pet_set.is_none()
    }

    /// What is served, as far as it may be: what is damaged is not given to servers again.
    pub(crate) fn served_material(&self) -> Option<ServedMaterial> {
        ServedMaterial::from_data(self.tls.as_ref()?.data.as_ref()?, "")
            .filter(|served| served.material().is_some())
    }

    /// Patroni's shared configuration, as far as it can be read.
    pub(crate) fn shared_config(&self) -> Option<Value> {
        shared_config(self.shared.as_ref()?)
    }

    pub(crate) fn local_config(&self) -> Option<&String> {
        self.patroni
            .as_ref()?
            .data
            .as_ref()?
            .get(local::PATRONI_YML)
    }
}

/// Patroni's shared configuration in this ConfigMap, if it can be read.
pub(crate) fn shared_config(shared: &ConfigMap) -> Option<Value> {
    serde_json::from_str(shared.annotations().get(dynamic::ANNOTATION)?).ok()
}

/// Where the cluster is, given what its spec asks for and what has been issued for it, if that is
/// known.
pub(crate) fn current_posture(
    cluster: &Cluster,
    pieces: &PostureObjects,
    wished: Option<&Posture>,
    issued: Option<&Issued>,
) -> ReconcileResult<CurrentPosture> {
    let wish = |what: &str| {
        let why =
            || format!("{what} is lost or damaged, and what the spec asks for has not been issued");
        wished.ok_or_else(|| Interrupt::Blocked("PostureUnknown", why()))
    };
    if pieces.none() {
        // Without TLS a posture is always known.
        return wished
            .cloned()
            .map(|posture| with_issued(posture, issued))
            .ok_or(Interrupt::Wait("certificates"));
    }
    let shared = pieces.shared_config();
    let shared = shared.map_or_else(
        || wish("the shared configuration").map(|w| dynamic::config(cluster, w)),
        Ok,
    )?;
    let local = pieces.local_config().cloned();
    let local = local.map_or_else(|| wish("patroni.yml").map(|w| patroni_yml(cluster, w)), Ok)?;
    let data = pieces.tls.as_ref().and_then(|secret| secret.data.as_ref());
    let read = |shared: &Value, local: &str, files| {
        read_posture(&PostureManifests {
            tls: data,
            shared,
            patroni: local,
            files,
        })
    };
    // A cluster that is halted has no pods; it had files if there is something to serve, or if it
    // cannot be without.
    let needs_files = || read(&shared, &local, false).is_ok_and(|posture| posture.needs_files());
    let files = pieces.pet_set.as_ref().map_or_else(
        || pieces.served_material().is_some() || needs_files(),
        has_files,
    );
    let posture = match read(&shared, &local, files) {
        Ok(posture) => posture,
        Err(Unreadable::Files) => {
            // What was served is lost; what has been issued takes its place.
            let issued = issued.ok_or_else(|| {
                let why = format!(
                    "Secret {} is damaged, and nothing has been issued to mend it",
                    cluster.tls_secret()
                );
                Interrupt::Blocked("PostureUnknown", why)
            })?;
            let rest =
                read(&shared, &local, false).or_else(|_| wish("the configuration").cloned())?;
            return Ok(with_issued(
                Posture {
                    files: Some(Files::trusting_its_signers(issued.material)),
                    ..rest
                },
                Some(issued),
            ));
        }
        // Somebody has written into it by hand.
        Err(Unreadable::Shared(_) | Unreadable::Patroni(_)) => {
            let wished = wish("the configuration")?;
            let repaired = (
                dynamic::config(cluster, wished),
                patroni_yml(cluster, wished),
            );
            read(&repaired.0, &repaired.1, files).unwrap_or_else(|_| wished.clone())
        }
    };
    let served = pieces.served_material().filter(|_| posture.files.is_some());
    Ok(if served.is_some() {
        CurrentPosture { posture, served }
    } else {
        with_issued(posture, issued)
    })
}

fn with_issued(posture: Posture, issued: Option<&Issued>) -> CurrentPosture {
    let served = issued
        .filter(|_| posture.files.is_some())
        .map(|issued| issued.served.clone());
    CurrentPosture { posture, served }
}

fn patroni_yml(cluster: &Cluster, posture: &Posture) -> String {
    let data = local::config_map(cluster, posture).data.unwrap_or_default();
    data.get(local::PATRONI_YML).cloned().unwrap_or_default()
}

/// What an operation that fails goes back to: it stays where it is.
pub(crate) fn previous_material(pieces: &PostureObjects) -> Option<ServedMaterial> {
    ServedMaterial::from_data(pieces.tls.as_ref()?.data.as_ref()?, "previous.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Postgres;
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
    fn pieces(posture: &Posture, issued: &Issued) -> PostureObjects {
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
        pieces: &PostureObjects,
        wished: Option<&Posture>,
        issued: Option<&Issued>,
    ) -> Option<(Posture, bool)> {
        current_posture(&cluster(), pieces, wished, issued)
            .ok()
            .map(|here| (here.posture, here.served.is_some()))
    }

    #[test]
    fn a_new_cluster_begins_where_its_spec_wants_it_and_waits_for_what_that_takes() {
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
            Err(Interrupt::Wait(_))
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
            let here = posture_here(&pieces(&there, &served), wished.as_ref(), issued);
            assert_eq!(here, Some((there.clone(), true)));
        }
        let plain = Posture::plain(Method::Md5);
        let here = posture_here(&pieces(&plain, &served), Some(&there), Some(&served));
        assert_eq!(here, Some((plain, false)));
    }

    type Lose = fn(&mut PostureObjects);

    /// The server's, by the client's.
    fn replace_a_key(pieces: &mut PostureObjects) {
        let data = pieces
            .tls
            .as_mut()
            .and_then(|secret| secret.data.as_mut())
            .expect("data");
        let other = data["client.key"].clone();
        data.insert("server.key".to_owned(), other);
    }

    #[test]
    fn what_is_lost_is_made_again_from_what_the_spec_wants() {
        let issued = issued();
        let there = tls(&issued);
        let lose: [(&str, Lose); 9] = [
            ("the shared configuration", |p| p.shared = None),
            ("its annotation", |p| {
                p.shared
                    .iter_mut()
                    .for_each(|map| map.annotations_mut().clear())
            }),
            ("sense", |p| {
                let damaged = r#"{"postgresql": {"parameters": {"ssl": "?"}}}"#.to_owned();
                p.shared.iter_mut().for_each(|map| {
                    drop(
                        map.annotations_mut()
                            .insert("config".to_owned(), damaged.clone()),
                    )
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
            let mut pieces = pieces(&there, &issued);
            lose(&mut pieces);
            let mended = current_posture(&cluster(), &pieces, Some(&there), Some(&issued))
                .unwrap_or_else(|_| panic!("{what}"));
            assert_eq!(mended.posture, there, "{what}");
            assert_eq!(
                mended.served.and_then(|served| served.material()),
                Some(issued.material),
                "{what}"
            );
            let known = posture_here(&pieces, None, None);
            assert_eq!(known.is_some(), what == "the set", "{what}");
        }
    }
}
