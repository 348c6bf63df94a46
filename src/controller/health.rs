//! Whether databases are well: asked of the servers themselves, each on its own period, beside the loop of the databases.
//!
//! # Expected flow
//! Once a second every database is looked at; whose period is over is checked, many at once. A check logs in to every pod at its
//! address, as the spec says that clients do, and has the time that the spec gives it. What it finds becomes conditions.
//!
//! # Guarantees
//! A check that hangs holds up nobody. No two checks of one database run at once. The status is written when it changes. A
//! database that is halted or going is not checked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::reflector::Store;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::debug;

use super::credentials::{Login, auth_secret};
use super::postgres::conditions;
use super::{Context, scaling, status};
use crate::api::Postgres;
use crate::api::condition::holds;
use crate::api::postgres::{DatabasePhase, HealthChecker};
use crate::api::tls::SslMode;
use crate::cluster::{Error, Thing};
use crate::database::dial::Dial;
use crate::database::report::{Report, idle_slots, report, write_check};
use crate::database::{PORT, Silence};
use crate::plan::database_status::types::PAUSED;
use crate::plan::database_status::{Replicas, Verdict};
use crate::tls::alias::with_suffix;
use crate::tls::material::Served;
use crate::tls::pair::Pair;

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
    /// When it is checked next; at once, if it never was.
    next: Option<Instant>,
    running: bool,
    /// Failed checks in a row.
    failures: i32,
    /// How many pods were ready at the last check.
    replicas: Option<Replicas>,
    /// The Secrets as they were at the last check, by name.
    secrets: Option<BTreeMap<String, Option<String>>>,
}

/// What a check found.
struct Found {
    uid: String,
    replicas: Option<Replicas>,
    verdict: Option<Verdict>,
    secrets: BTreeMap<String, Option<String>>,
}

/// Checks databases for as long as it runs.
pub(super) async fn run(context: Arc<Context>, databases: Store<Postgres>) {
    let mut courses: HashMap<String, Course> = HashMap::new();
    let mut checks: JoinSet<Found> = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                let all = databases.state();
                let known: BTreeSet<String> = all.iter().filter_map(|postgres| postgres.uid()).collect();
                courses.retain(|uid, _| known.contains(uid));
                for postgres in all.into_iter().filter(|postgres| is_checked(postgres)) {
                    let course = courses.entry(postgres.uid().unwrap_or_default()).or_default();
                    if checks.len() < AT_ONCE && is_due(&context, course, &postgres) {
                        course.running = true;
                        checks.spawn(check(Arc::clone(&context), postgres));
                    }
                }
            }
            Some(done) = checks.join_next(), if !checks.is_empty() => {
                // A check that panicked is one that found nothing; its database is checked again after a new start.
                let Ok(found) = done else { continue };
                if let Some(course) = courses.get_mut(&found.uid) {
                    let postgres = databases.find(|postgres| postgres.uid().as_deref() == Some(found.uid.as_str()));
                    if let Some(postgres) = postgres {
                        note(&context, &postgres, course, found).await;
                    }
                }
            }
        }
    }
}

fn is_checked(postgres: &Postgres) -> bool {
    postgres.metadata.deletion_timestamp.is_none() && postgres.spec.halted != Some(true)
}

fn is_due(context: &Context, course: &Course, postgres: &Postgres) -> bool {
    let news = replicas(context, postgres) != course.replicas;
    !course.running && (news || course.next.is_none_or(|next| next <= Instant::now()))
}

fn settings(postgres: &Postgres) -> HealthChecker {
    postgres.spec.health_checker.unwrap_or_default()
}

fn seconds(value: Option<i32>) -> Duration {
    Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(10).max(1))
}

fn period(postgres: &Postgres) -> Duration {
    let period = seconds(settings(postgres).period_seconds);
    let phase = postgres.status.as_ref().and_then(|status| status.phase);
    if phase == Some(DatabasePhase::Ready) { period } else { period.min(IMPATIENT) }
}

/// Draws the conclusions from a check.
async fn note(context: &Context, postgres: &Postgres, course: &mut Course, found: Found) {
    course.running = false;
    course.next = Some(Instant::now() + period(postgres));
    course.replicas = found.replicas;
    // Nobody watches Secrets: whoever changes one is noticed here.
    if course.secrets.replace(found.secrets.clone()).is_some_and(|before| before != found.secrets) {
        context.drifted();
    }
    let fine = found.verdict.as_ref().is_none_or(|verdict| verdict.accepting.is_ok() && verdict.ready.is_ok());
    course.failures = if fine { 0 } else { course.failures.saturating_add(1) };
    let threshold = settings(postgres).failure_threshold.unwrap_or(1);
    let verdict = found.verdict.filter(|_| fine || course.failures >= threshold);
    let written = status::write(context, postgres, |writer| {
        if let Some(replicas) = found.replicas {
            writer.replicas(replicas);
        }
        if let Some(verdict) = &verdict {
            writer.checked(verdict);
        }
    });
    if let Err(error) = written.await {
        // The next check finds the same.
        debug!(database = postgres.name_any(), %error, "the status could not be written");
        course.next = Some(Instant::now() + Duration::from_secs(1));
    }
}

/// How many pods are ready, by the set's own count.
fn replicas(context: &Context, postgres: &Postgres) -> Option<Replicas> {
    let set = context.pet_set(&postgres.namespace().unwrap_or_default(), &postgres.name_any())?;
    let ready = set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
    Some(Replicas { desired: postgres.spec.replicas.unwrap_or(1), ready })
}

async fn check(context: Arc<Context>, postgres: Arc<Postgres>) -> Found {
    let uid = postgres.uid().unwrap_or_default();
    let replicas = replicas(&context, &postgres);
    let secrets = Secrets::read(&context, &postgres).await;
    let versions = secrets.as_ref().map(|secrets| secrets.versions.clone()).unwrap_or_default();
    let verdict = match (replicas, secrets) {
        // Without pods there is nobody to ask, and an API server that does not answer says nothing about the database.
        (None, _) | (_, Err(_)) => None,
        (Some(_), Ok(secrets)) => {
            let patience = seconds(settings(&postgres).timeout_seconds);
            Some(tokio::time::timeout(patience, ask(&context, &postgres, secrets)).await.unwrap_or_else(|_| {
                let late = || Err(format!("the check took longer than {} s", patience.as_secs()));
                Verdict { accepting: late(), ready: late() }
            }))
        }
    };
    Found { uid, replicas, verdict, secrets: versions }
}

/// How to log in.
struct Secrets {
    login: Option<Login>,
    served: Option<Served>,
    versions: BTreeMap<String, Option<String>>,
}

impl Secrets {
    async fn read(context: &Context, postgres: &Postgres) -> Result<Self, Error> {
        let name = postgres.name_any();
        let api: Api<Secret> = Api::namespaced(context.client.clone(), &postgres.namespace().unwrap_or_default());
        let get = async |name: String| {
            let secret = api.get_opt(&name).await.map_err(|error| Error::of(Thing::new::<Secret>(&name), error))?;
            Ok::<_, Error>((name, secret))
        };
        // Somebody who has paused the database may be bringing TLS to it.
        let has_tls = postgres.spec.tls.is_some() || holds(conditions(postgres), PAUSED);
        let tls = async { if has_tls { get(with_suffix(&name, "tls")).await.map(Some) } else { Ok(None) } };
        let (auth, agent, tls) =
            future::try_join3(get(auth_secret(postgres)), get(with_suffix(&name, "patroni")), tls).await?;
        let login = auth.1.as_ref().and_then(Login::of);
        let data = tls.as_ref().and_then(|(_, secret)| secret.as_ref()?.data.as_ref());
        let served = data.and_then(|data| Served::of(data, ""));
        let versions = [Some(auth), Some(agent), tls].into_iter().flatten();
        let versions = versions.map(|(name, secret)| (name, secret.and_then(|secret| secret.resource_version())));
        Ok(Self { login, served, versions: versions.collect() })
    }
}

/// Asks every server.
async fn ask(context: &Context, postgres: &Postgres, secrets: Secrets) -> Verdict {
    let Some(login) = secrets.login else {
        let why = || Err(format!("Secret {} has no username and password", auth_secret(postgres)));
        return Verdict { accepting: why(), ready: why() };
    };
    let pods = context.pods(&postgres.namespace().unwrap_or_default(), &postgres.name_any());
    let ways = ways(postgres, secrets.served.as_ref());
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

/// How clients connect, by the spec; and the other way, for as long as somebody takes the database from one to the other.
fn ways(postgres: &Postgres, served: Option<&Served>) -> Vec<Way> {
    let plain = Way { mode: SslMode::Disable, pair: None, roots: vec![] };
    let mode = postgres.spec.ssl_mode.filter(|mode| *mode != SslMode::Disable).unwrap_or(SslMode::VerifyFull);
    let tls = served.map(|served| Way { mode, pair: served.client_pair().ok(), roots: served.roots() });
    let paused = holds(conditions(postgres), PAUSED);
    match (postgres.spec.tls.is_some(), paused) {
        (true, false) => tls.into_iter().collect(),
        (true, true) => tls.into_iter().chain([plain]).collect(),
        (false, false) => vec![plain],
        (false, true) => [plain].into_iter().chain(tls).collect(),
    }
}

async fn ask_one(postgres: &Postgres, pod: &Pod, login: &Login, ways: &[Way], write: bool) -> Result<Answer, Silence> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse::<IpAddr>().ok());
    let address = address.ok_or_else(|| Silence::Unreachable("the pod has no address".to_owned()))?;
    let (name, namespace) = (postgres.name_any(), postgres.namespace().unwrap_or_default());
    let mut last = Silence::Unreachable("there is no certificate to log in with".to_owned());
    for way in ways {
        let dial = Dial {
            address: SocketAddr::new(address, PORT),
            host: format!("{}.{}.{namespace}.svc", pod.name_any(), with_suffix(&name, "pods")),
            user: login.username.clone(),
            password: Some(login.password.clone()),
            pair: way.pair.clone(),
            mode: way.mode,
            roots: way.roots.clone(),
        };
        match dial.log_in().await {
            Ok(client) => {
                let report = report(&client).await?;
                let on_primary = !report.in_recovery;
                let writes = if on_primary && write { write_check(&client).await } else { Ok(()) };
                let idle_slots = if on_primary { idle_slots(&client).await? } else { vec![] };
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

    fn answer(in_recovery: bool, standbys: &[(&str, &str)]) -> Answer {
        let stream = |state: &str| Stream {
            state: state.to_owned(),
            sync_state: "async".to_owned(),
            replayed: Lsn(1),
            ssl: false,
            client_dn: None,
            issuer_dn: None,
        };
        Answer {
            report: Report {
                in_recovery,
                timeline: 1,
                position: Lsn(1),
                received: None,
                ssl: false,
                files: BTreeMap::new(),
                hba: vec![],
                standbys: standbys.iter().map(|(name, state)| ((*name).to_owned(), stream(state))).collect(),
            },
            writes: Ok(()),
            idle_slots: vec![],
        }
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
                vec![("pg-0", Ok(Answer { writes: Err(Silence::Query("no".to_owned())), ..answer(false, &[]) }))],
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
        let refused = Err(Silence::Refused("starting up".to_owned()));
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
