//! The checks of what an update changes, and of a deletion.

use std::sync::Arc;

use kube::ResourceExt;

use crate::api::Postgres;
use crate::api::condition;
use crate::api::condition::VERSION_NOT_TAKEN;
use crate::api::postgres::{DeletionPolicy, PostgresSpec};

use crate::rules::defaults;
use crate::rules::defaults::InstallationDefaults;
use crate::rules::document::differences;
use crate::rules::postgres::checks::storage_type;
use crate::rules::{ClusterFacts, Findings, Review, Snapshot, quoted};

pub(super) fn immutable_field(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
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

pub(super) fn version_keeps_major(
    review: &Review<Postgres>,
    facts: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let (Some(old), Some(facts)) = (&review.old, facts) else {
        return;
    };
    // The data are not of the named version, so this may be the way back. The controller checks the
    // data themselves.
    let blocked = old
        .status
        .as_ref()
        .and_then(|status| condition::find(&status.conditions, "Blocked"));
    if blocked.is_some_and(|c| c.holds() && c.reason.as_deref() == Some(VERSION_NOT_TAKEN)) {
        return;
    }
    let major = |version: &str| facts.version(version)?.spec.major();
    let (before, after) = (&old.spec.version, &review.object.spec.version);
    // The rule `version-exists` and the controller handle unknown versions.
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

pub(super) fn tls_edited_directly(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
    let Some(old) = &review.old else { return };
    if old.spec == review.object.spec {
        return;
    }
    // An object that was stored without the webhooks gets its defaults with its first edit,
    // whatever is edited.
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
        let problem = "running pods get new certificates only";
        findings.add(field, problem, "use a ReconfigureTLS request");
    }
}

/// The TLS fields of the spec, with their defaults. The rest, which may be large, is left out.
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

pub(super) fn do_not_terminate(
    review: &Review<Postgres>,
    _: Option<&dyn ClusterFacts>,
    findings: &mut Findings,
) {
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
