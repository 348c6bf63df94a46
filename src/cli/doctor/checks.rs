//! Whether an installation is healthy: checks over what was read, pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use serde::Serialize;

use crate::api;
use crate::api::cert_manager::{ClusterIssuer, Issuer, IssuerStatus, holds};
use crate::api::condition;
use crate::api::ops_request::OpsPhase;
use crate::api::{PetSet, Postgres, PostgresOpsRequest, PostgresVersion};
use crate::cli::certs::{AliasCertificates, Certificates};
use crate::cli::output::{days, elapsed};
use crate::pki::certificate::CertificateSummary as Leaf;
use crate::plan::Known;
use crate::plan::status::database::types::{BLOCKED, PAUSED};
use crate::rules;
use crate::rules::{Review, Snapshot};

/// What was read of a cluster; what could not be read says why.
#[derive(Debug)]
pub(crate) struct Installation {
    /// The API server's version.
    pub(crate) server: Known<String>,
    /// Our CRDs and cert-manager's that are there.
    pub(crate) crds: Known<Vec<CustomResourceDefinition>>,
    pub(crate) versions: Known<Vec<PostgresVersion>>,
    /// Each webhook that should be registered.
    pub(crate) webhooks: Known<Vec<RegisteredWebhook>>,
    /// What came of a request that the rules refuse.
    pub(crate) trial: Known<WebhookAnswer<AdmissionTrial>>,
    pub(crate) issuers: Known<Vec<Issuer>>,
    pub(crate) cluster_issuers: Known<Vec<ClusterIssuer>>,
    /// What the user may not do, as `create postgresopsrequests`.
    pub(crate) forbidden: Known<Vec<String>>,
    /// The leases called `pgrekey`, where pgrekey runs.
    pub(crate) leases: Known<Vec<Lease>>,
    /// What the ServiceAccount of the leader may not do; nothing where no pod leads.
    pub(crate) operator: Known<WebhookAnswer<Option<CheckedAccount>>>,
    pub(crate) databases: Known<Vec<Postgres>>,
    pub(crate) requests: Known<Vec<PostgresOpsRequest>>,
    pub(crate) pet_sets: Known<Vec<PetSet>>,
    /// Names of the default StorageClasses.
    pub(crate) default_storage: Known<Vec<String>>,
    pub(crate) certificates: Known<Vec<Certificates>>,
}

/// One webhook as it is registered.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegisteredWebhook {
    pub(crate) name: String,
    /// Nothing if it is not registered.
    pub(crate) registered: Option<Registered>,
}

/// Where the API server calls a webhook.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registered {
    pub(crate) ca_bundle: Vec<u8>,
    /// The Service, and how many of its endpoints are ready; nothing where it is called by URL.
    pub(crate) service: Option<(String, usize)>,
}

/// What came of a question that not everybody may ask.
#[derive(Clone, Debug)]
pub(crate) enum WebhookAnswer<T> {
    Answered(T),
    /// Why it was not asked.
    NotAllowed(String),
}

/// What came of a request that the rules refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdmissionTrial {
    /// Our webhook refused it: the API server reaches it, and trusts it.
    Refused,
    /// Nobody objected, in this namespace.
    LetIn(String),
    /// The API server could not call the webhook, in its words.
    NotCalled(String),
}

/// A ServiceAccount, and what of the operator's work it may not do, as `create pods/eviction`.
#[derive(Clone, Debug)]
pub(crate) struct CheckedAccount {
    pub(crate) name: String,
    pub(crate) forbidden: Vec<String>,
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckVerdict {
    Ok,
    /// It works, and somebody should look.
    Warn,
    Fail,
    /// It could not be looked at.
    Unknown,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CheckReport {
    pub(crate) check: &'static str,
    pub(crate) verdict: CheckVerdict,
    pub(crate) said: String,
    /// What to do; empty when all is well.
    pub(crate) remedy: String,
}

/// What a check says: all is well, in words; or what is wrong, each with its weight.
enum Said {
    Well(String),
    Wrong(CheckVerdict, Vec<String>),
    /// It could not be asked, which is no failure; and what to do.
    Unasked(String, &'static str),
}

use Said::{Unasked, Well, Wrong};

fn wrong(verdict: CheckVerdict, all: Vec<String>, well: impl Into<String>) -> Said {
    if all.is_empty() {
        Well(well.into())
    } else {
        Wrong(verdict, all)
    }
}

/// One check: what it is about, how it looks, and what to do when it is not well.
struct DoctorCheck {
    name: &'static str,
    look: fn(&Installation, Timestamp) -> Known<Said>,
    remedy: &'static str,
}

/// What to do where the user may not ask.
const ASK_ANOTHER: &str = "let somebody look who may";

/// How long a step may go on before somebody should look; it is tried again and given up by itself.
const STUCK: i64 = 20 * 60;
/// A certificate that ends sooner should have been renewed.
const SOON: i64 = 21;

const CHECKS: &[DoctorCheck] = &[
    DoctorCheck {
        name: "API server",
        look: |seen, _| {
            Ok(seen
                .server
                .clone()
                .map_or_else(|why| Wrong(CheckVerdict::Fail, vec![why]), Well))
        },
        remedy: "see whether `kubectl version` gets an answer: without one nothing else can be known",
    },
    DoctorCheck {
        name: "CRDs",
        look: |seen, _| {
            missing(
                seen,
                api::crds().into_iter().map(|crd| crd.name_any()).collect(),
            )
        },
        remedy: "install them: `pgrekey crds | kubectl apply --server-side -f -`",
    },
    DoctorCheck {
        name: "CRD versions",
        look: crd_versions,
        remedy: "the CRDs are of another pgrekey: `pgrekey crds | kubectl apply --server-side --force-conflicts -f -`",
    },
    DoctorCheck {
        name: "cert-manager CRDs",
        look: cert_manager,
        remedy: "install cert-manager: https://cert-manager.io/docs/installation/; pgrekey sees it by itself",
    },
    DoctorCheck {
        name: "issuers",
        look: issuers_exist,
        remedy: "make an Issuer or ClusterIssuer that gives its CA along; examples/issuer.yaml is one",
    },
    DoctorCheck {
        name: "issuers ready",
        look: issuers_ready,
        remedy: "`kubectl describe` it: cert-manager says there what is wrong, often a Secret that is missing",
    },
    DoctorCheck {
        name: "PostgresVersions",
        look: |seen, _| {
            let versions = seen.versions.as_ref().map_err(Clone::clone)?;
            let usable = versions
                .iter()
                .filter(|version| version.spec.deprecated != Some(true));
            let names: Vec<String> = usable.map(ResourceExt::name_any).collect();
            Ok(if names.is_empty() {
                Wrong(
                    CheckVerdict::Fail,
                    vec!["there is none that new databases should use".to_owned()],
                )
            } else {
                Well(names.join(", "))
            })
        },
        remedy: "install the chart with its PostgresVersions, or make one that names your images",
    },
    DoctorCheck {
        name: "webhooks registered",
        look: webhooks_registered,
        remedy: "install the chart with webhooks, or: `pgrekey webhook-config | kubectl apply --server-side -f -`",
    },
    DoctorCheck {
        name: "webhook CAs",
        look: webhook_cas,
        remedy: "pgrekey fills the CA in when it runs: look at its log, and at its right to patch the registrations",
    },
    DoctorCheck {
        name: "webhook endpoints",
        look: webhook_endpoints,
        remedy: "look at the pods of that Service: without an answer the API server refuses every change of a database",
    },
    DoctorCheck {
        name: "webhooks answer",
        look: webhooks_answer,
        remedy: "x509: look at the caBundle of the registration; no answer: at the pods, and at what lies between them and the API \
                 server (port 9443)",
    },
    DoctorCheck {
        name: "leader",
        look: leader,
        remedy: "start pgrekey, or look at its log: nobody runs the loops, so nothing happens",
    },
    DoctorCheck {
        name: "operator's rights",
        look: |seen, _| {
            Ok(match seen.operator.as_ref().map_err(Clone::clone)? {
                WebhookAnswer::NotAllowed(why) => Unasked(why.clone(), ASK_ANOTHER),
                WebhookAnswer::Answered(None) => {
                    Well("no pod leads whose rights could be asked for".to_owned())
                }
                WebhookAnswer::Answered(Some(CheckedAccount { name, forbidden })) => {
                    let all = forbidden
                        .iter()
                        .map(|what| format!("ServiceAccount {name} may not {what}"));
                    wrong(
                        CheckVerdict::Fail,
                        all.collect(),
                        format!("ServiceAccount {name} has what operations need"),
                    )
                }
            })
        },
        remedy: "give it the rights in the chart's templates/rbac.yaml: an operation stops where it needs them",
    },
    DoctorCheck {
        name: "your rights",
        look: |seen, _| {
            let forbidden = seen.forbidden.as_ref().map_err(Clone::clone)?;
            let all = forbidden
                .iter()
                .map(|what| format!("you may not {what}"))
                .collect();
            Ok(wrong(CheckVerdict::Warn, all, "all that the commands need"))
        },
        remedy: "ask for these rights, or some commands will say no",
    },
    DoctorCheck {
        name: "PetSet controller",
        look: pet_sets,
        remedy: "run pgrekey with --pet-sets=own, or start the PetSet controller: nobody makes the pods",
    },
    DoctorCheck {
        name: "storage class",
        look: |seen, _| {
            let classes = seen.default_storage.as_ref().map_err(Clone::clone)?;
            Ok(match classes.as_slice() {
                [] => Wrong(
                    CheckVerdict::Warn,
                    vec!["there is no default StorageClass".to_owned()],
                ),
                [one] => Well(one.clone()),
                many => Wrong(
                    CheckVerdict::Warn,
                    vec![format!("several are default: {}", many.join(", "))],
                ),
            })
        },
        remedy: "mark one as default, or name one in spec.storage of every database",
    },
    DoctorCheck {
        name: "databases ready",
        look: databases_ready,
        remedy: "`kubectl describe pg NAME`: its conditions say what is missing",
    },
    DoctorCheck {
        name: "databases blocked",
        look: |seen, _| {
            let databases = seen.databases.as_ref().map_err(Clone::clone)?;
            let blocked = databases.iter().filter_map(|database| {
                let condition = condition::find(&database.status.as_ref()?.conditions, BLOCKED)?;
                let why = condition.message.clone().unwrap_or_default();
                condition
                    .holds()
                    .then(|| format!("{}: {why}", path(database)))
            });
            Ok(wrong(CheckVerdict::Fail, blocked.collect(), "none"))
        },
        remedy: "do what the message says: until then pgrekey leaves the database as it is",
    },
    DoctorCheck {
        name: "certificate logins",
        look: certificate_logins,
        remedy: "give each database with clientAuthMode cert an Issuer of its own: docs/security.md says why",
    },
    DoctorCheck {
        name: "databases paused",
        look: paused,
        remedy: "nobody runs that could resume it: see \"Resuming by hand\" in docs/operations.md",
    },
    DoctorCheck {
        name: "requests stuck",
        look: stuck,
        remedy: "`pgrekey status NAME` says what it waits for; `kubectl delete pgops NAME` goes back to what was",
    },
    DoctorCheck {
        name: "requests failed",
        look: failed,
        remedy: "`pgrekey status NAME` says why; mend that, delete the request, make it anew",
    },
    DoctorCheck {
        name: "certificates issued",
        look: |seen, _| {
            each(seen, CheckVerdict::Fail, "all", |each| {
                match (&each.issued, each.ready) {
                    (None, None) => Some("is not asked for".to_owned()),
                    (None, Some(_)) => Some("is not issued".to_owned()),
                    (Some(_), Some(false)) => Some("is not Ready".to_owned()),
                    _ => None,
                }
            })
        },
        remedy: "`kubectl describe certificate`: cert-manager says there what is wrong; it tries again after an hour",
    },
    DoctorCheck {
        name: "certificates served",
        look: |seen, _| {
            each(seen, CheckVerdict::Warn, "what is issued", |each| {
                each.drifts()
                    .then(|| "is issued and another one is served".to_owned())
            })
        },
        remedy: "pgrekey serves a renewal by itself in some minutes; if it lasts, the events in `kubectl describe pg` say why",
    },
    DoctorCheck {
        name: "certificates expiring",
        look: |seen, now| {
            each(seen, CheckVerdict::Fail, "none soon", |each| {
                let served = each.served.as_ref()?;
                ends_soon(served, now)
                    .then(|| format!("is served and ends in {} days", days(now, served.not_after)))
            })
        },
        remedy: "renew: `pgrekey rotate NAME`; and see why cert-manager did not, in the Certificate's renewalTime",
    },
];

/// All checks, in their order.
pub(crate) fn examine(seen: &Installation, now: Timestamp) -> Vec<CheckReport> {
    let found = |check: &DoctorCheck| {
        let (verdict, said, remedy) = match (check.look)(seen, now) {
            Ok(Well(said)) => (CheckVerdict::Ok, said, ""),
            Ok(Wrong(verdict, all)) => (verdict, all.join("\n"), check.remedy),
            Ok(Unasked(why, remedy)) => (CheckVerdict::Warn, why, remedy),
            // Why something could not be looked at says what to do about that.
            Err(why) => (CheckVerdict::Unknown, why, ""),
        };
        CheckReport {
            check: check.name,
            verdict,
            said,
            remedy: remedy.to_owned(),
        }
    };
    CHECKS.iter().map(found).collect()
}

fn path<K: ResourceExt>(object: &K) -> String {
    object.namespace().map_or_else(
        || object.name_any(),
        |namespace| format!("{namespace}/{}", object.name_any()),
    )
}

/// Which of these CRDs are not there.
fn missing(seen: &Installation, names: Vec<String>) -> Known<Said> {
    let there: BTreeSet<String> = seen
        .crds
        .as_ref()
        .map_err(Clone::clone)?
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    let well = format!("all {}", names.len());
    let missing = names.into_iter().filter(|name| !there.contains(name));
    Ok(wrong(
        CheckVerdict::Fail,
        missing.map(|name| format!("{name} is missing")).collect(),
        well,
    ))
}

/// Whether the schemas are those of this program. The API server adds to a definition; it takes
/// nothing away.
fn crd_versions(seen: &Installation, _: Timestamp) -> Known<Said> {
    let there = seen.crds.as_ref().map_err(Clone::clone)?;
    let is_other = |ours: &CustomResourceDefinition| {
        let live = there
            .iter()
            .find(|live| live.name_any() == ours.name_any())?;
        let json = |crd: &CustomResourceDefinition| {
            serde_json::to_value(&crd.spec.versions).unwrap_or_default()
        };
        let differs = crate::cluster::drift::needs_apply(&json(live), &json(ours));
        differs.then(|| {
            format!(
                "{} is not the one of pgrekey {}",
                ours.name_any(),
                env!("CARGO_PKG_VERSION")
            )
        })
    };
    let all = api::crds().iter().filter_map(is_other).collect();
    Ok(wrong(
        CheckVerdict::Warn,
        all,
        format!("those of pgrekey {}", env!("CARGO_PKG_VERSION")),
    ))
}

/// The kinds of cert-manager's that pgrekey uses.
pub(crate) const CERT_MANAGER: [&str; 4] = [
    "certificates.cert-manager.io",
    "certificaterequests.cert-manager.io",
    "issuers.cert-manager.io",
    "clusterissuers.cert-manager.io",
];

fn cert_manager(seen: &Installation, _: Timestamp) -> Known<Said> {
    if does_without_cert_manager(seen) {
        let said = "cert-manager is not installed: no database can have TLS";
        return Ok(Wrong(CheckVerdict::Warn, vec![said.to_owned()]));
    }
    missing(seen, CERT_MANAGER.map(str::to_owned).to_vec())
}

/// Whether cert-manager is not installed, and no database needs it.
fn does_without_cert_manager(seen: &Installation) -> bool {
    let is_its_own =
        |crd: &CustomResourceDefinition| CERT_MANAGER.contains(&crd.name_any().as_str());
    seen.crds
        .as_ref()
        .is_ok_and(|crds| !crds.iter().any(is_its_own))
        && seen
            .databases
            .as_ref()
            .is_ok_and(|all| all.iter().all(|database| database.spec.tls.is_none()))
}

/// Every issuer, and whether it is Ready.
fn issuers(seen: &Installation) -> Known<Vec<(String, bool)>> {
    let ready = |status: Option<&IssuerStatus>| {
        status.is_some_and(|status| holds(&status.conditions, "Ready"))
    };
    let named = seen.issuers.as_ref().map_err(Clone::clone)?.iter();
    let named = named.map(|issuer| {
        (
            format!("Issuer {}", path(issuer)),
            ready(issuer.status.as_ref()),
        )
    });
    let wide = seen.cluster_issuers.as_ref().map_err(Clone::clone)?.iter();
    let wide = wide.map(|issuer| {
        (
            format!("ClusterIssuer {}", path(issuer)),
            ready(issuer.status.as_ref()),
        )
    });
    Ok(named.chain(wide).collect())
}

fn issuers_exist(seen: &Installation, _: Timestamp) -> Known<Said> {
    let count = issuers(seen)?
        .into_iter()
        .filter(|(_, ready)| *ready)
        .count();
    let none = if count == 0 {
        vec!["no issuer is Ready".to_owned()]
    } else {
        vec![]
    };
    let verdict = if does_without_cert_manager(seen) {
        CheckVerdict::Warn
    } else {
        CheckVerdict::Fail
    };
    Ok(wrong(verdict, none, format!("{count} are Ready")))
}

fn issuers_ready(seen: &Installation, _: Timestamp) -> Known<Said> {
    let bad = issuers(seen)?
        .into_iter()
        .filter(|(_, ready)| !ready)
        .map(|(issuer, _)| format!("{issuer} is not Ready"));
    Ok(wrong(CheckVerdict::Warn, bad.collect(), "all"))
}

fn webhooks(seen: &Installation) -> Known<impl Iterator<Item = (&str, &Registered)>> {
    let all = seen.webhooks.as_ref().map_err(Clone::clone)?;
    Ok(all
        .iter()
        .filter_map(|webhook| Some((webhook.name.as_str(), webhook.registered.as_ref()?))))
}

fn webhooks_registered(seen: &Installation, _: Timestamp) -> Known<Said> {
    let all = seen.webhooks.as_ref().map_err(Clone::clone)?;
    let missing = all.iter().filter(|webhook| webhook.registered.is_none());
    let missing = missing
        .map(|webhook| format!("{} is not registered", webhook.name))
        .collect();
    // The loops judge by the same rules again, so nothing breaks.
    Ok(wrong(
        CheckVerdict::Warn,
        missing,
        format!("all {}", all.len()),
    ))
}

fn webhook_cas(seen: &Installation, now: Timestamp) -> Known<Said> {
    let problem = |(name, webhook): (&str, &Registered)| {
        let Some(ca) = crate::pki::certificate::summarize_pem(&webhook.ca_bundle) else {
            let what = if webhook.ca_bundle.is_empty() {
                "has no CA"
            } else {
                "has a CA that cannot be read"
            };
            return Some(format!("{name} {what}"));
        };
        (ca.not_after <= now).then(|| format!("{name} has a CA that ended at {}", ca.not_after))
    };
    Ok(wrong(
        CheckVerdict::Fail,
        webhooks(seen)?.filter_map(problem).collect(),
        "good",
    ))
}

fn webhook_endpoints(seen: &Installation, _: Timestamp) -> Known<Said> {
    let mut bad = BTreeSet::new();
    let mut good = BTreeSet::new();
    for (_, webhook) in webhooks(seen)? {
        match &webhook.service {
            Some((service, 0)) => {
                bad.insert(format!("Service {service} has no endpoint that is ready"))
            }
            Some((service, ready)) => good.insert(format!("{service}: {ready} ready")),
            None => good.insert("called by URL".to_owned()),
        };
    }
    let good = if good.is_empty() {
        "no webhook is registered".to_owned()
    } else {
        Vec::from_iter(good).join(", ")
    };
    Ok(wrong(CheckVerdict::Fail, bad.into_iter().collect(), good))
}

fn webhooks_answer(seen: &Installation, _: Timestamp) -> Known<Said> {
    Ok(match seen.trial.as_ref().map_err(Clone::clone)? {
        WebhookAnswer::NotAllowed(why) => Unasked(why.clone(), ASK_ANOTHER),
        WebhookAnswer::Answered(AdmissionTrial::Refused) => {
            Well("a request that is wrong was refused".to_owned())
        }
        WebhookAnswer::Answered(AdmissionTrial::LetIn(_)) if webhooks(seen)?.next().is_none() => {
            Well("no webhook is registered".to_owned())
        }
        WebhookAnswer::Answered(AdmissionTrial::LetIn(namespace)) => Unasked(
            format!("a request that is wrong was let in: nobody reviews namespace {namespace}"),
            "name another one with -n: pgrekey's own and kube-system are not reviewed",
        ),
        WebhookAnswer::Answered(AdmissionTrial::NotCalled(why)) => {
            Wrong(CheckVerdict::Fail, vec![why.clone()])
        }
    })
}

fn leader(seen: &Installation, now: Timestamp) -> Known<Said> {
    let leases = seen.leases.as_ref().map_err(Clone::clone)?;
    let holder = |lease: &Lease| {
        let spec = lease.spec.as_ref()?;
        let holder = spec
            .holder_identity
            .clone()
            .filter(|holder| !holder.is_empty())?;
        let renewed = spec.renew_time.as_ref()?.0;
        let life = i64::from(spec.lease_duration_seconds.unwrap_or(15));
        let age = elapsed(renewed, now);
        Some((
            now.as_second() - renewed.as_second() <= life,
            format!("{} in {}", holder, path(lease)),
            age,
        ))
    };
    let all: Vec<_> = leases.iter().filter_map(holder).collect();
    let fresh: Vec<String> = all
        .iter()
        .filter(|(fresh, ..)| *fresh)
        .map(|(_, who, _)| who.clone())
        .collect();
    let stale = all
        .iter()
        .map(|(_, who, age)| format!("{who} was last heard of {age} ago"));
    Ok(if fresh.is_empty() {
        let stale: Vec<String> = stale.collect();
        Wrong(
            CheckVerdict::Fail,
            if stale.is_empty() {
                vec!["nobody holds a lease named pgrekey".to_owned()]
            } else {
                stale
            },
        )
    } else {
        Well(fresh.join(", "))
    })
}

fn pet_sets(seen: &Installation, now: Timestamp) -> Known<Said> {
    let sets = seen.pet_sets.as_ref().map_err(Clone::clone)?;
    let is_ignored = |set: &&PetSet| {
        let is_old = set
            .creation_timestamp()
            .is_some_and(|made| now.as_second() - made.0.as_second() > 60);
        let observed = set
            .status
            .as_ref()
            .and_then(|status| status.observed_generation);
        is_old && (observed.is_none() || observed < set.metadata.generation)
    };
    let ignored = sets
        .iter()
        .filter(is_ignored)
        .map(|set| format!("nobody has taken up PetSet {}", path(set)));
    Ok(wrong(
        CheckVerdict::Fail,
        ignored.collect(),
        format!("{} PetSets, all taken up", sets.len()),
    ))
}

fn databases_ready(seen: &Installation, _: Timestamp) -> Known<Said> {
    let databases = seen.databases.as_ref().map_err(Clone::clone)?;
    let is_well = |database: &Postgres| {
        use crate::api::postgres::DatabasePhase::{Halted, Ready};
        matches!(
            database.status.as_ref().and_then(|status| status.phase),
            Some(Ready | Halted)
        )
    };
    let bad = databases
        .iter()
        .filter(|database| !is_well(database))
        .map(|database| {
            let phase = database.status.as_ref().and_then(|status| status.phase);
            format!(
                "{} is {}",
                path(database),
                phase.map_or("not seen yet".to_owned(), |phase| format!("{phase:?}"))
            )
        });
    Ok(wrong(
        CheckVerdict::Warn,
        bad.collect(),
        format!("all {}", databases.len()),
    ))
}

/// What the rule says about those that are there.
fn certificate_logins(seen: &Installation, _: Timestamp) -> Known<Said> {
    let databases = seen.databases.as_ref().map_err(Clone::clone)?;
    let facts = Snapshot {
        databases: databases.iter().cloned().map(Arc::new).collect(),
        ..Snapshot::default()
    };
    let found = |database: &Postgres| {
        let rules = rules::postgres::rules().filter(|rule| rule.id == "cert-shared-issuer");
        let review = Review::create(database.clone(), Arc::default());
        rules::judge(rules, &review, Some(&facts))
            .into_iter()
            .map(|found| format!("{}: {}: {}", path(database), found.problem, found.remedy))
            .collect::<Vec<_>>()
    };
    Ok(wrong(
        CheckVerdict::Warn,
        databases.iter().flat_map(found).collect(),
        "none by an issuer that others use",
    ))
}

fn paused(seen: &Installation, _: Timestamp) -> Known<Said> {
    let (databases, requests) = (
        seen.databases.as_ref().map_err(Clone::clone)?,
        seen.requests.as_ref().map_err(Clone::clone)?,
    );
    let is_forgotten = |database: &&Postgres| {
        let is_paused = database
            .status
            .as_ref()
            .is_some_and(|status| condition::holds(&status.conditions, PAUSED));
        let runs = |request: &PostgresOpsRequest| {
            request.namespace() == database.namespace()
                && request.spec.database_ref.name == database.name_any()
                && request.phase() == Some(OpsPhase::Progressing)
        };
        is_paused && !requests.iter().any(runs)
    };
    let forgotten = databases
        .iter()
        .filter(is_forgotten)
        .map(|database| format!("{} is paused", path(database)));
    Ok(wrong(
        CheckVerdict::Fail,
        forgotten.collect(),
        "none without a request that runs",
    ))
}

fn stuck(seen: &Installation, now: Timestamp) -> Known<Said> {
    let requests = seen.requests.as_ref().map_err(Clone::clone)?;
    let is_stuck = |request: &PostgresOpsRequest| {
        let status = request
            .status
            .as_ref()
            .filter(|status| status.phase == Some(OpsPhase::Progressing))?;
        let step = status
            .steps
            .iter()
            .rev()
            .find(|step| step.finished_at.is_none())?;
        let since = step.started_at.as_ref()?.0;
        let said = step.message.as_deref().unwrap_or_default();
        let is_old = now.as_second() - since.as_second() > STUCK;
        is_old.then(|| {
            format!(
                "{}: {} since {}: {said}",
                path(request),
                step.name,
                elapsed(since, now)
            )
        })
    };
    Ok(wrong(
        CheckVerdict::Fail,
        requests.iter().filter_map(is_stuck).collect(),
        "none",
    ))
}

fn failed(seen: &Installation, _: Timestamp) -> Known<Said> {
    let requests = seen.requests.as_ref().map_err(Clone::clone)?;
    let is_failed = |request: &&PostgresOpsRequest| request.phase() == Some(OpsPhase::Failed);
    Ok(wrong(
        CheckVerdict::Warn,
        requests.iter().filter(is_failed).map(path).collect(),
        "none",
    ))
}

/// Every certificate of every database that something is to be said about.
fn each(
    seen: &Installation,
    verdict: CheckVerdict,
    well: &str,
    problem: impl Fn(&AliasCertificates) -> Option<String>,
) -> Known<Said> {
    let all = seen.certificates.as_ref().map_err(Clone::clone)?;
    let mut bad = vec![];
    for Certificates { database, each, .. } in all {
        let said = each
            .iter()
            .filter_map(|each| Some((each.alias.as_str(), problem(each)?)));
        bad.extend(
            said.map(|(alias, problem)| format!("{database}: the {alias} certificate {problem}")),
        );
    }
    Ok(wrong(verdict, bad, well))
}

/// Sooner than 21 days, or when two thirds of a life are over and more; of short lives only the
/// last third counts.
fn ends_soon(leaf: &Leaf, now: Timestamp) -> bool {
    let life = leaf.not_after.as_second() - leaf.not_before.as_second();
    let left = leaf.not_after.as_second() - now.as_second();
    left < (SOON * 24 * 3600).min(life / 3)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::tls::ClientAuthMode;
    use crate::cli::certs::tests::leaf;
    use crate::tls::Alias;

    fn now() -> Timestamp {
        "2026-11-24T10:00:00Z".parse().expect("a time")
    }

    fn read<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    /// An installation that lacks nothing.
    pub(crate) fn healthy() -> Installation {
        let made = "2026-11-24T09:00:00Z";
        let mut crds = api::crds();
        crds.extend(CERT_MANAGER.map(|name| CustomResourceDefinition {
            metadata: kube::api::ObjectMeta {
                name: Some(name.to_owned()),
                ..Default::default()
            },
            ..Default::default()
        }));
        let ca = crate::pki::issued::tests::Authority::new("ca");
        let ca = crate::pki::issued::tests::issue(&ca, &ca)
            .served
            .trust
            .into_bytes();
        let each = AliasCertificates {
            alias: Alias::Server,
            issuer: "pg-issuer".to_owned(),
            ready: Some(true),
            issued: Some(leaf(1, "2027-02-22T10:00:00Z")),
            served: Some(leaf(1, "2027-02-22T10:00:00Z")),
        };
        Installation {
            server: Ok("v1.34.4".to_owned()),
            crds: Ok(crds),
            versions: Ok(vec![read(json!({"metadata": {"name": "17.12"},
                "spec": {"version": "17.12", "db": {"image": "a"}, "exporter": {"image": "b"}}}))]),
            webhooks: Ok(vec![RegisteredWebhook {
                name: "validators.kubedb.com".to_owned(),
                registered: Some(Registered {
                    ca_bundle: ca,
                    service: Some(("pgrekey/pgrekey".to_owned(), 2)),
                }),
            }]),
            trial: Ok(WebhookAnswer::Answered(AdmissionTrial::Refused)),
            issuers: Ok(vec![read(
                json!({"metadata": {"name": "pg-issuer", "namespace": "demo"}, "spec": {},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
            )]),
            cluster_issuers: Ok(vec![]),
            forbidden: Ok(vec![]),
            leases: Ok(vec![read(
                json!({"metadata": {"name": "pgrekey", "namespace": "pgrekey"}, "spec": {
                "holderIdentity": "pgrekey-0", "leaseDurationSeconds": 15, "renewTime": "2026-11-24T09:59:55.000000Z"}}),
            )]),
            operator: Ok(WebhookAnswer::Answered(Some(CheckedAccount {
                name: "pgrekey/pgrekey".to_owned(),
                forbidden: vec![],
            }))),
            databases: Ok(vec![read(
                json!({"metadata": {"name": "pg", "namespace": "demo"}, "spec": {"version": "17.12"},
                "status": {"phase": "Ready"}}),
            )]),
            requests: Ok(vec![]),
            pet_sets: Ok(vec![read(
                json!({"metadata": {"name": "pg", "namespace": "demo", "creationTimestamp": made,
                "generation": 1}, "spec": {"selector": {}, "serviceName": "pg", "template": {}},
                "status": {"replicas": 1, "observedGeneration": 1}}),
            )]),
            default_storage: Ok(vec!["standard".to_owned()]),
            certificates: Ok(vec![Certificates {
                database: "demo/pg".to_owned(),
                each: vec![each],
                wire: None,
            }]),
        }
    }

    fn condition(type_: &str) -> serde_json::Value {
        json!([{"type": type_, "status": "True", "lastTransitionTime": "2026-11-24T09:00:00Z", "message": "why"}])
    }

    #[test]
    fn nothing_is_wrong_with_a_healthy_installation() {
        let bad: Vec<CheckReport> = examine(&healthy(), now())
            .into_iter()
            .filter(|found| found.verdict != CheckVerdict::Ok)
            .collect();
        assert_eq!(bad, []);
        assert!(CHECKS.len() >= 20);
    }

    #[test]
    fn databases_without_tls_do_without_cert_manager() {
        let mut seen = healthy();
        let is_ours =
            |crd: &CustomResourceDefinition| !CERT_MANAGER.contains(&crd.name_any().as_str());
        seen.crds.as_mut().expect("CRDs").retain(is_ours);
        (seen.issuers, seen.certificates) = (Ok(vec![]), Ok(vec![]));
        let worst = |seen: &Installation| {
            examine(seen, now())
                .into_iter()
                .map(|found| found.verdict)
                .max()
        };
        assert_eq!(worst(&seen), Some(CheckVerdict::Warn));
        let secure = json!({"metadata": {"name": "secure"}, "spec": {"version": "17.12", "tls": {"issuerRef": {"name": "i"}}},
            "status": {"phase": "Ready"}});
        seen.databases
            .as_mut()
            .expect("databases")
            .push(read(secure));
        assert_eq!(worst(&seen), Some(CheckVerdict::Fail));
    }

    /// Breaks an installation.
    type Break = fn(&mut Installation);

    /// What each check is for.
    const BREAKS: &[(&str, CheckVerdict, Break)] = &[
        ("API server", CheckVerdict::Fail, |seen| {
            seen.server = Err("no answer".to_owned())
        }),
        ("CRDs", CheckVerdict::Fail, |seen| {
            drop(seen.crds.as_mut().map(|crds| crds.remove(0)))
        }),
        ("CRD versions", CheckVerdict::Warn, |seen| {
            let crds = seen.crds.as_mut().expect("CRDs");
            crds[1].spec.versions[0].schema = None;
        }),
        ("cert-manager CRDs", CheckVerdict::Fail, |seen| {
            drop(seen.crds.as_mut().map(Vec::pop))
        }),
        ("issuers", CheckVerdict::Fail, |seen| {
            seen.issuers = Ok(vec![])
        }),
        ("issuers ready", CheckVerdict::Warn, |seen| {
            let broken = json!({"metadata": {"name": "broken"}, "spec": {}});
            seen.cluster_issuers = Ok(vec![read(broken)]);
        }),
        ("PostgresVersions", CheckVerdict::Fail, |seen| {
            seen.versions = Ok(vec![])
        }),
        ("webhooks registered", CheckVerdict::Warn, |seen| {
            seen.webhooks
                .as_mut()
                .expect("webhooks")
                .push(RegisteredWebhook::default());
        }),
        ("webhook CAs", CheckVerdict::Fail, |seen| {
            let webhook = seen.webhooks.as_mut().expect("webhooks")[0]
                .registered
                .as_mut();
            webhook.expect("registered").ca_bundle = b"no PEM".to_vec();
        }),
        ("webhook endpoints", CheckVerdict::Fail, |seen| {
            let webhook = seen.webhooks.as_mut().expect("webhooks")[0]
                .registered
                .as_mut();
            webhook.expect("registered").service = Some(("pgrekey/pgrekey".to_owned(), 0));
        }),
        ("webhooks answer", CheckVerdict::Fail, |seen| {
            seen.trial = Ok(WebhookAnswer::Answered(AdmissionTrial::NotCalled(
                "failed calling webhook".to_owned(),
            )));
        }),
        ("operator's rights", CheckVerdict::Fail, |seen| {
            let forbidden = vec!["create pods/eviction".to_owned()];
            seen.operator = Ok(WebhookAnswer::Answered(Some(CheckedAccount {
                name: "pgrekey/pgrekey".to_owned(),
                forbidden,
            })));
        }),
        ("leader", CheckVerdict::Fail, |seen| {
            seen.leases = Ok(vec![])
        }),
        ("your rights", CheckVerdict::Warn, |seen| {
            seen.forbidden = Ok(vec!["list postgreses".to_owned()])
        }),
        ("PetSet controller", CheckVerdict::Fail, |seen| {
            seen.pet_sets.as_mut().expect("PetSets")[0].status = None;
        }),
        ("storage class", CheckVerdict::Warn, |seen| {
            seen.default_storage = Ok(vec![])
        }),
        ("databases ready", CheckVerdict::Warn, |seen| {
            seen.databases.as_mut().expect("databases")[0].status = None;
        }),
        ("databases blocked", CheckVerdict::Fail, |seen| {
            let status = &mut seen.databases.as_mut().expect("databases")[0].status;
            status.as_mut().expect("a status").conditions = read(condition("Blocked"));
        }),
        ("certificate logins", CheckVerdict::Warn, |seen| {
            let spec = &mut seen.databases.as_mut().expect("databases")[0].spec;
            spec.client_auth_mode = Some(ClientAuthMode::Cert);
            spec.tls = Some(read(
                json!({"issuerRef": {"kind": "ClusterIssuer", "name": "corp"}}),
            ));
        }),
        ("databases paused", CheckVerdict::Fail, |seen| {
            let status = &mut seen.databases.as_mut().expect("databases")[0].status;
            status.as_mut().expect("a status").conditions = read(condition("Paused"));
        }),
        ("requests stuck", CheckVerdict::Fail, |seen| {
            seen.requests = Ok(vec![read(
                json!({"metadata": {"name": "r", "namespace": "demo"},
                "spec": {"type": "Restart", "databaseRef": {"name": "pg"}},
                "status": {"phase": "Progressing", "steps": [
                    {"name": "Pause", "attempts": 1, "startedAt": "2026-11-24T09:00:00Z"}]}}),
            )]);
        }),
        ("requests failed", CheckVerdict::Warn, |seen| {
            seen.requests = Ok(vec![read(
                json!({"metadata": {"name": "r", "namespace": "demo"},
                "spec": {"type": "Restart", "databaseRef": {"name": "pg"}}, "status": {"phase": "Failed"}}),
            )]);
        }),
        ("certificates issued", CheckVerdict::Fail, |seen| {
            seen.certificates.as_mut().expect("certificates")[0].each[0].ready = Some(false);
        }),
        ("certificates served", CheckVerdict::Warn, |seen| {
            let served = leaf(2, "2027-02-22T10:00:00Z");
            seen.certificates.as_mut().expect("certificates")[0].each[0].served = Some(served);
        }),
        ("certificates expiring", CheckVerdict::Fail, |seen| {
            let soon = leaf(1, "2026-11-30T10:00:00Z").not_after;
            let each = &mut seen.certificates.as_mut().expect("certificates")[0].each[0];
            if let Some(leaf) = &mut each.served {
                leaf.not_before = "2026-08-30T10:00:00Z".parse().expect("a time");
                leaf.not_after = soon;
            }
        }),
    ];

    #[test]
    fn every_check_finds_what_it_is_for() {
        for check in CHECKS {
            let (_, verdict, break_it) = BREAKS
                .iter()
                .find(|(name, ..)| *name == check.name)
                .unwrap_or_else(|| panic!("no case: {}", check.name));
            let mut seen = healthy();
            break_it(&mut seen);
            let found = examine(&seen, now())
                .into_iter()
                .find(|found| found.check == check.name)
                .expect("a check");
            assert_eq!(
                (found.verdict, found.remedy.is_empty()),
                (*verdict, false),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_a_user_may_not_ask_and_what_nobody_is_there_to_answer_is_no_failure() {
        let hints: &[(&str, CheckVerdict, Break)] = &[
            ("webhooks answer", CheckVerdict::Warn, |seen| {
                seen.trial = Ok(WebhookAnswer::NotAllowed("you may not".to_owned()))
            }),
            ("webhooks answer", CheckVerdict::Warn, |seen| {
                seen.trial = Ok(WebhookAnswer::Answered(AdmissionTrial::LetIn(
                    "pgrekey".to_owned(),
                )));
            }),
            ("webhooks answer", CheckVerdict::Ok, |seen| {
                seen.webhooks = Ok(vec![RegisteredWebhook::default()]);
                seen.trial = Ok(WebhookAnswer::Answered(AdmissionTrial::LetIn(
                    "demo".to_owned(),
                )));
            }),
            ("operator's rights", CheckVerdict::Warn, |seen| {
                seen.operator = Ok(WebhookAnswer::NotAllowed("you may not".to_owned()));
            }),
            ("operator's rights", CheckVerdict::Ok, |seen| {
                seen.operator = Ok(WebhookAnswer::Answered(None))
            }),
        ];
        for (check, verdict, break_it) in hints {
            let mut seen = healthy();
            break_it(&mut seen);
            let found = examine(&seen, now())
                .into_iter()
                .find(|found| found.check == *check)
                .expect("a check");
            assert_eq!(
                (found.verdict, found.remedy.is_empty()),
                (*verdict, *verdict == CheckVerdict::Ok),
                "{found:?}"
            );
        }
    }

    #[test]
    fn the_document_shows_every_check() {
        let shown = include_str!("../../../docs/cli.md")
            .lines()
            .filter_map(|line| line.strip_prefix("ok    "));
        let shown: Vec<&str> = shown
            .map(|line| line.split("  ").next().unwrap_or_default())
            .collect();
        assert_eq!(
            shown,
            CHECKS.iter().map(|check| check.name).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_short_life_is_judged_by_its_last_third() {
        let mut hour = leaf(1, "2026-11-24T10:50:00Z");
        assert!(!ends_soon(&hour, now()), "just issued for 50 minutes");
        hour.not_before = "2026-11-24T09:00:00Z".parse().expect("a time");
        hour.not_after = "2026-11-24T10:20:00Z".parse().expect("a time");
        assert!(ends_soon(&hour, now()));
    }
}
