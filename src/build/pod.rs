//! The pod: one container that runs Patroni, and one for metrics if the spec asks for them.
//!
//! Of a posture, the template depends only on whether there are certificates. If it changed with
//! every stage of a walk, every pod would look out of date at every stage.

use k8s_openapi::api::core::v1::{
    Affinity, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    ExecAction, HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, ObjectFieldSelector,
    PodAffinityTerm, PodAntiAffinity, PodSpec, PodTemplateSpec, Probe, SecretKeySelector,
    SecretVolumeSource, Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::names::{DATA_VOLUME, POSTGRES};
use crate::api::ports::{PATRONI_PORT, POSTGRES_PORT};
use crate::api::security;
use crate::build::cluster::Data;
use crate::build::container::{container_port, is_users_variable, mount, read_only, shared_mounts};
use crate::build::paths::{
    CERTS_VOLUME, CONFIG, CONFIG_VOLUME, DATA, INIT_SCRIPTS, INIT_VOLUME, INITDB_SH, PATRONI_YML,
    SOCKETS_VOLUME, USER_CONF_FOLDER, USER_CONF_VOLUME,
};
use crate::build::{Cluster, exporter};
use crate::tls::{Posture, layout};

/// The other folders that must be writable, because the root file system is read-only: temporary
/// files and the user's home.
const SCRATCH: [(&str, &str); 2] = [("tmp", "/tmp"), ("home", "/var/lib/postgresql")];

/// Seconds that a pod has to end. The primary writes a checkpoint and hands over first.
const GRACE_SECONDS: i64 = 120;

/// Mode of keys: owner and group read them. The kubelet makes root the owner; the group is the
/// pod's.
const KEY_MODE: i32 = 0o640;

/// Mode of Patroni's files: all read and run them, because one is a script that runs as `initdb`.
const SCRIPT_MODE: i32 = 0o755;

/// The template of every pod.
#[must_use]
pub fn template(cluster: &Cluster, posture: &Posture) -> PodTemplateSpec {
    let wish = cluster.pod_meta().cloned().unwrap_or_default();
    let mut labels = wish.labels.unwrap_or_default();
    labels.extend(cluster.selector());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: wish.annotations,
            ..Default::default()
        }),
        spec: Some(spec(cluster, posture)),
    }
}

fn spec(cluster: &Cluster, posture: &Posture) -> PodSpec {
    let wish = cluster.pod_settings().cloned().unwrap_or_default();
    let spread = wish.affinity.is_none() && wish.topology_spread_constraints.is_empty();
    PodSpec {
        containers: [postgres(cluster, posture)]
            .into_iter()
            .chain(exporter::container(cluster, posture))
            .collect(),
        volumes: Some(volumes(cluster, posture)),
        service_account_name: Some(cluster.service_account().to_owned()),
        security_context: Some(security::pod(cluster.uid(), wish.security_context)),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        // A Service named `patroni` would otherwise become environment variables, which Patroni
        // would take for its configuration.
        enable_service_links: Some(false),
        affinity: if spread {
            Some(anti_affinity(cluster))
        } else {
            wish.affinity
        },
        topology_spread_constraints: non_empty(wish.topology_spread_constraints),
        node_selector: wish.node_selector,
        tolerations: non_empty(wish.tolerations),
        priority_class_name: wish.priority_class_name,
        image_pull_secrets: non_empty(wish.image_pull_secrets),
        ..Default::default()
    }
}

fn postgres(cluster: &Cluster, posture: &Posture) -> Container {
    let wish = cluster
        .container_settings(POSTGRES)
        .cloned()
        .unwrap_or_default();
    Container {
        name: POSTGRES.to_owned(),
        image: Some(cluster.version.db.image.clone()),
        command: Some(vec![
            "patroni".to_owned(),
            format!("{CONFIG}/{PATRONI_YML}"),
        ]),
        env: Some(
            env(cluster)
                .into_iter()
                .chain(wish.env.into_iter().filter(is_users_variable))
                .collect(),
        ),
        ports: Some(
            [POSTGRES_PORT, PATRONI_PORT]
                .map(|port| container_port(port.number, port.name))
                .to_vec(),
        ),
        readiness_probe: Some(Probe {
            period_seconds: Some(2),
            timeout_seconds: Some(3),
            ..probe("/readiness")
        }),
        // Patroni answers as long as its loop runs. It may lose the leadership once before the
        // kubelet restarts it.
        liveness_probe: Some(Probe {
            initial_delay_seconds: Some(10),
            period_seconds: Some(10),
            timeout_seconds: Some(5),
            failure_threshold: Some(3),
            ..probe("/liveness")
        }),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(hand_over()),
            ..Default::default()
        }),
        resources: Some(cluster.resources.clone()),
        security_context: Some(security::container(wish.security_context)),
        volume_mounts: Some(mounts(cluster, posture)),
        ..Default::default()
    }
}

/// The primary asks a standby to take over while it can still answer. On a standby the request
/// fails and nothing happens. Whatever the answer, the pod ends: Patroni then stops PostgreSQL and
/// gives up the leadership by itself.
fn hand_over() -> LifecycleHandler {
    let ask = format!(
        r#"curl -s -m 30 -u "$PATRONI_RESTAPI_USERNAME:$PATRONI_RESTAPI_PASSWORD" -d "{{\"leader\":\"$PATRONI_NAME\"}}" http://127.0.0.1:{}/switchover || true"#,
        PATRONI_PORT.number
    );
    LifecycleHandler {
        exec: Some(ExecAction {
            command: Some(vec!["sh".to_owned(), "-c".to_owned(), ask]),
        }),
        ..Default::default()
    }
}

fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(PATRONI_PORT.name.to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The source of an environment variable's value.
enum EnvSource<'a> {
    Text(String),
    Field(&'a str),
    Secret(String, &'a str),
}

fn env(cluster: &Cluster) -> Vec<EnvVar> {
    let auth = |key| EnvSource::Secret(cluster.auth_secret(), key);
    let patroni = |key| EnvSource::Secret(cluster.names().patroni(), key);
    let pod_host = cluster
        .names()
        .pod_host("$(PATRONI_NAME)", cluster.namespace());
    [
        ("PATRONI_NAME", EnvSource::Field("metadata.name")),
        (
            "PATRONI_KUBERNETES_NAMESPACE",
            EnvSource::Field("metadata.namespace"),
        ),
        (
            "PATRONI_KUBERNETES_POD_IP",
            EnvSource::Field("status.podIP"),
        ),
        // A name and not an address: standbys check it against the certificate, and it outlives the
        // pod.
        (
            "PATRONI_POSTGRESQL_CONNECT_ADDRESS",
            EnvSource::Text(format!("{pod_host}:{}", POSTGRES_PORT.number)),
        ),
        // No brackets around IPv6 addresses, because they would stand around IPv4 addresses too:
        // Patroni takes what follows the last colon for the port, and writes its URLs with brackets.
        (
            "PATRONI_RESTAPI_CONNECT_ADDRESS",
            EnvSource::Text(format!(
                "$(PATRONI_KUBERNETES_POD_IP):{}",
                PATRONI_PORT.number
            )),
        ),
        (
            "PATRONI_POSTGRESQL_BIN_INITDB",
            EnvSource::Text(format!("{CONFIG}/{INITDB_SH}")),
        ),
        ("PATRONI_RESTAPI_USERNAME", patroni("username")),
        ("PATRONI_RESTAPI_PASSWORD", patroni("password")),
        ("PATRONI_SUPERUSER_PASSWORD", auth("password")),
        ("PATRONI_REPLICATION_PASSWORD", auth("password")),
        ("PATRONI_REWIND_PASSWORD", auth("password")),
        ("POSTGRES_USER", auth("username")),
        ("POSTGRES_PASSWORD", auth("password")),
        // The default user of `psql` in the pod.
        ("PGUSER", EnvSource::Text(cluster.superuser.clone())),
    ]
    .into_iter()
    .map(|(name, source)| variable(name, source))
    .collect()
}

fn variable(name: &str, source: EnvSource<'_>) -> EnvVar {
    let (value, value_from) = match source {
        EnvSource::Text(text) => (Some(text), None),
        EnvSource::Field(path) => {
            let field_ref = Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                ..Default::default()
            });
            (
                None,
                Some(EnvVarSource {
                    field_ref,
                    ..Default::default()
                }),
            )
        }
        EnvSource::Secret(name, key) => {
            let secret_key_ref = Some(SecretKeySelector {
                name,
                key: key.to_owned(),
                optional: None,
            });
            (
                None,
                Some(EnvVarSource {
                    secret_key_ref,
                    ..Default::default()
                }),
            )
        }
    };
    EnvVar {
        name: name.to_owned(),
        value,
        value_from,
    }
}

fn mounts(cluster: &Cluster, posture: &Posture) -> Vec<VolumeMount> {
    let scratch = SCRATCH.map(|(name, path)| mount(name, path));
    let init = cluster
        .init
        .as_ref()
        .map(|_| read_only(INIT_VOLUME, INIT_SCRIPTS));
    [mount(DATA_VOLUME, DATA), mount("shared-memory", "/dev/shm")]
        .into_iter()
        .chain(shared_mounts(posture))
        .chain([read_only(USER_CONF_VOLUME, USER_CONF_FOLDER)])
        .chain(scratch)
        .chain(init)
        .collect()
}

fn volumes(cluster: &Cluster, posture: &Posture) -> Vec<Volume> {
    let config = Volume {
        name: CONFIG_VOLUME.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: cluster.names().patroni(),
            default_mode: Some(SCRIPT_MODE),
            ..Default::default()
        }),
        ..Default::default()
    };
    let data = match &cluster.data {
        Data::Claim(_) => None,
        Data::Ephemeral(limit) => Some(empty_dir(DATA_VOLUME, None, limit.clone())),
    };
    let init = cluster.init.as_ref().map(|script| Volume {
        name: INIT_VOLUME.to_owned(),
        config_map: script.config_map.clone(),
        secret: script.secret.clone(),
        ..Default::default()
    });
    let user_conf = Volume {
        name: USER_CONF_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(cluster.names().user_conf_secret()),
            default_mode: Some(KEY_MODE),
            // The StatefulSet may create a pod before pgrekey writes the Secret, while the database
            // is paused. The server starts without the file.
            optional: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    };
    [
        config,
        user_conf,
        empty_dir("shared-memory", Some("Memory"), None),
        empty_dir(SOCKETS_VOLUME, None, None),
    ]
    .into_iter()
    .chain(SCRATCH.map(|(name, _)| empty_dir(name, None, None)))
    .chain(data)
    .chain(posture.files.as_ref().map(|_| certs(cluster)))
    .chain(init)
    .collect()
}

fn empty_dir(name: &str, medium: Option<&str>, size_limit: Option<Quantity>) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: medium.map(str::to_owned),
            size_limit,
        }),
        ..Default::default()
    }
}

/// Secret `NAME-tls`. The volume has only the keys that servers and clients use.
fn certs(cluster: &Cluster) -> Volume {
    let item = |(key, path): &(&str, &str)| KeyToPath {
        key: (*key).to_owned(),
        path: (*path).to_owned(),
        mode: None,
    };
    Volume {
        name: CERTS_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(cluster.names().tls_secret()),
            default_mode: Some(KEY_MODE),
            items: Some(layout::FILES.iter().map(item).collect()),
            optional: None,
        }),
        ..Default::default()
    }
}

/// Prefers different nodes: a cluster on one node is not highly available.
fn anti_affinity(cluster: &Cluster) -> Affinity {
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![
                WeightedPodAffinityTerm {
                    weight: 100,
                    pod_affinity_term: PodAffinityTerm {
                        label_selector: Some(cluster.label_selector()),
                        topology_key: "kubernetes.io/hostname".to_owned(),
                        ..Default::default()
                    },
                },
            ]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The list, or `None` if it is empty.
fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

#[cfg(test)]
mod tests;
