//! One server, held against what is written for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::api::tls::SslMode;
use crate::pki::Fingerprint;
use crate::pki::issued::{ServedMaterial, ders};
use crate::tls::{ReplicationConninfo, layout};

use crate::plan::observed::cluster::ObservedPod;

/// What a server should mount and show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedServer {
    /// SHA-256 (hex) of the certificate files, by path.
    pub files: BTreeMap<String, String>,
    /// SHA-256 (hex) of `patroni.yml`; empty if there is none.
    pub patroni_yml: String,
    /// Subjects (DER) of the CAs from which it should take client certificates.
    pub accepted_cas: BTreeSet<Vec<u8>>,
}

/// What a server was seen to mount, to have loaded and to show.
#[derive(Clone, Copy, Debug)]
pub struct MountedState<'a> {
    /// Its pod has the volume with certificates.
    pub has_files: bool,
    /// SHA-256 (hex) of the files that it mounts, by path.
    pub files: &'a BTreeMap<String, String>,
    /// It has read its settings since those files were last written.
    pub loaded: bool,
    /// `ssl`, as loaded.
    pub ssl: bool,
    /// Subjects (DER) of the CAs in its handshake; `None` if it speaks no TLS.
    pub accepted_cas: Option<&'a BTreeSet<Vec<u8>>>,
}

impl ExpectedServer {
    /// What servers should have, with this content of Secret `NAME-tls` and this `patroni.yml`.
    #[must_use]
    pub fn new(served: Option<&ServedMaterial>, patroni_yml: Option<&str>) -> Self {
        let files = served.map(|served| {
            [
                (layout::SERVER_CERTIFICATE, &served.server.certificate),
                (layout::SERVER_TRUST, &served.trust),
                (layout::CLIENT_CERTIFICATE, &served.client.certificate),
                (layout::EXPORTER_CERTIFICATE, &served.exporter.certificate),
            ]
        });
        let files = files.into_iter().flatten();
        Self {
            files: files
                .map(|(path, text)| (path.to_owned(), sha256_hex(text)))
                .collect(),
            patroni_yml: patroni_yml.map(sha256_hex).unwrap_or_default(),
            accepted_cas: served
                .map(|served| subjects(&served.trust))
                .unwrap_or_default(),
        }
    }

    /// Whether the certificate files that a server mounts are those of Secret `NAME-tls`. A pod
    /// without the volume has none that could be old.
    #[must_use]
    pub fn files_are_current(&self, mounted: MountedState<'_>) -> bool {
        !mounted.has_files
            || self
                .files
                .iter()
                .all(|(path, hash)| mounted.files.get(path) == Some(hash))
    }

    /// Whether a server uses the certificate files that it mounts: it has read its settings since,
    /// and shows the CAs that are expected. A server with `ssl = off` uses none.
    #[must_use]
    pub fn files_are_loaded(&self, mounted: MountedState<'_>) -> bool {
        let shows_cas = mounted
            .accepted_cas
            .is_none_or(|shown| *shown == self.accepted_cas);
        !mounted.has_files || !mounted.ssl || mounted.loaded && shows_cas
    }

    /// Whether the `patroni.yml` at this path is the one that is expected.
    #[must_use]
    pub fn patroni_yml_is_current(&self, mounted: MountedState<'_>, path: &str) -> bool {
        mounted.files.get(path) == Some(&self.patroni_yml)
    }
}

/// SHA-256 of a text, in hex.
#[must_use]
pub fn sha256_hex(text: &str) -> String {
    Fingerprint::sha256(text.as_bytes()).to_string()
}

/// The subjects (DER) of the certificates in a bundle.
fn subjects(bundle: &str) -> BTreeSet<Vec<u8>> {
    let subject = |der: &Vec<u8>| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(certificate.subject().as_raw().to_vec())
    };
    ders(bundle).iter().filter_map(subject).collect()
}

/// Whether some standby presents an expired client certificate: the current one has expired, or the
/// previous one has and a pod still mounts it.
///
/// `current` and `previous` are the ends of the two certificates; `None` where there is none.
#[must_use]
pub fn client_expired(
    current: Option<Timestamp>,
    previous: Option<Timestamp>,
    pods: &[ObservedPod],
    now: Timestamp,
) -> bool {
    let has_ended = |end: Option<Timestamp>| end.is_some_and(|end| end <= now);
    let is_behind = |pod: &ObservedPod| {
        pod.server
            .as_ref()
            .is_ok_and(|server| !server.files_current)
    };
    has_ended(current) || has_ended(previous) && pods.iter().any(is_behind)
}

/// The address of a pod that may be connected to, or why it may not.
///
/// A pod that has ended keeps its address in its status, and another pod of any namespace may have
/// that address by now: a login would send the superuser's password there.
pub fn address(pod: &Pod, port: u16) -> Result<SocketAddr, String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Err("its pod is being deleted".to_owned());
    }
    let status = pod
        .status
        .as_ref()
        .filter(|status| status.phase.as_deref() == Some("Running"))
        .ok_or("its pod is not running")?;
    let address = status
        .pod_ip
        .as_ref()
        .and_then(|address| address.parse::<IpAddr>().ok())
        .ok_or("its pod has no address")?;
    Ok(SocketAddr::new(address, port))
}

/// Whether a pod's readiness probe succeeds.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.iter();
    status
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// How a standby with this `primary_conninfo` connects. libpq's own default is `prefer`.
#[must_use]
pub fn parse_conninfo(conninfo: &str) -> ReplicationConninfo {
    let value = |key: &str| {
        conninfo
            .split_whitespace()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    };
    let mode = value("sslmode").map(|mode| mode.trim_matches('\''));
    let mode = mode.and_then(|mode| {
        SslMode::ALL
            .into_iter()
            .find(|known| known.as_str() == mode)
    });
    ReplicationConninfo {
        mode: mode.unwrap_or(SslMode::Prefer),
        sends_client_cert: value("sslcert").is_some(),
    }
}

#[cfg(test)]
mod tests;
