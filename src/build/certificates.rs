//! The Certificates that pgrekey asks cert-manager for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kube::ResourceExt;

use crate::api::annotations::TRIAL_OF;
use crate::api::cert_manager::{
    CertManagerCertificateSpec, Certificate, CertificateIssuerRef, CertificatePrivateKey,
    SecretTemplate,
};
use crate::api::postgres::ServerNames;
use crate::api::template::ServiceAlias;
use crate::api::tls::{CertificateSpec as Wish, IssuerRef, KeyAlgorithm};
use crate::build::Cluster;
use crate::pki::issued::Requirements;
use crate::pki::key_pair::CertificateAndKey;
use crate::tls::{Alias, Method, method};

/// Longest common name that X.509 allows.
const LONGEST_COMMON_NAME: usize = 64;

/// One Certificate for each alias that has an issuer. Empty without TLS.
#[must_use]
pub fn certificates(cluster: &Cluster) -> Vec<Certificate> {
    Alias::ALL
        .into_iter()
        .filter_map(|alias| certificate(cluster, alias))
        .collect()
}

/// The names that the issued certificates must have. Without TLS only the superuser's.
#[must_use]
pub fn requirements(cluster: &Cluster) -> Requirements {
    let names = |alias| {
        let spec = certificate(cluster, alias)
            .map(|certificate| certificate.spec)
            .unwrap_or_default();
        spec.dns_names
            .into_iter()
            .chain(spec.ip_addresses)
            .collect()
    };
    Requirements {
        server: names(Alias::Server),
        exporter: names(Alias::MetricsExporter),
        superuser: cluster.superuser.clone(),
        password: method(&cluster.spec, cluster.major) != Method::Cert,
        ..Requirements::default()
    }
}

/// The Certificate of an alias. `None` without TLS.
#[must_use]
pub fn certificate(cluster: &Cluster, alias: Alias) -> Option<Certificate> {
    let tls = cluster.spec.tls.as_ref()?;
    let wish = tls.certificate(alias.as_str()).cloned().unwrap_or_default();
    let issuer = wish.issuer_ref.as_ref().or(tls.issuer_ref.as_ref())?;
    let spec = CertManagerCertificateSpec {
        secret_name: cluster.certificate_secret(alias),
        secret_template: Some(SecretTemplate {
            annotations: None,
            labels: Some(cluster.labels()),
        }),
        common_name: common_name(cluster, alias),
        issuer_ref: issuer_ref(issuer),
        usages: usages(alias),
        private_key: Some(private_key(&wish)),
        dns_names: union(dns_names(cluster, alias), &wish.dns_names),
        ip_addresses: union(ip_addresses(cluster, alias), &wish.ip_addresses),
        uris: union(vec![], &wish.uris),
        email_addresses: union(vec![], &wish.email_addresses),
        subject: wish.subject,
        duration: wish.duration,
        renew_before: wish.renew_before,
        revision_history_limit: None,
    };
    let mut certificate = Certificate::new("", spec);
    certificate.metadata = cluster.meta(cluster.names().certificate(alias));
    Some(certificate)
}

/// The Certificate with which this operation tries the issuer of an alias: [`certificate`] but for
/// its name and its Secret. So all that judges requests (issuers, their roles and constraints,
/// approval policies) judges what will be asked. `None` without TLS.
#[must_use]
pub fn trial_certificate(cluster: &Cluster, alias: Alias, operation: &str) -> Option<Certificate> {
    let mut trial = certificate(cluster, alias)?;
    let name = cluster.names().trial_certificate(alias);
    trial
        .annotations_mut()
        .insert(TRIAL_OF.to_owned(), operation.to_owned());
    trial.metadata.name = Some(name.clone());
    trial.spec.secret_name = name;
    Some(trial)
}

/// The common name. Login method `cert` compares the client's with the user. The others are for
/// people, and left out if they are too long.
fn common_name(cluster: &Cluster, alias: Alias) -> Option<String> {
    let name = match alias {
        Alias::Server => cluster.host(cluster.name()),
        Alias::Client => return Some(cluster.superuser.clone()),
        Alias::MetricsExporter => cluster.host(&cluster.names().stats_service()),
    };
    (name.len() <= LONGEST_COMMON_NAME).then_some(name)
}

/// Every DNS name by which a client may dial: each Service and the pods, and in a certificate like
/// KubeDB's also the short names of Services, and `localhost` inside the pod.
///
/// All databases have `localhost`, and those of one name the same short names: where they share a
/// CA, `verify-full` with such a name does not prove which of them has answered. A wildcard covers
/// pods that are not there yet.
fn dns_names(cluster: &Cluster, alias: Alias) -> Vec<String> {
    let names = cluster.names();
    let services = match alias {
        Alias::Server => vec![cluster.name().to_owned(), names.standby_service()],
        Alias::Client => return vec![],
        Alias::MetricsExporter => vec![names.stats_service()],
    };
    let pods_service = names.pods_service();
    let (pods, short): (Vec<String>, Vec<String>) = match cluster.server_names {
        ServerNames::KubeDb => {
            let namespace = cluster.namespace();
            let in_namespace = |name: &String| [name.clone(), format!("{name}.{namespace}")];
            let short = services.iter().flat_map(in_namespace);
            (
                vec![format!("*.{pods_service}")],
                short.chain(["localhost".to_owned()]).collect(),
            )
        }
        ServerNames::Services => {
            let pod = |ordinal| format!("{}.{pods_service}", names.pod(ordinal));
            ((0..cluster.named_pods()).map(pod).collect(), vec![])
        }
    };
    let full = services.iter().chain(&pods).flat_map(|name| {
        let host = cluster.host(name);
        [format!("{host}.{}", cluster.cluster_domain()), host]
    });
    full.chain(short).collect()
}

/// Whether a certificate that is served has the name by which standbys and pgrekey dial a pod.
#[must_use]
pub fn has_name_of_pod(served: &CertificateAndKey, cluster: &Cluster, ordinal: i32) -> bool {
    let names = cluster.names();
    let host = names.pod_host(&names.pod(ordinal), cluster.namespace());
    served.covers([host.as_str()]).is_ok()
}

/// The loopback address of KubeDB's certificates, and the addresses that the user gave the Services.
fn ip_addresses(cluster: &Cluster, alias: Alias) -> Vec<String> {
    let services: &[ServiceAlias] = match alias {
        Alias::Server => &[ServiceAlias::Primary, ServiceAlias::Standby],
        Alias::Client => return vec![],
        Alias::MetricsExporter => &[ServiceAlias::Stats],
    };
    let loopback = match cluster.server_names {
        ServerNames::KubeDb => Some("127.0.0.1"),
        ServerNames::Services => None,
    };
    services
        .iter()
        .filter_map(|service| cluster.service_template(*service)?.spec.as_ref())
        .flat_map(|service| service.external_ips.iter().chain(&service.load_balancer_ip))
        .filter(|address| address.parse::<IpAddr>().is_ok())
        .cloned()
        .chain(loopback.map(str::to_owned))
        .collect()
}

fn usages(alias: Alias) -> Vec<String> {
    let serves: &[_] = if alias == Alias::Client {
        &[]
    } else {
        &["server auth"]
    };
    ["digital signature", "key encipherment"]
        .iter()
        .chain(serves)
        .chain(&["client auth"])
        .map(|usage| (*usage).to_owned())
        .collect()
}

/// `Always`: a new key with every issuance, whatever the default of this cert-manager version. A
/// rotation that keeps the key is no rotation.
fn private_key(wish: &Wish) -> CertificatePrivateKey {
    let key = wish.private_key.clone().unwrap_or_default();
    CertificatePrivateKey {
        algorithm: key.algorithm.map(|name| name.as_str().to_owned()),
        encoding: Some(key.encoding().as_str().to_owned()),
        // cert-manager ignores the size of an Ed25519 key.
        size: key
            .size
            .filter(|_| key.algorithm() != KeyAlgorithm::Ed25519),
        rotation_policy: Some("Always".to_owned()),
    }
}

fn issuer_ref(issuer: &IssuerRef) -> CertificateIssuerRef {
    let IssuerRef {
        api_group: group,
        kind,
        name,
    } = issuer.completed();
    CertificateIssuerRef { name, kind, group }
}

/// The names of both, each once, sorted.
fn union(ours: Vec<String>, users: &[String]) -> Vec<String> {
    ours.into_iter()
        .chain(users.iter().cloned())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests;
