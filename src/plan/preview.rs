//! A preview of an operation: the walk, the certificates, the settings and the pods.
//!
//! # Assumptions
//! Each issuer signs with one CA. A certificate is issued anew where its Certificate changes, and
//! where all certificates are rotated. Only the trial shows what an issuer really does.

use crate::api::cert_manager::{Certificate, CertificateIssuerRef};
use crate::api::ops_request::PostgresOpsRequestSpec;
use crate::build::Cluster;
use crate::build::certificates::certificate;
use crate::pki::{CaId, Fingerprint, Leaf, Material};
use crate::tls::{Alias, Posture, hba, posture, walk};

use crate::api::StepKind;
use crate::api::operation::Operation;
use crate::plan::rollout::stage_at;

/// What an operation would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// The certificates, one an alias.
    pub certificates: Vec<PlannedCertificate>,
    /// The postures from the spec to the goal of the request; one posture if nothing changes.
    pub walk: Vec<PlannedStage>,
    /// The changes of the settings.
    pub settings: Vec<LineChange>,
    /// The changes of `pg_hba`.
    pub hba: Vec<LineChange>,
    /// The pods that are replaced, in this order; empty when none is.
    pub restarts: Vec<String>,
    /// The leadership moves once.
    pub switches_over: bool,
}

/// A certificate, and what happens to it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedCertificate {
    /// The certificate's alias.
    pub alias: Alias,
    /// What happens to it.
    pub fate: Fate,
    /// The new Certificate; the old one if it is deleted.
    pub certificate: Certificate,
    /// The names that go and those that come, where a Certificate has other names than before.
    pub names: Vec<LineChange>,
}

/// What happens to a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is issued for the first time, or anew.
    Issued,
    /// It stays as it is.
    Kept,
    /// It is deleted.
    Deleted,
}

/// One posture of the walk.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedStage {
    /// The step that leads to it; `None` for the posture of now.
    pub step: Option<StepKind>,
    /// Pods have to be replaced to come to it.
    pub new_pods: bool,
    /// Other leaves are served or presented from here on.
    pub new_leaves: bool,
    /// The posture.
    pub posture: Posture,
    /// The issuers that are trusted, in words.
    pub trusts: Vec<String>,
    /// The issuer of the served leaf, in words.
    pub served: Option<String>,
}

/// One line of a text that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineChange {
    /// The line stands before and after.
    Stays(String),
    /// The line stands before only.
    Goes(String),
    /// The line stands after only.
    Comes(String),
}

/// How pods get what changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodStrategy {
    /// Every pod is replaced.
    Restart,
    /// Pods are reloaded, and replaced only where their volumes change.
    Reload,
}

/// The preview of a request about a database that is `from` now and `to` afterwards. `primary` is
/// the name of the primary's pod.
#[must_use]
pub fn preview(
    from: &Cluster,
    to: &Cluster,
    request: &PostgresOpsRequestSpec,
    strategy: PodStrategy,
    primary: &str,
) -> Preview {
    let certificates = planned(from, to, request);
    let before = stand_in_material(from, |_| false);
    let is_issued = |alias| {
        certificates
            .iter()
            .any(|planned| planned.alias == alias && planned.fate == Fate::Issued)
    };
    let after = stand_in_material(to, is_issued);
    // There is no posture where the spec names no issuer; the rules refuse that.
    let here = posture(from.spec(), from.major(), before.as_ref()).unwrap_or_else(|| plain(from));
    let there = posture(to.spec(), to.major(), after.as_ref()).unwrap_or_else(|| plain(to));
    let issuers = [from, to].map(issuers).concat();
    let route = walk(&here, &there);
    let stop = |at: usize, posture: &Posture| PlannedStage {
        step: (at > 0).then(|| stage_at(posture, &there)),
        new_pods: at > 0 && route[at - 1].needs_new_pods(posture),
        new_leaves: at > 0 && shown(posture).is_some() && shown(&route[at - 1]) != shown(posture),
        posture: posture.clone(),
        trusts: posture
            .trust()
            .iter()
            .filter_map(|ca| named(&issuers, *ca))
            .collect(),
        served: posture.served().and_then(|leaf| named(&issuers, leaf.ca)),
    };
    let stops: Vec<PlannedStage> = route
        .iter()
        .enumerate()
        .map(|(at, posture)| stop(at, posture))
        .collect();
    let rolls = strategy == PodStrategy::Restart || stops.iter().any(|stop| stop.new_pods);
    let text = |(name, value): (&str, &str)| format!("{name} = '{value}'");
    let settings_of = |cluster: &Cluster, posture: &Posture| {
        let settings = cluster.tls_settings(posture).into_iter();
        settings.map(text).collect::<Vec<_>>()
    };
    Preview {
        settings: lines(&settings_of(from, &here), &settings_of(to, &there)),
        hba: lines(&hba::lines(&here), &hba::lines(&there)),
        restarts: if rolls { order(to, primary) } else { vec![] },
        switches_over: rolls && to.replicas() > 1,
        certificates,
        walk: stops,
    }
}

/// The leaves that servers serve and standbys present.
fn shown(posture: &Posture) -> Option<Material> {
    posture
        .served()
        .and(posture.files.as_ref())
        .map(|files| files.material)
}

fn plain(cluster: &Cluster) -> Posture {
    Posture::plain(crate::tls::method(cluster.spec(), cluster.major()))
}

fn planned(
    from: &Cluster,
    to: &Cluster,
    request: &PostgresOpsRequestSpec,
) -> Vec<PlannedCertificate> {
    let rotates = request.operation() == Some(Operation::Rotate);
    let plan = |alias| {
        let (old, new) = (certificate(from, alias), certificate(to, alias));
        let names = match (&old, &new) {
            (Some(old), Some(new)) => changed_names(old, new),
            _ => vec![],
        };
        let (fate, certificate) = match (old, new) {
            (None, None) => return None,
            (Some(old), None) => (Fate::Deleted, old),
            (Some(old), Some(new)) if old.spec == new.spec && !rotates => (Fate::Kept, new),
            (_, Some(new)) => (Fate::Issued, new),
        };
        Some(PlannedCertificate {
            alias,
            fate,
            certificate,
            names,
        })
    };
    Alias::ALL.into_iter().filter_map(plan).collect()
}

/// The names of a Certificate, of all kinds.
#[must_use]
pub fn names(certificate: &Certificate) -> Vec<String> {
    let spec = &certificate.spec;
    [
        &spec.dns_names,
        &spec.ip_addresses,
        &spec.uris,
        &spec.email_addresses,
    ]
    .into_iter()
    .flatten()
    .cloned()
    .collect()
}

fn changed_names(old: &Certificate, new: &Certificate) -> Vec<LineChange> {
    let mut changes = lines(&names(old), &names(new));
    changes.retain(|line| !matches!(line, LineChange::Stays(_)));
    changes
}

/// Stand-ins for the leaves that are or will be issued: they differ where the real ones would.
fn stand_in_material(cluster: &Cluster, is_new: impl Fn(Alias) -> bool) -> Option<Material> {
    let leaf = |alias: Alias| {
        let issuer = certificate(cluster, alias)?.spec.issuer_ref;
        let name = format!("{} {} {}", words(&issuer), alias.as_str(), is_new(alias));
        Some(Leaf {
            fingerprint: Fingerprint::sha256(name.as_bytes()),
            ca: ca(&issuer),
        })
    };
    Some(Material {
        server: leaf(Alias::Server)?,
        client: leaf(Alias::Client)?,
        exporter: leaf(Alias::MetricsExporter)?,
    })
}

fn ca(issuer: &CertificateIssuerRef) -> CaId {
    CaId(Fingerprint::sha256(words(issuer).as_bytes()))
}

/// An issuer as users write it; one of another API group as `KIND.GROUP/NAME`.
#[must_use]
pub fn words(issuer: &CertificateIssuerRef) -> String {
    let (kind, name) = (issuer.kind(), &issuer.name);
    if !issuer.is_cert_managers() {
        format!("{kind}.{}/{name}", issuer.group())
    } else if kind == "ClusterIssuer" {
        format!("ClusterIssuer/{name}")
    } else {
        name.clone()
    }
}

fn issuers(cluster: &Cluster) -> Vec<CertificateIssuerRef> {
    Alias::ALL
        .into_iter()
        .filter_map(|alias| Some(certificate(cluster, alias)?.spec.issuer_ref))
        .collect()
}

fn named(issuers: &[CertificateIssuerRef], wanted: CaId) -> Option<String> {
    issuers
        .iter()
        .find(|issuer| ca(issuer) == wanted)
        .map(words)
}

/// The lines that stay, then those that go, then those that come; each in its own order.
fn lines(before: &[String], after: &[String]) -> Vec<LineChange> {
    let stays = |line: &&String| after.contains(line);
    let gone = before
        .iter()
        .filter(|line| !stays(line))
        .cloned()
        .map(LineChange::Goes);
    let kept = before.iter().filter(stays).cloned().map(LineChange::Stays);
    let come = after
        .iter()
        .filter(|line| !before.contains(line))
        .cloned()
        .map(LineChange::Comes);
    kept.chain(gone).chain(come).collect()
}

/// Standbys by falling ordinal, then the pod that led.
fn order(cluster: &Cluster, primary: &str) -> Vec<String> {
    let (leader, mut pods): (Vec<String>, Vec<String>) = (0..cluster.replicas())
        .rev()
        .map(|ordinal| cluster.names().pod(ordinal))
        .partition(|pod| pod == primary);
    pods.extend(leader);
    pods
}

#[cfg(test)]
mod tests;
