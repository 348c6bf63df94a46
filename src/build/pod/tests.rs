use super::*;
use crate::api::environment::is_reserved;
use crate::api::tls::SslMode;
use crate::build::cluster::tests::{cluster, postgres};
use crate::tls::posture::tests::material;
use crate::tls::{Method, walk};
use std::collections::{BTreeMap, BTreeSet};

fn three() -> Cluster {
    cluster(&postgres("{version: '17', replicas: 3, monitor: {}}"))
}

#[test]
fn a_walk_changes_the_template_where_files_come_or_go_and_nowhere_else() {
    let tls = |serial, issuer| {
        Posture::tls(
            SslMode::VerifyFull,
            Method::Cert,
            material(serial, issuer, issuer),
        )
    };
    let ends = [
        Posture::plain(Method::Md5),
        Posture::plain(Method::Scram),
        tls(1, 1),
        tls(2, 1),
        tls(3, 2),
    ];
    for walk in ends
        .iter()
        .flat_map(|from| ends.iter().map(move |to| walk(from, to)))
    {
        for pair in walk.windows(2) {
            let changes = template(&three(), &pair[0]) != template(&three(), &pair[1]);
            assert_eq!(changes, pair[0].needs_new_pods(&pair[1]));
        }
    }
}

#[test]
fn everything_that_is_mounted_is_a_volume() {
    for posture in [
        Posture::plain(Method::Md5),
        Posture::tls(SslMode::Require, Method::Cert, material(1, 1, 1)),
    ] {
        let spec = template(&three(), &posture).spec.expect("a spec");
        let volumes: BTreeSet<_> = spec
            .volumes
            .iter()
            .flatten()
            .map(|volume| volume.name.as_str())
            .collect();
        let mounted: BTreeSet<_> = spec
            .containers
            .iter()
            .flat_map(|c| c.volume_mounts.iter().flatten())
            .map(|m| m.name.as_str())
            .collect();
        assert_eq!(volumes, mounted);
    }
}

#[test]
fn every_variable_that_pgrekey_sets_is_reserved() {
    for variable in env(&three()) {
        assert!(is_reserved(&variable.name), "{}", variable.name);
    }
    assert!(!is_reserved("TZ"));
}

#[test]
fn a_variable_of_pgrekeys_stands_once_whatever_a_user_writes() {
    let wish =
        "[{name: PGUSER, value: x}, {name: DATA_SOURCE_NAME, value: x}, {name: TZ, value: UTC}]";
    let cluster = cluster(&postgres(&format!(
        "{{version: '17', monitor: {{prometheus: {{exporter: {{env: {wish}}}}}}}, podTemplate: {{spec: {{containers: \
         [{{name: postgres, env: {wish}}}]}}}}}}"
    )));
    let spec = template(&cluster, &Posture::plain(Method::Md5))
        .spec
        .expect("a spec");
    for (container, ours) in spec.containers.iter().zip(["PGUSER", "DATA_SOURCE_NAME"]) {
        let of = |name: &str| {
            container
                .env
                .iter()
                .flatten()
                .filter(|variable| variable.name == name)
                .count()
        };
        assert_eq!((of(ours), of("TZ")), (1, 1), "{}", container.name);
        assert!(
            container
                .env
                .iter()
                .flatten()
                .all(|variable| variable.value.as_deref() != Some("x"))
        );
    }
}

#[test]
fn a_user_may_choose_the_nodes_and_keeps_the_rest() {
    let cluster = cluster(&postgres(
        "{version: '17', podTemplate: {metadata: {labels: {team: t}}, spec: {securityContext: {fsGroup: 5}, \
         nodeSelector: {disk: fast}, topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, \
         whenUnsatisfiable: DoNotSchedule}]}}}",
    ));
    let template = template(&cluster, &Posture::plain(Method::Md5));
    let labels = template
        .metadata
        .and_then(|meta| meta.labels)
        .unwrap_or_default();
    assert_eq!(labels.get("team"), Some(&"t".to_owned()));
    let spec = template.spec.expect("a spec");
    let security = spec.security_context.expect("a context");
    assert_eq!(
        (security.fs_group, security.run_as_user),
        (Some(5), Some(999))
    );
    assert_eq!(spec.affinity, None);
    assert_eq!(
        spec.node_selector,
        Some(BTreeMap::from([("disk".to_owned(), "fast".to_owned())]))
    );
}
