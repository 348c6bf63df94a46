//! A simulated cluster: what an API server, a kubelet, Patroni, PostgreSQL and cert-manager do, as
//! far as TLS is concerned, one second at a time. It knows the facts; the product sees them only
//! through [`World::look`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use pgrekey::api::annotations::{OPS_REQUEST_FINALIZER, STRATEGY};
use pgrekey::api::ops_request::{Apply, PostgresOpsRequestSpec};
use pgrekey::api::postgres::{DatabasePhase, PostgresSpec};
use pgrekey::api::tls::SslMode;
use pgrekey::api::{Postgres, PostgresOpsRequest, StepKind};
use pgrekey::pki::{CaId, Fingerprint, Leaf, Material};
use pgrekey::plan::RequestAction;
use pgrekey::plan::action::{CertificateVolume, PodRef};
use pgrekey::plan::budgets::{Budget, Budgets};
use pgrekey::plan::observed::cluster::{
    LeafSummary, ObservedCluster, ObservedPod, ObservedServer, StandbyReplication, Template,
};
use pgrekey::plan::observed::{Issuance, Live, Observed, ObservedCertificate, Paused, Trial};
use pgrekey::plan::operation::goal;
use pgrekey::plan::preview::PodStrategy;
use pgrekey::plan::rollout::grace;
use pgrekey::plan::status::write_policy::StoredStatus;
use pgrekey::plan::waiting::Unknown;
use pgrekey::plan::{
    Action, ClusterAction, Progress, SwitchoverCandidates, next_step, steady_state_target,
};
use pgrekey::tls::{
    Alias, Client, Files, HbaMethods, PasswordEncryption, Posture, ReplicationConninfo, ServerTls,
    can_connect, can_replicate, hba, posture,
};

/// Where a database's TLS comes from, by the names of the issuers in the trips.
pub(crate) fn ca(issuer: &str) -> CaId {
    CaId(Fingerprint(
        [issuer
            .bytes()
            .fold(7, |sum, byte| sum ^ byte.rotate_left(3)); 32],
    ))
}

fn material(serial: u8, issuer: &str) -> Material {
    let leaf = |kind: u8| Leaf {
        fingerprint: Fingerprint([kind ^ serial; 32]),
        ca: ca(issuer),
    };
    Material {
        server: leaf(0x10),
        client: leaf(0x20),
        exporter: leaf(0x40),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}

/// How much log there is, in bytes.
const WRITTEN: u64 = 5 << 20;

/// Every so many seconds Patroni's primary looks who can be synchronous.
const LOOP_WAIT: i64 = 5;

/// What goes wrong, and how often.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one trouble, and they are combined"
)]
pub(crate) struct Trouble {
    /// Nothing about the pods is known until then.
    pub(crate) blind_until: i64,
    /// The disruption budget lets no pod go until then.
    pub(crate) budget_closed_until: i64,
    /// In these seconds others have all the places.
    pub(crate) crowded: Range<i64>,
    /// Somebody else has a budget for the pods until then.
    pub(crate) second_budget_until: i64,
    /// Standbys are far behind until then.
    pub(crate) behind_until: i64,
    /// The issuer is never ready.
    pub(crate) issuer_is_never_ready: bool,
    /// The trial is refused.
    pub(crate) trial_fails: bool,
    /// What is issued is not good.
    pub(crate) bad_leaf: Option<&'static str>,
    /// Second at which what was served at the beginning expires.
    pub(crate) leaves_end_at: Option<i64>,
    /// What standbys presented at the beginning has expired.
    pub(crate) client_is_expired: bool,
    /// Servers do not load leaves that were issued since.
    pub(crate) leaves_are_refused: bool,
    /// A pod that is made with what an operation asks for never becomes ready.
    pub(crate) new_pods_fail: bool,
    /// Data end with their pod.
    pub(crate) is_ephemeral: bool,
}

#[derive(Clone, Debug)]
struct SimPod {
    name: String,
    ordinal: i32,
    uid: u64,
    has_files: bool,
    refreshed: Option<String>,
    /// Second at which it is ready; while it is not, its server does not answer.
    ready_at: i64,
    /// Second at which it is gone, once it has been evicted.
    gone_at: Option<i64>,
    /// What its volumes hold.
    mounted: (Option<Files>, ReplicationConninfo, u32),
    /// Second at which its volumes are brought up to date, if that was asked for.
    mounts_at: i64,
    /// What its server has loaded.
    loaded: Option<Files>,
    settings: (ServerTls, HbaMethods),
    /// How its agent dials.
    dial: ReplicationConninfo,
    evictions: u32,
}

#[derive(Clone, Debug)]
struct SimCertificate {
    spec: PostgresSpec,
    revision: i64,
    asked: Option<i64>,
    issued_at: Option<i64>,
}

/// What a client finds in its volumes: whom to trust, and who has signed its certificate.
pub(crate) type Told = (BTreeSet<CaId>, Option<CaId>);

/// Patroni's record of who is synchronous.
#[derive(Clone, Debug)]
struct Synchronous {
    /// So many are to be.
    count: usize,
    standbys: BTreeSet<String>,
    /// Switchovers that Patroni has dropped.
    dropped: u32,
}

#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent fact"
)]
pub(crate) struct World {
    second: i64,
    pub(crate) database: Postgres,
    pub(crate) paused: bool,
    pub(crate) request: PostgresOpsRequest,
    pub(crate) request_is_gone: bool,
    major: u32,
    written: Posture,
    settings_at: i64,
    /// What new pods are to be made of: with files, or without.
    template_has_files: bool,
    /// What the StatefulSet makes pods of, and the second at which that is the template.
    realised: bool,
    realised_at: i64,
    published: BTreeSet<CaId>,
    previous: Option<Material>,
    version: u32,
    pods: Vec<SimPod>,
    pub(crate) leader: String,
    switching: Option<(String, i64)>,
    /// Nothing where commits wait for no standby.
    synchronous: Option<Synchronous>,
    hash: PasswordEncryption,
    pub(crate) md5_roles: Vec<String>,
    certificates: BTreeMap<Alias, SimCertificate>,
    trial: Option<i64>,
    issued: Option<Material>,
    /// What was served before.
    origin: Option<Material>,
    serial: u8,
    /// Whose CA signs for every issuer, if it is not the issuer's own first one.
    signer: Option<&'static str>,
    /// Second at which pods and clients were last told something else.
    told_at: i64,
    next_uid: u64,
    pub(crate) trouble: Trouble,
    /// Clients that can connect at both ends.
    clients: Vec<Client>,
    /// The primary and the bundle for which they were last seen to get in.
    judged: Option<(Posture, BTreeSet<CaId>)>,
}

const SECURE: &str =
    "{version: '17', sslMode: verify-full, clientAuthMode: cert, tls: {issuerRef: {name: old}}}";
const MD5: &str =
    "{version: '17', sslMode: verify-full, clientAuthMode: md5, tls: {issuerRef: {name: old}}}";
const PLAIN: &str = "{version: '17', sslMode: disable, clientAuthMode: md5}";

/// An operation to simulate.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// Its name, in the names of transcripts too.
    pub(crate) name: &'static str,
    /// The database's spec before it.
    before: &'static str,
    /// The request, without its `databaseRef`.
    request: &'static str,
}

/// Every operation.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "add",
        before: PLAIN,
        request: "{type: ReconfigureTLS, tls: {issuerRef: {name: old}, sslMode: verify-full, clientAuthMode: cert}}",
    },
    Scenario {
        name: "add-scram",
        before: PLAIN,
        request: "{type: ReconfigureTLS, tls: {issuerRef: {name: old}, sslMode: require, clientAuthMode: scram}}",
    },
    Scenario {
        name: "remove",
        before: SECURE,
        request: "{type: ReconfigureTLS, tls: {remove: true, clientAuthMode: md5}}",
    },
    Scenario {
        name: "change-issuer",
        before: SECURE,
        request: "{type: ReconfigureTLS, tls: {issuerRef: {name: new}}}",
    },
    Scenario {
        name: "update",
        before: SECURE,
        request: "{type: ReconfigureTLS, tls: {certificates: [{alias: server, dnsNames: [db.example]}]}}",
    },
    Scenario {
        name: "change-modes",
        before: SECURE,
        request: "{type: ReconfigureTLS, tls: {sslMode: require, clientAuthMode: scram}}",
    },
    Scenario {
        name: "change-password",
        before: MD5,
        request: "{type: ReconfigureTLS, tls: {clientAuthMode: scram}}",
    },
    Scenario {
        name: "rotate",
        before: SECURE,
        request: "{type: ReconfigureTLS, tls: {rotateCertificates: true}}",
    },
    Scenario {
        name: "restart",
        before: SECURE,
        request: "{type: Restart}",
    },
];

impl World {
    pub(crate) fn new(scenario: &Scenario, replicas: u32, strategy: PodStrategy) -> Self {
        let mut spec: PostgresSpec = serde_saphyr::from_str(scenario.before).expect("a spec");
        spec.replicas = i32::try_from(replicas).ok();
        let asked = scenario
            .request
            .replacen('{', "{databaseRef: {name: pg}, ", 1);
        let request: PostgresOpsRequestSpec = serde_saphyr::from_str(&asked).expect("a request");
        let major = 17;
        let issuer = "old";
        let served = spec.tls.as_ref().map(|_| material(1, issuer));
        let written = posture(&spec, major, served.as_ref()).expect("a posture");
        let mut database = Postgres::new("pg", spec);
        database.metadata.namespace = Some("demo".to_owned());
        database.metadata.uid = Some("database".to_owned());
        database.status.get_or_insert_default().phase = Some(DatabasePhase::Ready);
        let mut request = PostgresOpsRequest::new("request", request);
        request.metadata.namespace = Some("demo".to_owned());
        request.metadata.uid = Some("request".to_owned());
        request.metadata.creation_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        request
            .annotations_mut()
            .insert(STRATEGY.to_owned(), format!("{strategy:?}"));
        // As the webhooks give it.
        request
            .finalizers_mut()
            .push(OPS_REQUEST_FINALIZER.to_owned());
        let certificates = served.map(|_| {
            let certificate = SimCertificate {
                spec: database.spec.clone(),
                revision: 1,
                asked: None,
                issued_at: None,
            };
            Alias::ALL
                .into_iter()
                .map(|alias| (alias, certificate.clone()))
                .collect()
        });
        let mut world = Self {
            second: 0,
            database,
            paused: false,
            request,
            request_is_gone: false,
            major,
            settings_at: -10,
            realised: written.files.is_some(),
            realised_at: -100,
            template_has_files: written.files.is_some(),
            published: written.trust(),
            previous: None,
            version: 1,
            pods: vec![],
            leader: "pg-0".to_owned(),
            switching: None,
            synchronous: None,
            hash: written.hash,
            md5_roles: vec![],
            certificates: certificates.unwrap_or_default(),
            trial: None,
            issued: served,
            origin: served,
            serial: 1,
            signer: None,
            told_at: -1000,
            next_uid: 0,
            trouble: Trouble::default(),
            clients: vec![],
            judged: None,
            written,
        };
        for ordinal in 0..i32::try_from(replicas).expect("a number") {
            let pod = world.new_pod(ordinal, -100);
            world.pods.push(pod);
        }
        world.clients = world.clients_of_both_ends();
        world
    }

    pub(crate) fn now(&self) -> Timestamp {
        at(self.second)
    }

    pub(crate) fn second(&self) -> i64 {
        self.second
    }

    fn new_pod(&mut self, ordinal: i32, ready_at: i64) -> SimPod {
        self.next_uid += 1;
        let files = self.written.files.clone().filter(|_| self.realised);
        let leads_back = self
            .request
            .steps()
            .iter()
            .any(|step| step.name == StepKind::Rollback.as_str());
        let fails = self.trouble.new_pods_fail && self.paused && !leads_back;
        SimPod {
            name: format!("pg-{ordinal}"),
            ordinal,
            uid: self.next_uid,
            has_files: self.realised,
            refreshed: None,
            ready_at: if fails { i64::MAX } else { ready_at },
            gone_at: None,
            mounted: (files.clone(), self.written.conninfo, self.version),
            mounts_at: i64::MAX,
            loaded: files,
            settings: (self.written.serve, self.written.accept),
            dial: self.written.conninfo,
            evictions: 0,
        }
    }

    /// Everybody who can connect at both ends, trusting what is published there.
    fn clients_of_both_ends(&self) -> Vec<Client> {
        let wished = goal::target_spec(&self.database.spec, &self.request.spec, self.major);
        let issuer = wished
            .tls
            .as_ref()
            .and_then(|tls| tls.issuer_ref.as_ref())
            .map_or("old", |issuer| &issuer.name);
        let to = posture(&wished, self.major, Some(&material(9, issuer))).expect("a posture");
        let passwords = [
            None,
            Some(PasswordEncryption::Md5),
            Some(PasswordEncryption::Scram),
        ];
        SslMode::ALL
            .into_iter()
            .flat_map(|mode| passwords.map(|password| (mode, password)))
            .flat_map(|(mode, password)| {
                [None, Some(ca("old"))].map(|certificate| (mode, password, certificate))
            })
            .map(|(mode, password, certificate)| Client {
                mode,
                roots: None,
                password_encryption: password,
                certificate,
            })
            .filter(|client| {
                [&self.written, &to].into_iter().all(|end| {
                    let roots = Some(end.trust()).filter(|roots| !roots.is_empty());
                    can_connect(
                        &Client {
                            roots,
                            ..client.clone()
                        },
                        end,
                    )
                    .is_ok()
                })
            })
            .collect()
    }

    fn is_up(&self, pod: &SimPod) -> bool {
        pod.gone_at.is_none() && pod.ready_at <= self.second
    }

    /// How a pod's server and dialler are now.
    fn posture_of(&self, pod: &SimPod) -> Posture {
        let (serve, accept) = pod.settings;
        Posture {
            files: pod.loaded.clone(),
            serve,
            accept,
            hash: self.hash,
            conninfo: pod.dial,
        }
    }

    fn dials_as(&self, pod: &SimPod) -> Posture {
        Posture {
            files: pod.mounted.0.clone(),
            ..self.posture_of(pod)
        }
    }

    fn leader_pod(&self) -> Option<&SimPod> {
        self.pods.iter().find(|pod| pod.name == self.leader)
    }

    fn streams(&self, pod: &SimPod) -> bool {
        let Some(primary) = self.leader_pod().filter(|primary| self.is_up(primary)) else {
            return false;
        };
        let is_refused = self.is_expired(primary) && pod.dial.mode >= SslMode::VerifyCa
            || self.trouble.client_is_expired && self.presents_old(pod);
        !is_refused && can_replicate(&self.dials_as(pod), &self.posture_of(primary)).is_ok()
    }

    fn presents_old(&self, pod: &SimPod) -> bool {
        pod.dial.sends_client_cert
            && pod.mounted.0.as_ref().map(|files| files.material) == self.origin
    }

    /// cert-manager renews every certificate by itself.
    pub(crate) fn renew(&mut self) {
        let second = self.second;
        self.certificates
            .values_mut()
            .for_each(|certificate| certificate.issued_at = Some(second + 1));
    }

    /// From now on another CA signs for the issuers.
    pub(crate) fn rekey(&mut self, signer: &'static str) {
        self.signer = Some(signer);
    }

    /// What clients find in volumes that are up to date.
    pub(crate) fn told(&self) -> Told {
        (
            self.published.clone(),
            self.issued.map(|issued| issued.client.ca),
        )
    }

    /// Whether the primary lets in a client that found this in its volumes.
    pub(crate) fn lets_in(&self, (roots, certificate): Told) -> Result<(), String> {
        let serving = self.posture_of(self.leader_pod().ok_or("no leader")?);
        let client = Client {
            mode: SslMode::VerifyFull,
            roots: Some(roots),
            password_encryption: None,
            certificate,
        };
        can_connect(&client, &serving).map_err(|refusal| format!("{client:?}: {refusal}"))
    }

    /// Whether nobody but the CA that signs now is trusted, by servers and by clients.
    pub(crate) fn trusts_only_who_signs(&self) -> bool {
        let only = BTreeSet::from([ca(self.signer.expect("another signer"))]);
        self.published == only
            && self
                .pods
                .iter()
                .all(|pod| pod.loaded.as_ref().is_some_and(|f| f.trust == only))
    }

    pub(crate) fn primary_serves_what_was_issued(&self) -> bool {
        let loaded = self
            .leader_pod()
            .and_then(|pod| pod.loaded.as_ref())
            .map(|files| files.material);
        loaded == self.issued && loaded != self.origin
    }

    /// Second at which what this pod serves expires, if it ever does.
    fn ends_at(&self, pod: &SimPod) -> Option<i64> {
        self.trouble
            .leaves_end_at
            .filter(|_| pod.loaded.as_ref().map(|files| files.material) == self.origin)
    }

    fn is_expired(&self, pod: &SimPod) -> bool {
        self.ends_at(pod).is_some_and(|end| end <= self.second)
    }

    /// One second passes.
    pub(crate) fn pass(&mut self) {
        self.second += 1;
        let second = self.second;
        if self.realised_at <= second {
            self.realised = self.template_has_files;
        }
        for at in 0..self.pods.len() {
            if self.pods[at].gone_at.is_some_and(|gone| gone <= second) {
                let (ordinal, evictions) = (self.pods[at].ordinal, self.pods[at].evictions);
                self.pods[at] = SimPod {
                    evictions,
                    ..self.new_pod(ordinal, second + 5)
                };
            }
        }
        for pod in &mut self.pods {
            if pod.mounts_at <= second {
                pod.mounts_at = i64::MAX;
                pod.mounted = (
                    self.written.files.clone().filter(|_| pod.has_files),
                    self.written.conninfo,
                    self.version,
                );
            }
            // What made it fail goes with the files that were asked for.
            if pod.ready_at == i64::MAX && pod.mounted.0 != pod.loaded {
                pod.ready_at = second + 5;
                pod.loaded.clone_from(&pod.mounted.0);
            }
            if self.settings_at <= second && pod.ready_at <= second {
                pod.settings = (self.written.serve, self.written.accept);
            }
        }
        if let Some((to, _)) = self.switching.take_if(|(_, at)| *at <= second) {
            self.hand_over(to);
        }
        if self.leader_pod().is_none_or(|pod| !self.is_up(pod)) {
            self.fail_over();
        }
        if second % LOOP_WAIT == 0 {
            self.choose_synchronous();
        }
        for certificate in self.certificates.values_mut() {
            if certificate.issued_at.is_some_and(|at| at <= second) {
                certificate.issued_at = None;
                certificate.revision += 1;
                let issuer = certificate
                    .spec
                    .tls
                    .as_ref()
                    .and_then(|tls| tls.issuer_ref.clone())
                    .expect("an issuer");
                self.serial = self
                    .serial
                    .max(u8::try_from(certificate.revision).expect("few"));
                self.issued = Some(material(self.serial, self.signer.unwrap_or(&issuer.name)));
            }
        }
        let all_up = self.pods.iter().all(|pod| self.is_up(pod));
        let phase = if all_up {
            DatabasePhase::Ready
        } else {
            DatabasePhase::Critical
        };
        self.database.status.get_or_insert_default().phase = Some(phase);
    }

    /// Patroni promotes a standby that streamed, if there is one.
    pub(crate) fn fail_over(&mut self) {
        let may_lead = |pod: &&SimPod| {
            self.is_up(pod) && pod.name != self.leader && self.successors().include(&pod.name)
        };
        let next = self.pods.iter().find(may_lead).map(|pod| pod.name.clone());
        if let Some(next) = next {
            self.lead(next);
            self.switching = None;
        }
    }

    /// Commits wait for so many standbys.
    pub(crate) fn synchronise(&mut self, count: usize) {
        self.synchronous = Some(Synchronous {
            count,
            standbys: BTreeSet::new(),
            dropped: 0,
        });
        self.choose_synchronous();
    }

    /// How many switchovers Patroni has dropped, because they named a standby that is not
    /// synchronous.
    pub(crate) fn dropped(&self) -> u32 {
        self.synchronous
            .as_ref()
            .map_or(0, |synchronous| synchronous.dropped)
    }

    /// Patroni's primary keeps those that stream and takes others for those that do not, whichever
    /// it finds first.
    fn choose_synchronous(&mut self) {
        if self.leader_pod().is_none_or(|leader| !self.is_up(leader)) {
            return;
        }
        let streaming = self
            .pods
            .iter()
            .filter(|pod| pod.name != self.leader && self.is_up(pod) && self.streams(pod));
        let streaming: Vec<String> = streaming.map(|pod| pod.name.clone()).collect();
        let Some(Synchronous {
            count, standbys, ..
        }) = &mut self.synchronous
        else {
            return;
        };
        standbys.retain(|name| streaming.contains(name));
        for name in streaming.into_iter().rev() {
            if standbys.len() < *count {
                standbys.insert(name);
            }
        }
    }

    fn successors(&self) -> SwitchoverCandidates {
        self.synchronous
            .as_ref()
            .map_or(SwitchoverCandidates::Any, |known| {
                SwitchoverCandidates::Only(known.standbys.clone())
            })
    }

    /// Patroni hands the leadership over only to who is synchronous, and forgets that anybody else
    /// was named.
    fn hand_over(&mut self, to: String) {
        match &mut self.synchronous {
            Some(synchronous) if !synchronous.standbys.contains(&to) => synchronous.dropped += 1,
            _ => self.lead(to),
        }
    }

    /// A new primary begins with nobody who is synchronous.
    fn lead(&mut self, pod: String) {
        self.leader = pod;
        if let Some(synchronous) = &mut self.synchronous {
            synchronous.standbys.clear();
        }
    }

    pub(crate) fn kill(&mut self, at: usize) {
        let second = self.second;
        let at = at % self.pods.len();
        self.pods[at].gone_at.get_or_insert(second + 1);
    }

    /// What the loop of the databases does meanwhile: certificates as the spec wants them, and what
    /// was issued into service.
    pub(crate) fn provision(&mut self) {
        let spec = self.database.spec.clone();
        if self.paused {
            return;
        }
        if spec.tls.is_some()
            && self
                .certificates
                .values()
                .any(|certificate| certificate.spec.tls != spec.tls)
        {
            return self.certify(&spec);
        }
        let is_issued = self
            .certificates
            .values()
            .all(|certificate| certificate.issued_at.is_none());
        let issued = self.issued.as_ref().filter(|_| is_issued);
        let scene = self.scene();
        let Some(target) = steady_state_target(&scene.applied, &spec, self.major, issued) else {
            return;
        };
        let heading = next_step(&scene, &target, None);
        if grace::grace(&scene, &heading, grace::for_renewal(&self.database)).is_some() {
            return;
        }
        if let Progress::Act { actions, .. } = heading {
            for action in actions {
                self.perform_on_cluster(action);
            }
        }
    }

    /// This pod is away, and does not come back by itself.
    pub(crate) fn lose(&mut self, pod: usize) {
        self.pods[pod].ready_at = i64::MAX;
    }

    /// The request does not wait for the database to be ready.
    pub(crate) fn always(&mut self) {
        self.request.spec.apply = Apply::Always;
    }

    /// The request came without the webhooks' finalizer, or somebody replaces it by its manifest.
    pub(crate) fn take_finalizer(&mut self) {
        self.request.finalizers_mut().clear();
    }

    /// Each step may take no longer than this.
    pub(crate) fn hurry(&mut self, timeout: &str) {
        self.request.spec.timeout = Some(timeout.to_owned());
    }

    /// Pods that would never have become ready are replaced by ones that do.
    pub(crate) fn mend(&mut self) {
        let second = self.second;
        for pod in self.pods.iter_mut().filter(|pod| pod.ready_at == i64::MAX) {
            pod.ready_at = second + 5;
        }
    }

    /// What the product sees.
    pub(crate) fn look(&self) -> Observed {
        let wished = goal::target_spec(&self.database.spec, &self.request.spec, self.major);
        let is_blind = self.second < self.trouble.blind_until;
        let unknown = || Unknown::NoAnswer("no answer".to_owned());
        let closed = self.second < self.trouble.budget_closed_until
            || self.pods.iter().any(|pod| !self.is_up(pod));
        let live = Live {
            major: self.major,
            issuance: if is_blind {
                Err(unknown())
            } else {
                Ok(self.issuance(&wished))
            },
            cluster: if is_blind {
                Err(unknown())
            } else {
                Ok(self.scene())
            },
            budgets: if is_blind {
                Err(unknown())
            } else {
                Ok(self.budgets(closed))
            },
        };
        Observed {
            stored: StoredStatus {
                status: self.request.status.clone(),
                since: None,
            },
            request: Arc::new(self.request.clone()),
            database: Some(Arc::new(self.database.clone())),
            siblings: vec![Arc::new(self.request.clone())],
            free_slots: usize::from(!self.trouble.crowded.contains(&self.second)),
            refused: vec![],
            paused: if self.paused {
                Paused::ByUs
            } else {
                Paused::No
            },
            pod_uids: if is_blind || self.request.begun_on().is_some() {
                Err(unknown())
            } else {
                Ok(self.uids())
            },
            live: Ok(live),
            last_failure: None,
        }
    }

    fn budgets(&self, closed: bool) -> Budgets {
        let second = Budget {
            name: "demo/extra".to_owned(),
            pods: vec!["pg-0".to_owned()],
            allowed: 1,
        };
        Budgets {
            own: (self.pods.len() > 1).then_some(i32::from(!closed)),
            others: (self.second < self.trouble.second_budget_until)
                .then_some(second)
                .into_iter()
                .collect(),
        }
    }

    fn uids(&self) -> BTreeMap<String, String> {
        self.pods
            .iter()
            .map(|pod| (pod.name.clone(), pod.uid.to_string()))
            .collect()
    }

    fn issuance(&self, wished: &PostgresSpec) -> Issuance {
        let trial = match self.trial {
            None => Trial::Absent,
            Some(at) if self.second < at => Trial::Pending,
            Some(_) if self.trouble.trial_fails => Trial::Failed("the policy says no".to_owned()),
            Some(_) => {
                let issuer = wished
                    .tls
                    .as_ref()
                    .and_then(|tls| tls.issuer_ref.as_ref())
                    .expect("an issuer");
                Trial::Passed(BTreeSet::from([ca(&issuer.name)]))
            }
        };
        let certificates = self.certificates.iter().map(|(alias, certificate)| {
            let seen = ObservedCertificate {
                matches: certificate.spec.tls == wished.tls,
                ready: certificate.issued_at.is_none(),
                issuing: certificate.issued_at.is_some(),
                revision: certificate.revision,
                requested_at_revision: certificate.asked,
                failure: None,
            };
            (*alias, seen)
        });
        let not_ready = self
            .trouble
            .issuer_is_never_ready
            .then(|| "issuer new: its Secret is missing".to_owned());
        Issuance {
            not_ready: not_ready.into_iter().collect(),
            trial,
            conflicts: vec![],
            certificates: certificates.collect(),
            issued: self.issued.map(|material| match self.trouble.bad_leaf {
                Some(why) if self.origin != Some(material) => Err(why.to_owned()),
                _ => Ok(material),
            }),
        }
    }

    pub(crate) fn scene(&self) -> ObservedCluster {
        let stored = self.written.files.as_ref().map(|files| files.material);
        ObservedCluster {
            database: "pg".to_owned(),
            applied: Posture {
                files: self
                    .written
                    .files
                    .clone()
                    .filter(|_| self.template_has_files),
                ..self.written.clone()
            },
            template: Template {
                has_files: self.template_has_files,
                is_known: self.realised == self.template_has_files,
            },
            client_bundle: self.published.clone(),
            trust_changed_at: Some(at(self.told_at)),
            in_secret: stored,
            leaf_expires_at: self
                .trouble
                .leaves_end_at
                .filter(|_| stored == self.origin)
                .map(at),
            previous: self.previous,
            volume_version: self.version.to_string(),
            is_ephemeral: self.trouble.is_ephemeral,
            replicas: self.pods.len(),
            pods: self.pods.iter().map(|pod| self.pod(pod)).collect(),
            leader: Ok(self.leader.clone()),
            switchover_candidates: self.successors(),
            switchover_pending: self.switching.is_some(),
            max_lag: 1 << 20,
            observed_at: self.now(),
            client_expired: self.trouble.client_is_expired
                && self.pods.iter().any(|pod| self.presents_old(pod)),
        }
    }

    fn pod(&self, pod: &SimPod) -> ObservedPod {
        let is_up = self.is_up(pod);
        ObservedPod {
            name: pod.name.clone(),
            ordinal: pod.ordinal,
            uid: pod.uid.to_string(),
            ready: is_up && (pod.name == self.leader || self.streams(pod)),
            terminating: pod.gone_at.is_some(),
            has_files: pod.has_files,
            refreshed_for: pod.refreshed.clone(),
            server: if is_up {
                Ok(self.server(pod))
            } else {
                Err(Unknown::NoAnswer("cannot be reached".to_owned()))
            },
        }
    }

    fn server(&self, pod: &SimPod) -> ObservedServer {
        let standby = pod.name != self.leader;
        let (serve, accept) = pod.settings;
        let settings = Posture {
            serve,
            accept,
            ..self.written.clone()
        };
        let files = self.written.files.clone().filter(|_| pod.has_files);
        let others = self
            .pods
            .iter()
            .filter(|other| !standby && other.name != pod.name && self.is_up(other));
        let streams = others.filter(|other| self.streams(other)).map(|other| {
            let tls = serve == ServerTls::Tls && other.dial.mode >= SslMode::Prefer;
            let replayed = if self.second < self.trouble.behind_until {
                0
            } else {
                WRITTEN
            };
            (
                other.name.clone(),
                StandbyReplication {
                    streaming: true,
                    replayed,
                    tls,
                    client_cert: tls && other.dial.sends_client_cert,
                },
            )
        });
        ObservedServer {
            in_recovery: standby,
            wal_position: WRITTEN,
            ssl: serve == ServerTls::Tls,
            hba: hba::lines(&settings),
            accepts_plaintext: accept.plain.is_some(),
            served_leaf: self.posture_of(pod).served().map(|leaf| leaf.fingerprint),
            files_current: pod.mounted.0 == files,
            files_loaded: pod.loaded == pod.mounted.0,
            patroni_yml_current: pod.mounted.1 == self.written.conninfo,
            conninfo: standby.then_some(pod.dial),
            replication: streams.collect(),
            superuser_password_is_md5: self.hash == PasswordEncryption::Md5,
            md5_roles: self.md5_roles.clone(),
            leaf: self.ends_at(pod).map(|end| LeafSummary {
                serial: "1".to_owned(),
                not_after: at(end),
            }),
            trusts: vec![],
        }
    }

    /// What an action does.
    pub(crate) fn perform(&mut self, action: &Action) {
        match action {
            Action::Request(action) => self.perform_on_request(action.clone()),
            Action::Cluster(action) => self.perform_on_cluster(action.clone()),
        }
    }

    fn perform_on_request(&mut self, action: RequestAction) {
        match action {
            RequestAction::AddFinalizer => {
                self.request
                    .finalizers_mut()
                    .push(OPS_REQUEST_FINALIZER.to_owned());
            }
            RequestAction::RemoveFinalizer => self.request.finalizers_mut().clear(),
            RequestAction::Pause => self.paused = true,
            RequestAction::Resume => self.paused = false,
            RequestAction::WriteSpec(spec) => self.database.spec = *spec,
            RequestAction::Delete => self.request_is_gone = true,
        }
    }

    fn perform_on_cluster(&mut self, action: ClusterAction) {
        let second = self.second;
        match action {
            ClusterAction::StartTrial => self.trial = self.trial.or(Some(second + 1)),
            ClusterAction::EndTrial => self.trial = None,
            ClusterAction::RequestCertificates(spec) => self.certify(&spec),
            ClusterAction::Reissue { alias, revision } => {
                let certificate = self.certificates.get_mut(&alias).expect("a certificate");
                if certificate.revision == revision {
                    certificate.asked = Some(revision);
                    certificate.issued_at.get_or_insert(second + 2);
                }
            }
            ClusterAction::PublishBundle(trust) => {
                self.published = trust;
                self.told_at = second;
            }
            ClusterAction::WriteSettings(posture) => {
                self.written = Posture {
                    files: self.written.files.clone(),
                    conninfo: self.written.conninfo,
                    ..posture
                };
                self.settings_at = second + 1;
                // This is when pods are behind what is written.
                self.lets_pgrekey_in().expect("a way in");
            }
            ClusterAction::WriteFiles(files) => self.write_files(files),
            ClusterAction::WriteConninfo(posture) => {
                self.written.conninfo = posture.conninfo;
                self.version += 1;
            }
            ClusterAction::WriteTemplate(volume) => {
                self.template_has_files = volume == CertificateVolume::Mounted;
                self.realised_at = second + 3;
            }
            ClusterAction::SetPassword(hash) => self.hash = hash,
            ClusterAction::Touch { pod, version } => self.with(&pod, |pod| {
                pod.refreshed = Some(version.clone());
                pod.mounts_at = second + 1;
            }),
            ClusterAction::ReloadServer(pod) => {
                let refused = self.origin.filter(|_| self.trouble.leaves_are_refused);
                self.with(&pod, |pod| {
                    let is_new = pod.mounted.0.as_ref().map(|files| files.material) != refused;
                    if refused.is_none() || !is_new {
                        pod.loaded.clone_from(&pod.mounted.0);
                    }
                });
            }
            ClusterAction::ReloadPatroni(pod) => self.with(&pod, |pod| pod.dial = pod.mounted.1),
            ClusterAction::Evict(_) if second < self.trouble.budget_closed_until => {}
            ClusterAction::Evict(pod) => self.with(&pod, |pod| {
                pod.gone_at = Some(second + 1);
                pod.evictions += 1;
            }),
            ClusterAction::SwitchOver { from, to } => {
                if self.leader == from {
                    self.switching = Some((to, second + 2));
                }
            }
        }
    }

    fn certify(&mut self, spec: &PostgresSpec) {
        let second = self.second;
        let wanted = spec.tls.clone();
        for alias in Alias::ALL {
            let fresh = SimCertificate {
                spec: spec.clone(),
                revision: 0,
                asked: None,
                issued_at: Some(second + 2),
            };
            let certificate = self.certificates.entry(alias).or_insert(fresh);
            if certificate.spec.tls != wanted {
                certificate.spec = spec.clone();
                certificate.issued_at = Some(second + 2);
            }
        }
    }

    fn write_files(&mut self, files: Files) {
        let old = self.written.files.as_ref().map(|files| files.material);
        if old != Some(files.material) {
            self.previous = if self.previous == Some(files.material) {
                None
            } else {
                old
            };
        }
        self.written.files = Some(files);
        self.version += 1;
        self.told_at = self.second;
    }

    fn with(&mut self, PodRef { name, uid }: &PodRef, change: impl FnOnce(&mut SimPod)) {
        if let Some(pod) = self
            .pods
            .iter_mut()
            .find(|pod| pod.name == *name && pod.uid.to_string() == *uid)
        {
            change(pod);
        }
    }

    /// Whether every pod takes TLS where plaintext is not written to be taken: pgrekey does not try
    /// plaintext there.
    fn lets_pgrekey_in(&self) -> Result<(), String> {
        let takes_tls =
            |pod: &SimPod| pod.settings.1.tls.is_some() && self.posture_of(pod).served().is_some();
        let shut = self
            .pods
            .iter()
            .find(|pod| self.is_up(pod) && !takes_tls(pod));
        match shut.filter(|_| self.written.accept.plain.is_none()) {
            Some(pod) => Err(format!(
                "{} takes no TLS, and plaintext is not written to be taken",
                pod.name
            )),
            None => Ok(()),
        }
    }

    /// What must hold at every moment.
    ///
    /// `restarts` is how often a pod may have been restarted by now.
    pub(crate) fn law(&mut self, disturbed: bool, restarts: u32) -> Result<(), String> {
        let down: Vec<&str> = self
            .pods
            .iter()
            .filter(|pod| !self.is_up(pod))
            .map(|pod| pod.name.as_str())
            .collect();
        if down.len() > 1 && !disturbed {
            return Err(format!("more than one pod is down: {down:?}"));
        }
        if let Some(pod) = self
            .pods
            .iter()
            .find(|pod| pod.evictions > restarts && !disturbed)
        {
            return Err(format!(
                "{} was restarted {} times",
                pod.name, pod.evictions
            ));
        }
        self.lets_pgrekey_in()?;
        let Some(primary) = self.leader_pod().filter(|pod| self.is_up(pod)) else {
            return Ok(());
        };
        let serving = self.posture_of(primary);
        for standby in self
            .pods
            .iter()
            .filter(|pod| self.is_up(pod) && pod.name != self.leader)
        {
            can_replicate(&self.dials_as(standby), &serving).map_err(|refusal| {
                format!("{} does not join {}: {refusal}", standby.name, primary.name)
            })?;
        }
        // Users' pods may mount what is issued.
        if let (Some(issued), Some(pgrekey::tls::Method::Cert)) = (self.issued, serving.accept.tls)
        {
            let (roots, certificate) = (Some(self.published.clone()), Some(issued.client.ca));
            let mode = SslMode::VerifyFull;
            can_connect(
                &Client {
                    mode,
                    roots,
                    password_encryption: None,
                    certificate,
                },
                &serving,
            )
            .map_err(|refusal| {
                format!(
                    "a client with the certificate that was issued at {}: {refusal}",
                    primary.name
                )
            })?;
        }
        let now = (serving.clone(), self.published.clone());
        if self.judged.as_ref() == Some(&now) {
            return Ok(());
        }
        let roots = Some(self.published.clone()).filter(|roots| !roots.is_empty());
        for client in &self.clients {
            let client = Client {
                roots: roots.clone(),
                password_encryption: client.password_encryption.map(|_| self.hash),
                ..client.clone()
            };
            if client
                .certificate
                .is_some_and(|ca| !serving.trust().contains(&ca))
            {
                // A client whose certificate comes from the old CA needs a new one once that CA has
                // gone.
                continue;
            }
            can_connect(&client, &serving)
                .map_err(|refusal| format!("{client:?} at {}: {refusal}", primary.name))?;
        }
        self.judged = Some(now);
        Ok(())
    }

    /// Resumed, and every pod serves what the spec says.
    pub(crate) fn is_well(&self) -> Result<(), String> {
        if self.paused {
            return Err("the database is still paused".to_owned());
        }
        if !self.request.finalizers().is_empty() && !self.request_is_gone {
            return Err("the request is still held".to_owned());
        }
        let scene = self.scene();
        let served = self.written.files.as_ref().map(|files| files.material);
        let wanted =
            posture(&self.database.spec, self.major, served.as_ref()).ok_or("no posture")?;
        if scene.applied != wanted {
            return Err("what is written is not what the spec asks for".to_owned());
        }
        scene
            .pods
            .iter()
            .try_for_each(|pod| match scene.drift(pod) {
                None => Ok(()),
                Some(lack) => Err(format!("{}: {lack:?}", pod.name)),
            })
    }

    pub(crate) fn evictions(&self) -> Vec<u32> {
        self.pods.iter().map(|pod| pod.evictions).collect()
    }
}
