use super::*;
use crate::api::names::DEFAULT_CLUSTER_DOMAIN;
use crate::api::postgres_version::{DatabaseImage, Image};

/// A PostgresVersion like those of pgrekey's images.
pub(in crate::build) fn version(version: &str) -> PostgresVersionSpec {
    PostgresVersionSpec {
        version: version.to_owned(),
        db: DatabaseImage {
            image: format!("example.org/postgres:{version}"),
            base_os: None,
        },
        exporter: Image {
            image: "example.org/exporter:1".to_owned(),
        },
        ..Default::default()
    }
}

/// `demo/pg` with this spec in YAML. Ephemeral unless the spec says otherwise.
pub(crate) fn postgres(spec: &str) -> Postgres {
    let mut spec: PostgresSpec = serde_saphyr::from_str(spec).expect("a spec");
    if spec.storage.is_none() && spec.storage_type.is_none() {
        spec.storage_type = Some(StorageType::Ephemeral);
    }
    let mut postgres = Postgres::new("pg", spec);
    postgres.metadata.namespace = Some("demo".to_owned());
    postgres
}

pub(crate) fn build(postgres: &Postgres) -> Result<Cluster, Unbuildable> {
    let version = version(&postgres.spec.version);
    Cluster::build(
        postgres,
        &BuildInputs {
            version: &version,
            superuser: "postgres",
            user_conf: Some("work_mem = 1MB\njit = off"),
            live_pods: 0,
            cluster_domain: DEFAULT_CLUSTER_DOMAIN,
        },
    )
}

pub(crate) fn cluster(postgres: &Postgres) -> Cluster {
    build(postgres).expect("a cluster")
}

#[test]
fn an_unbuildable_spec_is_named_with_field_and_remedy() {
    for (spec, field) in [
        ("version: seventeen", "spec.version"),
        ("{version: '17', replicas: 0}", "spec.replicas"),
        ("{version: '17', replicas: 33}", "spec.replicas"),
        ("{version: '17', replicas: 2000000000}", "spec.replicas"),
        ("{version: '17', storageType: Durable}", "spec.storage"),
        (
            "{version: '17', storage: {}}",
            "spec.storage.resources.requests.storage",
        ),
        ("{version: '17', sslMode: require}", "spec.sslMode"),
        (
            "{version: '17', sslMode: disable, tls: {issuerRef: {name: i}}}",
            "spec.sslMode",
        ),
        ("{version: '17', tls: {}}", "spec.tls.issuerRef"),
        (
            "{version: '17', tls: {issuerRef: {name: i}, certificates: [{alias: x}]}}",
            "spec.tls.certificates[0].alias",
        ),
        (
            "{version: '17', tls: {issuerRef: {name: i}, certificates: [{alias: client}, {alias: client}]}}",
            "spec.tls.certificates[1].alias",
        ),
        ("{version: '17', init: {script: {}}}", "spec.init.script"),
        (
            "{version: '17', init: {script: {scriptPath: ../x, configMap: {name: c}}}}",
            "spec.init.script.scriptPath",
        ),
        (
            "{version: '17', configuration: {inline: {x: y}}}",
            "spec.configuration.inline[x]",
        ),
        (
            "{version: '17', configuration: {inline: {user.conf: '= 1'}}}",
            "spec.configuration.inline[user.conf]",
        ),
        (
            "{version: '17', podTemplate: {spec: {containers: [{name: sidecar}]}}}",
            "spec.podTemplate.spec.containers[sidecar]",
        ),
        (
            "{version: '17', podTemplate: {spec: {containers: [{name: postgres, resources: {requests: {memory: lots}}}]}}}",
            "spec.podTemplate.spec.containers[postgres].resources.requests.memory",
        ),
        (
            "{version: '17', serviceTemplates: [{alias: stats}, {alias: stats}]}",
            "spec.serviceTemplates[1].alias",
        ),
        (
            "{version: '17', serviceTemplates: [{alias: primary, spec: {ports: [{name: db, port: 1}]}}]}",
            "spec.serviceTemplates[0].spec.ports[db]",
        ),
    ] {
        let refused = build(&postgres(spec)).expect_err(spec);
        assert_eq!(refused.field, field, "{refused}");
        assert!(
            !refused.problem.is_empty() && !refused.remedy.is_empty(),
            "{refused}"
        );
    }
}

#[test]
fn a_name_that_kubernetes_would_choke_on_is_refused() {
    for name in ["9pg", "Pg", "pg.x", "pg-", "", &"p".repeat(53)] {
        let mut postgres = postgres("version: '17'");
        postgres.metadata.name = Some(name.to_owned());
        assert_eq!(build(&postgres).expect_err(name).field, "metadata.name");
    }
    let mut longest = postgres("version: '17'");
    longest.metadata.name = Some("p".repeat(MAX_DATABASE));
    assert!(build(&longest).is_ok());
}

#[test]
fn shared_buffers_are_a_quarter_of_the_memory() {
    for (resources, megabytes) in [
        ("", 256),
        ("{requests: {memory: 4Gi}, limits: {memory: 8Gi}}", 1024),
        ("{limits: {memory: 512Mi}}", 128),
        ("{requests: {memory: 1Mi}}", 1),
    ] {
        let spec = format!(
            "{{version: '17', podTemplate: {{spec: {{containers: [{{name: postgres, resources: {resources}}}]}}}}}}"
        );
        assert_eq!(
            cluster(&postgres(&spec)).shared_buffers,
            megabytes,
            "{resources}"
        );
    }
}

#[test]
fn a_secret_without_settings_is_not_taken_for_one_with_none() {
    let postgres = postgres("{version: '17', configuration: {secretName: s}}");
    let facts = BuildInputs {
        version: &version("17"),
        superuser: "postgres",
        user_conf: None,
        live_pods: 0,
        cluster_domain: DEFAULT_CLUSTER_DOMAIN,
    };
    assert_eq!(
        Cluster::build(&postgres, &facts).expect_err("no key").field,
        "spec.configuration.secretName"
    );
}
