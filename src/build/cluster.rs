//! A `Postgres` that was parsed and checked, so that manifests can be built from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1::{PersistentVolumeClaimSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;

use crate::api::Postgres;
use crate::api::bounds::{MAX_REPLICAS, clamp_replicas};
use crate::api::extra_ca::ExtraCaSource;
use crate::api::monitor::{Exporter, Monitor};
use crate::api::names::{EXPORTER, MAX_DATABASE, POSTGRES};
use crate::api::postgres::{InitScript, PostgresSpec, ServerNames, StorageType, TlsConfig};
use crate::api::postgres_version::PostgresVersionSpec;
use crate::api::quantity::bytes;
use crate::api::template::{
    ContainerSettings, PodSettings, ServiceAlias, ServiceTemplate, TemplateMeta,
};
use crate::api::tls::SslMode;
use crate::build::unbuildable::{Unbuildable, unbuildable};
use crate::build::user_conf::UserConf;
use crate::tls::Alias;
use crate::tls::server_settings::ServerFacts;

/// User of the images, if the PostgresVersion does not say.
const DEFAULT_UID: i64 = 999;

/// Everything that manifests are built from, checked.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(super) name: String,
    pub(super) namespace: String,
    /// The labels of the `Postgres`.
    pub(super) labels: BTreeMap<String, String>,
    pub(super) spec: PostgresSpec,
    pub(super) version: PostgresVersionSpec,
    pub(super) major: u32,
    pub(super) replicas: i32,
    /// How many pods have names in certificates: those of the spec, and those that are to go.
    pub(super) named_pods: i32,
    /// The DNS domain of the Kubernetes cluster.
    pub(super) dns_domain: String,
    pub(super) server_names: ServerNames,
    pub(super) extra_ca: Option<ExtraCaSource>,
    pub(super) superuser: String,
    pub(super) data: Data,
    /// CPU and memory of the container `postgres`.
    pub(super) resources: ResourceRequirements,
    /// A quarter of the memory request of container `postgres`, in MiB.
    pub(super) shared_buffers: u64,
    pub(super) user_conf: UserConf,
    /// The groups of the TLS key exchange that servers offer if the user sets none; `None` for
    /// PostgreSQL's own default. See [`tls_groups`](crate::build::tls_groups).
    pub(super) default_groups: Option<&'static str>,
    pub(super) init: Option<InitScript>,
}

/// Where the data directory is.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// In a PersistentVolumeClaim of each pod.
    Claim(Box<PersistentVolumeClaimSpec>),
    /// In an emptyDir of each pod, of at most this size.
    Ephemeral(Option<Quantity>),
}

/// What manifests depend on beside the `Postgres`: the content of the objects that it refers to, the
/// pods that there are, and the Kubernetes cluster.
#[derive(Clone, Copy)]
pub struct BuildInputs<'a> {
    /// The PostgresVersion that `spec.version` names.
    pub version: &'a PostgresVersionSpec,
    /// Key `username` of the Secret of the superuser.
    pub superuser: &'a str,
    /// Key `user.conf` of the Secret that `spec.configuration.secretName` names.
    pub user_conf: Option<&'a str>,
    /// How many pods the database has, those that are to go included: see
    /// [`live_pods`](crate::build::pet_set::live_pods). 0 if it has none, and where certificates
    /// have no names of single pods.
    pub live_pods: i32,
    /// The DNS domain of the Kubernetes cluster, such as `cluster.local`.
    pub cluster_domain: &'a str,
}

/// Leaves out the settings of the Secret.
impl fmt::Debug for BuildInputs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildInputs")
            .field("version", &self.version)
            .field("live_pods", &self.live_pods)
            .field("cluster_domain", &self.cluster_domain)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Parses a database. The error names the first field that cannot be built. With admission on,
    /// the rules refuse such a spec before, and name every field at once
    /// (`tests/rules/buildable.rs`).
    pub fn build(postgres: &Postgres, facts: &BuildInputs<'_>) -> Result<Self, Unbuildable> {
        let spec = postgres.spec.clone();
        check_containers(&spec)?;
        check_service_templates(&spec.service_templates)?;
        check_tls(&spec)?;
        let resources = resources(&spec);
        let major = major(facts.version)?;
        let replicas = replicas(&spec)?;
        Ok(Self {
            name: name(postgres)?,
            namespace: namespace(postgres)?,
            labels: postgres.labels().clone(),
            version: facts.version.clone(),
            major,
            replicas,
            named_pods: clamp_replicas(facts.live_pods).max(replicas),
            dns_domain: facts.cluster_domain.to_owned(),
            server_names: postgres.server_names(),
            extra_ca: postgres.extra_ca(),
            superuser: superuser(facts)?,
            data: data(&spec)?,
            shared_buffers: shared_buffers(&resources)?,
            resources,
            user_conf: UserConf::parse(&spec, facts.user_conf, major)?,
            default_groups: None,
            init: init(&spec)?,
            spec,
        })
    }

    /// Refuses TLS settings of the user's Secret that would shut clients out of a database with this
    /// TLS. `groups` are those that the image has beyond OpenSSL's own.
    pub fn check_tls_settings(
        &self,
        tls: Option<&TlsConfig>,
        groups: BTreeSet<String>,
    ) -> Result<(), Unbuildable> {
        self.user_conf.check_tls(&ServerFacts {
            major: Some(self.major),
            groups,
            key: tls.map(TlsConfig::server_key),
        })
    }

    /// The spec.
    #[must_use]
    pub fn spec(&self) -> &PostgresSpec {
        &self.spec
    }

    /// PostgreSQL's major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Number of pods.
    #[must_use]
    pub fn replicas(&self) -> i32 {
        self.replicas
    }

    /// How many pods have names in certificates, if single pods have: those of the spec, and those
    /// that are to go.
    #[must_use]
    pub fn named_pods(&self) -> i32 {
        self.named_pods
    }

    /// The DNS domain of the Kubernetes cluster.
    #[must_use]
    pub fn cluster_domain(&self) -> &str {
        &self.dns_domain
    }

    /// Where the CA lies that the issuer does not give; `None` if the database names none.
    #[must_use]
    pub const fn extra_ca(&self) -> Option<&ExtraCaSource> {
        self.extra_ca.as_ref()
    }

    /// User, group and fsGroup of the pods.
    pub(super) fn uid(&self) -> i64 {
        self.version
            .security_context
            .and_then(|context| context.run_as_user)
            .unwrap_or(DEFAULT_UID)
    }

    pub(super) fn pod_meta(&self) -> Option<&TemplateMeta> {
        self.spec.pod_template.as_ref()?.metadata.as_ref()
    }

    pub(super) fn pod_settings(&self) -> Option<&PodSettings> {
        self.spec.pod_template.as_ref()?.spec.as_ref()
    }

    /// The user's changes to a container.
    pub(super) fn container_settings(&self, name: &str) -> Option<&ContainerSettings> {
        container_settings(&self.spec, name)
    }

    /// The user's changes to a Service.
    pub(super) fn service_template(&self, alias: ServiceAlias) -> Option<&ServiceTemplate> {
        self.spec
            .service_templates
            .iter()
            .find(|template| template.alias == alias)
    }

    pub(super) fn monitor(&self) -> Option<&Monitor> {
        self.spec.monitor.as_ref()
    }

    pub(super) fn exporter(&self) -> Option<&Exporter> {
        self.monitor()?.prometheus.as_ref()?.exporter.as_ref()
    }
}

fn name(postgres: &Postgres) -> Result<String, Unbuildable> {
    let name = postgres.name_any();
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let ends_well = name.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let is_label = name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !starts_well || !ends_well || !is_label {
        return unbuildable(
            "metadata.name",
            format!("\"{name}\" cannot be the name of a Service"),
            "start with a lower-case letter and use lower-case letters, digits and `-`",
        );
    }
    if name.len() > MAX_DATABASE {
        return unbuildable(
            "metadata.name",
            format!(
                "\"{name}\" has {} characters, and labels made of it would be too long",
                name.len()
            ),
            format!("use at most {MAX_DATABASE} characters"),
        );
    }
    Ok(name)
}

fn namespace(postgres: &Postgres) -> Result<String, Unbuildable> {
    match postgres.namespace() {
        Some(namespace) => Ok(namespace),
        None => unbuildable(
            "metadata.namespace",
            "it is empty",
            "name the namespace of the database",
        ),
    }
}

fn major(version: &PostgresVersionSpec) -> Result<u32, Unbuildable> {
    match version.major() {
        Some(major) => Ok(major),
        None => unbuildable(
            "spec.version",
            format!(
                "the PostgresVersion says \"{}\", which does not start with a major version",
                version.version
            ),
            "correct the PostgresVersion, for example to \"17.12\"",
        ),
    }
}

fn replicas(spec: &PostgresSpec) -> Result<i32, Unbuildable> {
    match spec.desired_replicas() {
        replicas @ 1..=MAX_REPLICAS => Ok(replicas),
        other => unbuildable(
            "spec.replicas",
            format!("{other} is not a number of pods"),
            format!("use at least 1 and at most {MAX_REPLICAS}"),
        ),
    }
}

/// The superuser's name. It is the common name of the client certificate, which has at most 64
/// characters.
fn superuser(facts: &BuildInputs<'_>) -> Result<String, Unbuildable> {
    let name = facts.superuser;
    if name.is_empty() || name.len() > 63 || name.chars().any(char::is_control) {
        return unbuildable(
            "spec.authSecret.name",
            "key `username` of this Secret is not the name of a PostgreSQL user",
            "write 1 to 63 characters into it, for example postgres",
        );
    }
    Ok(name.to_owned())
}

fn data(spec: &PostgresSpec) -> Result<Data, Unbuildable> {
    let request = |claim: &PersistentVolumeClaimSpec| {
        claim
            .resources
            .as_ref()?
            .requests
            .as_ref()?
            .get("storage")
            .cloned()
    };
    if spec.storage_type == Some(StorageType::Ephemeral) {
        return Ok(Data::Ephemeral(spec.storage.as_ref().and_then(request)));
    }
    let Some(claim) = spec.storage.clone() else {
        return unbuildable(
            "spec.storage",
            "durable data need a claim",
            "describe one, or use storageType Ephemeral",
        );
    };
    if request(&claim)
        .as_ref()
        .and_then(bytes)
        .is_none_or(|size| size == 0)
    {
        return unbuildable(
            "spec.storage.resources.requests.storage",
            "it is not a size",
            "write one, for example 10Gi",
        );
    }
    Ok(Data::Claim(Box::new(claim)))
}

fn container_settings<'a>(spec: &'a PostgresSpec, name: &str) -> Option<&'a ContainerSettings> {
    spec.pod_template
        .as_ref()?
        .spec
        .as_ref()?
        .containers
        .iter()
        .find(|container| container.name == name)
}

fn resources(spec: &PostgresSpec) -> ResourceRequirements {
    let amounts = |pairs: &[(&str, &str)]| {
        Some(
            pairs
                .iter()
                .map(|(what, much)| ((*what).to_owned(), Quantity((*much).to_owned())))
                .collect(),
        )
    };
    container_settings(spec, POSTGRES)
        .and_then(|container| container.resources.clone())
        .unwrap_or_else(|| ResourceRequirements {
            requests: amounts(&[("cpu", "500m"), ("memory", "1Gi")]),
            limits: amounts(&[("memory", "1Gi")]),
            claims: None,
        })
}

/// The memory request in MiB, divided by four. Without a request, Kubernetes takes the limit for
/// one.
fn shared_buffers(resources: &ResourceRequirements) -> Result<u64, Unbuildable> {
    let memory =
        |amounts: &Option<BTreeMap<String, Quantity>>| amounts.as_ref()?.get("memory").cloned();
    let amount = memory(&resources.requests)
        .or_else(|| memory(&resources.limits))
        .unwrap_or(Quantity("1Gi".to_owned()));
    match bytes(&amount) {
        Some(bytes) => Ok((bytes / 4 / (1 << 20)).max(1)),
        None => unbuildable(
            "spec.podTemplate.spec.containers[postgres].resources.requests.memory",
            format!("\"{}\" is not an amount of memory", amount.0),
            "write one, for example 2Gi",
        ),
    }
}

fn init(spec: &PostgresSpec) -> Result<Option<InitScript>, Unbuildable> {
    let Some(script) = spec.init.as_ref().and_then(|init| init.script.clone()) else {
        return Ok(None);
    };
    if !script.has_one_source() {
        return unbuildable(
            "spec.init.script",
            "it needs one source",
            "name either a configMap or a secret",
        );
    }
    if !script.stays_inside() {
        return unbuildable(
            "spec.init.script.scriptPath",
            "it leads out of the volume",
            "write a folder inside it",
        );
    }
    Ok(Some(script))
}

fn check_containers(spec: &PostgresSpec) -> Result<(), Unbuildable> {
    let containers = spec
        .pod_template
        .iter()
        .filter_map(|template| template.spec.as_ref())
        .flat_map(|pod| &pod.containers);
    for container in containers {
        let field = format!("spec.podTemplate.spec.containers[{}]", container.name);
        if ![POSTGRES, EXPORTER].contains(&container.name.as_str()) {
            return unbuildable(
                field,
                "there is no such container",
                "change `postgres` or `exporter`",
            );
        }
    }
    Ok(())
}

fn check_service_templates(templates: &[ServiceTemplate]) -> Result<(), Unbuildable> {
    for (at, template) in templates.iter().enumerate() {
        let alias = template.alias.as_str();
        if templates[..at]
            .iter()
            .any(|earlier| earlier.alias == template.alias)
        {
            let field = format!("spec.serviceTemplates[{at}].alias");
            return unbuildable(
                field,
                format!("{alias} is there twice"),
                "join the two entries",
            );
        }
        let known = template.alias.port_name();
        let ports = template.spec.iter().flat_map(|service| &service.ports);
        if let Some(port) = ports.into_iter().find(|port| port.name != known) {
            let field = format!("spec.serviceTemplates[{at}].spec.ports[{}]", port.name);
            return unbuildable(
                field,
                format!("the Service {alias} has no such port"),
                format!("its port is {known}"),
            );
        }
    }
    Ok(())
}

fn check_tls(spec: &PostgresSpec) -> Result<(), Unbuildable> {
    let Some(tls) = &spec.tls else {
        return match spec.ssl_mode {
            None | Some(SslMode::Disable) => Ok(()),
            Some(_) => unbuildable(
                "spec.sslMode",
                "there is no TLS to use",
                "set spec.tls, or sslMode disable",
            ),
        };
    };
    if spec.ssl_mode == Some(SslMode::Disable) {
        return unbuildable(
            "spec.sslMode",
            "TLS is on",
            "remove spec.tls, or choose another mode",
        );
    }
    for (at, wish) in tls.certificates.iter().enumerate() {
        let field = format!("spec.tls.certificates[{at}].alias");
        if Alias::parse(&wish.alias).is_none() {
            let known = Alias::ALL.map(Alias::as_str).join(", ");
            return unbuildable(
                field,
                format!("there is no certificate \"{}\"", wish.alias),
                format!("use one of {known}"),
            );
        }
        if tls.certificates[..at]
            .iter()
            .any(|earlier| earlier.alias == wish.alias)
        {
            return unbuildable(
                field,
                format!("{} is there twice", wish.alias),
                "join the two entries",
            );
        }
    }
    let has_issuer = |alias: Alias| {
        tls.certificate(alias.as_str())
            .is_some_and(|wish| wish.issuer_ref.is_some())
    };
    if tls.issuer_ref.is_none() && !Alias::ALL.into_iter().all(has_issuer) {
        return unbuildable(
            "spec.tls.issuerRef",
            "nobody would issue the certificates",
            "name an Issuer or ClusterIssuer",
        );
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
