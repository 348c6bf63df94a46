//! Whether databases are well: asked of the servers themselves, each on its own period, beside the loop of the databases.
//!
//! # Expected flow
//! Once a second every database is looked at; whose period is over is checked, many at once. A check logs in to every pod at its
//! address, as the spec says that clients do, and has the time that the spec gives it. What it finds becomes conditions, which
//! the check writes itself.
//!
//! # Guarantees
//! A check that hangs, or that waits for the API server, holds up nobody while there are fewer than [`AT_ONCE`]; one that panics
//! is followed by the next. No two checks of one database run at once. The status is written when it changes. A database that
//! is halted or going is not checked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::debug;

use super::credentials::{Login, auth_secret};
use super::here::shared_config;
use super::postgres::conditions;
use super::servers::{address, host};
use super::{Context, scaling, status};
use crate::api::Postgres;
use crate::api::bounds::{MAX_CHECK_PERIOD, MAX_CHECK_TIMEOUT};
use crate::api::condition::holds;
use crate::api::names::{tls_secret, with_suffix};
use crate::api::postgres::{DatabasePhase, HealthChecker};
use crate::api::tls::SslMode;
use crate::build::written::accept;
use crate::cluster::Error;
use crate::database::dial::Dial;
use crate::database::report::{Report, idle_slots, report, write_check};
use crate::database::{PORT, Silence};
use crate::plan::database_status::types::PAUSED;
use crate::plan::database_status::{Replicas, Verdict};
use crate::tls::Hash;
use crate::tls::material::Served;
use crate::tls::pair::Pair;
use crate::tls::posture::Accept;

/// How many databases are checked at once.
const AT_ONCE: usize = 32;

/// The period of a database that is not ready: its owner waits for it to become so.
const IMPATIENT: Duration = Duration::from_secs(2);

/// What one check saw that others want to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Slots on the primary of members that have gone for good.
    pub(super) left_slots: Vec<String>,
}

/// The checks of one database.
#[derive(Default)]
struct Course {
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
struct Found {
    /// Failed checks in a row, with this one.
    failures: i32,
    /// The Secrets, if the API server has told.
    secrets: Option<Versions>,
    /// Whether the status says it.
    written: bool,
}

/// Checks databases for as long as it runs.
pub(super) async fn run(context: Arc<Context>, databases: Store<Postgres>) {
    let mut courses: HashMap<String, Course> = HashMap::new();
    let mut checks: JoinSet<Found> = JoinSet::new();
    let mut running: HashMap<Id, String> = HashMap::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                let all = databases.state();
                let known: BTreeSet<String> = all.iter().filter_map(|postgres| postgres.uid()).collect();
                courses.retain(|uid, _| known.contains(uid));
                context.forget_all_but(&known);
                for postgres in all.into_iter().filter(|postgres| is_checked(postgres)) {
                    let uid = postgres.uid().unwrap_or_default();
                    let course = courses.entry(uid.clone()).or_default();
                    let replicas = replicas(&context, &postgres);
                    if checks.len() < AT_ONCE && course.is_due(replicas, period(&postgres)) {
                        course.begin(replicas);
                        let task = checks.spawn(check(Arc::clone(&context), postgres, replicas, course.failures));
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
                    context.drifted();
                }
            }
        }
    }
}

impl Course {
    fn is_due(&self, replicas: Option<Replicas>, period: Duration) -> bool {
        let is_news = replicas != self.replicas;
        !self.running && (is_news || self.last.is_none_or(|last| last.elapsed() >= period))
    }

    fn begin(&mut self, replicas: Option<Replicas>) {
        self.running = true;
        self.replicas = replicas;
    }

    /// Notes what a check found; whether a Secret has changed since it was last seen.
    fn end(&mut self, found: Option<Found>) -> bool {
        self.running = false;
        self.last = found.as_ref().is_none_or(|found| found.written).then(Instant::now);
        let Some(found) = found else { return false };
        self.failures = found.failures;
        let Some(secrets) = found.secrets else { return false };
        let changed = self.secrets.as_ref().is_some_and(|before| *before != secrets);
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
    if phase == Some(DatabasePhase::Ready) { period } else { period.min(IMPATIENT) }
}

/// How many pods are ready, by the set's own count.
fn replicas(context: &Context, postgres: &Postgres) -> Option<Replicas> {
    let set = context.pet_set(&postgres.namespace().unwrap_or_default(), &postgres.name_any())?;
    let ready = set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
    Some(Replicas { desired: postgres.spec.replicas.unwrap_or(1), ready })
}

/// Checks a database, and writes down what it found once it has found the same often enough.
async fn check(context: Arc<Context>, postgres: Arc<Postgres>, replicas: Option<Replicas>, failures: i32) -> Found {
    let secrets = Secrets::read(&context, &postgres).await.ok();
    let versions = secrets.as_ref().map(|secrets| secrets.versions.clone());
    let verdict = match (replicas, secrets) {
        // Without pods there is nobody to ask, and an API server that does not answer says nothing about the database.
        (None, _) | (_, None) => None,
        (Some(_), Some(secrets)) => {
            let patience = seconds(settings(&postgres).timeout_seconds, MAX_CHECK_TIMEOUT);
            Some(tokio::time::timeout(patience, ask(&context, &postgres, secrets)).await.unwrap_or_else(|_| {
                let late = || Err(format!("the check took longer than {} s", patience.as_secs()));
                Verdict { accepting: late(), ready: late() }
            }))
        }
    };
    let is_fine = |verdict: &Verdict| verdict.accepting.is_ok() && verdict.ready.is_ok();
    let failures = verdict.as_ref().map_or(failures, |v| if is_fine(v) { 0 } else { failures.saturating_add(1) });
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
    Found { failures, secrets: versions, written: written.is_ok() }
}

/// How to log in.
struct Secrets {
    login: Option<Login>,
    served: Option<Served>,
    /// What servers take, by what is written: only if the spec may not say it, and only if it can be read.
    accept: Option<Accept>,
    versions: Versions,
}

impl Secrets {
    async fn read(context: &Context, postgres: &Postgres) -> Result<Self, Error> {
        let (name, namespace) = (postgres.name_any(), postgres.namespace().unwrap_or_default());
        let get = async |name: String| {
            let secret = context.get::<Secret>(&namespace, &name).await?;
            Ok::<_, Error>((name, secret))
        };
        // Somebody who has paused the database may be bringing TLS to it, or taking it away.
        let paused = holds(conditions(postgres), PAUSED);
        let has_tls = postgres.spec.tls.is_some() || paused;
        let tls = async { if has_tls { get(tls_secret(&name)).await.map(Some) } else { Ok(None) } };
        let shared = async {
            if paused { context.get::<ConfigMap>(&namespace, &with_suffix(&name, "config")).await } else { Ok(None) }
        };
        let settings = postgres.spec.configuration.as_ref().and_then(|conf| conf.secret_name.clone());
        let settings = async { if let Some(name) = settings { get(name).await.map(Some) } else { Ok(None) } };
        let (auth, agent) = (get(auth_secret(postgres)), get(with_suffix(&name, "patroni")));
        let (auth, agent, tls, settings, shared) = future::try_join5(auth, agent, tls, settings, shared).await?;
        let login = auth.1.as_ref().and_then(Login::of);
        let data = tls.as_ref().and_then(|(_, secret)| secret.as_ref()?.data.as_ref());
        let served = data.and_then(|data| Served::of(data, ""));
        let versions = [Some(auth), Some(agent), tls, settings].into_iter().flatten();
        let versions = versions.map(|(name, secret)| (name, secret.and_then(|secret| secret.resource_version())));
        let accept = shared.as_ref().and_then(shared_config).and_then(|shared| accept(&shared).ok());
        Ok(Self { login, served, accept, versions: versions.collect() })
    }
}

/// Asks every server.
async fn ask(context: &Context, postgres: &Postgres, secrets: Secrets) -> Verdict {
    let Some(login) = secrets.login else {
        let why = || Err(format!("Secret {} has no username and password", auth_secret(postgres)));
        return Verdict { accepting: why(), ready: why() };
    };
    let pods = context.pods(&postgres.namespace().unwrap_or_default(), &postgres.name_any());
    let ways = ways(postgres, secrets.served.as_ref(), secrets.accept);
    let write = settings(postgres).disable_write_check != Some(true);
    let asked = pods.iter().map(async |pod| (pod.name_any(), ask_one(postgres, pod, &login, &ways, write).await));
    let answers: BTreeMap<String, Result<Answer, Silence>> = future::join_all(asked).await.into_iter().collect();
    let desired = postgres.spec.replicas.unwrap_or(1);
    if answers.values().any(Result::is_ok) {
        context.remember(postgres, |memory| memory.login = Some(login));
    }
    if let Some(primary) = primary(&answers) {
        let left_slots = left(postgres, &pods, &primary.1.idle_slots);
        let seen = Seen { left_slots };
        let mut news = false;
        context.remember(postgres, |memory| {
            news = memory.seen.as_ref().unwrap_or(&Seen::default()) != &seen;
            memory.seen = Some(seen);
        });
        if news {
            context.drifted();
        }
    }
    judge(&answers, desired)
}

/// What one server said.
#[derive(Debug)]
struct Answer {
    report: Report,
    /// Whether it takes writes, if it was asked.
    writes: Result<(), Silence>,
    idle_slots: Vec<String>,
}

/// One way to connect.
struct Way {
    mode: SslMode,
    pair: Option<Pair>,
    roots: Vec<Vec<u8>>,
}

/// How clients connect: by TLS if anything is served, and in plaintext if that is written to be taken.
///
/// What is written is known for as long as somebody takes the database from one way to the other; the spec says it before and after.
/// Pods may be one step behind: see [`log_in`](super::servers::log_in) for why none of them takes plaintext alone where plaintext
/// is not written to be taken.
fn ways(postgres: &Postgres, served: Option<&Served>, accept: Option<Accept>) -> Vec<Way> {
    let mode = postgres.spec.ssl_mode.filter(|mode| *mode != SslMode::Disable).unwrap_or(SslMode::VerifyFull);
    let tls = served.map(|served| Way { mode, pair: served.client_pair().ok(), roots: served.roots() });
    let takes_plaintext = accept.map_or(postgres.spec.tls.is_none(), |accept| accept.plain.is_some());
    let plain = takes_plaintext.then_some(Way { mode: SslMode::Disable, pair: None, roots: vec![] });
    tls.into_iter().chain(plain).collect()
}

async fn ask_one(postgres: &Postgres, pod: &Pod, login: &Login, ways: &[Way], write: bool) -> Result<Answer, Silence> {
    let address = address(pod, PORT).map_err(|why| Silence::Unreachable(why.into()))?;
    let host = host(&pod.name_any(), &postgres.name_any(), &postgres.namespace().unwrap_or_default());
    let mut last = Silence::Unreachable("there is no certificate to log in with".into());
    for way in ways {
        let dial = Dial {
            address,
            host: host.clone(),
            user: login.username.clone(),
            password: Some(login.password.clone()),
            hash: Hash::Md5,
            major: None,
            pair: way.pair.clone(),
            mode: way.mode,
            roots: way.roots.clone(),
        };
        match dial.log_in().await {
            Ok(session) => {
                let report = report(&session).await?;
                let on_primary = !report.in_recovery;
                let writes = if on_primary && write { write_check(&session).await } else { Ok(()) };
                let idle_slots = if on_primary { idle_slots(&session).await? } else { vec![] };
                return Ok(Answer { report, writes, idle_slots });
            }
            // A server that is silent is so whichever way it is asked.
            Err(silence @ (Silence::TooSlow | Silence::Unreachable(_))) => return Err(silence),
            Err(silence) => last = silence,
        }
    }
    Err(last)
}

fn primary(answers: &BTreeMap<String, Result<Answer, Silence>>) -> Option<(&String, &Answer)> {
    let answered = answers.iter().filter_map(|(name, answer)| Some((name, answer.as_ref().ok()?)));
    answered.filter(|(_, answer)| !answer.report.in_recovery).max_by_key(|(_, answer)| answer.report.timeline)
}

fn judge(answers: &BTreeMap<String, Result<Answer, Silence>>, desired: i32) -> Verdict {
    let Some((name, primary)) = primary(answers) else {
        let silent = answers.iter().find_map(|(name, answer)| Some(format!("{name} {}", answer.as_ref().err()?)));
        let why = silent.unwrap_or_else(|| "no server is the primary".to_owned());
        return Verdict { accepting: Err(why.clone()), ready: Err(why) };
    };
    Verdict { accepting: Ok(()), ready: is_ready(answers, desired, name, primary) }
}

/// The primary takes writes, there are enough servers, and every standby follows.
fn is_ready(
    answers: &BTreeMap<String, Result<Answer, Silence>>,
    desired: i32,
    name: &str,
    primary: &Answer,
) -> Result<(), String> {
    primary.writes.as_ref().map_err(|silence| format!("{name} takes no writes: {silence}"))?;
    for (standby, answer) in answers.iter().filter(|(standby, _)| *standby != name) {
        answer.as_ref().map_err(|silence| format!("{standby} {silence}"))?;
        let state = primary.report.standbys.get(standby).map(|stream| stream.state.as_str());
        if state != Some("streaming") {
            return Err(format!("{standby} does not stream from {name}"));
        }
    }
    let there = i32::try_from(answers.len()).unwrap_or(i32::MAX);
    if there < desired { Err(format!("{there} of {desired} servers are there")) } else { Ok(()) }
}

/// Slots of members that are not to come back: their numbers are beyond the last pod, and they have no pod.
fn left(postgres: &Postgres, pods: &[Arc<Pod>], idle: &[String]) -> Vec<String> {
    let ours = format!("{}_", scaling::slot(&postgres.name_any()));
    let alive: BTreeSet<String> = pods.iter().map(|pod| scaling::slot(&pod.name_any())).collect();
    let ordinal = |slot: &str| slot.strip_prefix(&ours)?.parse::<i32>().ok();
    let gone = |slot: &&String| {
        ordinal(slot).is_some_and(|n| n >= postgres.spec.replicas.unwrap_or(1)) && !alive.contains(slot.as_str())
    };
    idle.iter().filter(gone).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::report::{Lsn, Stream};
    use crate::tls::Method;
    use crate::tls::material::tests::{Authority, issue};

    fn answer(in_recovery: bool, standbys: &[(&str, &str)]) -> Answer {
        let stream = |state: &str| Stream { state: state.to_owned(), replayed: Lsn(1), ssl: false, client_dn: None };
        Answer {
            report: Report {
                in_recovery,
                timeline: 1,
                position: Lsn(1),
                ssl: false,
                hba: vec![],
                standbys: standbys.iter().map(|(name, state)| ((*name).to_owned(), stream(state))).collect(),
            },
            writes: Ok(()),
            idle_slots: vec![],
        }
    }

    #[test]
    fn secrets_that_could_not_be_read_are_not_taken_for_changed_ones() {
        let found = |version: Option<&str>| {
            let secrets = version.map(|version| Versions::from([("pg-auth".to_owned(), Some(version.to_owned()))]));
            Some(Found { failures: 0, secrets, written: true })
        };
        let mut course = Course::default();
        let looks = [(found(Some("1")), false), (found(None), false), (None, false), (found(Some("1")), false)];
        for (found, changed) in looks.into_iter().chain([(found(Some("2")), true), (found(Some("2")), false)]) {
            assert_eq!(course.end(found), changed);
        }
    }

    #[test]
    fn a_check_goes_in_by_plaintext_only_where_that_is_written_to_be_taken_or_asked_for_by_the_spec() {
        let ca = Authority::new("ca");
        let served = issue(&ca, &ca).served;
        let of = |spec: &str| Postgres::new("pg", serde_saphyr::from_str(spec).expect("a spec"));
        let (without, with) = (of("version: '17'"), of("{version: '17', tls: {issuerRef: {name: i}}}"));
        let method = Some(Method::Scram);
        let tls_alone = Some(Accept { plain: None, tls: method });
        let both = Some(Accept { plain: method, tls: method });
        let plain_alone = Some(Accept { plain: method, tls: None });
        let (tls, plain) = (SslMode::VerifyFull, SslMode::Disable);
        for (postgres, served, accept, expected) in [
            (&without, None, None, vec![plain]),
            (&without, Some(&served), both, vec![tls, plain]),
            (&without, Some(&served), tls_alone, vec![tls]),
            (&without, Some(&served), None, vec![tls, plain]),
            (&with, Some(&served), None, vec![tls]),
            (&with, Some(&served), tls_alone, vec![tls]),
            (&with, Some(&served), both, vec![tls, plain]),
            (&with, Some(&served), plain_alone, vec![tls, plain]),
            (&with, None, None, vec![]),
        ] {
            let modes: Vec<SslMode> = ways(postgres, served, accept).iter().map(|way| way.mode).collect();
            assert_eq!(modes, expected, "{accept:?}");
        }
    }

    #[test]
    fn a_check_that_panicked_is_followed_by_the_next() {
        let mut course = Course::default();
        let period = Duration::ZERO;
        assert!(course.is_due(None, period));
        course.begin(None);
        assert!(!course.is_due(None, period));
        course.end(None);
        assert!(course.is_due(None, period) && !course.is_due(None, Duration::from_mins(1)));
    }

    #[test]
    fn a_database_is_checked_at_once_when_its_pods_change_or_its_status_was_not_written() {
        let mut course = Course::default();
        let (replicas, period) = (Some(Replicas { desired: 1, ready: 1 }), Duration::from_mins(1));
        course.begin(replicas);
        course.end(Some(Found { failures: 0, secrets: None, written: true }));
        assert!(!course.is_due(replicas, period));
        assert!(course.is_due(Some(Replicas { desired: 1, ready: 0 }), period));
        course.end(Some(Found { failures: 0, secrets: None, written: false }));
        assert!(course.is_due(replicas, period));
    }

    fn verdict(answers: Vec<(&str, Result<Answer, Silence>)>, desired: i32) -> (bool, Option<String>) {
        let answers = answers.into_iter().map(|(name, answer)| (name.to_owned(), answer)).collect();
        let Verdict { accepting, ready } = judge(&answers, desired);
        (accepting.is_ok(), ready.err())
    }

    #[test]
    fn a_database_is_ready_when_all_of_it_is() {
        let both = [("pg-1", "streaming")];
        assert_eq!(verdict(vec![("pg-0", Ok(answer(false, &both))), ("pg-1", Ok(answer(true, &[])))], 2), (true, None));
        for (answers, desired, why) in [
            (vec![("pg-0", Ok(answer(false, &[])))], 2, "1 of 2 servers are there"),
            (
                vec![("pg-0", Ok(answer(false, &[]))), ("pg-1", Ok(answer(true, &[])))],
                2,
                "pg-1 does not stream from pg-0",
            ),
            (
                vec![("pg-0", Ok(answer(false, &[("pg-1", "catchup")]))), ("pg-1", Ok(answer(true, &[])))],
                2,
                "pg-1 does not stream from pg-0",
            ),
            (
                vec![("pg-0", Ok(answer(false, &both))), ("pg-1", Err(Silence::TooSlow))],
                2,
                "pg-1 did not answer within 3 s",
            ),
            (
                vec![("pg-0", Ok(Answer { writes: Err(Silence::Query("no".into())), ..answer(false, &[]) }))],
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
        assert_eq!(verdict(vec![("pg-0", standby())], 1), (false, Some("no server is the primary".to_owned())));
        let refused = Err(Silence::Refused("starting up".into()));
        let why = "pg-1 refuses the login: starting up".to_owned();
        assert_eq!(verdict(vec![("pg-0", standby()), ("pg-1", refused)], 2), (false, Some(why)));
        assert!(!verdict(vec![], 1).0);
    }

    #[test]
    fn of_two_that_think_so_the_one_promoted_last_is_the_primary() {
        let mut newer = answer(false, &[]);
        newer.report.timeline = 2;
        let answers: BTreeMap<_, _> =
            [("pg-0".to_owned(), Ok(newer)), ("pg-1".to_owned(), Ok(answer(false, &[])))].into();
        assert_eq!(primary(&answers).map(|(name, _)| name.as_str()), Some("pg-0"));
    }

    #[test]
    fn only_the_slots_of_members_that_stay_away_are_left() {
        let mut postgres =
            Postgres::new("ha-pg", serde_saphyr::from_str("{version: '17', replicas: 2}").expect("a spec"));
        postgres.metadata.namespace = Some("demo".to_owned());
        let mut leaving = Pod::default();
        leaving.metadata.name = Some("ha-pg-2".to_owned());
        let idle = ["ha_pg_1", "ha_pg_2", "ha_pg_3", "ha_pg_x", "mine"].map(str::to_owned);
        assert_eq!(left(&postgres, &[Arc::new(leaving)], &idle), ["ha_pg_3"]);
    }
}
