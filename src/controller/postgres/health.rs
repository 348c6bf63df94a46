//! Whether databases are well: asked of the servers themselves, each on its own period, beside the
//! loop of the databases.
//!
//! # Expected flow
//! Once a second every database is looked at; whose period is over is checked, many at once. A
//! check asks every pod at its address, in the session of the check before or, once a minute and
//! after every change, in a new one ([`Sessions`]); it has the time that the spec gives it. What it
//! finds becomes conditions, which the check writes itself.
//!
//! # Guarantees
//! A check that hangs, or that waits for the API server, holds up nobody while there are fewer than
//! [`AT_ONCE`]; one that panics is followed by the next. No two checks of one database run at once.
//! The status is written when it changes. A database that is halted or going is not checked.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::debug;

use crate::api::Postgres;
use crate::api::bounds::{MAX_CHECK_PERIOD, MAX_CHECK_TIMEOUT};
use crate::api::condition::holds;
use crate::api::names::{tls_secret, with_suffix};
use crate::api::postgres::{DatabasePhase, HealthChecker};
use crate::api::tls::{ClientAuthMode, SslMode};
use crate::build::applied::accept;
use crate::build::current_posture::shared_config;
use crate::build::version::{BUILT_OF, BuiltOf};
use crate::build::workload::PodOwnership;
use crate::cluster::Error;
use crate::controller::Context;
use crate::controller::login::Login;
use crate::controller::observe::instance::host;
use crate::controller::observe::superuser::auth_secret_name;
use crate::controller::postgres::{scale, status};
use crate::controller::sessions::{MOST, PeerId, SessionPeer, Sessions};
use crate::controller::state::LastCheck;
use crate::database::connect::ConnectOptions;
use crate::database::server_status::{ServerStatus, idle_slots, server_status, write_check};
use crate::database::session::Session;
use crate::database::{PORT, ProbeError};
use crate::pki::issued::ServedMaterial;
use crate::pki::key_pair::CertificateAndKey;
use crate::plan::observed::instance::address;
use crate::plan::status::database::types::PAUSED;
use crate::plan::status::database::{HealthVerdict, Replicas};
use crate::tls::posture::HbaMethods;
use crate::tls::{Method, PasswordEncryption};

/// How many databases are checked at once.
const AT_ONCE: usize = 32;

/// The period of a database that is not ready: its owner waits for it to become so.
const IMPATIENT: Duration = Duration::from_secs(2);

/// The checks of one database.
#[derive(Default)]
struct CheckSchedule {
    /// When it was last checked; never, or to be checked at once, if left out.
    last: Option<Instant>,
    running: bool,
    /// Failed checks in a row.
    failures: i32,
    /// How many pods were ready when the last check began.
    replicas: Option<Replicas>,
    /// The Secrets as a check last saw them.
    secrets: Option<Versions>,
}

/// Secrets: their resource versions by their names; `None` for one that is not there.
type Versions = BTreeMap<String, Option<String>>;

/// What a check found.
struct CheckResult {
    /// Failed checks in a row, with this one.
    failures: i32,
    /// The Secrets, if the API server has told.
    secrets: Option<Versions>,
    /// Whether the status says it.
    written: bool,
}

/// Checks databases for as long as it runs.
pub(crate) async fn run(context: Arc<Context>, databases: Store<Postgres>) {
    if context.watched.until_listed().await.is_err() {
        // Nobody fills the stores any more, and so nothing else runs either.
        return;
    }
    let sessions = Arc::new(Pool::new(MOST));
    let mut courses: HashMap<String, CheckSchedule> = HashMap::new();
    let mut checks: JoinSet<CheckResult> = JoinSet::new();
    let mut running: HashMap<Id, String> = HashMap::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                let all = databases.state();
                let uids = |all: &[Arc<Postgres>]| all.iter().filter_map(|postgres| postgres.uid()).collect();
                let known: BTreeSet<String> = uids(&all);
                courses.retain(|uid, _| known.contains(uid));
                let checked: Vec<_> = all.into_iter().filter(|postgres| is_checked(postgres)).collect();
                let known: BTreeSet<String> = uids(&checked);
                sessions.end_all_but(|peer| known.contains(&peer.database));
                for postgres in checked {
                    let uid = postgres.uid().unwrap_or_default();
                    let course = courses.entry(uid.clone()).or_default();
                    let replicas = replicas(&context, &postgres);
                    if checks.len() < AT_ONCE && course.is_due(replicas, period(&postgres)) {
                        course.begin(replicas);
                        let (context, sessions) = (Arc::clone(&context), Arc::clone(&sessions));
                        let task = checks.spawn(check(context, sessions, postgres, replicas, course.failures));
                        running.insert(task.id(), uid);
                    }
                }
            }
            Some(done) = checks.join_next_with_id(), if !checks.is_empty() => {
                // A check that panicked found nothing; the panic has been logged.
                let (id, found) = done.map_or_else(|error| (error.id(), None), |(id, found)| (id, Some(found)));
                let course = running.remove(&id).and_then(|uid| courses.get_mut(&uid));
                // Nobody watches Secrets: whoever changes one is noticed here.
                if course.is_some_and(|course| course.end(found)) {
                    context.requeue_all_databases();
                }
            }
        }
    }
}

impl CheckSchedule {
    fn is_due(&self, replicas: Option<Replicas>, period: Duration) -> bool {
        let is_news = replicas != self.replicas;
        !self.running && (is_news || self.last.is_none_or(|last| last.elapsed() >= period))
    }

    fn begin(&mut self, replicas: Option<Replicas>) {
        self.running = true;
        self.replicas = replicas;
    }

    /// Notes what a check found; whether a Secret has changed since it was last seen.
    fn end(&mut self, found: Option<CheckResult>) -> bool {
        self.running = false;
        self.last = found
            .as_ref()
            .is_none_or(|found| found.written)
            .then(Instant::now);
        let Some(found) = found else { return false };
        self.failures = found.failures;
        let Some(secrets) = found.secrets else {
            return false;
        };
        let changed = self
            .secrets
            .as_ref()
            .is_some_and(|before| *before != secrets);
        self.secrets = Some(secrets);
        changed
    }
}

fn is_checked(postgres: &Postgres) -> bool {
    postgres.metadata.deletion_timestamp.is_none() && postgres.spec.halted != Some(true)
}

fn settings(postgres: &Postgres) -> HealthChecker {
    postgres.spec.health_checker.unwrap_or_default()
}

fn seconds(value: Option<i32>, most: i32) -> Duration {
    Duration::from_secs(value.unwrap_or(10).clamp(1, most).unsigned_abs().into())
}

fn period(postgres: &Postgres) -> Duration {
    let period = seconds(settings(postgres).period_seconds, MAX_CHECK_PERIOD);
    let phase = postgres.status.as_ref().and_then(|status| status.phase);
    if phase == Some(DatabasePhase::Ready) {
        period
    } else {
        period.min(IMPATIENT)
    }
}

/// How many pods are ready, by the set's own count.
fn replicas(context: &Context, postgres: &Postgres) -> Option<Replicas> {
    let set = context.pet_set(
        &postgres.namespace().unwrap_or_default(),
        &postgres.name_any(),
    )?;
    let ready = set
        .status
        .as_ref()
        .and_then(|status| status.ready_replicas)
        .unwrap_or_default();
    Some(Replicas {
        desired: postgres.spec.replicas.unwrap_or(1),
        ready,
    })
}

/// Checks a database, and writes down what it found once it has found the same often enough.
async fn check(
    context: Arc<Context>,
    sessions: Arc<Pool>,
    postgres: Arc<Postgres>,
    replicas: Option<Replicas>,
    failures: i32,
) -> CheckResult {
    let secrets = CheckSecrets::read(&context, &postgres).await.ok();
    let versions = secrets.as_ref().map(|secrets| secrets.versions.clone());
    let verdict = match (replicas, secrets) {
        // Without pods there is nobody to ask, and an API server that does not answer says nothing
        // about the database.
        (None, _) | (_, None) => None,
        (Some(_), Some(secrets)) => {
            let patience = seconds(settings(&postgres).timeout_seconds, MAX_CHECK_TIMEOUT);
            Some(
                tokio::time::timeout(patience, ask(&context, &sessions, &postgres, secrets))
                    .await
                    .unwrap_or_else(|_| {
                        let late = || {
                            Err(format!(
                                "the check took longer than {} s",
                                patience.as_secs()
                            ))
                        };
                        HealthVerdict {
                            accepting: late(),
                            ready: late(),
                        }
                    }),
            )
        }
    };
    let is_fine = |verdict: &HealthVerdict| verdict.accepting.is_ok() && verdict.ready.is_ok();
    let failures = verdict.as_ref().map_or(failures, |v| {
        if is_fine(v) {
            0
        } else {
            failures.saturating_add(1)
        }
    });
    let threshold = settings(&postgres).failure_threshold.unwrap_or(1);
    let verdict = verdict.filter(|_| failures == 0 || failures >= threshold);
    let written = status::write(&context, &postgres, |writer| {
        if let Some(replicas) = replicas {
            writer.replicas(replicas);
        }
        if let Some(verdict) = &verdict {
            writer.checked(verdict);
        }
    });
    let written = written.await.inspect_err(|error| {
        // The next check finds the same.
        debug!(database = postgres.name_any(), %error, "the status could not be written");
    });
    CheckResult {
        failures,
        secrets: versions,
        written: written.is_ok(),
    }
}

/// How to log in.
struct CheckSecrets {
    login: Option<Login>,
    served: Option<ServedMaterial>,
    /// What servers take, by what is written, if it can be read.
    accept: Option<HbaMethods>,
    versions: Versions,
}

impl CheckSecrets {
    async fn read(context: &Context, postgres: &Postgres) -> Result<Self, Error> {
        let (name, namespace) = (
            postgres.name_any(),
            postgres.namespace().unwrap_or_default(),
        );
        let get = async |name: String| {
            let secret = context.get::<Secret>(&namespace, &name).await?;
            Ok::<_, Error>((name, secret))
        };
        let paused = is_paused(postgres);
        if paused {
            // Somebody else writes it now.
            context.update_state(postgres, |memory| memory.hba_methods = None);
        }
        let known = context.state(postgres).hba_methods;
        let has_tls = postgres.spec.tls.is_some() || paused;
        let tls = async {
            if has_tls {
                get(tls_secret(&name)).await.map(Some)
            } else {
                Ok(None)
            }
        };
        let written = async {
            if known.is_some() {
                return Ok(known);
            }
            let shared = context
                .get::<ConfigMap>(&namespace, &with_suffix(&name, "config"))
                .await?;
            Ok(shared
                .as_ref()
                .and_then(shared_config)
                .and_then(|shared| accept(&shared).ok()))
        };
        let settings = postgres
            .spec
            .configuration
            .as_ref()
            .and_then(|conf| conf.secret_name.clone());
        let settings = async {
            if let Some(name) = settings {
                get(name).await.map(Some)
            } else {
                Ok(None)
            }
        };
        let (auth, agent) = (
            get(auth_secret_name(postgres)),
            get(with_suffix(&name, "patroni")),
        );
        let (auth, agent, tls, settings, accept) =
            future::try_join5(auth, agent, tls, settings, written).await?;
        let login = auth.1.as_ref().and_then(|secret| Login::parse(secret).ok());
        let data = tls
            .as_ref()
            .and_then(|(_, secret)| secret.as_ref()?.data.as_ref());
        let served = data.and_then(|data| ServedMaterial::of(data, ""));
        let versions = [Some(auth), Some(agent), tls, settings]
            .into_iter()
            .flatten();
        let versions = versions
            .map(|(name, secret)| (name, secret.and_then(|secret| secret.resource_version())));
        Ok(Self {
            login,
            served,
            accept,
            versions: versions.collect(),
        })
    }
}

/// Whether somebody may be bringing TLS to a database, or taking it away.
fn is_paused(postgres: &Postgres) -> bool {
    holds(postgres.conditions(), PAUSED)
}

/// Asks every server.
async fn ask(
    context: &Context,
    sessions: &Pool,
    postgres: &Postgres,
    secrets: CheckSecrets,
) -> HealthVerdict {
    let neither = |why: String| HealthVerdict {
        accepting: Err(why.clone()),
        ready: Err(why),
    };
    let Some(login) = secrets.login else {
        return neither(format!(
            "Secret {} has no username and password",
            auth_secret_name(postgres)
        ));
    };
    let workload = match context.watched.workload(postgres) {
        Ok(workload) => workload,
        Err(why) => return neither(why),
    };
    let pods = context.watched.pods(postgres, &workload);
    let members: Vec<_> = pods
        .iter()
        .filter(|pod| workload.ownership(pod) == PodOwnership::Member)
        .collect();
    let round = CheckRound {
        database: postgres.uid().unwrap_or_default(),
        ways: connect_methods(postgres, secrets.served.as_ref(), secrets.accept),
        major: major(context, postgres),
        write: settings(postgres).disable_write_check != Some(true),
        secrets: secrets.versions,
        accept: secrets.accept,
        login,
        postgres,
        sessions,
    };
    let known: HashSet<PeerId> = members.iter().map(|pod| round.peer(pod)).collect();
    sessions.end_all_but(|peer| peer.database != round.database || known.contains(peer));
    let asked = members
        .iter()
        .map(async |pod| (pod.name_any(), round.ask(pod).await));
    let answers: BTreeMap<String, Result<CheckAnswer, ProbeError>> =
        future::join_all(asked).await.into_iter().collect();
    let desired = postgres.spec.replicas.unwrap_or(1);
    if answers.values().any(Result::is_ok) {
        context.update_state(postgres, |memory| memory.login = Some(round.login));
    }
    if let Some(primary) = primary(&answers) {
        let left_slots = left(postgres, &pods, &primary.1.idle_slots);
        let seen = LastCheck { left_slots };
        let mut news = false;
        context.update_state(postgres, |memory| {
            news = memory.last_check.as_ref().unwrap_or(&LastCheck::default()) != &seen;
            memory.last_check = Some(seen);
        });
        if news {
            context.requeue_all_databases();
        }
    }
    judge(&answers, desired)
}

/// PostgreSQL's major version, as far as the set tells.
fn major(context: &Context, postgres: &Postgres) -> Option<u32> {
    let set = context.pet_set(
        &postgres.namespace().unwrap_or_default(),
        &postgres.name_any(),
    )?;
    let built: BuiltOf = set.annotations().get(BUILT_OF)?.parse().ok()?;
    Some(built.major)
}

/// What one server said.
#[derive(Debug)]
struct CheckAnswer {
    report: ServerStatus,
    /// Whether it takes writes, if it was asked.
    writes: Result<(), ProbeError>,
    idle_slots: Vec<String>,
}

/// One way to connect.
struct ConnectMethod {
    mode: SslMode,
    /// As what the password may be asked for.
    hash: PasswordEncryption,
    pair: Option<CertificateAndKey>,
    roots: Vec<Vec<u8>>,
}

/// How a check connects: by TLS if anything is served, to a server with the pod's own name,
/// whatever clients are content with; and in plaintext if that is to be taken.
///
/// While somebody takes the database from one way to the other, what is written says whether
/// plaintext is to be taken; before and after, the spec says it: a database that serves something
/// else than its spec asks for is not well. Pods may be one step behind: see
/// [`log_in`](crate::controller::observe::instance::log_in) for why none of them takes plaintext
/// alone where plaintext is not written to be taken.
fn connect_methods(
    postgres: &Postgres,
    served: Option<&ServedMaterial>,
    written: Option<HbaMethods>,
) -> Vec<ConnectMethod> {
    let by_spec = Method::from(
        postgres
            .spec
            .client_auth_mode
            .unwrap_or(ClientAuthMode::Scram),
    );
    let accept = written.unwrap_or(HbaMethods {
        plain: Some(by_spec),
        tls: Some(by_spec),
    });
    let way = |mode| ConnectMethod {
        mode,
        hash: accept.hash(mode != SslMode::Disable),
        pair: None,
        roots: vec![],
    };
    let tls = served.map(|served| ConnectMethod {
        pair: served.client_pair().ok(),
        roots: served.roots(),
        ..way(SslMode::VerifyFull)
    });
    let written = written.filter(|_| is_paused(postgres));
    let takes_plaintext =
        written.map_or(postgres.spec.tls.is_none(), |accept| accept.plain.is_some());
    tls.into_iter()
        .chain(takes_plaintext.then(|| way(SslMode::Disable)))
        .collect()
}

/// The sessions of checks.
type Pool = Sessions<LoginTerms, Session>;

/// On what terms a session was let in. On others it might not be.
#[derive(Clone, PartialEq)]
struct LoginTerms {
    address: SocketAddr,
    secrets: Versions,
    accept: Option<HbaMethods>,
    modes: Vec<SslMode>,
}

/// One check of one database.
struct CheckRound<'a> {
    sessions: &'a Pool,
    postgres: &'a Postgres,
    /// Its uid.
    database: String,
    login: Login,
    secrets: Versions,
    accept: Option<HbaMethods>,
    ways: Vec<ConnectMethod>,
    major: Option<u32>,
    /// Whether writing is tried.
    write: bool,
}

impl CheckRound<'_> {
    fn peer(&self, pod: &Pod) -> PeerId {
        PeerId {
            database: self.database.clone(),
            pod: pod.uid().unwrap_or_default(),
        }
    }

    /// Asks a server, in the session that is kept with it, or else in a new one.
    async fn ask(&self, pod: &Pod) -> Result<CheckAnswer, ProbeError> {
        let address = address(pod, PORT).map_err(|why| ProbeError::Unreachable(why.into()))?;
        let modes = self.ways.iter().map(|way| way.mode).collect();
        let terms = LoginTerms {
            address,
            secrets: self.secrets.clone(),
            accept: self.accept,
            modes,
        };
        self.sessions
            .ask(
                &CheckedServer {
                    round: self,
                    pod,
                    address,
                },
                self.peer(pod),
                terms,
            )
            .await
    }
}

/// A server that is to be asked.
struct CheckedServer<'a> {
    round: &'a CheckRound<'a>,
    pod: &'a Pod,
    address: SocketAddr,
}

impl SessionPeer for CheckedServer<'_> {
    type Session = Session;
    type Answer = CheckAnswer;
    type Error = ProbeError;

    async fn log_in(&self) -> Result<Session, ProbeError> {
        let CheckRound {
            postgres,
            login,
            ways,
            major,
            ..
        } = self.round;
        let mut last = ProbeError::Unreachable("there is no certificate to log in with".into());
        for way in ways {
            let dial = ConnectOptions {
                address: self.address,
                host: host(
                    &self.pod.name_any(),
                    &postgres.name_any(),
                    &postgres.namespace().unwrap_or_default(),
                ),
                user: login.username.clone(),
                password: Some(login.password.clone()),
                hash: way.hash,
                major: *major,
                pair: way.pair.clone(),
                mode: way.mode,
                roots: way.roots.clone(),
            };
            match dial.log_in().await {
                Ok(session) => return Ok(session),
                // A server that is silent is so whichever way it is asked.
                Err(silence @ (ProbeError::TooSlow | ProbeError::Unreachable(_))) => {
                    return Err(silence);
                }
                Err(silence) => last = silence,
            }
        }
        Err(last)
    }

    async fn answer(&self, session: &Session) -> Result<CheckAnswer, ProbeError> {
        let status = server_status(session).await?;
        let on_primary = !status.in_recovery;
        let writes = if on_primary && self.round.write {
            write_check(session).await
        } else {
            Ok(())
        };
        let idle_slots = if on_primary {
            idle_slots(session).await?
        } else {
            vec![]
        };
        Ok(CheckAnswer {
            report: status,
            writes,
            idle_slots,
        })
    }

    fn is_well(answer: &CheckAnswer) -> bool {
        answer.writes.is_ok()
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

fn primary(
    answers: &BTreeMap<String, Result<CheckAnswer, ProbeError>>,
) -> Option<(&String, &CheckAnswer)> {
    let answered = answers
        .iter()
        .filter_map(|(name, answer)| Some((name, answer.as_ref().ok()?)));
    answered
        .filter(|(_, answer)| !answer.report.in_recovery)
        .max_by_key(|(_, answer)| answer.report.timeline)
}

fn judge(
    answers: &BTreeMap<String, Result<CheckAnswer, ProbeError>>,
    desired: i32,
) -> HealthVerdict {
    let Some((name, primary)) = primary(answers) else {
        let silent = answers
            .iter()
            .find_map(|(name, answer)| Some(format!("{name} {}", answer.as_ref().err()?)));
        let why = silent.unwrap_or_else(|| "no server is the primary".to_owned());
        return HealthVerdict {
            accepting: Err(why.clone()),
            ready: Err(why),
        };
    };
    HealthVerdict {
        accepting: Ok(()),
        ready: is_ready(answers, desired, name, primary),
    }
}

/// The primary takes writes, there are enough servers, and every standby follows.
fn is_ready(
    answers: &BTreeMap<String, Result<CheckAnswer, ProbeError>>,
    desired: i32,
    name: &str,
    primary: &CheckAnswer,
) -> Result<(), String> {
    primary
        .writes
        .as_ref()
        .map_err(|silence| format!("{name} takes no writes: {silence}"))?;
    for (standby, answer) in answers.iter().filter(|(standby, _)| *standby != name) {
        answer
            .as_ref()
            .map_err(|silence| format!("{standby} {silence}"))?;
        let state = primary
            .report
            .standbys
            .get(standby)
            .map(|stream| stream.state.as_str());
        if state != Some("streaming") {
            return Err(format!("{standby} does not stream from {name}"));
        }
    }
    let there = i32::try_from(answers.len()).unwrap_or(i32::MAX);
    if there < desired {
        Err(format!("{there} of {desired} servers are there"))
    } else {
        Ok(())
    }
}

/// Slots of members that are not to come back: their numbers are beyond the last pod, and they have
/// no pod.
fn left(postgres: &Postgres, pods: &[Arc<Pod>], idle: &[String]) -> Vec<String> {
    let ours = format!("{}_", scale::slot_name(&postgres.name_any()));
    let alive: BTreeSet<String> = pods
        .iter()
        .map(|pod| scale::slot_name(&pod.name_any()))
        .collect();
    let ordinal = |slot: &str| slot.strip_prefix(&ours)?.parse::<i32>().ok();
    let gone = |slot: &&String| {
        ordinal(slot).is_some_and(|n| n >= postgres.spec.replicas.unwrap_or(1))
            && !alive.contains(slot.as_str())
    };
    idle.iter().filter(gone).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Condition;
    use crate::database::server_status::{Lsn, StatReplication};
    use crate::pki::issued::tests::{Authority, issue};
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn answer(in_recovery: bool, standbys: &[(&str, &str)]) -> CheckAnswer {
        let stream = |state: &str| StatReplication {
            state: state.to_owned(),
            replayed: Lsn(1),
            ssl: false,
            client_dn: None,
        };
        CheckAnswer {
            report: ServerStatus {
                in_recovery,
                timeline: 1,
                position: Lsn(1),
                ssl: false,
                hba: vec![],
                standbys: standbys
                    .iter()
                    .map(|(name, state)| ((*name).to_owned(), stream(state)))
                    .collect(),
            },
            writes: Ok(()),
            idle_slots: vec![],
        }
    }

    #[test]
    fn secrets_that_could_not_be_read_are_not_taken_for_changed_ones() {
        let found = |version: Option<&str>| {
            let secrets = version
                .map(|version| Versions::from([("pg-auth".to_owned(), Some(version.to_owned()))]));
            Some(CheckResult {
                failures: 0,
                secrets,
                written: true,
            })
        };
        let mut course = CheckSchedule::default();
        let looks = [
            (found(Some("1")), false),
            (found(None), false),
            (None, false),
            (found(Some("1")), false),
        ];
        for (found, changed) in looks
            .into_iter()
            .chain([(found(Some("2")), true), (found(Some("2")), false)])
        {
            assert_eq!(course.end(found), changed);
        }
    }

    #[test]
    fn a_check_goes_in_by_plaintext_only_where_that_is_written_to_be_taken_or_asked_for_by_the_spec()
     {
        let ca = Authority::new("ca");
        let served = issue(&ca, &ca).served;
        let of = |spec: &str| Postgres::new("pg", serde_saphyr::from_str(spec).expect("a spec"));
        let (without, with) = (
            of("version: '17'"),
            of("{version: '17', tls: {issuerRef: {name: i}}}"),
        );
        let method = Some(Method::Scram);
        let tls_alone = Some(HbaMethods {
            plain: None,
            tls: method,
        });
        let both = Some(HbaMethods {
            plain: method,
            tls: method,
        });
        let plain_alone = Some(HbaMethods {
            plain: method,
            tls: None,
        });
        let (tls, plain) = (SslMode::VerifyFull, SslMode::Disable);
        let paused = |postgres: &Postgres| {
            let mut paused = postgres.clone();
            let now = Time(Timestamp::UNIX_EPOCH);
            paused
                .status
                .get_or_insert_default()
                .conditions
                .push(Condition::new(PAUSED, now));
            paused
        };
        let (without_paused, with_paused) = (paused(&without), paused(&with));
        for (postgres, served, accept, expected) in [
            (&without, None, None, vec![plain]),
            (&without, None, plain_alone, vec![plain]),
            (&without_paused, Some(&served), both, vec![tls, plain]),
            (&without_paused, Some(&served), tls_alone, vec![tls]),
            (&without_paused, Some(&served), None, vec![tls, plain]),
            (&with, Some(&served), None, vec![tls]),
            (&with, Some(&served), plain_alone, vec![tls]),
            (&with_paused, Some(&served), tls_alone, vec![tls]),
            (&with_paused, Some(&served), both, vec![tls, plain]),
            (&with_paused, Some(&served), plain_alone, vec![tls, plain]),
            (&with, None, None, vec![]),
        ] {
            let modes: Vec<SslMode> = connect_methods(postgres, served, accept)
                .iter()
                .map(|way| way.mode)
                .collect();
            assert_eq!(modes, expected, "{accept:?}");
        }
    }

    #[test]
    fn a_check_checks_the_name_of_the_pod_whatever_clients_are_content_with_and_gives_md5_only_where_that_is_written()
     {
        let ca = Authority::new("ca");
        let served = issue(&ca, &ca).served;
        let of = |spec: &str| Postgres::new("pg", serde_saphyr::from_str(spec).expect("a spec"));
        let asked = of(
            "{version: '17', sslMode: require, clientAuthMode: md5, tls: {issuerRef: {name: i}}}",
        );
        let unsaid = of("{version: '17', tls: {issuerRef: {name: i}}}");
        let written = |method| {
            Some(HbaMethods {
                plain: None,
                tls: Some(method),
            })
        };
        for (postgres, accept, hash) in [
            (&asked, written(Method::Scram), PasswordEncryption::Scram),
            (&asked, None, PasswordEncryption::Md5),
            (&unsaid, written(Method::Md5), PasswordEncryption::Md5),
            (&unsaid, None, PasswordEncryption::Scram),
        ] {
            let ways: Vec<_> = connect_methods(postgres, Some(&served), accept)
                .iter()
                .map(|way| (way.mode, way.hash))
                .collect();
            assert_eq!(ways, [(SslMode::VerifyFull, hash)]);
        }
    }

    #[test]
    fn a_check_that_panicked_is_followed_by_the_next() {
        let mut course = CheckSchedule::default();
        let period = Duration::ZERO;
        assert!(course.is_due(None, period));
        course.begin(None);
        assert!(!course.is_due(None, period));
        course.end(None);
        assert!(course.is_due(None, period) && !course.is_due(None, Duration::from_mins(1)));
    }

    #[test]
    fn a_database_is_checked_at_once_when_its_pods_change_or_its_status_was_not_written() {
        let mut course = CheckSchedule::default();
        let (replicas, period) = (
            Some(Replicas {
                desired: 1,
                ready: 1,
            }),
            Duration::from_mins(1),
        );
        course.begin(replicas);
        course.end(Some(CheckResult {
            failures: 0,
            secrets: None,
            written: true,
        }));
        assert!(!course.is_due(replicas, period));
        assert!(course.is_due(
            Some(Replicas {
                desired: 1,
                ready: 0
            }),
            period
        ));
        course.end(Some(CheckResult {
            failures: 0,
            secrets: None,
            written: false,
        }));
        assert!(course.is_due(replicas, period));
    }

    fn verdict(
        answers: Vec<(&str, Result<CheckAnswer, ProbeError>)>,
        desired: i32,
    ) -> (bool, Option<String>) {
        let answers = answers
            .into_iter()
            .map(|(name, answer)| (name.to_owned(), answer))
            .collect();
        let HealthVerdict { accepting, ready } = judge(&answers, desired);
        (accepting.is_ok(), ready.err())
    }

    #[test]
    fn a_database_is_ready_when_all_of_it_is() {
        let both = [("pg-1", "streaming")];
        assert_eq!(
            verdict(
                vec![
                    ("pg-0", Ok(answer(false, &both))),
                    ("pg-1", Ok(answer(true, &[])))
                ],
                2
            ),
            (true, None)
        );
        for (answers, desired, why) in [
            (
                vec![("pg-0", Ok(answer(false, &[])))],
                2,
                "1 of 2 servers are there",
            ),
            (
                vec![
                    ("pg-0", Ok(answer(false, &[]))),
                    ("pg-1", Ok(answer(true, &[]))),
                ],
                2,
                "pg-1 does not stream from pg-0",
            ),
            (
                vec![
                    ("pg-0", Ok(answer(false, &[("pg-1", "catchup")]))),
                    ("pg-1", Ok(answer(true, &[]))),
                ],
                2,
                "pg-1 does not stream from pg-0",
            ),
            (
                vec![
                    ("pg-0", Ok(answer(false, &both))),
                    ("pg-1", Err(ProbeError::TooSlow)),
                ],
                2,
                "pg-1 did not answer within 3 s",
            ),
            (
                vec![(
                    "pg-0",
                    Ok(CheckAnswer {
                        writes: Err(ProbeError::Query("no".into())),
                        ..answer(false, &[])
                    }),
                )],
                1,
                "pg-0 takes no writes: query failed: no",
            ),
        ] {
            assert_eq!(verdict(answers, desired), (true, Some(why.to_owned())));
        }
    }

    #[test]
    fn without_a_primary_nobody_is_let_in() {
        let standby = || Ok(answer(true, &[]));
        assert_eq!(
            verdict(vec![("pg-0", standby())], 1),
            (false, Some("no server is the primary".to_owned()))
        );
        let refused = Err(ProbeError::Refused("starting up".into()));
        let why = "pg-1 refuses the login: starting up".to_owned();
        assert_eq!(
            verdict(vec![("pg-0", standby()), ("pg-1", refused)], 2),
            (false, Some(why))
        );
        assert!(!verdict(vec![], 1).0);
    }

    #[test]
    fn of_two_that_think_so_the_one_promoted_last_is_the_primary() {
        let mut newer = answer(false, &[]);
        newer.report.timeline = 2;
        let answers: BTreeMap<_, _> = [
            ("pg-0".to_owned(), Ok(newer)),
            ("pg-1".to_owned(), Ok(answer(false, &[]))),
        ]
        .into();
        assert_eq!(
            primary(&answers).map(|(name, _)| name.as_str()),
            Some("pg-0")
        );
    }

    #[test]
    fn only_the_slots_of_members_that_stay_away_are_left() {
        let mut postgres = Postgres::new(
            "ha-pg",
            serde_saphyr::from_str("{version: '17', replicas: 2}").expect("a spec"),
        );
        postgres.metadata.namespace = Some("demo".to_owned());
        let mut leaving = Pod::default();
        leaving.metadata.name = Some("ha-pg-2".to_owned());
        let idle = ["ha_pg_1", "ha_pg_2", "ha_pg_3", "ha_pg_x", "mine"].map(str::to_owned);
        assert_eq!(left(&postgres, &[Arc::new(leaving)], &idle), ["ha_pg_3"]);
    }
}
