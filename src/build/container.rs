//! Parts that the pod's containers have in common.

use k8s_openapi::api::core::v1::{ContainerPort, EnvVar, VolumeMount};

use crate::api::environment::is_reserved;
use crate::build::paths::{CERTS_VOLUME, CONFIG, CONFIG_VOLUME, SOCKETS, SOCKETS_VOLUME};
use crate::tls::{Posture, layout};

/// Whether users may set this environment variable. A rule refuses pgrekey's own; here they are
/// left out in case the rule was off.
pub(super) fn is_users_variable(variable: &EnvVar) -> bool {
    !is_reserved(&variable.name)
}

/// A port of a container, by number and name.
pub(super) fn container_port(number: impl Into<i32>, name: &str) -> ContainerPort {
    ContainerPort {
        container_port: number.into(),
        name: Some(name.to_owned()),
        protocol: Some("TCP".to_owned()),
        ..Default::default()
    }
}

/// The mounts that both containers have: the socket, Patroni's files, and the certificates if there
/// are any.
pub(super) fn shared_mounts(posture: &Posture) -> Vec<VolumeMount> {
    let certs = posture
        .files
        .as_ref()
        .map(|_| read_only(CERTS_VOLUME, layout::ROOT));
    [
        mount(SOCKETS_VOLUME, SOCKETS),
        read_only(CONFIG_VOLUME, CONFIG),
    ]
    .into_iter()
    .chain(certs)
    .collect()
}

pub(super) fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..Default::default()
    }
}

pub(super) fn read_only(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        read_only: Some(true),
        ..mount(name, path)
    }
}
