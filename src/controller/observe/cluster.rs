//! One database seen whole: its objects, its pods, its servers; and from that, the scene that
//! decisions are made of.

use std::collections::{BTreeMap, BTreeSet};

use futures::future;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::ResourceExt;
use secrecy::{ExposeSecret, SecretString};

use crate::api::annotations::{MAX_LAG, PREVIOUS_OF, REFRESHED_FOR};
use crate::api::{PetSet, Postgres};
use crate::build::applied::{PostureManifests, has_files, read_posture};
use crate::build::current_posture::PostureObjects;
use crate::build::paths::CERTS_VOLUME;
use crate::build::workload::{Workload, ordinal};
use crate::build::{Cluster, pet_set};
use crate::cluster::apply::applied_at;
use crate::cluster::{Error, Objects};
use crate::controller::Context;
use crate::controller::login::Login;
use crate::controller::observe::instance::{LoginKeys, host, observe_server};
use crate::controller::observe::spec::{Built, SpecProblem};
use crate::controller::observe::{patroni, posture, spec, superuser, workload};
use crate::controller::outcome::{Interrupt, ReconcileResult};
use crate::pki::issued::{Cas, IssuedSecret, ServedMaterial, cas};
use crate::pki::key_pair::CertificateAndKey;
use crate::pki::{Fingerprint, Material};
use crate::plan::SwitchoverCandidates;
use crate::plan::action::PodRef;
use crate::plan::observed::cluster;
use crate::plan::observed::cluster::{ObservedCluster, Template};
use crate::plan::observed::instance::{ExpectedServer, client_expired, is_ready};
use crate::plan::waiting::{Unknown, Waiting};
use crate::tls::{Alias, Files, Posture, layout};

/// What counts for a database without the annotation [`MAX_LAG`].
const DEFAULT_MAX_LAG: u64 = 1 << 20;

/// A database and everything that belongs to it, at one moment.
pub(crate) struct ClusterObjects {
    pub(crate) cluster: Cluster,
    pub(crate) objects: Objects,
    pub(crate) login: Login,
    /// The password of Patroni's REST API.
    pub(crate) patroni_password: Option<SecretString>,
    pub(crate) posture_objects: PostureObjects,
    pub(crate) pods: Vec<Pod>,
    /// Whose the pods are, or why that is not known: then there are none here.
    workload: Result<Workload, String>,
    /// What Secret `NAME-tls` holds.
    pub(crate) in_secret: Option<ServedMaterial>,
    /// What was served before the operation.
    pub(crate) previous: Option<ServedMaterial>,
    /// The client certificate that was issued after the one in there had expired. Servers take it
    /// if they trust its CA.
    replacement_client_pair: Option<CertificateAndKey>,
    /// What ConfigMap `NAME-ca` holds.
    pub(crate) client_bundle: Cas,
    /// When either of the two last became something else.
    trust_changed_at: Option<Timestamp>,
    now: Timestamp,
    leader: Option<ConfigMap>,
    failover: Option<ConfigMap>,
    switchover_candidates: SwitchoverCandidates,
    max_lag: u64,
    /// Why nothing of it is built, if that is so.
    spec_problem: Option<SpecProblem>,
}

/// Whether the set's controller has taken over its spec. One that does not say so is taken to be
/// quick.
fn is_observed(set: &PetSet) -> bool {
    let seen = set
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    seen.is_none_or(|seen| Some(seen) >= set.metadata.generation)
}

impl ClusterObjects {
    /// Looks at the objects of a database, on behalf of an operation.
    pub(crate) async fn observe(
        context: &Context,
        postgres: &Postgres,
        operation: Option<&str>,
    ) -> ReconcileResult<Self> {
        let secret = superuser::auth(context, postgres).await?;
        let login = secret
            .as_ref()
            .and_then(Login::parse)
            .ok_or(Interrupt::Wait("the superuser's Secret"))?;
        let Built {
            cluster, barred, ..
        } = spec::build(context, postgres, secret.as_ref()).await?;
        let objects = spec::objects(context, postgres, &cluster)?;
        let state = cluster.names().patroni_config_maps();
        let (patroni, ca) = (cluster.names().patroni(), cluster.names().ca_config_map());
        let (pieces, agent, published, leader, failover, labelled) = tokio::try_join!(
            posture::fetch(&objects, &cluster),
            objects.get::<Secret>(&patroni),
            objects.get::<ConfigMap>(&ca),
            objects.get::<ConfigMap>(&state.leader),
            objects.get::<ConfigMap>(&state.failover),
            objects.labelled::<Pod>(),
        )?;
        let workload =
            workload::workload(context, &objects, postgres, pieces.pet_set.as_ref()).await?;
        let pods = own_pods(labelled, &workload, &cluster);
        let successors =
            patroni::switchover_candidates(&objects, &cluster, pieces.shared_config().as_ref())
                .await?;
        let is_ours = pieces.tls.as_ref().is_some_and(|secret| {
            operation.is_some()
                && secret.annotations().get(PREVIOUS_OF).map(String::as_str) == operation
        });
        let stored = pieces.served_material();
        let told = pieces
            .tls
            .as_ref()
            .and_then(applied_at)
            .max(published.as_ref().and_then(applied_at));
        let renewed = replacement_client_pair(context, &objects, &cluster, stored.as_ref()).await?;
        let max_lag = postgres
            .annotations()
            .get(MAX_LAG)
            .and_then(|bytes| bytes.parse().ok());
        Ok(Self {
            in_secret: stored,
            replacement_client_pair: renewed,
            now: context.now(),
            previous: pieces.previous_material().filter(|_| is_ours),
            patroni_password: agent
                .as_ref()
                .and_then(Login::parse)
                .map(|login| login.password),
            trust_changed_at: told,
            client_bundle: published
                .and_then(|map| map.data)
                .map(|data| all_cas(&data))
                .unwrap_or_default(),
            cluster,
            objects,
            login,
            posture_objects: pieces,
            pods,
            workload,
            leader,
            failover,
            switchover_candidates: successors,
            max_lag: max_lag.unwrap_or(DEFAULT_MAX_LAG),
            spec_problem: barred,
        })
    }

    /// Whether pods may be made of its spec; or, where only their settings are, whether it could be
    /// read.
    pub(crate) fn require_buildable(&self, of_settings: bool) -> ReconcileResult<()> {
        let barred = self
            .spec_problem
            .as_ref()
            .filter(|barred| barred.is_bare || !of_settings);
        barred.map_or(Ok(()), |SpecProblem { why, .. }| {
            Err(Interrupt::Blocked("Invalid", why.clone()))
        })
    }

    /// Where the cluster is, by its objects.
    pub(crate) fn applied_posture(&self) -> Result<Posture, String> {
        let shared = self
            .posture_objects
            .shared_config()
            .ok_or("Patroni's shared configuration cannot be read")?;
        let patroni = self
            .posture_objects
            .local_config()
            .ok_or("patroni.yml cannot be read")?;
        let set = self
            .posture_objects
            .pet_set
            .as_ref()
            .ok_or("there is no PetSet")?;
        let tls = self
            .posture_objects
            .tls
            .as_ref()
            .and_then(|secret| secret.data.as_ref());
        read_posture(&PostureManifests {
            tls,
            dynamic: &shared,
            local: patroni,
            files: has_files(set),
        })
        .map_err(|why| why.to_string())
    }

    /// Every CA that is known here, by what was, is or is to be served.
    pub(crate) fn cas(&self) -> Cas {
        let served = [&self.in_secret, &self.previous]
            .into_iter()
            .flatten()
            .flat_map(ServedMaterial::cas);
        served.chain(self.client_bundle.clone()).collect()
    }

    /// Names what pods' volumes should hold: it changes with it.
    pub(crate) fn volume_version(&self) -> String {
        let tls = self
            .posture_objects
            .tls
            .iter()
            .flat_map(|secret| secret.data.iter().flatten());
        let tls = tls.filter(|(key, _)| layout::FILES.iter().any(|(mounted, _)| mounted == key));
        let files = tls.flat_map(|(key, value)| [key.as_bytes(), &value.0]);
        let local = self.posture_objects.local_config().map(String::as_bytes);
        let all: Vec<u8> = files.chain(local).flatten().copied().collect();
        let mut version = Fingerprint::sha256(&all).to_string();
        version.truncate(16);
        version
    }

    /// Asks every server, and puts together what is known.
    pub(crate) async fn observe_cluster(&self) -> Result<ObservedCluster, Unknown> {
        let applied = self.applied_posture().map_err(Unknown::Unreadable)?;
        let set = self
            .posture_objects
            .pet_set
            .as_ref()
            .ok_or_else(|| Unknown::Unreadable("there is no PetSet".to_owned()))?;
        let workload = self.workload.as_ref();
        workload.map_err(|why| Unknown::Unreadable(why.clone()))?;
        let expected = self.expected(&applied);
        let keys = self.login_keys(&applied);
        let pods = future::join_all(
            self.pods
                .iter()
                .map(|pod| self.observe_pod(pod, &keys, &expected)),
        )
        .await;
        let leader = self
            .leader
            .as_ref()
            .and_then(patroni::leader_of)
            .map(str::to_owned)
            .ok_or(Waiting::Leader);
        let failover = self.failover.as_ref().map(ConfigMap::annotations);
        let client_ends =
            |served: &Option<ServedMaterial>| served.as_ref().and_then(|s| s.client.ends());
        let client_expired = client_expired(
            client_ends(&self.in_secret),
            client_ends(&self.previous),
            &pods,
            self.now,
        );
        Ok(ObservedCluster {
            database: self.cluster.name().to_owned(),
            template: Template {
                has_files: has_files(set),
                is_known: is_observed(set),
            },
            client_bundle: self.client_bundle.keys().copied().collect(),
            trust_changed_at: self.trust_changed_at,
            in_secret: self.in_secret.as_ref().and_then(ServedMaterial::material),
            leaf_expires_at: self.in_secret.as_ref().and_then(ServedMaterial::ends),
            previous: self.previous.as_ref().and_then(ServedMaterial::material),
            volume_version: self.volume_version(),
            is_ephemeral: set.spec.volume_claim_templates.is_empty(),
            // Those that were made: while the database is paused, another number in its spec makes
            // no pod.
            replicas: usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or_default(),
            pods,
            leader,
            switchover_candidates: self.switchover_candidates.clone(),
            switchover_pending: failover.is_some_and(|all| {
                ["leader", "member"]
                    .iter()
                    .any(|key| all.contains_key(*key))
            }),
            max_lag: self.max_lag,
            observed_at: self.now,
            client_expired,
            applied,
        })
    }

    /// The pod that leads, by Patroni's own record.
    pub(crate) fn leader(&self) -> Option<&Pod> {
        let leader = self.leader.as_ref().and_then(patroni::leader_of)?;
        self.pods.iter().find(|pod| pod.name_any() == leader)
    }

    /// What it takes to log in, wherever the pods of a cluster are that is written to be here.
    pub(crate) fn login_keys(&self, applied: &Posture) -> LoginKeys {
        let pairs = [&self.in_secret, &self.previous].into_iter().flatten();
        let pairs = pairs
            .filter_map(|served| served.client_pair().ok())
            .chain(self.replacement_client_pair.clone());
        LoginKeys {
            roots: self
                .cas()
                .values()
                .flat_map(|pem| crate::pki::issued::ders(pem))
                .collect(),
            pairs: pairs.collect(),
            accept: applied.accept,
            major: self.cluster.major(),
        }
    }

    /// What servers should mount and show where the cluster is.
    fn expected(&self, applied: &Posture) -> ExpectedServer {
        let served = self.in_secret.as_ref().filter(|_| applied.files.is_some());
        let patroni_yml = self.posture_objects.local_config().map(String::as_str);
        ExpectedServer::new(served, patroni_yml)
    }

    async fn observe_pod(
        &self,
        pod: &Pod,
        keys: &LoginKeys,
        expected: &ExpectedServer,
    ) -> cluster::ObservedPod {
        let name = pod.name_any();
        let has_files = has_certs(pod);
        cluster::ObservedPod {
            ordinal: ordinal(self.cluster.name(), &name).unwrap_or_default(),
            uid: pod.uid().unwrap_or_default(),
            ready: is_ready(pod),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            has_files,
            refreshed_for: pod.annotations().get(REFRESHED_FOR).cloned(),
            server: observe_server(
                pod,
                &self.host(&name),
                &self.login,
                keys,
                expected,
                has_files,
            )
            .await,
            name,
        }
    }

    /// The name by which a pod is dialled.
    pub(crate) fn host(&self, pod: &str) -> String {
        host(pod, self.cluster.name(), self.cluster.namespace())
    }

    /// The pod of this name, if it still has this uid.
    pub(crate) fn find_pod(&self, PodRef { name, uid }: &PodRef) -> Option<&Pod> {
        self.pods
            .iter()
            .find(|pod| pod.name_any() == *name && pod.uid().as_ref() == Some(uid))
    }

    /// The set with or without files, otherwise as it is. `issued` is what the files may hold since
    /// this look.
    pub(crate) fn pet_set(
        &self,
        has_files: bool,
        issued: Option<Material>,
    ) -> ReconcileResult<PetSet> {
        let here = self
            .applied_posture()
            .map_err(|why| Interrupt::Blocked("PostureUnknown", why))?;
        let material = self
            .in_secret
            .as_ref()
            .and_then(ServedMaterial::material)
            .or(issued);
        let files = material
            .filter(|_| has_files)
            .map(Files::trusting_its_signers);
        if has_files && files.is_none() {
            return Err(Interrupt::Wait("the files that new pods are to have"));
        }
        let mut set = pet_set::pet_set(&self.cluster, &Posture { files, ..here });
        if let Some(live) = &self.posture_objects.pet_set {
            set.spec
                .volume_claim_templates
                .clone_from(&live.spec.volume_claim_templates);
            set.spec.replicas = live.spec.replicas;
        }
        Ok(set)
    }
}

/// The client certificate as it was issued last, if the stored one lets nobody in any more.
async fn replacement_client_pair(
    context: &Context,
    objects: &Objects,
    cluster: &Cluster,
    stored: Option<&ServedMaterial>,
) -> Result<Option<CertificateAndKey>, Error> {
    if stored
        .and_then(|served| served.client.ends())
        .is_none_or(|end| end > context.now())
    {
        return Ok(None);
    }
    let secret = objects
        .get::<Secret>(&cluster.certificate_secret(Alias::Client))
        .await?;
    let source = secret
        .and_then(|secret| secret.data)
        .as_ref()
        .map(IssuedSecret::from_data);
    Ok(source.and_then(|source| {
        CertificateAndKey::parse(&source.certificate, source.key.expose_secret().as_bytes()).ok()
    }))
}

/// The pods of the database among those that carry its labels, by ordinal.
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

fn has_certs(pod: &Pod) -> bool {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .into_iter()
        .any(|volume| volume.name == CERTS_VOLUME)
}

fn all_cas(data: &BTreeMap<String, String>) -> Cas {
    data.get("ca.crt")
        .map(|pem| cas(pem.as_bytes()))
        .unwrap_or_default()
}

/// The CAs of a set, as far as they are known.
pub(crate) fn select_cas(wanted: &BTreeSet<crate::pki::CaId>, all: &Cas) -> Cas {
    all.iter()
        .filter(|(ca, _)| wanted.contains(ca))
        .map(|(ca, pem)| (*ca, pem.clone()))
        .collect()
}
