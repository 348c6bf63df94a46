//! The groups of the TLS key exchange that servers offer if their user sets none.
//!
//! # Guarantees
//! A group beyond those of every OpenSSL 3 is written only if every pod there is, and every pod that
//! comes, has the image whose OpenSSL has the group, by what the PostgresVersion declares.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::ResourceExt;

use crate::api::PetSet;
use crate::api::names::POSTGRES;
use crate::build::Cluster;
use crate::build::patroni::DynamicConfig;
use crate::build::workload::ordinal;
use crate::tls::server_settings::{GROUPS, NAMES_OF_GROUPS, default_groups};
use crate::tls::{Posture, ServerTls, settings};

/// The images of a database's servers: of those that run, and of those that the set creates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images(BTreeSet<String>);

impl Images {
    /// The images of the database of this name. A pod counts by its name, whoever controls it: until
    /// it has gone, it may be the database's.
    #[must_use]
    pub fn new<'a>(
        database: &str,
        set: Option<&PetSet>,
        pods: impl IntoIterator<Item = &'a Pod>,
    ) -> Self {
        let template = set.map(|set| set.spec.template.spec.as_ref());
        let pods = pods.into_iter();
        let pods = pods.filter(|pod| ordinal(database, &pod.name_any()).is_some());
        let specs = pods.map(|pod| pod.spec.as_ref()).chain(template);
        Self(
            specs
                .map(|spec| spec.map_or("", image).to_owned())
                .collect(),
        )
    }
}

/// Whether servers are told to offer groups that they should offer no more, or not all of them.
#[must_use]
pub fn are_withdrawn(live: &DynamicConfig, next: &DynamicConfig) -> bool {
    let groups = live.parameter(GROUPS);
    groups.is_some() && groups != next.parameter(GROUPS)
}

/// The image of container `postgres`; empty if there is none.
fn image(pod: &PodSpec) -> &str {
    let server = pod.containers.iter().find(|one| one.name == POSTGRES);
    server
        .and_then(|server| server.image.as_deref())
        .unwrap_or_default()
}

impl Cluster {
    /// The cluster, with the groups that its servers offer by default. `declared` are the groups
    /// that the image of the PostgresVersion has beyond those of every OpenSSL 3.
    #[must_use]
    pub fn with_default_groups(self, declared: &BTreeSet<String>, images: &Images) -> Self {
        let image = &self.version.db.image;
        let is_everywhere = images.0.iter().all(|other| other == image);
        let is_set = NAMES_OF_GROUPS.iter().any(|name| self.user_conf.sets(name));
        let groups = default_groups(self.major, declared).filter(|_| is_everywhere && !is_set);
        Self {
            default_groups: groups,
            ..self
        }
    }

    /// The PostgreSQL settings of a posture. The groups count where there is TLS.
    #[must_use]
    pub fn tls_settings(&self, posture: &Posture) -> Vec<(&'static str, &'static str)> {
        let groups = self.default_groups.map(|groups| (GROUPS, groups));
        let groups = groups.filter(|_| posture.serve == ServerTls::Tls);
        settings::settings(posture)
            .into_iter()
            .chain(groups)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::names::DEFAULT_CLUSTER_DOMAIN;
    use crate::api::tls::SslMode;
    use crate::build::BuildInputs;
    use crate::build::cluster::tests::{build, postgres, version};
    use crate::build::patroni::dynamic;
    use crate::build::pet_set::pet_set;
    use crate::tls::Method;
    use crate::tls::posture::tests::material;

    const OURS: &str = "example.org/postgres:18.1";
    const OLDER: &str = "example.org/postgres:18.0";
    const HYBRID: [&str; 2] = ["brainpoolP256r1", "x25519mlkem768"];

    fn with_tls() -> Posture {
        Posture::tls(SslMode::VerifyFull, Method::Scram, material(1, 1, 1))
    }

    fn pod(name: &str, image: Option<&str>) -> Pod {
        let sidecar = json!({"name": "exporter", "image": OURS});
        let server = image.map(|image| json!({"name": "postgres", "image": image}));
        let containers: Vec<_> = [sidecar].into_iter().chain(server).collect();
        let pod = json!({"metadata": {"name": name}, "spec": {"containers": containers}});
        serde_json::from_value(pod).expect("a pod")
    }

    /// The groups that are written for this spec with these images in a cluster with TLS.
    fn written(spec: &str, declared: &[&str], images: &Images) -> Option<String> {
        let declared = declared.iter().map(|group| (*group).to_owned()).collect();
        let cluster = build(&postgres(spec)).expect("a cluster");
        let cluster = cluster.with_default_groups(&declared, images);
        let config = dynamic::config(&cluster, &with_tls());
        config.parameter("ssl_groups").map(str::to_owned)
    }

    fn running(pods: &[(&str, Option<&str>)]) -> Images {
        let pods: Vec<Pod> = pods.iter().map(|(name, image)| pod(name, *image)).collect();
        Images::new("pg", None, &pods)
    }

    #[test]
    fn the_hybrid_group_comes_first_only_where_every_pod_has_the_image_that_has_it() {
        let both = Some("X25519MLKEM768:X25519:prime256v1");
        for (pods, expected) in [
            (&[][..], both),
            (&[("pg-0", Some(OURS)), ("pg-1", Some(OURS))], both),
            (&[("pg-0", Some(OURS)), ("pg-1", Some(OLDER))], None),
            (&[("pg-0", Some(OLDER))], None),
            (&[("pg-0", Some(OURS)), ("pg-1", None)], None),
            (&[("pg-0", Some(OURS)), ("client-0", Some(OLDER))], both),
            (&[("pg-0", Some(OURS)), ("pg-backup", Some(OLDER))], both),
        ] {
            let groups = written("version: '18.1'", &HYBRID, &running(pods));
            assert_eq!(groups.as_deref(), expected, "{pods:?}");
        }
    }

    #[test]
    fn a_template_that_is_older_than_the_postgres_version_counts_like_a_pod() {
        let set_of = |version: &str| {
            let cluster = build(&postgres(&format!("version: '{version}'"))).expect("a cluster");
            pet_set(&cluster, &Posture::plain(Method::Scram))
        };
        for (version, is_written) in [("18.1", true), ("18.0", false)] {
            let images = Images::new("pg", Some(&set_of(version)), &[pod("pg-0", Some(OURS))]);
            let groups = written("version: '18.1'", &HYBRID, &images);
            assert_eq!(groups.is_some(), is_written, "{version}");
        }
    }

    #[test]
    fn the_hybrid_group_is_never_guessed() {
        let none = Images::default();
        for (spec, declared) in [
            ("version: '17.12'", &HYBRID[..]),
            ("version: '18.1'", &[]),
            ("version: '18.1'", &["brainpoolP256r1"]),
        ] {
            assert_eq!(written(spec, declared, &none), None, "{spec} {declared:?}");
        }
        assert!(written("version: '19.0'", &HYBRID, &none).is_some());
        let cluster = build(&postgres("version: '18.1'")).expect("a cluster");
        let config = dynamic::config(&cluster, &with_tls());
        assert_eq!(config.parameter("ssl_groups"), None, "nothing is known");
    }

    #[test]
    fn groups_of_the_user_win_by_either_name_inline_and_in_a_secret() {
        let written = |conf: &str| {
            let spec =
                format!("{{version: '18.1', configuration: {{inline: {{user.conf: {conf}}}}}}}");
            written(&spec, &HYBRID, &Images::default())
        };
        let inputs = BuildInputs {
            version: &version("18.1"),
            superuser: "postgres",
            user_conf: Some("ssl_groups = X25519"),
            live_pods: 0,
            cluster_domain: DEFAULT_CLUSTER_DOMAIN,
        };
        let spec = "{version: '18.1', configuration: {secretName: s}}";
        let cluster = Cluster::build(&postgres(spec), &inputs).expect("a cluster");
        let cluster =
            cluster.with_default_groups(&HYBRID.map(str::to_owned).into(), &Images::default());
        let config = dynamic::config(&cluster, &with_tls());
        assert_eq!(config.parameter("ssl_groups"), None);
        assert_eq!(written("SSL_GROUPS = X25519").as_deref(), Some("X25519"));
        assert_eq!(written("ssl_ecdh_curve = 'P-384'"), None);
        assert!(written("work_mem = 8MB").is_some());
    }

    #[test]
    fn groups_are_withdrawn_before_a_template_with_another_image_is_written() {
        let declared = HYBRID.map(str::to_owned).into();
        let offered_with = |images: &Images| {
            let cluster = build(&postgres("version: '18.1'")).expect("a cluster");
            let cluster = cluster.with_default_groups(&declared, images);
            dynamic::config(&cluster, &with_tls())
        };
        let all = offered_with(&Images::default());
        let none = offered_with(&running(&[("pg-0", Some(OLDER))]));
        assert!(are_withdrawn(&all, &none));
        assert!(!are_withdrawn(&all, &all));
        assert!(!are_withdrawn(&none, &all) && !are_withdrawn(&none, &none));
    }

    #[test]
    fn without_tls_no_groups_are_written() {
        let declared = HYBRID.map(str::to_owned).into();
        let cluster = build(&postgres("version: '18.1'")).expect("a cluster");
        let cluster = cluster.with_default_groups(&declared, &Images::default());
        let plain = Posture::plain(Method::Scram);
        let config = dynamic::config(&cluster, &plain);
        assert_eq!(config.parameter("ssl_groups"), None);
        let has_groups = |posture: &Posture| {
            let settings = cluster.tls_settings(posture);
            settings.iter().any(|(name, _)| *name == GROUPS)
        };
        assert!(has_groups(&with_tls()) && !has_groups(&plain));
    }
}
