//! One database seen whole: its objects, its pods, its servers; and from that, the scene that
//! decisions are made of.

use std::collections::{BTreeMap, BTreeSet};

use futures::future;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::ResourceExt;
use secrecy::{ExposeSecret, SecretString};

use super::credentials::Login;
use super::here::Pieces;
use super::postgres::{Step, Stop};
use super::provision::{Barred, Built};
use super::scaling::{leader_of, ordinal, successors};
use super::servers::{Expected, Keys, ask, hash_of, host, names};
use super::{Context, credentials, pods, provision};
use crate::api::annotations::MAX_LAG;
use crate::api::{PetSet, Postgres};
use crate::build::pod::CERTS_VOLUME;
use crate::build::workload::Workload;
use crate::build::written::{Written, has_files, written};
use crate::build::{Cluster, pet_set};
use crate::cluster::apply::applied_at;
use crate::cluster::{Error, Objects};
use crate::plan::scene::{self, Scene, Template};
use crate::plan::{Known, Successors};
use crate::tls::material::{Cas, Served, Source, cas};
use crate::tls::pair::Pair;
use crate::tls::{Alias, Files, Fingerprint, Material, Posture, layout};

/// Annotation of a pod: the version of its volumes' content for which the kubelet was last asked to
/// bring them up to date.
pub(super) const REFRESH: &str = "pgrekey.dev/refresh";

/// Annotation of Secret `NAME-tls`: the uid of the operation that what is kept as previous was
/// served before.
pub(super) const PREVIOUS_OF: &str = "pgrekey.dev/previous-of";

/// What counts for a database without the annotation [`MAX_LAG`].
const DEFAULT_MAX_LAG: u64 = 1 << 20;

/// A database and everything that belongs to it, at one moment.
pub(super) struct Site {
    pub(super) cluster: Cluster,
    pub(super) objects: Objects,
    pub(super) login: Login,
    /// The password of Patroni's REST API.
    pub(super) agent: Option<SecretString>,
    pub(super) pieces: Pieces,
    pub(super) pods: Vec<Pod>,
    /// Whose the pods are, or why that is not known: then there are none here.
    workload: Known<Workload>,
    /// What Secret `NAME-tls` holds.
    pub(super) stored: Option<Served>,
    /// What was served before the operation.
    pub(super) previous: Option<Served>,
    /// The client certificate that was issued after the one in there had expired. Servers take it
    /// if they trust its CA.
    renewed: Option<Pair>,
    /// What ConfigMap `NAME-ca` holds.
    pub(super) published: Cas,
    /// When either of the two last became something else.
    told: Option<Timestamp>,
    now: Timestamp,
    leader: Option<ConfigMap>,
    failover: Option<ConfigMap>,
    successors: Successors,
    max_lag: u64,
    /// Why nothing of it is built, if that is so.
    barred: Option<Barred>,
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

impl Site {
    /// Looks at the objects of a database, on behalf of an operation.
    pub(super) async fn look(
        context: &Context,
        postgres: &Postgres,
        operation: Option<&str>,
    ) -> Step<Self> {
        let secret = credentials::auth(context, postgres).await?;
        let login = secret
            .as_ref()
            .and_then(Login::of)
            .ok_or(Stop::Wait("the superuser's Secret"))?;
        let Built {
            cluster, barred, ..
        } = provision::build(context, postgres, secret.as_ref()).await?;
        let objects = provision::objects(context, postgres, &cluster)?;
        let [_, leader, failover, _] = cluster.patroni_config_maps();
        let (patroni, ca) = (cluster.patroni(), cluster.ca_config_map());
        let (pieces, agent, published, leader, failover, labelled) = tokio::try_join!(
            Pieces::look(&objects, &cluster),
            objects.look::<Secret>(&patroni),
            objects.look::<ConfigMap>(&ca),
            objects.look::<ConfigMap>(&leader),
            objects.look::<ConfigMap>(&failover),
            objects.labelled::<Pod>(),
        )?;
        let workload = pods::workload(context, &objects, postgres, pieces.pet_set.as_ref()).await?;
        let pods = own(labelled, &workload, &cluster);
        let successors = successors(&objects, &cluster, pieces.shared_config().as_ref()).await?;
        let is_ours = pieces.tls.as_ref().is_some_and(|secret| {
            operation.is_some()
                && secret.annotations().get(PREVIOUS_OF).map(String::as_str) == operation
        });
        let stored = pieces.served();
        let told = pieces
            .tls
            .as_ref()
            .and_then(applied_at)
            .max(published.as_ref().and_then(applied_at));
        let renewed = renewed(context, &objects, &cluster, stored.as_ref()).await?;
        let max_lag = postgres
            .annotations()
            .get(MAX_LAG)
            .and_then(|bytes| bytes.parse().ok());
        Ok(Self {
            stored,
            renewed,
            now: context.now(),
            previous: super::here::previous(&pieces).filter(|_| is_ours),
            agent: agent
                .as_ref()
                .and_then(Login::of)
                .map(|login| login.password),
            told,
            published: published
                .and_then(|map| map.data)
                .map(|data| all_cas(&data))
                .unwrap_or_default(),
            cluster,
            objects,
            login,
            pieces,
            pods,
            workload,
            leader,
            failover,
            successors,
            max_lag: max_lag.unwrap_or(DEFAULT_MAX_LAG),
            barred,
        })
    }

    /// Whether pods may be made of its spec; or, where only their settings are, whether it could be
    /// read.
    pub(super) fn may_be_built(&self, of_settings: bool) -> Step<()> {
        let barred = self
            .barred
            .as_ref()
            .filter(|barred| barred.is_bare || !of_settings);
        barred.map_or(Ok(()), |Barred { why, .. }| {
            Err(Stop::Blocked("Invalid", why.clone()))
        })
    }

    /// Where the cluster is, by its objects.
    pub(super) fn written(&self) -> Known<Posture> {
        let shared = self
            .pieces
            .shared_config()
            .ok_or("Patroni's shared configuration cannot be read")?;
        let patroni = self
            .pieces
            .local_config()
            .ok_or("patroni.yml cannot be read")?;
        let set = self.pieces.pet_set.as_ref().ok_or("there is no PetSet")?;
        let tls = self
            .pieces
            .tls
            .as_ref()
            .and_then(|secret| secret.data.as_ref());
        written(&Written {
            tls,
            shared: &shared,
            patroni,
            files: has_files(set),
        })
        .map_err(|why| why.to_string())
    }

    /// Every CA that is known here, by what was, is or is to be served.
    pub(super) fn cas(&self) -> Cas {
        let served = [&self.stored, &self.previous]
            .into_iter()
            .flatten()
            .flat_map(Served::cas);
        served.chain(self.published.clone()).collect()
    }

    /// Names what pods' volumes should hold: it changes with it.
    pub(super) fn version(&self) -> String {
        let tls = self
            .pieces
            .tls
            .iter()
            .flat_map(|secret| secret.data.iter().flatten());
        let tls = tls.filter(|(key, _)| layout::FILES.iter().any(|(mounted, _)| mounted == key));
        let files = tls.flat_map(|(key, value)| [key.as_bytes(), &value.0]);
        let local = self.pieces.local_config().map(String::as_bytes);
        let all: Vec<u8> = files.chain(local).flatten().copied().collect();
        let mut version = Fingerprint::of(&all).to_string();
        version.truncate(16);
        version
    }

    /// Asks every server, and puts together what is known.
    pub(super) async fn scene(&self) -> Known<Scene> {
        let written = self.written()?;
        let set = self.pieces.pet_set.as_ref().ok_or("there is no PetSet")?;
        self.workload.as_ref().map_err(Clone::clone)?;
        let expected = self.expected(&written);
        let keys = self.keys(&written);
        let pods =
            future::join_all(self.pods.iter().map(|pod| self.pod(pod, &keys, &expected))).await;
        let leader = self
            .leader
            .as_ref()
            .and_then(leader_of)
            .map(str::to_owned)
            .ok_or("a leader".to_owned());
        let failover = self.failover.as_ref().map(ConfigMap::annotations);
        let is_expired = |served: &Option<Served>| {
            served
                .as_ref()
                .and_then(|s| s.client.ends())
                .is_some_and(|end| end <= self.now)
        };
        let is_behind = |pod: &scene::Pod| {
            pod.server
                .as_ref()
                .is_ok_and(|server| !server.files_current)
        };
        let client_expired =
            is_expired(&self.stored) || is_expired(&self.previous) && pods.iter().any(is_behind);
        Ok(Scene {
            database: self.cluster.name().to_owned(),
            template: Template {
                has_files: has_files(set),
                is_known: is_observed(set),
            },
            published: self.published.keys().copied().collect(),
            told: self.told,
            stored: self.stored.as_ref().and_then(Served::material),
            ends: self.stored.as_ref().and_then(Served::ends),
            previous: self.previous.as_ref().and_then(Served::material),
            version: self.version(),
            is_ephemeral: set.spec.volume_claim_templates.is_empty(),
            // Those that were made: while the database is paused, another number in its spec makes
            // no pod.
            replicas: usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or_default(),
            pods,
            leader,
            successors: self.successors.clone(),
            switching: failover.is_some_and(|all| {
                ["leader", "member"]
                    .iter()
                    .any(|key| all.contains_key(*key))
            }),
            max_lag: self.max_lag,
            at: self.now,
            client_expired,
            written,
        })
    }

    /// The pod that leads, by Patroni's own record.
    pub(super) fn leader(&self) -> Option<&Pod> {
        let leader = self.leader.as_ref().and_then(leader_of)?;
        self.pods.iter().find(|pod| pod.name_any() == leader)
    }

    /// What it takes to log in, wherever the pods of a cluster are that is written to be here.
    pub(super) fn keys(&self, written: &Posture) -> Keys {
        let pairs = [&self.stored, &self.previous].into_iter().flatten();
        let pairs = pairs
            .filter_map(|served| served.client_pair().ok())
            .chain(self.renewed.clone());
        Keys {
            roots: self
                .cas()
                .values()
                .flat_map(|pem| crate::tls::material::ders(pem))
                .collect(),
            pairs: pairs.collect(),
            accept: written.accept,
            major: self.cluster.major(),
        }
    }

    /// What servers should mount and show where the cluster is.
    fn expected(&self, written: &Posture) -> Expected {
        let stored = self.stored.as_ref().filter(|_| written.files.is_some());
        let file = |path: &str, text: &str| (path.to_owned(), hash_of(text));
        let files: BTreeMap<String, String> = stored
            .map(|served| {
                BTreeMap::from([
                    file(layout::SERVER_CERTIFICATE, &served.server.certificate),
                    file(layout::SERVER_TRUST, &served.trust),
                    file(layout::CLIENT_CERTIFICATE, &served.client.certificate),
                    file(layout::EXPORTER_CERTIFICATE, &served.exporter.certificate),
                ])
            })
            .unwrap_or_default();
        Expected {
            files,
            agent_file: self
                .pieces
                .local_config()
                .map(|text| hash_of(text))
                .unwrap_or_default(),
            takes: stored
                .map(|served| names(&served.trust))
                .unwrap_or_default(),
        }
    }

    async fn pod(&self, pod: &Pod, keys: &Keys, expected: &Expected) -> scene::Pod {
        let name = pod.name_any();
        let has_files = has_certs(pod);
        scene::Pod {
            ordinal: ordinal(&self.cluster, &name).unwrap_or_default(),
            uid: pod.uid().unwrap_or_default(),
            ready: is_ready(pod),
            leaving: pod.metadata.deletion_timestamp.is_some(),
            has_files,
            refreshed: pod.annotations().get(REFRESH).cloned(),
            server: ask(
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
    pub(super) fn host(&self, pod: &str) -> String {
        host(pod, self.cluster.name(), self.cluster.namespace())
    }

    /// The pod of this name, if it still has this uid.
    pub(super) fn pod_of(&self, name: &str, uid: &str) -> Option<&Pod> {
        self.pods
            .iter()
            .find(|pod| pod.name_any() == name && pod.uid().as_deref() == Some(uid))
    }

    /// The set with or without files, otherwise as it is. `issued` is what the files may hold since
    /// this look.
    pub(super) fn pet_set(&self, has_files: bool, issued: Option<Material>) -> Step<PetSet> {
        let here = self
            .written()
            .map_err(|why| Stop::Blocked("PostureUnknown", why))?;
        let material = self.stored.as_ref().and_then(Served::material).or(issued);
        let files = material.filter(|_| has_files).map(Files::of);
        if has_files && files.is_none() {
            return Err(Stop::Wait("the files that new pods are to have"));
        }
        let mut set = pet_set::pet_set(&self.cluster, &Posture { files, ..here });
        if let Some(live) = &self.pieces.pet_set {
            set.spec
                .volume_claim_templates
                .clone_from(&live.spec.volume_claim_templates);
            set.spec.replicas = live.spec.replicas;
        }
        Ok(set)
    }
}

/// The client certificate as it was issued last, if the stored one lets nobody in any more.
async fn renewed(
    context: &Context,
    objects: &Objects,
    cluster: &Cluster,
    stored: Option<&Served>,
) -> Result<Option<Pair>, Error> {
    if stored
        .and_then(|served| served.client.ends())
        .is_none_or(|end| end > context.now())
    {
        return Ok(None);
    }
    let secret = objects
        .look::<Secret>(&cluster.certificate_secret(Alias::Client))
        .await?;
    let source = secret
        .and_then(|secret| secret.data)
        .as_ref()
        .map(Source::of);
    Ok(source.and_then(|source| {
        Pair::parse(&source.certificate, source.key.expose_secret().as_bytes()).ok()
    }))
}

/// The pods of the database among those that carry its labels, by ordinal.
fn own(mut pods: Vec<Pod>, workload: &Known<Workload>, cluster: &Cluster) -> Vec<Pod> {
    pods.retain(|pod| {
        workload
            .as_ref()
            .is_ok_and(|workload| workload.standing(pod).is_own())
    });
    pods.sort_by_key(|pod| ordinal(cluster, &pod.name_any()));
    pods
}

/// Whether a pod says that it is ready.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
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
pub(super) fn known(wanted: &BTreeSet<crate::tls::CaId>, all: &Cas) -> Cas {
    all.iter()
        .filter(|(ca, _)| wanted.contains(ca))
        .map(|(ca, pem)| (*ca, pem.clone()))
        .collect()
}
