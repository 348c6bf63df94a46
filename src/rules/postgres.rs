//! The rules for `Postgres`.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::EnvVar;
use kube::ResourceExt;
use serde_json::json;

use crate::api::Postgres;
use crate::api::annotations::{CLIENT_GRACE_PERIOD, MAX_LAG, USABLE_BY_DATABASES};
use crate::api::bounds::{
    MAX_CHECK_FAILURES, MAX_CHECK_PERIOD, MAX_CHECK_TIMEOUT, MAX_CLIENT_GRACE_PERIOD, MAX_REPLICAS,
};
use crate::api::condition;
use crate::api::condition::VERSION_NOT_TAKEN;
use crate::api::duration::write;
use crate::api::environment::is_reserved;
use crate::api::names::{EXPORTER, MAX_DATABASE, POSTGRES};
use crate::api::ports::{PATRONI_PORT, POSTGRES_PORT, Port};
use crate::api::postgres::{
    DeletionPolicy, PostgresSpec, StandbyMode, StorageType, StreamingMode,
    SynchronousReplicationConfig,
};
use crate::api::postgres_version;
use crate::api::quantity;
use crate::api::template::ServiceTemplate;
use crate::api::tls::{ClientAuthMode, SslMode};

use crate::rules::Effect::{Refuse, Warn};
use crate::rules::Operation::{Create, Delete, Update};
use crate::rules::certificates;
use crate::rules::certificates::{CertificateRequestView, HasTls, TargetTls, read_duration};
use crate::rules::defaults;
use crate::rules::defaults::InstallationDefaults;
use crate::rules::document::differences;
use crate::rules::ops_request::aliases_without_issuer;
use crate::rules::pod_security::pod_security;
use crate::rules::{
    ClusterFacts, Findings, Needs, Operation, Review, Rule, Snapshot, content, quoted, text,
};

type Database = Review<Postgres>;

/// Every rule for `Postgres`, in the order in which findings are listed.
pub fn rules() -> impl Iterator<Item = &'static Rule<Postgres>> {
    static CERTIFICATES: [Rule<Postgres>; 15] = certificates::rules(Needs::Nothing);
    OWN.iter().chain(&CERTIFICATES)
}

/// The rules that hold for as long as a database is there: what its installation does not allow,
/// nobody keeps from before.
pub fn lasting() -> impl Iterator<Item = &'static Rule<Postgres>> {
    OWN.iter().filter(|rule| {
        ["pod-security", "service-account-allowed", "external-ips"].contains(&rule.id)
    })
}

const CHANGES: &[Operation] = &[Create, Update];

static OWN: [Rule<Postgres>; 34] = [
    Rule {
        id: "name-valid",
        effect: Refuse,
        on: &[Create],
        what: "a name that is not one lower-case DNS label beginning with a letter, or has more than 52 characters",
        why: "Services and pods are named after it, and the pods' revision label adds eleven characters to it, where a label's value ends at 63.",
        example: "# metadata.name: 1st-database",
        needs: Needs::Nothing,
        check: name_valid,
    },
    Rule {
        id: "version-exists",
        effect: Refuse,
        on: CHANGES,
        what: "a `version` that no PostgresVersion has, or whose PostgresVersion does not say which PostgreSQL it is",
        why: "There is no image to run, or nobody knows what the image takes.",
        example: "{version: '9.1'}",
        needs: Needs::Facts,
        check: version_exists,
    },
    Rule {
        id: "version-supported",
        effect: Refuse,
        on: CHANGES,
        what: "a `version` of PostgreSQL before 13",
        why: "Nobody mends these any more, and before 12 PostgreSQL does not know `clientcert=verify-full`, by which `cert` logins are checked.",
        example: "{version: '10.23'}",
        needs: Needs::Facts,
        check: version_supported,
    },
    Rule {
        id: "version-deprecated",
        effect: Warn,
        on: CHANGES,
        what: "a deprecated `version`",
        why: "It gets no fixes any more, and may go away.",
        example: "{version: '13.22'}",
        needs: Needs::Facts,
        check: version_deprecated,
    },
    Rule {
        id: "replicas-valid",
        effect: Refuse,
        on: CHANGES,
        what: "fewer than 1 `replicas`, and more than 32",
        why: "A database has a primary; to stop it there is `halted`. Each standby is a connection, a slot and the whole log once more for the primary.",
        example: "{version: '17.12', replicas: 0}",
        needs: Needs::Nothing,
        check: replicas_valid,
    },
    Rule {
        id: "synchronous-valid",
        effect: Refuse,
        on: CHANGES,
        what: "a `synchronousReplicationConfig` without `streamingMode: Synchronous`, or one that no set of standbys can satisfy",
        why: "Commits would wait for ever for standbys that do not exist.",
        example: "{version: '17.12', replicas: 2, streamingMode: Synchronous, synchronousReplicationConfig: {numSyncReplicas: 2}}",
        needs: Needs::Nothing,
        check: synchronous_valid,
    },
    Rule {
        id: "storage-required",
        effect: Refuse,
        on: CHANGES,
        what: "durable storage without a size above zero",
        why: "No volume can be claimed.",
        example: "{version: '17.12', storageType: Durable}",
        needs: Needs::Nothing,
        check: storage_required,
    },
    Rule {
        id: "standby-wish-ignored",
        effect: Warn,
        on: CHANGES,
        what: "`standbyMode: Warm`, and `standbyNames`",
        why: "pgrekey asks every standby how far it is, so standbys are always hot; and Patroni itself chooses which of them are synchronous.",
        example: "{version: '17.12', standbyMode: Warm}",
        needs: Needs::Nothing,
        check: standby_wish_ignored,
    },
    Rule {
        id: "storage-class-exists",
        effect: Refuse,
        on: CHANGES,
        what: "a `storageClassName` that does not exist",
        why: "The pods would wait for their volumes for ever.",
        example: "{version: '17.12', storage: {storageClassName: no-such-class, resources: {requests: {storage: 1Gi}}}}",
        needs: Needs::Facts,
        check: storage_class_exists,
    },
    Rule {
        id: "halt-needs-durable",
        effect: Refuse,
        on: CHANGES,
        what: "`deletionPolicy: Halt` or `halted` with ephemeral storage",
        why: "There would be nothing left to keep.",
        example: "{version: '17.12', storageType: Ephemeral, deletionPolicy: Halt}",
        needs: Needs::Nothing,
        check: halt_needs_durable,
    },
    Rule {
        id: "do-not-terminate-halted",
        effect: Refuse,
        on: CHANGES,
        what: "`halted: true` with `deletionPolicy: DoNotTerminate`",
        why: "One asks to stop the database, the other never to.",
        example: "{version: '17.12', halted: true, deletionPolicy: DoNotTerminate}",
        needs: Needs::Nothing,
        check: do_not_terminate_halted,
    },
    Rule {
        id: "ssl-mode-matches-tls",
        effect: Refuse,
        on: CHANGES,
        what: "`sslMode: disable` with `tls`, and any other `sslMode` without",
        why: "A database with TLS refuses plaintext, and one without has nothing else.",
        example: "{version: '17.12', sslMode: require}",
        needs: Needs::Nothing,
        check: ssl_mode_matches_tls,
    },
    Rule {
        id: "cert-needs-tls",
        effect: Refuse,
        on: CHANGES,
        what: "`clientAuthMode: cert` without TLS",
        why: "Clients show their certificates in the TLS handshake.",
        example: "{version: '17.12', clientAuthMode: cert, sslMode: disable}",
        needs: Needs::Nothing,
        check: cert_needs_tls,
    },
    Rule {
        id: "tls-needs-issuer",
        effect: Refuse,
        on: CHANGES,
        what: "`tls` without an issuer for every certificate",
        why: "Nobody would sign the certificates. The issuer may also come from the namespace's annotation `pgrekey.dev/default-issuer` or from the installation's default.",
        example: "{version: '17.12', tls: {}}",
        needs: Needs::Nothing,
        check: tls_needs_issuer,
    },
    Rule {
        id: "auth-secret-valid",
        effect: Refuse,
        on: CHANGES,
        what: "an `authSecret` that is no Secret, or is externally managed and has no name",
        why: "The superuser's password is read from there.",
        example: "{version: '17.12', authSecret: {kind: Secret, name: '', externallyManaged: true}}",
        needs: Needs::Nothing,
        check: auth_secret_valid,
    },
    Rule {
        id: "reserved-env",
        effect: Refuse,
        on: CHANGES,
        what: "environment variables that are pgrekey's: `POSTGRES_USER`, `POSTGRES_PASSWORD`, `PGUSER`, `PGDATA`, `DATA_SOURCE_NAME`, `PATRONI_*`",
        why: "They say where the data are, who logs in and how the cluster is run; where the webhooks were off, they are left out.",
        example: "podTemplate: {spec: {containers: [{name: postgres, env: [{name: PGDATA, value: /tmp}]}]}}",
        needs: Needs::Nothing,
        check: reserved_env,
    },
    Rule {
        id: "container-known",
        effect: Refuse,
        on: CHANGES,
        what: "settings for a container other than `postgres` and `exporter`, or twice for one",
        why: "They would apply to nothing.",
        example: "podTemplate: {spec: {containers: [{name: postgresql}]}}",
        needs: Needs::Nothing,
        check: container_known,
    },
    Rule {
        id: "run-as-user",
        effect: Refuse,
        on: CHANGES,
        what: "a `runAsUser` or `runAsGroup` that the version's image does not run as",
        why: "Postgres refuses to start on data that belong to another user.",
        example: "podTemplate: {spec: {securityContext: {runAsUser: 0}}}",
        needs: Needs::Facts,
        check: run_as_user,
    },
    Rule {
        id: "pod-security",
        effect: Refuse,
        on: CHANGES,
        what: "security settings in `podTemplate` and of the exporter that the Pod Security Standard `restricted` refuses, unless the installation allows more (`podSecurity`)",
        why: "pgrekey makes the pods, so whoever may create a Postgres would have the rights of its pods on the node. The standard says nothing about groups, and neither does this rule.",
        example: "podTemplate: {spec: {containers: [{name: postgres, securityContext: {privileged: true}}]}}",
        needs: Needs::Nothing,
        check: pod_security,
    },
    Rule {
        id: "service-account-allowed",
        effect: Refuse,
        on: CHANGES,
        what: "a `serviceAccountName` other than the database's own, unless the installation names it (`podSecurity.serviceAccounts`) and the account carries the label `pgrekey.dev/usable-by-databases: \"true\"`",
        why: "Whoever is superuser of a database runs programs as the account of its pods, and has its token.",
        example: "podTemplate: {spec: {serviceAccountName: ci-deployer}}",
        needs: Needs::SomeFacts,
        check: service_account_allowed,
    },
    Rule {
        id: "external-ips",
        effect: Refuse,
        on: CHANGES,
        what: "`externalIPs` of a Service, unless the installation allows them (`externalIPs.allowed`)",
        why: "Every node sends what is meant for such an address to the Service, whoever the address belongs to (CVE-2020-8554). A `loadBalancerIP` is a wish that the load balancer may refuse, and a node port takes nothing from anybody: these are allowed.",
        example: "serviceTemplates: [{alias: primary, spec: {externalIPs: [192.0.2.7]}}]",
        needs: Needs::Nothing,
        check: content::external_ips,
    },
    Rule {
        id: "monitor-port",
        effect: Refuse,
        on: CHANGES,
        what: "an exporter port below 1024 or above 65535, or one that the database uses",
        why: "The exporter runs without the right to open the lower ones.",
        example: "monitor: {agent: prometheus.io, prometheus: {exporter: {port: 80}}}",
        needs: Needs::Nothing,
        check: monitor_port,
    },
    Rule {
        id: "health-checker-valid",
        effect: Refuse,
        on: CHANGES,
        what: "a period, timeout or threshold of the health checker below 1, or above 3600 s, 300 s and 100",
        why: "The check would never run, never wait, or never count; or it would hold for minutes what other databases wait for.",
        example: "healthChecker: {periodSeconds: 0}",
        needs: Needs::Nothing,
        check: health_checker_valid,
    },
    Rule {
        id: "configuration-valid",
        effect: Refuse,
        on: CHANGES,
        what: "an inline configuration under another key than `user.conf`, one that PostgreSQL would not read, `include`, values with control characters other than tabs, and more than 64 KiB or 1,000 settings",
        why: "Another key is not read. Of a file with one line that it cannot read PostgreSQL takes none, and does not start.",
        example: "configuration: {inline: {postgresql.conf: max_connections = 200}}",
        needs: Needs::Nothing,
        check: content::configuration_valid,
    },
    Rule {
        id: "setting-ignored",
        effect: Warn,
        on: CHANGES,
        what: "settings in `user.conf` that only pgrekey may set, such as `ssl` and `port`; `max_wal_senders` and `max_replication_slots` below 42",
        why: "With other values TLS or replication would break, so they are left out. The two numbers are raised: the largest number of pods has room from the start. Settings in a Secret are treated alike, and no rule sees them.",
        example: "configuration: {inline: {user.conf: ssl = off}}",
        needs: Needs::Nothing,
        check: content::setting_ignored,
    },
    Rule {
        id: "init-script-valid",
        effect: Refuse,
        on: CHANGES,
        what: "an `init.script` without a source or with two, and a `scriptPath` that leads out of the volume",
        why: "There would be nothing to run, or nobody knows which.",
        example: "init: {script: {scriptPath: ../schema, configMap: {name: schema}}}",
        needs: Needs::Nothing,
        check: content::init_script_valid,
    },
    Rule {
        id: "memory-valid",
        effect: Refuse,
        on: CHANGES,
        what: "memory of the container `postgres` that is no amount",
        why: "PostgreSQL gets a quarter of it as shared buffers.",
        example: "podTemplate: {spec: {containers: [{name: postgres, resources: {requests: {memory: lots}}}]}}",
        needs: Needs::Nothing,
        check: content::memory_valid,
    },
    Rule {
        id: "annotation-valid",
        effect: Refuse,
        on: CHANGES,
        what: "an annotation `pgrekey.dev/max-lag` that is no whole number of bytes, and `pgrekey.dev/client-grace-period` that is no duration, or is longer than 7 days",
        why: "What cannot be read counts as not set: standbys would be held to 1 MiB, and clients get 2 min of a renewal. What is longer counts as 7 days. A change of annotations alone is not reviewed.",
        example: "# metadata.annotations: {pgrekey.dev/max-lag: 16Mi}",
        needs: Needs::Nothing,
        check: annotation_valid,
    },
    Rule {
        id: "service-template-unique",
        effect: Refuse,
        on: CHANGES,
        what: "two `serviceTemplates` for one alias",
        why: "Only one of them could take effect, and it would not be clear which.",
        example: "serviceTemplates: [{alias: primary}, {alias: primary}]",
        needs: Needs::Nothing,
        check: service_template_unique,
    },
    Rule {
        id: "service-port-known",
        effect: Refuse,
        on: CHANGES,
        what: "a port in `serviceTemplates` that the Service does not have: `primary`, `standby` and, of `stats`, `prom-http`",
        why: "Ports are matched by name; another name would change nothing.",
        example: "serviceTemplates: [{alias: primary, spec: {ports: [{name: db, port: 6432}]}}]",
        needs: Needs::Nothing,
        check: content::service_port_known,
    },
    Rule {
        id: "immutable-field",
        effect: Refuse,
        on: &[Update],
        what: "a change of `storageType`, and once the database is provisioned one of `init` or of the Secret that `authSecret` names",
        why: "The data are where they are, what ran once does not run again, and the data know the password of the Secret that was there first.",
        example: "# storageType: Durable -> Ephemeral",
        needs: Needs::Nothing,
        check: immutable_field,
    },
    Rule {
        id: "version-keeps-major",
        effect: Refuse,
        on: &[Update],
        what: "a `version` of another major version of PostgreSQL than before, unless that one was not taken (condition `Blocked`, reason `VersionNotTaken`)",
        why: "PostgreSQL does not start on the data of another major version; within one, newer and older versions do.",
        example: "# version: '17.12' -> '18.1'",
        needs: Needs::Facts,
        check: version_keeps_major,
    },
    Rule {
        id: "tls-edited-directly",
        effect: Warn,
        on: &[Update],
        what: "`tls`, `sslMode` or `clientAuthMode` changed on the Postgres itself",
        why: "Certificates follow the spec and are taken into service, but how pods dial and whom they let in stays as it is; a PostgresOpsRequest changes it safely and says how far it is.",
        example: "# sslMode: require -> verify-full",
        needs: Needs::Nothing,
        check: tls_edited_directly,
    },
    Rule {
        id: "do-not-terminate",
        effect: Refuse,
        on: &[Delete],
        what: "the deletion of a database whose `deletionPolicy` is `DoNotTerminate`",
        why: "Its owner asked for that.",
        example: "{version: '17.12', deletionPolicy: DoNotTerminate}",
        needs: Needs::Nothing,
        check: do_not_terminate,
    },
];

impl HasTls for Database {
    fn tls(&self) -> Option<CertificateRequestView<'_>> {
        let tls = self.object.spec.tls.as_ref()?;
        Some(CertificateRequestView {
            namespace: self
                .object
                .metadata
                .namespace
                .as_deref()
                .unwrap_or_default(),
            database: self.object.metadata.name.as_deref().unwrap_or_default(),
            named_at: "metadata.name",
            issuer_ref: tls.issuer_ref.as_ref(),
            certificates: &tls.certificates,
        })
    }

    fn wished(&self, _: Option<&dyn ClusterFacts>) -> Option<TargetTls> {
        let PostgresSpec {
            tls,
            client_auth_mode,
            ..
        } = &self.object.spec;
        Some(TargetTls {
            tls: tls.clone()?,
            client_auth_mode: *client_auth_mode,
        })
    }

    fn unchanged(&self, _: Option<&dyn ClusterFacts>) -> Option<Arc<Postgres>> {
        // What the object leaves out has its default, whatever it was before; only the Secret of
        // the password is its own.
        let tls = None;
        Some(Arc::new(Postgres {
            spec: PostgresSpec {
                tls,
                ..self.object.spec.clone()
            },
            ..self.object.clone()
        }))
    }
}

fn name_valid(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    /// The API server adds this many characters to `generateName`.
    const GENERATED: usize = 5;
    let metadata = &review.object.metadata;
    let (field, name, added) = match (metadata.name.as_deref(), metadata.generate_name.as_deref()) {
        (Some(name), _) if !name.is_empty() => ("metadata.name", name, 0),
        (_, Some(prefix)) if !prefix.is_empty() => ("metadata.generateName", prefix, GENERATED),
        // What has no name at all, the API server refuses.
        _ => return,
    };
    let (length, most) = (name.chars().count(), MAX_DATABASE - added);
    if length > most {
        findings.add(
            field,
            format!("{} has {length} characters", quoted(name)),
            format!("use at most {most}"),
        );
    } else if !text::is_service_name(&format!("{name}{:x<added$}", "")) {
        let problem = format!("{} cannot be the name of a Service", quoted(name));
        findings.add(
            field,
            problem,
            "use lower-case letters, digits and inner hyphens, beginning with a letter",
        );
    }
}

fn version_exists(review: &Database, facts: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let Some(facts) = facts else { return };
    let version = &review.object.spec.version;
    let Some(known) = facts.version(version) else {
        let problem = format!("there is no PostgresVersion {}", quoted(version));
        return findings.add(
            "spec.version",
            problem,
            "use one that `kubectl get pgversion` lists",
        );
    };
    if known.spec.major().is_none() {
        let says = quoted(&known.spec.version);
        let problem = format!(
            "PostgresVersion {} says {says}, which begins with no major version",
            quoted(version)
        );
        findings.add(
            "spec.version",
            problem,
            "correct the PostgresVersion, for example to 17.12",
        );
    }
}

fn version_supported(review: &Database, facts: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    if let Some(major) =
        major_of(&review.object.spec.version, facts).filter(|major| *major < OLDEST)
    {
        let problem = format!("PostgreSQL {major} is not supported");
        findings.add("spec.version", problem, format!("use {OLDEST} or newer"));
    }
}

/// The oldest major version of PostgreSQL that is supported.
pub(super) const OLDEST: u32 = 13;

/// The major version that a PostgresVersion says it is.
pub(super) fn major_of(version: &str, facts: Option<&dyn ClusterFacts>) -> Option<u32> {
    facts?.version(version)?.spec.major()
}

fn version_deprecated(
    review: &Database,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Some(facts) = facts else { return };
    let version = &review.object.spec.version;
    if facts
        .version(version)
        .is_some_and(|v| v.spec.deprecated == Some(true))
    {
        findings.add(
            "spec.version",
            format!("PostgresVersion {} is deprecated", quoted(version)),
            "move to a newer one",
        );
    }
}

fn replicas_valid(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    const FIELD: &str = "spec.replicas";
    match review.object.spec.replicas {
        Some(few @ ..1) => {
            findings.add(
                FIELD,
                format!("{few} is less than 1"),
                "use 1 or more; halted: true stops the database",
            );
        }
        Some(many) if many > MAX_REPLICAS => {
            findings.add(
                FIELD,
                format!("{many} is more than {MAX_REPLICAS}"),
                format!("use at most {MAX_REPLICAS}"),
            );
        }
        _ => {}
    }
}

fn standby_wish_ignored(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let spec = &review.object.spec;
    if spec.standby_mode == Some(StandbyMode::Warm) {
        findings.add("spec.standbyMode", "standbys are always hot", "use Hot");
    }
    if spec
        .synchronous_replication_config
        .as_ref()
        .is_some_and(|config| !config.standby_names.is_empty())
    {
        let field = "spec.synchronousReplicationConfig.standbyNames";
        findings.add(field, "Patroni chooses among all", "leave it out");
    }
}

fn synchronous_valid(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    const FIELD: &str = "spec.synchronousReplicationConfig";
    let spec = &review.object.spec;
    let Some(config) = &spec.synchronous_replication_config else {
        return;
    };
    let SynchronousReplicationConfig {
        mode: _,
        num_sync_replicas,
        commit_level: _,
        standby_names,
        use_wildcard,
    } = config;
    if spec.streaming_mode != Some(StreamingMode::Synchronous) {
        findings.add(
            FIELD,
            "has no effect on asynchronous streaming",
            "set streamingMode: Synchronous, or remove it",
        );
    }
    if *use_wildcard == Some(true) && !standby_names.is_empty() {
        findings.add(
            format!("{FIELD}.useWildcard"),
            "contradicts standbyNames",
            "use one of the two",
        );
    }
    let mut seen = BTreeSet::new();
    for (i, name) in standby_names.iter().enumerate() {
        if name.is_empty() || !seen.insert(name) {
            let problem = if name.is_empty() {
                "is empty".to_owned()
            } else {
                format!("{} is there twice", quoted(name))
            };
            findings.add(format!("{FIELD}.standbyNames[{i}]"), problem, "remove it");
        }
    }
    let wanted = num_sync_replicas.unwrap_or(1);
    let standbys = spec.replicas.unwrap_or(1).saturating_sub(1);
    let (most, of) = match i32::try_from(standby_names.len()) {
        Ok(0) | Err(_) => (standbys, "standbys"),
        Ok(names) => (names, "standbyNames"),
    };
    if spec.streaming_mode == Some(StreamingMode::Synchronous) && !(1..=most).contains(&wanted) {
        let problem = format!("{wanted} synchronous standbys cannot be had of {most} {of}");
        findings.add(
            format!("{FIELD}.numSyncReplicas"),
            problem,
            "use at least 1 and at most as many as there are",
        );
    }
}

/// The storage type, `Durable` if left out.
fn storage_type(spec: &PostgresSpec) -> StorageType {
    spec.storage_type.unwrap_or(StorageType::Durable)
}

fn storage_required(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    const FIELD: &str = "spec.storage.resources.requests.storage";
    let spec = &review.object.spec;
    if storage_type(spec) == StorageType::Ephemeral {
        return;
    }
    let Some(storage) = &spec.storage else {
        return findings.add(
            "spec.storage",
            "is missing for durable storage",
            "give a claim, or use storageType: Ephemeral",
        );
    };
    let requests = storage.resources.as_ref().and_then(|r| r.requests.as_ref());
    let Some(size) = requests.and_then(|r| r.get("storage")) else {
        return findings.add(FIELD, "is missing", "give a size such as 10Gi");
    };
    if quantity::bytes(size).is_none_or(|bytes| bytes == 0) {
        findings.add(
            FIELD,
            format!("{} is no size above zero", quoted(&size.0)),
            "give a size such as 10Gi",
        );
    }
}

fn storage_class_exists(
    review: &Database,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Some(facts) = facts else { return };
    let class = review
        .object
        .spec
        .storage
        .as_ref()
        .and_then(|s| s.storage_class_name.as_deref());
    // The empty name asks for a volume without a class.
    if let Some(class) =
        class.filter(|class| !class.is_empty() && !facts.storage_class_exists(class))
    {
        let problem = format!("there is no StorageClass {}", quoted(class));
        findings.add(
            "spec.storage.storageClassName",
            problem,
            "use one that `kubectl get storageclass` lists",
        );
    }
}

fn halt_needs_durable(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    const REMEDY: &str = "use storageType: Durable, or do not halt";
    let spec = &review.object.spec;
    if storage_type(spec) == StorageType::Durable {
        return;
    }
    if spec.halted == Some(true) {
        findings.add(
            "spec.halted",
            "would lose the data of ephemeral storage",
            REMEDY,
        );
    } else if spec.deletion_policy == Some(DeletionPolicy::Halt) {
        findings.add(
            "spec.deletionPolicy",
            "Halt cannot keep the data of ephemeral storage",
            REMEDY,
        );
    }
}

fn do_not_terminate_halted(
    review: &Database,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let spec = &review.object.spec;
    if spec.halted == Some(true) && spec.deletion_policy == Some(DeletionPolicy::DoNotTerminate) {
        findings.add(
            "spec.halted",
            "contradicts deletionPolicy DoNotTerminate",
            "change the policy first, for example to Halt",
        );
    }
}

fn ssl_mode_matches_tls(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    const FIELD: &str = "spec.sslMode";
    let spec = &review.object.spec;
    match (spec.ssl_mode, &spec.tls) {
        (Some(SslMode::Disable), Some(_)) => {
            findings.add(
                FIELD,
                "disable contradicts spec.tls",
                "use another mode, or remove spec.tls",
            );
        }
        (Some(mode), None) if mode != SslMode::Disable => {
            let problem = format!("{} needs spec.tls", mode.as_str());
            findings.add(FIELD, problem, "add spec.tls, or use disable");
        }
        _ => {}
    }
}

fn cert_needs_tls(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let spec = &review.object.spec;
    let without_tls = spec.tls.is_none() || spec.ssl_mode == Some(SslMode::Disable);
    if spec.client_auth_mode == Some(ClientAuthMode::Cert) && without_tls {
        findings.add(
            "spec.clientAuthMode",
            "cert needs TLS",
            "add spec.tls, or use scram or md5",
        );
    }
}

/// The major version of PostgreSQL behind the name of a PostgresVersion, if it can be known.
pub(super) fn major(version: &str, facts: Option<&dyn ClusterFacts>) -> Option<u32> {
    let known = facts.and_then(|f| f.version(version));
    known.map_or_else(
        || postgres_version::major(version),
        |known| known.spec.major(),
    )
}

fn tls_needs_issuer(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let Some(tls) = &review.object.spec.tls else {
        return;
    };
    let unsigned = aliases_without_issuer(tls.issuer_ref.as_ref(), &tls.certificates);
    if !unsigned.is_empty() {
        let problem = format!(
            "is missing, and nobody signs the certificates of: {}",
            unsigned.join(", ")
        );
        findings.add(
            "spec.tls.issuerRef",
            problem,
            "name an issuer, here or for each certificate",
        );
    }
}

fn auth_secret_valid(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let Some(secret) = &review.object.spec.auth_secret else {
        return;
    };
    if secret.kind != "Secret" {
        findings.add(
            "spec.authSecret.kind",
            format!("{} is no Secret", quoted(&secret.kind)),
            "use Secret",
        );
    }
    if let Some(group) = secret
        .api_group
        .as_deref()
        .filter(|group| !group.is_empty())
    {
        let problem = format!("{} is not the group of Secrets", quoted(group));
        findings.add("spec.authSecret.apiGroup", problem, "leave it out");
    }
    if secret.externally_managed == Some(true) && secret.name.is_empty() {
        findings.add(
            "spec.authSecret.name",
            "is missing for a Secret that is managed externally",
            "name the Secret",
        );
    } else if !secret.name.is_empty() && !text::is_object_name(&secret.name) {
        findings.add(
            "spec.authSecret.name",
            format!("{} cannot be the name of a Secret", quoted(&secret.name)),
            "correct it",
        );
    }
}

fn reserved_env(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let spec = &review.object.spec;
    let containers = spec
        .pod_template
        .iter()
        .filter_map(|t| t.spec.as_ref())
        .flat_map(|s| s.containers.iter().enumerate());
    let of_containers =
        containers.map(|(i, c)| (format!("spec.podTemplate.spec.containers[{i}].env"), &c.env));
    let exporter = spec
        .monitor
        .as_ref()
        .and_then(|m| m.prometheus.as_ref())
        .and_then(|p| p.exporter.as_ref());
    let of_exporter = exporter.map(|e| ("spec.monitor.prometheus.exporter.env".to_owned(), &e.env));
    let lists: Vec<(String, &Vec<EnvVar>)> = of_containers.chain(of_exporter).collect();
    for (field, variables) in lists {
        for (i, variable) in variables
            .iter()
            .enumerate()
            .filter(|(_, v)| is_reserved(&v.name))
        {
            findings.add(
                format!("{field}[{i}].name"),
                format!("{} is pgrekey's", quoted(&variable.name)),
                "remove it",
            );
        }
    }
}

fn container_known(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let Some(settings) = review
        .object
        .spec
        .pod_template
        .as_ref()
        .and_then(|t| t.spec.as_ref())
    else {
        return;
    };
    let mut seen = BTreeSet::new();
    for (i, container) in settings.containers.iter().enumerate() {
        let field = format!("spec.podTemplate.spec.containers[{i}].name");
        if ![POSTGRES, EXPORTER].contains(&container.name.as_str()) {
            let problem = format!("there is no container {}", quoted(&container.name));
            findings.add(field, problem, "use postgres or exporter");
        } else if !seen.insert(&container.name) {
            findings.add(
                field,
                format!("{} is there twice", quoted(&container.name)),
                "merge the two entries",
            );
        }
    }
}

fn run_as_user(review: &Database, facts: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    const POD: &str = "spec.podTemplate.spec.securityContext";
    let spec = &review.object.spec;
    let Some(version) = facts.and_then(|f| f.version(&spec.version)) else {
        return;
    };
    let context = version.spec.security_context.unwrap_or_default();
    let any_but_root = context.run_as_any_non_root == Some(true);
    let expected = context.run_as_user.unwrap_or(999);
    let Some(settings) = spec.pod_template.as_ref().and_then(|t| t.spec.as_ref()) else {
        return;
    };
    let pod = settings.security_context.iter().flat_map(|c| {
        [
            (format!("{POD}.runAsUser"), c.run_as_user),
            (format!("{POD}.runAsGroup"), c.run_as_group),
        ]
    });
    let containers = settings
        .containers
        .iter()
        .enumerate()
        .filter(|(_, c)| c.name == POSTGRES)
        .flat_map(|(i, c)| {
            let field = format!("spec.podTemplate.spec.containers[{i}].securityContext");
            let context = c.security_context.as_ref();
            [
                (
                    format!("{field}.runAsUser"),
                    context.and_then(|c| c.run_as_user),
                ),
                (
                    format!("{field}.runAsGroup"),
                    context.and_then(|c| c.run_as_group),
                ),
            ]
        });
    for (field, id) in pod.chain(containers) {
        if let Some(id) = id.filter(|id| {
            if any_but_root {
                *id == 0
            } else {
                *id != expected
            }
        }) {
            let problem = format!(
                "{id} is not the user of PostgresVersion {}",
                quoted(&spec.version)
            );
            findings.add(field, problem, format!("use {expected}, or leave it out"));
        }
    }
}

fn service_account_allowed(
    review: &Database,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Postgres { metadata, spec, .. } = &review.object;
    let settings = spec.pod_template.as_ref().and_then(|t| t.spec.as_ref());
    let Some(account) = settings.and_then(|pod| pod.service_account_name.as_ref()) else {
        return;
    };
    if metadata.name.as_ref() == Some(account) {
        return;
    }
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let problem = if !review.allowed.service_accounts.contains(account) {
        format!(
            "{} is no account that this installation lets databases use",
            quoted(account)
        )
    } else if facts.is_some_and(|facts| !facts.service_account_is_usable(namespace, account)) {
        format!(
            "there is no ServiceAccount {} with the label {USABLE_BY_DATABASES}: \"true\" in {namespace}",
            quoted(account)
        )
    } else {
        return;
    };
    let remedy = "leave it out for one of the database's own; another takes podSecurity.serviceAccounts and the label";
    findings.add("spec.podTemplate.spec.serviceAccountName", problem, remedy);
}

fn monitor_port(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    const FIELD: &str = "spec.monitor.prometheus.exporter.port";
    const TAKEN: [Port; 2] = [POSTGRES_PORT, PATRONI_PORT];
    let exporter = review
        .object
        .spec
        .monitor
        .as_ref()
        .and_then(|m| m.prometheus.as_ref())
        .and_then(|p| p.exporter.as_ref());
    let Some(port) = exporter.and_then(|e| e.port) else {
        return;
    };
    if !(1024..=65535).contains(&port) {
        findings.add(
            FIELD,
            format!("{port} is not between 1024 and 65535"),
            "use another port, or leave it out for 56790",
        );
    } else if TAKEN.iter().any(|taken| i32::from(taken.number) == port) {
        findings.add(
            FIELD,
            format!("{port} is the database's own"),
            "use another port, or leave it out for 56790",
        );
    }
}

fn health_checker_valid(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let Some(checker) = &review.object.spec.health_checker else {
        return;
    };
    let fields = [
        ("periodSeconds", checker.period_seconds, MAX_CHECK_PERIOD),
        ("timeoutSeconds", checker.timeout_seconds, MAX_CHECK_TIMEOUT),
        (
            "failureThreshold",
            checker.failure_threshold,
            MAX_CHECK_FAILURES,
        ),
    ];
    for (field, value, most) in fields {
        if let Some(value) = value.filter(|value| !(1..=most).contains(value)) {
            let problem = format!("{value} is not between 1 and {most}");
            findings.add(
                format!("spec.healthChecker.{field}"),
                problem,
                "use a number between these",
            );
        }
    }
}

fn annotation_valid(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    if let Some(text) = review
        .object
        .annotations()
        .get(MAX_LAG)
        .filter(|text| text.parse::<u64>().is_err())
    {
        findings.add(
            format!("metadata.annotations.{MAX_LAG}"),
            format!(
                "{} is no whole number of bytes up to {}",
                quoted(text),
                u64::MAX
            ),
            "use one such as 1048576, without a unit",
        );
    }
    if let Some(text) = review.object.annotations().get(CLIENT_GRACE_PERIOD) {
        settle_valid(text, findings);
    }
}

/// What clients get, as both kinds say it.
pub(super) fn settle_valid(text: &str, findings: &mut Findings) {
    let field = format!("metadata.annotations.{CLIENT_GRACE_PERIOD}");
    if read_duration(&field, text, "90s", findings)
        .is_some_and(|settle| settle > MAX_CLIENT_GRACE_PERIOD)
    {
        findings.add(
            field,
            format!("{} is too long", quoted(text)),
            format!("use at most {}", write(MAX_CLIENT_GRACE_PERIOD)),
        );
    }
}

fn service_template_unique(
    review: &Database,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let mut seen = vec![];
    for (i, ServiceTemplate { alias, .. }) in
        review.object.spec.service_templates.iter().enumerate()
    {
        if seen.contains(alias) {
            let problem = format!("there is an entry for {} already", json!(alias));
            findings.add(
                format!("spec.serviceTemplates[{i}].alias"),
                problem,
                "merge the two entries",
            );
        } else {
            seen.push(*alias);
        }
    }
}

fn immutable_field(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let Some(old) = &review.old else { return };
    let new = &review.object;
    let (before, after) = (storage_type(&old.spec), storage_type(&new.spec));
    if before != after {
        findings.add(
            "spec.storageType",
            format!("{before:?} cannot become {after:?}"),
            "create another Postgres",
        );
    }
    let conditions = old.status.as_ref().map_or(&[][..], |s| &s.conditions);
    if condition::holds(conditions, "Provisioned") {
        for field in differences(&old.spec.init, &new.spec.init, "spec.init") {
            findings.add(
                field,
                "cannot be changed once the database is provisioned",
                "put back what was there",
            );
        }
        let (before, after) = (
            old.spec.auth_secret_of(&old.name_any()),
            new.spec.auth_secret_of(&new.name_any()),
        );
        if before != after {
            let problem = format!(
                "{} cannot become {}: the data know its password",
                quoted(&before),
                quoted(&after)
            );
            findings.add("spec.authSecret", problem, "put back what was there");
        }
    }
}

fn version_keeps_major(
    review: &Database,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let (Some(old), Some(facts)) = (&review.old, facts) else {
        return;
    };
    // The data are not of the version that was named, so this may be the way back; the loop looks
    // at the data themselves.
    let blocked = old
        .status
        .as_ref()
        .and_then(|status| condition::find(&status.conditions, "Blocked"));
    if blocked.is_some_and(|c| c.holds() && c.reason.as_deref() == Some(VERSION_NOT_TAKEN)) {
        return;
    }
    let major = |version: &str| facts.version(version)?.spec.major();
    let (before, after) = (&old.spec.version, &review.object.spec.version);
    // What cannot be looked up is for the rules about versions that do not exist, and for the loop.
    if let (Some(from), Some(to)) = (major(before), major(after))
        && from != to
    {
        let problem = format!(
            "{} is PostgreSQL {to}, and the data are PostgreSQL {from}'s",
            quoted(after)
        );
        findings.add(
            "spec.version",
            problem,
            "use a version of the same, or create another Postgres and move the data",
        );
    }
}

fn tls_edited_directly(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let Some(old) = &review.old else { return };
    if old.spec == review.object.spec {
        return;
    }
    // What was stored while no webhook filled in defaults gets them with its first edit, whatever
    // that is about.
    let (old, new) = (effective(old), effective(&review.object));
    let edited = [
        ("spec.tls", old.tls != new.tls),
        ("spec.sslMode", old.ssl_mode != new.ssl_mode),
        (
            "spec.clientAuthMode",
            old.client_auth_mode != new.client_auth_mode,
        ),
    ];
    for (field, _) in edited.into_iter().filter(|(_, edited)| *edited) {
        let problem = "running pods follow in certificates only";
        findings.add(field, problem, "use a ReconfigureTLS request");
    }
}

/// What the spec says about TLS, with its defaults; the rest of it, which may be large, is left
/// out.
fn effective(database: &Postgres) -> PostgresSpec {
    let PostgresSpec {
        version,
        tls,
        ssl_mode,
        client_auth_mode,
        ..
    } = &database.spec;
    let (version, tls) = (version.clone(), tls.clone());
    let spec = PostgresSpec {
        version,
        tls,
        ssl_mode: *ssl_mode,
        client_auth_mode: *client_auth_mode,
        ..Default::default()
    };
    let name = database.metadata.name.as_deref().unwrap_or_default();
    let mut object = Postgres::new(name, spec);
    object
        .metadata
        .namespace
        .clone_from(&database.metadata.namespace);
    let review = Review::create(object, Arc::default());
    let defaulted = serde_json::to_value(&review.object).map(|d| {
        defaults::postgres(
            d,
            &review,
            &Snapshot::default(),
            &InstallationDefaults::default(),
        )
    });
    let defaulted = defaulted.and_then(serde_json::from_value::<Postgres>);
    defaulted.map_or_else(|_| review.object.spec, |database| database.spec)
}

fn do_not_terminate(review: &Database, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    if review.object.spec.deletion_policy == Some(DeletionPolicy::DoNotTerminate) {
        let metadata = &review.object.metadata;
        let name = metadata.name.as_deref().unwrap_or_default();
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let problem = format!("postgres \"{namespace}/{name}\" can't be terminated");
        findings.add(
            "spec.deletionPolicy",
            problem,
            "to delete, change spec.deletionPolicy",
        );
    }
}
