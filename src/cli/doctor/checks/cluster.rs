//! Checks of the parts that pgrekey needs in a cluster: CRDs, cert-manager, the leader, rights.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Resource, ResourceExt};

use crate::api;
use crate::api::PetSet;
use crate::api::cert_manager::{IssuerStatus, holds};
use crate::cli::doctor::installation::{
    AccountRights, CERT_MANAGER_CRDS, Inquiry, Installation, UnreadableObject,
};
use crate::cli::doctor::report::CheckResult::{NotAsked, Problems, Well};
use crate::cli::doctor::report::{ASK_ANOTHER, CheckResult, CheckVerdict, known};
use crate::cli::output::elapsed;
use crate::cluster::drift::needs_apply;

/// A PetSet that its controller has not seen after this many seconds counts as ignored.
const PET_SET_PATIENCE: i64 = 60;

#[expect(
    clippy::unnecessary_wraps,
    reason = "all checks have the same signature"
)]
pub(super) fn api_server(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    Ok(match &installation.server {
        Ok(version) => Well(version.clone()),
        Err(why) => Problems(CheckVerdict::Fail, vec![why.to_string()]),
    })
}

pub(super) fn crds(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    missing_crds(
        installation,
        api::crds().into_iter().map(|crd| crd.name_any()).collect(),
    )
}

/// The CRDs of these names that the cluster lacks.
fn missing_crds(
    installation: &Installation,
    names: Vec<String>,
) -> Result<CheckResult, UnreadableObject> {
    let present: BTreeSet<String> = known(&installation.crds)?
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    let well = format!("all {}", names.len());
    let missing = names.into_iter().filter(|name| !present.contains(name));
    Ok(CheckResult::from_problems(
        CheckVerdict::Fail,
        missing.map(|name| format!("{name} is missing")),
        well,
    ))
}

/// Compares the schemas with those of this program. The API server adds fields to a CRD and removes
/// none.
pub(super) fn crd_versions(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let present = known(&installation.crds)?;
    let ours = api::crds();
    let others = ours.iter().filter(|ours| {
        let live = present
            .iter()
            .find(|live| live.name_any() == ours.name_any());
        live.is_some_and(|live| needs_apply(&versions_json(live), &versions_json(ours)))
    });
    let version = env!("CARGO_PKG_VERSION");
    Ok(CheckResult::from_problems(
        CheckVerdict::Warn,
        others.map(|crd| format!("{} is not the one of pgrekey {version}", crd.name_any())),
        format!("those of pgrekey {version}"),
    ))
}

fn versions_json(crd: &CustomResourceDefinition) -> serde_json::Value {
    serde_json::to_value(&crd.spec.versions).unwrap_or_default()
}

pub(super) fn cert_manager(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    if can_do_without_cert_manager(installation) {
        let problem = "cert-manager is not installed: no database can have TLS";
        return Ok(Problems(CheckVerdict::Warn, vec![problem.to_owned()]));
    }
    missing_crds(installation, CERT_MANAGER_CRDS.map(str::to_owned).to_vec())
}

/// Whether cert-manager is not installed, and no database needs it.
fn can_do_without_cert_manager(installation: &Installation) -> bool {
    let (Ok(crds), Ok(databases)) = (&installation.crds, &installation.databases) else {
        return false;
    };
    let is_installed = crds
        .iter()
        .any(|crd| CERT_MANAGER_CRDS.contains(&crd.name_any().as_str()));
    !is_installed && databases.iter().all(|database| database.spec.tls.is_none())
}

/// An Issuer or ClusterIssuer.
struct AnyIssuer {
    /// As `Issuer NAMESPACE/NAME` or `ClusterIssuer NAME`.
    words: String,
    is_ready: bool,
}

impl AnyIssuer {
    fn new<K: Resource<DynamicType = ()>>(issuer: &K, status: Option<&IssuerStatus>) -> Self {
        Self {
            words: format!("{} {}", K::kind(&()), path(issuer)),
            is_ready: status.is_some_and(|status| holds(&status.conditions, "Ready")),
        }
    }
}

fn all_issuers(installation: &Installation) -> Result<Vec<AnyIssuer>, UnreadableObject> {
    let issuers = known(&installation.issuers)?.iter();
    let issuers = issuers.map(|issuer| AnyIssuer::new(issuer, issuer.status.as_ref()));
    let cluster_issuers = known(&installation.cluster_issuers)?.iter();
    let cluster_issuers =
        cluster_issuers.map(|issuer| AnyIssuer::new(issuer, issuer.status.as_ref()));
    Ok(issuers.chain(cluster_issuers).collect())
}

pub(super) fn issuers_exist(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let issuers = all_issuers(installation)?;
    let ready = issuers.iter().filter(|issuer| issuer.is_ready).count();
    Ok(if ready > 0 {
        Well(format!("{ready} are Ready"))
    } else {
        let verdict = if can_do_without_cert_manager(installation) {
            CheckVerdict::Warn
        } else {
            CheckVerdict::Fail
        };
        Problems(verdict, vec!["no issuer is Ready".to_owned()])
    })
}

pub(super) fn issuers_ready(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let issuers = all_issuers(installation)?.into_iter();
    let bad = issuers.filter(|issuer| !issuer.is_ready);
    Ok(CheckResult::from_problems(
        CheckVerdict::Warn,
        bad.map(|issuer| format!("{} is not Ready", issuer.words)),
        "all",
    ))
}

pub(super) fn postgres_versions(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let usable = known(&installation.versions)?
        .iter()
        .filter(|version| version.spec.deprecated != Some(true));
    let names: Vec<String> = usable.map(ResourceExt::name_any).collect();
    Ok(if names.is_empty() {
        let problem = "there is none that new databases should use";
        Problems(CheckVerdict::Fail, vec![problem.to_owned()])
    } else {
        Well(names.join(", "))
    })
}

pub(super) fn leader(
    installation: &Installation,
    now: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let held: Vec<HeldLease> = known(&installation.leases)?
        .iter()
        .filter_map(|lease| HeldLease::evaluate(lease, now))
        .collect();
    let fresh: Vec<&str> = held
        .iter()
        .filter(|lease| lease.is_fresh)
        .map(|lease| lease.holder.as_str())
        .collect();
    if !fresh.is_empty() {
        return Ok(Well(fresh.join(", ")));
    }
    let mut problems: Vec<String> = held
        .iter()
        .map(|HeldLease { holder, age, .. }| format!("{holder} last renewed it {age} ago"))
        .collect();
    if problems.is_empty() {
        problems.push("no lease named pgrekey is held".to_owned());
    }
    Ok(Problems(CheckVerdict::Fail, problems))
}

/// A lease that names a holder.
struct HeldLease {
    /// As `HOLDER in NAMESPACE/LEASE`.
    holder: String,
    /// The time since it was renewed, in words.
    age: String,
    is_fresh: bool,
}

impl HeldLease {
    fn evaluate(lease: &Lease, now: Timestamp) -> Option<Self> {
        let spec = lease.spec.as_ref()?;
        let holder = spec
            .holder_identity
            .as_ref()
            .filter(|holder| !holder.is_empty())?;
        let renewed = spec.renew_time.as_ref()?.0;
        let life = i64::from(spec.lease_duration_seconds.unwrap_or(15));
        Some(Self {
            holder: format!("{holder} in {}", path(lease)),
            age: elapsed(renewed, now),
            is_fresh: now.as_second() - renewed.as_second() <= life,
        })
    }
}

pub(super) fn operator_rights(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    Ok(match known(&installation.operator)? {
        Inquiry::NotAllowed(why) => NotAsked {
            why: why.clone(),
            remedy: ASK_ANOTHER,
        },
        Inquiry::Answered(None) => Well("no pod leads whose rights could be asked for".to_owned()),
        Inquiry::Answered(Some(AccountRights { account, forbidden })) => {
            CheckResult::from_problems(
                CheckVerdict::Fail,
                forbidden
                    .iter()
                    .map(|right| format!("ServiceAccount {account} may not {right}")),
                format!("ServiceAccount {account} has what operations need"),
            )
        }
    })
}

pub(super) fn user_rights(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let forbidden = known(&installation.forbidden)?.iter();
    Ok(CheckResult::from_problems(
        CheckVerdict::Warn,
        forbidden.map(|right| format!("you may not {right}")),
        "all that the commands need",
    ))
}

pub(super) fn pet_sets(
    installation: &Installation,
    now: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let sets = known(&installation.pet_sets)?;
    let ignored = sets.iter().filter(|set| is_ignored(set, now));
    Ok(CheckResult::from_problems(
        CheckVerdict::Fail,
        ignored.map(|set| format!("no controller has taken up PetSet {}", path(set))),
        format!("{} PetSets, all taken up", sets.len()),
    ))
}

/// Whether no controller has observed the newest generation of a PetSet.
fn is_ignored(set: &PetSet, now: Timestamp) -> bool {
    let is_old = set
        .creation_timestamp()
        .is_some_and(|made| now.as_second() - made.0.as_second() > PET_SET_PATIENCE);
    let observed = set
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    is_old && (observed.is_none() || observed < set.metadata.generation)
}

pub(super) fn storage_class(
    installation: &Installation,
    _: Timestamp,
) -> Result<CheckResult, UnreadableObject> {
    let problem = match known(&installation.default_storage)?.as_slice() {
        [one] => return Ok(Well(one.clone())),
        [] => "there is no default StorageClass".to_owned(),
        many => format!("several are default: {}", many.join(", ")),
    };
    Ok(Problems(CheckVerdict::Warn, vec![problem]))
}

/// The object as `NAMESPACE/NAME`, or as `NAME` where its kind has no namespace.
pub(super) fn path<K: Resource<DynamicType = ()>>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}
