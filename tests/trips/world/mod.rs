//! A simulated cluster: the TLS side of an API server, a kubelet, Patroni, PostgreSQL and
//! cert-manager, one second at a time. The world has the facts; the product sees them only through
//! [`World::observe`].

mod certificates;
mod clients;
mod law;
mod observe;
mod patroni;
mod perform;
mod pods;
mod scenario;
mod trouble;
mod writes;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use pgrekey::api::ops_request::Apply;
use pgrekey::api::postgres::DatabasePhase;
use pgrekey::api::{Postgres, PostgresOpsRequest};
use pgrekey::pki::{CaId, Material};
use pgrekey::plan::preview::PodStrategy;
use pgrekey::tls::{Alias, Client, PasswordEncryption, Posture, posture};

use certificates::{SimCertificate, material};
pub(crate) use clients::ClientVolumes;
use patroni::Synchronous;
use pods::SimPod;
pub(crate) use scenario::{SCENARIOS, Scenario};
pub(crate) use trouble::Trouble;
use writes::SimTrial;

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
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
    /// Whether the template of new pods has the volume with certificates.
    template_has_files: bool,
    /// Whether the StatefulSet makes pods with that volume: it follows the template at this second.
    realised: bool,
    realised_at: i64,
    published: BTreeSet<CaId>,
    previous: Option<Material>,
    version: u32,
    pods: Vec<SimPod>,
    pub(crate) leader: String,
    switching: Option<(String, i64)>,
    /// `None` where commits wait for no standby.
    synchronous: Option<Synchronous>,
    hash: PasswordEncryption,
    pub(crate) md5_roles: Vec<String>,
    certificates: BTreeMap<Alias, SimCertificate>,
    trial: BTreeMap<Alias, SimTrial>,
    issued: Option<Material>,
    /// The keys that were served at the beginning.
    origin: Option<Material>,
    serial: u8,
    /// The name of the CA that signs for every issuer, once it is not the first one of the issuer.
    signer: Option<&'static str>,
    /// Second at which the trusted CAs last changed, for pods or for clients.
    trust_changed_at: i64,
    next_uid: u64,
    pub(crate) trouble: Trouble,
    /// The clients that can connect before and after the operation.
    clients: Vec<Client>,
    /// The primary and the bundle with which these clients were last seen to connect.
    judged: Option<(Posture, BTreeSet<CaId>)>,
}

impl World {
    pub(crate) fn new(scenario: &Scenario, replicas: u32, strategy: PodStrategy) -> Self {
        let database = scenario.database(replicas);
        let major = 17;
        let served = database.spec.tls.as_ref().map(|_| material(1, "old"));
        let written = posture(&database.spec, major, served.as_ref()).expect("a posture");
        let certificates = served.map(|_| certificates::issued(&database.spec));
        let mut world = Self {
            second: 0,
            database,
            paused: false,
            request: scenario.request(strategy),
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
            trial: BTreeMap::new(),
            issued: served,
            origin: served,
            serial: 1,
            signer: None,
            trust_changed_at: -1000,
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

    /// One second passes.
    pub(crate) fn pass(&mut self) {
        self.second += 1;
        if self.realised_at <= self.second {
            self.realised = self.template_has_files;
        }
        self.replace_pods_that_are_gone();
        self.update_pods();
        self.run_patroni();
        self.issue_certificates();
        let all_up = self.pods.iter().all(|pod| self.is_up(pod));
        let phase = if all_up {
            DatabasePhase::Ready
        } else {
            DatabasePhase::Critical
        };
        self.database.status.get_or_insert_default().phase = Some(phase);
    }

    /// The request does not wait for the database to be ready.
    pub(crate) fn apply_always(&mut self) {
        self.request.spec.apply = Apply::Always;
    }

    /// The request loses the webhooks' finalizer, as one that is replaced by its manifest does.
    pub(crate) fn take_finalizer(&mut self) {
        self.request.finalizers_mut().clear();
    }

    /// Each step may take no longer than this.
    pub(crate) fn set_timeout(&mut self, timeout: &str) {
        self.request.spec.timeout = Some(timeout.to_owned());
    }
}
