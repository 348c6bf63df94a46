//! One database in full: its objects, its pods and its servers.
//!
//! # Expected flow
//! [`ClusterObjects::observe`] reads the objects; [`ClusterObjects::observe_cluster`] then asks
//! every server, so that the servers are asked last, and gives the plan what it decides by.

use futures::future;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use secrecy::SecretString;

use crate::api::annotations::{MAX_LAG, REFRESHED_FOR};
use crate::api::ports::POSTGRES_PORT;
use crate::api::{PetSet, Postgres};
use crate::build::Cluster;
use crate::build::applied::{PostureManifests, has_files, read_posture};
use crate::build::current_posture::PostureObjects;
use crate::build::tls_groups::Images;
use crate::build::workload::{Workload, ordinal};
use crate::cluster::Objects;
use crate::controller::Context;
use crate::controller::login::Login;
use crate::controller::observe::instance::{LoginKeys, host, log_in, observe_server};
use crate::controller::observe::patroni::PatroniRecords;
use crate::controller::observe::spec::{Parsed, SpecProblem};
use crate::controller::observe::stored_certificates::StoredCertificates;
use crate::controller::observe::{instance, posture, spec, superuser, workload};
use crate::controller::outcome::{Interrupt, Pending, ReconcileResult, ServerCall};
use crate::database::probe::probe;
use crate::database::session::Session;
use crate::pki::Fingerprint;
use crate::pki::check::has_channel_binding;
use crate::pki::issued::{ServedMaterial, ders};
use crate::plan::action::PodRef;
use crate::plan::observed::cluster::{ObservedCluster, ObservedPod, Template};
use crate::plan::observed::instance::{ExpectedServer, address, client_expired, is_ready};
use crate::plan::waiting::{Unknown, Waiting};
use crate::tls::{Posture, layout};

/// The lag in bytes that is allowed for a database without the annotation [`MAX_LAG`].
const DEFAULT_MAX_LAG: u64 = 1 << 20;

/// The objects of a database, read in this pass.
pub(crate) struct ClusterObjects {
    pub(crate) cluster: Cluster,
    pub(crate) objects: Objects,
    pub(crate) login: Login,
    /// The password of Patroni's REST API.
    pub(crate) patroni_password: Option<SecretString>,
    pub(crate) posture_objects: PostureObjects,
    pub(crate) certificates: StoredCertificates,
    /// The pods of the workload, by ordinal; none if the workload is not known.
    pub(crate) pods: Vec<Pod>,
    /// The controller of the pods, or why it is not known.
    workload: Result<Workload, String>,
    patroni: PatroniRecords,
    max_lag: u64,
    /// Why the spec must not, or cannot, be built; `None` if it can.
    spec_problem: Option<SpecProblem>,
    observed_at: Timestamp,
}

/// What is made of a spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BuiltFromSpec {
    /// Pods, from the whole spec.
    Pods,
    /// Their settings, for which the spec need only be readable.
    Settings,
}

impl ClusterObjects {
    /// Reads the objects of a database. `operation` is the uid of the request that works on it.
    pub(crate) async fn observe(
        context: &Context,
        postgres: &Postgres,
        operation: Option<&str>,
    ) -> ReconcileResult<Self> {
        let observed_at = context.now();
        let secret = superuser::fetch_auth_secret(context, postgres).await?;
        let login = secret
            .as_ref()
            .and_then(|secret| Login::parse(secret).ok())
            .ok_or(Interrupt::Wait(Pending::SuperuserSecret))?;
        let Parsed {
            cluster,
            tls_groups,
            spec_problem,
            ..
        } = spec::parse(context, postgres, secret.as_ref()).await?;
        let objects = spec::objects(context, postgres, &cluster)?;
        let patroni_secret = cluster.names().patroni();
        let (posture_objects, patroni_secret, labelled) = tokio::try_join!(
            posture::fetch(&objects, &cluster),
            objects.get::<Secret>(&patroni_secret),
            objects.labelled::<Pod>(),
        )?;
        let config = posture_objects.shared_config();
        let (certificates, patroni, workload) = tokio::try_join!(
            StoredCertificates::fetch(&objects, &cluster, &posture_objects, operation, observed_at),
            PatroniRecords::fetch(&objects, &cluster, config.as_ref()),
            workload::workload(
                context,
                &objects,
                postgres,
                posture_objects.pet_set.as_ref()
            ),
        )?;
        let images = Images::new(cluster.name(), posture_objects.pet_set.as_ref(), &labelled);
        let cluster = cluster.with_default_groups(&tls_groups, &images);
        let max_lag = postgres.annotations().get(MAX_LAG);
        Ok(Self {
            login,
            patroni_password: patroni_secret
                .and_then(|secret| Login::parse(&secret).ok())
                .map(|login| login.password),
            certificates,
            pods: own_pods(labelled, &workload, &cluster),
            workload,
            patroni,
            max_lag: max_lag
                .and_then(|bytes| bytes.parse().ok())
                .unwrap_or(DEFAULT_MAX_LAG),
            spec_problem,
            observed_at,
            posture_objects,
            objects,
            cluster,
        })
    }

    /// Fails if the spec is not good enough for what is to be made of it.
    pub(crate) fn require_buildable(&self, for_: BuiltFromSpec) -> ReconcileResult<()> {
        let problem = self.spec_problem.as_ref().filter(|problem| match for_ {
            BuiltFromSpec::Pods => true,
            BuiltFromSpec::Settings => problem.is_unreadable,
        });
        match problem {
            None => Ok(()),
            Some(problem) => Err(Interrupt::Blocked("Invalid", problem.why.clone())),
        }
    }

    /// The posture that the objects say, or why they say none.
    pub(crate) fn applied_posture(&self) -> Result<Posture, String> {
        let objects = &self.posture_objects;
        let shared = objects
            .shared_config()
            .ok_or("Patroni's shared configuration cannot be read")?;
        let patroni = objects.local_config().ok_or("patroni.yml cannot be read")?;
        let set = objects.pet_set.as_ref().ok_or("there is no PetSet")?;
        let tls = objects.tls.as_ref().and_then(|secret| secret.data.as_ref());
        read_posture(&PostureManifests {
            tls,
            dynamic: &shared,
            local: patroni,
            files: has_files(set),
        })
        .map_err(|why| why.to_string())
    }

    /// Names the content that the pods' volumes should have: it changes with the content.
    pub(crate) fn volume_version(&self) -> String {
        let tls = self.posture_objects.tls.iter();
        let tls = tls.flat_map(|secret| secret.data.iter().flatten());
        let files = tls
            .filter(|(key, _)| layout::FILES.iter().any(|(mounted, _)| mounted == key))
            .flat_map(|(key, value)| [key.as_bytes(), &value.0]);
        let local = self.posture_objects.local_config().map(String::as_bytes);
        let all: Vec<u8> = files.chain(local).flatten().copied().collect();
        let mut version = Fingerprint::sha256(&all).to_string();
        version.truncate(16);
        version
    }

    /// Asks every server, and puts together what the plan decides by.
    pub(crate) async fn observe_cluster(&self) -> Result<ObservedCluster, Unknown> {
        let unreadable = |what: &str| Unknown::Unreadable(what.to_owned());
        let applied = self.applied_posture().map_err(Unknown::Unreadable)?;
        let set = self.posture_objects.pet_set.as_ref();
        let set = set.ok_or_else(|| unreadable("there is no PetSet"))?;
        self.workload.as_ref().map_err(|why| unreadable(why))?;
        let pods = self.observe_pods(&applied).await;
        let certificates = &self.certificates;
        let (in_secret, previous) = (&certificates.in_secret, &certificates.previous);
        let client_end =
            |served: &Option<ServedMaterial>| served.as_ref().and_then(ServedMaterial::client_ends);
        Ok(ObservedCluster {
            database: self.cluster.name().to_owned(),
            template: Template {
                has_files: has_files(set),
                is_known: is_observed(set),
            },
            client_bundle: certificates.client_bundle.keys().copied().collect(),
            trust_changed_at: certificates.trust_changed_at,
            in_secret: in_secret.as_ref().and_then(ServedMaterial::material),
            lacks_channel_binding: in_secret.as_ref().is_some_and(|served| {
                let pair = served.server.pair();
                pair.is_ok_and(|pair| !has_channel_binding(&pair))
            }),
            leaf_expires_at: in_secret.as_ref().and_then(ServedMaterial::ends),
            previous: previous.as_ref().and_then(ServedMaterial::material),
            volume_version: self.volume_version(),
            is_ephemeral: set.spec.volume_claim_templates.is_empty(),
            // The set's number: while the database is paused, a changed number in its spec makes no
            // pod.
            replicas: usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or_default(),
            leader: self
                .patroni
                .leader()
                .map(str::to_owned)
                .ok_or(Waiting::Leader),
            switchover_candidates: self.patroni.switchover_candidates.clone(),
            switchover_pending: self.patroni.switchover_pending(),
            max_lag: self.max_lag,
            observed_at: self.observed_at,
            client_expired: client_expired(
                client_end(in_secret),
                client_end(previous),
                &pods,
                self.observed_at,
            ),
            pods,
            applied,
        })
    }

    async fn observe_pods(&self, applied: &Posture) -> Vec<ObservedPod> {
        let served = self.certificates.in_secret.as_ref();
        let patroni_yml = self.posture_objects.local_config();
        let expected = ExpectedServer::new(
            served.filter(|_| applied.files.is_some()),
            patroni_yml.map(String::as_str),
        );
        let keys = self.login_keys(applied);
        let pods = self.pods.iter();
        future::join_all(pods.map(|pod| self.observe_pod(pod, &keys, &expected))).await
    }

    async fn observe_pod(
        &self,
        pod: &Pod,
        keys: &LoginKeys,
        expected: &ExpectedServer,
    ) -> ObservedPod {
        let name = pod.name_any();
        let host = self.host(&name);
        ObservedPod {
            ordinal: ordinal(self.cluster.name(), &name).unwrap_or_default(),
            uid: pod.uid().unwrap_or_default(),
            ready: is_ready(pod),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            has_files: instance::has_files(pod),
            refreshed_for: pod.annotations().get(REFRESHED_FOR).cloned(),
            server: observe_server(pod, &host, keys, expected).await,
            name,
        }
    }

    /// The pod that leads, by Patroni's own record.
    pub(crate) fn leader(&self) -> Option<&Pod> {
        let leader = self.patroni.leader()?;
        self.pods.iter().find(|pod| pod.name_any() == leader)
    }

    /// The pod of this name, if it still has this uid.
    pub(crate) fn find_pod(&self, PodRef { name, uid }: &PodRef) -> Option<&Pod> {
        self.pods
            .iter()
            .find(|pod| pod.name_any() == *name && pod.uid().as_ref() == Some(uid))
    }

    /// Logs in to the server of a pod.
    pub(crate) async fn log_in(&self, pod: &Pod) -> ReconcileResult<Session> {
        let name = pod.name_any();
        let address = address(pod, POSTGRES_PORT.number).map_err(|why| {
            Interrupt::Wait(Pending::Address {
                pod: name.clone(),
                why,
            })
        })?;
        let applied = self
            .applied_posture()
            .map_err(|why| Interrupt::Blocked("PostureUnknown", why))?;
        let keys = self.login_keys(&applied);
        let shown = probe(address, &self.login.username).await;
        log_in(address, &self.host(&name), &keys, &shown)
            .await
            .map_err(|error| {
                Interrupt::Wait(Pending::Server {
                    pod: name,
                    attempt: ServerCall::LogIn,
                    error,
                })
            })
    }

    /// The means to log in to the servers of a cluster in this posture.
    fn login_keys(&self, applied: &Posture) -> LoginKeys {
        LoginKeys {
            login: self.login.clone(),
            roots: self
                .certificates
                .cas()
                .values()
                .flat_map(|pem| ders(pem))
                .collect(),
            pairs: self.certificates.client_pairs(),
            accept: applied.accept,
            major: self.cluster.major(),
        }
    }

    /// The host name of a pod, which is a name of the servers' certificate.
    fn host(&self, pod: &str) -> String {
        host(pod, self.cluster.name(), self.cluster.namespace())
    }
}

/// Whether the controller of the set has seen its spec. A controller that reports no generation
/// counts as quick.
fn is_observed(set: &PetSet) -> bool {
    let seen = set
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    seen.is_none_or(|seen| Some(seen) >= set.metadata.generation)
}

/// The pods of the workload among those that carry the database's labels, by ordinal.
fn own_pods(
    mut pods: Vec<Pod>,
    workload: &Result<Workload, String>,
    cluster: &Cluster,
) -> Vec<Pod> {
    pods.retain(|pod| {
        workload
            .as_ref()
            .is_ok_and(|workload| workload.ownership(pod).is_own())
    });
    pods.sort_by_key(|pod| ordinal(cluster.name(), &pod.name_any()));
    pods
}
