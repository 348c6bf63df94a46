//! The rules for `PostgresOpsRequest`.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;

use crate::api::annotations::{CLIENT_GRACE_PERIOD, STRATEGY, TTL};
use crate::api::bounds::{MAX_RETRIES, MAX_TIMEOUT};
use crate::api::duration::write;
use crate::api::names::MAX_REQUEST;
use crate::api::ops_request::{OpsType, TlsChange, TlsOperation};
use crate::api::postgres::StorageType;
use crate::api::tls::{ClientAuthMode, SslMode};
use crate::api::{Postgres, PostgresOpsRequest};

use crate::rules::Effect::{Refuse, Warn};
use crate::rules::Operation::{Create, Update};
use crate::rules::certificates;
use crate::rules::certificates::{CertificateRequestView, HasTls, TargetTls};
use crate::rules::document::differences;
use crate::rules::queue::{TlsAtTurn, requests_of_database, will_have_tls};
use crate::rules::shared::{
    OLDEST_MAJOR, aliases_without_issuer, check_client_grace_period, declared_major, parse_duration,
};
use crate::rules::{ClusterFacts, Findings, Needs, Review, Rule, quoted};

type Request = Review<PostgresOpsRequest>;

/// Every rule for `PostgresOpsRequest`, in the order in which findings are listed.
pub fn rules() -> impl Iterator<Item = &'static Rule<PostgresOpsRequest>> {
    // On an update only the rules that say so: the spec was judged when it came in, and the cluster
    // has moved on since.
    static CERTIFICATES: [Rule<PostgresOpsRequest>; 15] =
        on_create(certificates::rules(Needs::SomeFacts));
    OWN.iter().chain(&CERTIFICATES)
}

const fn on_create<const N: usize>(
    mut rules: [Rule<PostgresOpsRequest>; N],
) -> [Rule<PostgresOpsRequest>; N] {
    let mut i = 0;
    while i < N {
        rules[i].on = &[Create];
        i += 1;
    }
    rules
}

static OWN: [Rule<PostgresOpsRequest>; 23] = [
    Rule {
        id: "type-supported",
        effect: Refuse,
        on: &[Create],
        what: "any type but `ReconfigureTLS` and `Restart`",
        why: "KubeDB has more types; pgrekey carries out these two and would leave the others pending for ever.",
        example: "{type: UpdateVersion, databaseRef: {name: ha-postgres}}",
        needs: Needs::Nothing,
        check: type_supported,
    },
    Rule {
        id: "name-length",
        effect: Refuse,
        on: &[Create],
        what: "a name of more than 63 characters",
        why: "The name becomes the value of a label on what the request makes, and a label's value ends there.",
        example: "# metadata.name: a name of 64 characters",
        needs: Needs::Nothing,
        check: name_length,
    },
    Rule {
        id: "database-exists",
        effect: Refuse,
        on: &[Create],
        what: "a database that is not in the request's namespace, is being deleted, or is halted",
        why: "There would be nothing to operate on.",
        example: "{type: Restart, databaseRef: {name: no-such-database}}",
        needs: Needs::SomeFacts,
        check: database_exists,
    },
    Rule {
        id: "tls-required",
        effect: Refuse,
        on: &[Create],
        what: "`ReconfigureTLS` without `spec.tls`",
        why: "It does not say what to change.",
        example: "{type: ReconfigureTLS, databaseRef: {name: ha-postgres}}",
        needs: Needs::Nothing,
        check: tls_required,
    },
    Rule {
        id: "foreign-field",
        effect: Refuse,
        on: &[Create],
        what: "fields that belong to another type",
        why: "They would be ignored, and whoever wrote them expects something of them.",
        example: "{type: Restart, databaseRef: {name: ha-postgres}, horizontalScaling: {replicas: 5}}",
        needs: Needs::Nothing,
        check: foreign_field,
    },
    Rule {
        id: "one-operation",
        effect: Refuse,
        on: &[Create],
        what: "none, or more than one, of: `remove`; `rotateCertificates`; a change (`issuerRef`, `certificates`, `sslMode`, `clientAuthMode`)",
        why: "Which should come first, and which of the two an error belongs to, would be a guess. `remove` may carry `clientAuthMode` for afterwards.",
        example: "tls: {remove: true, rotateCertificates: true}",
        needs: Needs::Nothing,
        check: one_operation,
    },
    Rule {
        id: "rotate-needs-tls",
        effect: Refuse,
        on: &[Create],
        what: "`rotateCertificates` on a database without TLS",
        why: "There are no certificates. A request that is still to run and adds TLS counts as TLS.",
        example: "tls: {rotateCertificates: true}",
        needs: Needs::Facts,
        check: rotate_needs_tls,
    },
    Rule {
        id: "remove-needs-tls",
        effect: Refuse,
        on: &[Create],
        what: "`remove` on a database without TLS",
        why: "There is nothing to remove. A request that is still to run and adds TLS counts as TLS.",
        example: "tls: {remove: true}",
        needs: Needs::Facts,
        check: remove_needs_tls,
    },
    Rule {
        id: "add-needs-issuer",
        effect: Refuse,
        on: &[Create],
        what: "adding TLS without an issuer for every certificate",
        why: "Nobody would sign the certificates. The issuer may also come from the namespace's annotation `pgrekey.dev/default-issuer` or from the installation's default.",
        example: "tls: {sslMode: verify-full}",
        needs: Needs::Facts,
        check: add_needs_issuer,
    },
    Rule {
        id: "remove-forbids-cert",
        effect: Refuse,
        on: &[Create],
        what: "`remove` that leaves clients with `cert` authentication, given or kept",
        why: "Client certificates need TLS: nobody could log in.",
        example: "tls: {remove: true, clientAuthMode: cert}",
        needs: Needs::SomeFacts,
        check: remove_forbids_cert,
    },
    Rule {
        id: "remove-forbids-ssl-mode",
        effect: Refuse,
        on: &[Create],
        what: "`remove` with an `sslMode` other than `disable`",
        why: "Without TLS there is no other mode.",
        example: "tls: {remove: true, sslMode: require}",
        needs: Needs::Nothing,
        check: remove_forbids_ssl_mode,
    },
    Rule {
        id: "ssl-mode-disable",
        effect: Refuse,
        on: &[Create],
        what: "`sslMode: disable` in anything but `remove`",
        why: "A database with TLS refuses plaintext, so its own clients could not connect; and `cert` needs TLS.",
        example: "tls: {sslMode: disable, clientAuthMode: cert}",
        needs: Needs::Nothing,
        check: ssl_mode_disable,
    },
    Rule {
        id: "version-supported",
        effect: Refuse,
        on: &[Create],
        what: "adding and changing TLS on PostgreSQL before 13",
        why: "Nobody mends these any more, and before 12 PostgreSQL does not know `clientcert=verify-full`, by which `cert` logins are checked.",
        example: "tls: {clientAuthMode: cert}",
        needs: Needs::Facts,
        check: version_supported,
    },
    Rule {
        id: "timeout-valid",
        effect: Refuse,
        on: &[Create],
        what: "a `timeout` that is no positive duration, or is longer than 24 h",
        why: "Every step would fail at once; or a request that waits for what never comes would hold one of the cluster's places for operations.",
        example: "{type: Restart, databaseRef: {name: ha-postgres}, timeout: 0s}",
        needs: Needs::Nothing,
        check: timeout_valid,
    },
    Rule {
        id: "max-retries-valid",
        effect: Refuse,
        on: &[Create],
        what: "a negative `maxRetries`, and one above 10",
        why: "0 already means that nothing is tried again; and what has failed eleven times is for people to look at.",
        example: "{type: Restart, databaseRef: {name: ha-postgres}, maxRetries: -1}",
        needs: Needs::Nothing,
        check: max_retries_valid,
    },
    Rule {
        id: "annotation-valid",
        effect: Refuse,
        on: &[Create],
        what: "an annotation `pgrekey.dev/strategy` that is neither `Restart` nor `Reload`, and `pgrekey.dev/client-grace-period` or `pgrekey.dev/ttl-after-finished` that is no duration, or a settle of more than 7 days",
        why: "What cannot be read counts as not set: pods would be restarted, clients would get no time, or the request would be kept for ever. The database is paused for as long as clients get time.",
        example: "# metadata.annotations: {pgrekey.dev/client-grace-period: '90'}",
        needs: Needs::Nothing,
        check: annotation_valid,
    },
    Rule {
        id: "grpc-unsupported",
        effect: Refuse,
        on: &[Create],
        what: "`rotateGrpcCertificates`",
        why: "These are certificates of KubeDB's coordinator, and pgrekey runs none.",
        example: "tls: {rotateCertificates: true, rotateGrpcCertificates: true}",
        needs: Needs::Nothing,
        check: grpc_unsupported,
    },
    Rule {
        id: "data-survives",
        effect: Refuse,
        on: &[Create],
        what: "what replaces the only pod of a database with `storageType: Ephemeral`: a restart, adding and removing TLS, and any other change without `pgrekey.dev/strategy: Reload`",
        why: "The data would go with the pod, and a new one that finds none waits for a primary that has them.",
        example: "{type: Restart, databaseRef: {name: single-ephemeral}}",
        needs: Needs::Facts,
        check: data_survives,
    },
    Rule {
        id: "single-replica",
        effect: Warn,
        on: &[Create],
        what: "a restart of a database with one pod",
        why: "There is no standby to switch over to, so the database is away while its pod restarts.",
        example: "{type: Restart, databaseRef: {name: single-postgres}}",
        needs: Needs::Facts,
        check: single_replica,
    },
    Rule {
        id: "remove-lowers-security",
        effect: Warn,
        on: &[Create],
        what: "`remove`",
        why: "Passwords and data cross the network in plaintext afterwards.",
        example: "tls: {remove: true}",
        needs: Needs::Nothing,
        check: remove_lowers_security,
    },
    Rule {
        id: "same-issuer",
        effect: Warn,
        on: &[Create],
        what: "an `issuerRef` that the database has already, and nothing else",
        why: "Nothing about the certificates would change; to issue them anew there is `rotateCertificates`.",
        example: "tls: {issuerRef: {kind: Issuer, name: pg-issuer}}",
        needs: Needs::Facts,
        check: same_issuer,
    },
    Rule {
        id: "request-queued",
        effect: Warn,
        on: &[Create],
        what: "a request while another one of the same database is unfinished",
        why: "One request of a database runs at a time: one that has begun, then the oldest; this one waits.",
        example: "tls: {rotateCertificates: true}",
        needs: Needs::Facts,
        check: request_queued,
    },
    Rule {
        id: "spec-immutable",
        effect: Refuse,
        on: &[Update],
        what: "a change of `spec`",
        why: "The request may be half done. Metadata, finalizers and status may always change, also when the database is gone.",
        example: "# any change of spec after creation",
        needs: Needs::Nothing,
        check: spec_immutable,
    },
];

fn namespace(request: &PostgresOpsRequest) -> &str {
    request.metadata.namespace.as_deref().unwrap_or_default()
}

/// The database that the request names, if it is known.
fn database(
    request: &PostgresOpsRequest,
    facts: Option<&dyn ClusterFacts>,
) -> Option<Arc<Postgres>> {
    facts?.database(namespace(request), &request.spec.database_ref.name)
}

impl Review<PostgresOpsRequest> {
    /// What the database has after this change, and all that comes before it.
    fn after(&self, change: &TlsChange, facts: Option<&dyn ClusterFacts>) -> Option<TargetTls> {
        let now = match (database(&self.object, facts), facts) {
            (Some(database), Some(facts)) => TlsAtTurn::predict(&self.object, &database, facts),
            _ => TlsAtTurn::default(),
        };
        let TlsAtTurn {
            tls,
            client_auth_mode,
        } = now.after(change);
        Some(TargetTls {
            tls: tls?,
            client_auth_mode,
        })
    }
}

impl HasTls for Request {
    fn tls(&self) -> Option<CertificateRequestView<'_>> {
        let tls = self.object.spec.tls.as_ref()?;
        Some(CertificateRequestView {
            namespace: namespace(&self.object),
            database: &self.object.spec.database_ref.name,
            named_at: "spec.databaseRef.name",
            issuer_ref: tls.issuer_ref.as_ref(),
            certificates: &tls.certificates,
        })
    }

    fn is_merged(&self, facts: Option<&dyn ClusterFacts>) -> bool {
        let has_tls =
            database(&self.object, facts).is_some_and(|database| database.spec.tls.is_some());
        has_tls || facts.is_some_and(|facts| !requests_of_database(&self.object, facts).is_empty())
    }

    fn wished(&self, facts: Option<&dyn ClusterFacts>) -> Option<TargetTls> {
        self.after(asks_for(self, TlsOperation::Change)?, facts)
    }

    fn wished_issuers(&self, facts: Option<&dyn ClusterFacts>) -> Option<TargetTls> {
        self.after(
            &asks_for(self, TlsOperation::Change)?.with_issuers_alone(),
            facts,
        )
    }

    fn unchanged(&self, facts: Option<&dyn ClusterFacts>) -> Option<Arc<Postgres>> {
        database(&self.object, facts)
    }
}

/// The `spec.tls` of a request that asks for this operation, whatever else it asks for.
fn asks_for(review: &Request, operation: TlsOperation) -> Option<&TlsChange> {
    review
        .object
        .spec
        .tls
        .as_ref()
        .filter(|tls| tls.operations().contains(&operation))
}

fn type_supported(review: &Request, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let type_ = review.object.spec.type_;
    if !matches!(type_, OpsType::ReconfigureTLS | OpsType::Restart) {
        findings.add(
            "spec.type",
            format!("pgrekey does not carry out {type_:?}, which is KubeDB's"),
            "use ReconfigureTLS or Restart",
        );
    }
}

fn name_length(review: &Request, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let name = review.object.metadata.name.as_deref().unwrap_or_default();
    // A name that the API server generates is never longer.
    if name.len() > MAX_REQUEST {
        findings.add(
            "metadata.name",
            format!("{} has {} characters", quoted(name), name.len()),
            format!("use at most {MAX_REQUEST}"),
        );
    }
}

fn database_exists(review: &Request, facts: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    const FIELD: &str = "spec.databaseRef.name";
    let name = &review.object.spec.database_ref.name;
    if name.is_empty() {
        return findings.add(FIELD, "is empty", "name the Postgres to operate on");
    }
    let Some(facts) = facts else { return };
    let namespace = namespace(&review.object);
    let Some(database) = facts.database(namespace, name) else {
        let problem = format!(
            "there is no Postgres {} in namespace {namespace}",
            quoted(name)
        );
        return findings.add(
            FIELD,
            problem,
            "correct the name, or create the request in the database's namespace",
        );
    };
    if database.metadata.deletion_timestamp.is_some() {
        findings.add(
            FIELD,
            format!("Postgres {name} is being deleted"),
            "nothing can be done to it any more",
        );
    } else if database.spec.halted == Some(true) {
        findings.add(
            FIELD,
            format!("Postgres {name} is halted"),
            "set its spec.halted to false first",
        );
    }
}

fn tls_required(review: &Request, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let spec = &review.object.spec;
    if spec.type_ == OpsType::ReconfigureTLS && spec.tls.is_none() {
        findings.add("spec.tls", "is missing", "say what to change about TLS");
    }
}

fn foreign_field(review: &Request, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let spec = &review.object.spec;
    let fields = [
        ("tls", spec.tls.is_some(), OpsType::ReconfigureTLS),
        ("restart", spec.restart.is_some(), OpsType::Restart),
        (
            "updateVersion",
            spec.update_version.is_some(),
            OpsType::UpdateVersion,
        ),
        (
            "horizontalScaling",
            spec.horizontal_scaling.is_some(),
            OpsType::HorizontalScaling,
        ),
        (
            "verticalScaling",
            spec.vertical_scaling.is_some(),
            OpsType::VerticalScaling,
        ),
        (
            "volumeExpansion",
            spec.volume_expansion.is_some(),
            OpsType::VolumeExpansion,
        ),
        (
            "configuration",
            spec.configuration.is_some(),
            OpsType::Reconfigure,
        ),
        (
            "authentication",
            spec.authentication.is_some(),
            OpsType::RotateAuth,
        ),
        (
            "reconnectStandby",
            spec.reconnect_standby.is_some(),
            OpsType::ReconnectStandby,
        ),
        (
            "forceFailOver",
            spec.force_fail_over.is_some(),
            OpsType::ForceFailOver,
        ),
        (
            "setRaftKeyPair",
            spec.set_raft_key_pair.is_some(),
            OpsType::SetRaftKeyPair,
        ),
        (
            "migration",
            spec.migration.is_some(),
            OpsType::StorageMigration,
        ),
    ];
    for (field, given, type_) in fields {
        if given && type_ != spec.type_ {
            let problem = format!("belongs to type {type_:?}, and this is a {:?}", spec.type_);
            findings.add(
                format!("spec.{field}"),
                problem,
                "remove it, or change the type",
            );
        }
    }
}

fn one_operation(review: &Request, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    const CHOICE: &str = "remove, rotateCertificates, or a change (issuerRef, certificates, sslMode, clientAuthMode)";
    let Some(tls) = &review.object.spec.tls else {
        return;
    };
    match tls.operations().as_slice() {
        // Refused by its own rule; to say that nothing is asked for would be wrong as well.
        [] if tls.rotate_grpc_certificates == Some(true) => {}
        [] => findings.add(
            "spec.tls",
            "asks for nothing",
            format!("give one of: {CHOICE}"),
        ),
        [_] => {}
        _ => findings.add(
            "spec.tls",
            "asks for more than one operation",
            format!("make one request for each of: {CHOICE}"),
        ),
    }
}

/// A finding when the request asks for this and there will be no TLS by then.
fn needs_tls(
    review: &Request,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
    (operation, field, what): (TlsOperation, &str, &str),
) {
    let Some(facts) = facts else { return };
    let Some(database) = database(&review.object, Some(facts)) else {
        return;
    };
    if asks_for(review, operation).is_some() && !will_have_tls(&review.object, &database, facts) {
        let name = &review.object.spec.database_ref.name;
        findings.add(
            field,
            format!("Postgres {name} has no TLS{what}"),
            "add TLS first, with an issuerRef",
        );
    }
}

fn rotate_needs_tls(review: &Request, facts: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    needs_tls(
        review,
        facts,
        findings,
        (
            TlsOperation::Rotate,
            "spec.tls.rotateCertificates",
            ", so no certificates",
        ),
    );
}

fn remove_needs_tls(review: &Request, facts: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    needs_tls(
        review,
        facts,
        findings,
        (TlsOperation::Remove, "spec.tls.remove", " to remove"),
    );
}

fn add_needs_issuer(review: &Request, facts: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let Some(facts) = facts else { return };
    let Some(database) = database(&review.object, Some(facts)) else {
        return;
    };
    let Some(tls) = asks_for(review, TlsOperation::Change) else {
        return;
    };
    if will_have_tls(&review.object, &database, facts) || tls.remove == Some(true) {
        return;
    }
    let unsigned = aliases_without_issuer(tls.issuer_ref.as_ref(), &tls.certificates);
    if !unsigned.is_empty() {
        findings.add(
            "spec.tls.issuerRef",
            format!(
                "TLS is to be added, and nobody signs the certificates of: {}",
                unsigned.join(", ")
            ),
            "name an issuer, here or for each certificate",
        );
    }
}

fn remove_forbids_cert(
    review: &Request,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    const FIELD: &str = "spec.tls.clientAuthMode";
    const REMEDY: &str = "give md5 or scram for afterwards";
    let Some(tls) = asks_for(review, TlsOperation::Remove) else {
        return;
    };
    let kept = || {
        let database = database(&review.object, facts)?;
        TlsAtTurn::predict(&review.object, &database, facts?).client_auth_mode
    };
    match tls.client_auth_mode {
        Some(ClientAuthMode::Cert) => {
            findings.add(FIELD, "cert needs TLS, which is to be removed", REMEDY)
        }
        None if kept() == Some(ClientAuthMode::Cert) => {
            findings.add(
                FIELD,
                "is left out, and the database's cert needs TLS, which is to be removed",
                REMEDY,
            );
        }
        _ => {}
    }
}

fn remove_forbids_ssl_mode(
    review: &Request,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let mode = asks_for(review, TlsOperation::Remove).and_then(|tls| tls.ssl_mode);
    if let Some(mode) = mode.filter(|mode| *mode != SslMode::Disable) {
        let problem = format!("{} needs TLS, which is to be removed", mode.as_str());
        findings.add("spec.tls.sslMode", problem, "leave it out, or use disable");
    }
}

fn ssl_mode_disable(review: &Request, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let Some(tls) = &review.object.spec.tls else {
        return;
    };
    if tls.ssl_mode == Some(SslMode::Disable) && tls.remove != Some(true) {
        let with_cert = if tls.client_auth_mode == Some(ClientAuthMode::Cert) {
            ", and cert needs TLS"
        } else {
            ""
        };
        findings.add(
            "spec.tls.sslMode",
            format!("disable is for a database without TLS{with_cert}"),
            "use another mode, or remove: true to take TLS away",
        );
    }
}

fn version_supported(review: &Request, facts: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let Some(database) = database(&review.object, facts) else {
        return;
    };
    let major = declared_major(&database.spec.version, facts).filter(|major| *major < OLDEST_MAJOR);
    if let (Some(major), Some(_)) = (major, asks_for(review, TlsOperation::Change)) {
        let problem = format!("is PostgreSQL {major}, whose TLS cannot be added or changed");
        findings.add(
            "spec.databaseRef",
            problem,
            format!("move the data to {} or newer", OLDEST_MAJOR),
        );
    }
}

fn timeout_valid(review: &Request, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    const FIELD: &str = "spec.timeout";
    let Some(text) = &review.object.spec.timeout else {
        return;
    };
    match parse_duration(FIELD, text, "10m", findings) {
        Some(Duration::ZERO) => {
            findings.add(
                FIELD,
                format!("{} leaves no time for any step", quoted(text)),
                "use a duration such as 10m",
            );
        }
        Some(long) if long > MAX_TIMEOUT => {
            let remedy = format!(
                "use at most {}, which each step has for itself",
                write(MAX_TIMEOUT)
            );
            findings.add(FIELD, format!("{} is too long", quoted(text)), remedy);
        }
        _ => {}
    }
}

fn max_retries_valid(review: &Request, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let retries = review.object.spec.max_retries;
    if retries < 0 {
        findings.add(
            "spec.maxRetries",
            format!("{retries} is negative"),
            "use 0 for no retry",
        );
    } else if retries > MAX_RETRIES {
        let remedy = format!("use at most {MAX_RETRIES}");
        findings.add(
            "spec.maxRetries",
            format!("{retries} is more than {MAX_RETRIES}"),
            remedy,
        );
    }
}

fn annotation_valid(review: &Request, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let annotations = review.object.annotations();
    if let Some(strategy) = annotations
        .get(STRATEGY)
        .filter(|text| !matches!(text.as_str(), "Restart" | "Reload"))
    {
        findings.add(
            format!("metadata.annotations.{STRATEGY}"),
            format!("{} is no strategy", quoted(strategy)),
            "use Restart or Reload",
        );
    }
    if let Some(text) = annotations.get(CLIENT_GRACE_PERIOD) {
        check_client_grace_period(text, findings);
    }
    if let Some(text) = annotations.get(TTL) {
        parse_duration(
            &format!("metadata.annotations.{TTL}"),
            text,
            "24h",
            findings,
        );
    }
}

fn grpc_unsupported(review: &Request, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    if review
        .object
        .spec
        .tls
        .as_ref()
        .is_some_and(|tls| tls.rotate_grpc_certificates == Some(true))
    {
        let remedy = "remove it; rotateCertificates covers every certificate there is";
        findings.add(
            "spec.tls.rotateGrpcCertificates",
            "pgrekey runs no pg-coordinator",
            remedy,
        );
    }
}

/// Whether the request cannot be carried out without new pods: a restart wants them, and a volume
/// comes and goes with its pod.
fn needs_new_pods(review: &Request, database: &Postgres, facts: &dyn ClusterFacts) -> bool {
    let is_added = asks_for(review, TlsOperation::Change).is_some()
        && !will_have_tls(&review.object, database, facts);
    review.object.spec.type_ == OpsType::Restart
        || asks_for(review, TlsOperation::Remove).is_some()
        || is_added
}

fn data_survives(review: &Request, facts: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let (Some(database), Some(facts)) = (database(&review.object, facts), facts) else {
        return;
    };
    let is_its_only_copy = database.spec.storage_type == Some(StorageType::Ephemeral);
    if !is_its_only_copy || database.spec.replicas.unwrap_or(1) > 1 {
        return;
    }
    let needs_new_pods = needs_new_pods(review, &database, facts);
    if needs_new_pods || review.object.restarts() {
        let or = if needs_new_pods {
            ""
        } else {
            ", or annotate the request with pgrekey.dev/strategy: Reload"
        };
        let remedy = format!("add a standby first, by spec.replicas of the Postgres{or}");
        findings.add(
            "spec.databaseRef",
            "has one pod, and its data would go with the pod",
            remedy,
        );
    }
}

fn single_replica(review: &Request, facts: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let (Some(database), Some(facts)) = (database(&review.object, facts), facts) else {
        return;
    };
    let is_restarted = review.object.restarts() || needs_new_pods(review, &database, facts);
    if is_restarted && database.spec.replicas.unwrap_or(1) == 1 {
        findings.add(
            "spec.databaseRef",
            "has one pod",
            "its restart interrupts the service",
        );
    }
}

fn remove_lowers_security(review: &Request, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    if asks_for(review, TlsOperation::Remove).is_some() {
        findings.add(
            "spec.tls.remove",
            "lowers security",
            "passwords and data will cross the network in plaintext",
        );
    }
}

fn same_issuer(review: &Request, facts: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let (Some(database), Some(facts)) = (database(&review.object, facts), facts) else {
        return;
    };
    let Some(tls) = &review.object.spec.tls else {
        return;
    };
    let then = TlsAtTurn::predict(&review.object, &database, facts)
        .tls
        .and_then(|tls| tls.issuer_ref);
    let (Some(asked), Some(then)) = (&tls.issuer_ref, then) else {
        return;
    };
    let same =
        (asked.kind(), asked.group(), &asked.name) == (then.kind(), then.group(), &then.name);
    if same
        && *tls
            == (TlsChange {
                issuer_ref: tls.issuer_ref.clone(),
                ..TlsChange::default()
            })
    {
        findings.add(
            "spec.tls.issuerRef",
            "is the issuer already",
            "use rotateCertificates to issue anew",
        );
    }
}

fn request_queued(review: &Request, facts: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let Some(facts) = facts else { return };
    if let Some(first) = review
        .object
        .ahead(&requests_of_database(&review.object, facts))
        .first()
    {
        let name = first.metadata.name.as_deref().unwrap_or_default();
        findings.add(
            "spec.databaseRef",
            format!("request {} comes first", quoted(name)),
            "this one waits for it",
        );
    }
}

fn spec_immutable(review: &Request, _: Option<&dyn ClusterFacts>, findings: &mut Findings) {
    let Some(old) = &review.old else { return };
    for field in differences(&old.spec, &review.object.spec, "spec") {
        findings.add(
            field,
            "cannot be changed once the request exists",
            "delete this request and create a new one",
        );
    }
}
