//! What an operation would do, before anybody does it: the ends, the walk between them, the
//! certificates, the pods.
//!
//! # Assumptions
//! Who signs is taken for one CA per issuer, and a certificate is issued anew where its Certificate
//! changes or where all of them are rotated: what an issuer really does shows in the trial alone.

use crate::api::cert_manager::{Certificate, CertificateIssuerRef};
use crate::api::ops_request::PostgresOpsRequestSpec;
use crate::build::Cluster;
use crate::build::certificates::certificate;
use crate::pki::{CaId, Fingerprint, Leaf, Material};
use crate::tls::{Alias, Posture, hba, posture, settings, walk};

use crate::plan::operation::goal::rotates_certificates;
use crate::plan::rollout::Stage;

/// What an operation would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// The certificates, one an alias.
    pub certificates: Vec<PlannedCertificate>,
    /// From where the spec is to where the request leads; one posture if nothing changes.
    pub walk: Vec<PlannedStage>,
    /// What goes out of, stays in, and comes into the settings.
    pub settings: Vec<LineChange>,
    /// The same of `pg_hba`.
    pub hba: Vec<LineChange>,
    /// The pods that are replaced, in this order; empty when none is.
    pub restarts: Vec<String>,
    /// The leadership moves once.
    pub switches_over: bool,
}

/// A certificate, and what happens to it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedCertificate {
    /// Which one.
    pub alias: Alias,
    /// What happens to it.
    pub fate: Fate,
    /// As it is to be; as it was, if it goes.
    pub certificate: Certificate,
}

/// What happens to a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is issued for the first time, or anew.
    Issued,
    /// It stays what it is.
    Kept,
    /// It is deleted.
    Deleted,
}

/// One posture of the walk.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedStage {
    /// The step that leads to it; nothing for the first.
    pub stage: Option<Stage>,
    /// Going there takes new pods.
    pub new_pods: bool,
    /// Other leaves are served or presented from there on.
    pub new_leaves: bool,
    /// The posture.
    pub posture: Posture,
    /// Who is trusted there, in words.
    pub trusts: Vec<String>,
    /// Who has signed what is served there, in words.
    pub served: Option<String>,
}

/// One line of a text that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineChange {
    /// It is there before and after.
    Stays(String),
    /// It is there before.
    Goes(String),
    /// It is there after.
    Comes(String),
}

/// What a request would do to a database that is `from`, and `to` afterwards. `primary` is the pod
/// that leads; `restarts` says whether the pods are replaced even where the files do not make it
/// necessary.
#[must_use]
pub fn preview(
    from: &Cluster,
    to: &Cluster,
    request: &PostgresOpsRequestSpec,
    restarts: bool,
    primary: &str,
) -> Preview {
    let certificates = planned(from, to, request);
    let before = material(from, |_| false);
    let is_issued = |alias| {
        certificates
            .iter()
            .any(|planned| planned.alias == alias && planned.fate == Fate::Issued)
    };
    let after = material(to, is_issued);
    // A posture that nothing can be issued for is that of a spec that names no issuer, which the
    // rules refuse.
    let here = posture(from.spec(), from.major(), before.as_ref()).unwrap_or_else(|| plain(from));
    let there = posture(to.spec(), to.major(), after.as_ref()).unwrap_or_else(|| plain(to));
    let issuers = [from, to].map(issuers).concat();
    let route = walk(&here, &there);
    let stop = |at: usize, posture: &Posture| PlannedStage {
        stage: (at > 0).then(|| Stage::reached_at(posture, &there)),
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
    let rolls = restarts || stops.iter().any(|stop| stop.new_pods);
    let text = |(name, value): (&str, &str)| format!("{name} = '{value}'");
    let settings_of = |posture: &Posture| {
        settings::settings(posture)
            .into_iter()
            .map(text)
            .collect::<Vec<_>>()
    };
    Preview {
        settings: lines(&settings_of(&here), &settings_of(&there)),
        hba: lines(&hba::lines(&here), &hba::lines(&there)),
        restarts: if rolls { order(to, primary) } else { vec![] },
        switches_over: rolls && to.replicas() > 1,
        certificates,
        walk: stops,
    }
}

/// The leaves that others see.
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
    let fate = |alias| match (certificate(from, alias), certificate(to, alias)) {
        (None, None) => None,
        (Some(old), None) => Some((Fate::Deleted, old)),
        (Some(old), Some(new)) if old.spec == new.spec && !rotates_certificates(request) => {
            Some((Fate::Kept, new))
        }
        (_, Some(new)) => Some((Fate::Issued, new)),
    };
    Alias::ALL
        .into_iter()
        .filter_map(|alias| {
            fate(alias).map(|(fate, certificate)| PlannedCertificate {
                alias,
                fate,
                certificate,
            })
        })
        .collect()
}

/// Leaves that stand for what is or will be issued: they differ where the real ones would.
fn material(cluster: &Cluster, is_new: impl Fn(Alias) -> bool) -> Option<Material> {
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

/// An issuer as users write it.
#[must_use]
pub fn words(issuer: &CertificateIssuerRef) -> String {
    match issuer.kind.as_deref() {
        Some("ClusterIssuer") => format!("ClusterIssuer/{}", issuer.name),
        _ => issuer.name.clone(),
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

/// What is before, in its order, with what comes where it comes.
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
        .map(|ordinal| cluster.pod(ordinal))
        .partition(|pod| pod == primary);
    pods.extend(leader);
    pods
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::postgres_version::PostgresVersionSpec;
    use crate::api::{Postgres, PostgresSpec};
    use crate::build::BuildInputs;
    use crate::plan::operation::goal::target_spec;

    fn cluster(spec: PostgresSpec) -> Cluster {
        let mut postgres = Postgres::new("pg", spec);
        postgres.metadata.namespace = Some("demo".to_owned());
        let version = PostgresVersionSpec {
            version: "17.12".to_owned(),
            ..Default::default()
        };
        let facts = BuildInputs {
            version: &version,
            superuser: "postgres",
            user_conf: None,
        };
        Cluster::build(&postgres, &facts).expect("a database that can be built")
    }

    fn plan(spec: &str, tls: &str, restarts: bool) -> Preview {
        let spec: PostgresSpec = serde_saphyr::from_str(spec).expect("a spec");
        let request = format!("{{type: ReconfigureTLS, databaseRef: {{name: pg}}, tls: {tls}}}");
        let request: PostgresOpsRequestSpec = serde_saphyr::from_str(&request).expect("a request");
        let to = cluster(target_spec(&spec, &request, 17));
        preview(&cluster(spec), &to, &request, restarts, "pg-1")
    }

    const PLAIN: &str = "{version: '17.12', replicas: 3, storageType: Ephemeral}";
    const SECURE: &str = "{version: '17.12', replicas: 3, storageType: Ephemeral, tls: {issuerRef: {name: a}}, \
        clientAuthMode: scram}";

    fn stages(preview: &Preview) -> Vec<String> {
        preview
            .walk
            .iter()
            .filter_map(|stop| stop.stage.as_ref())
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn adding_tls_issues_three_certificates_and_rolls_the_pods_once() {
        let plan = plan(PLAIN, "{issuerRef: {name: a}, clientAuthMode: cert}", false);
        assert_eq!(
            stages(&plan),
            ["MountCertificates", "Expand", "Migrate", "Contract"]
        );
        assert_eq!(plan.walk.iter().filter(|stop| stop.new_pods).count(), 1);
        assert!(
            plan.certificates
                .iter()
                .all(|planned| planned.fate == Fate::Issued)
                && plan.certificates.len() == 3
        );
        assert_eq!(plan.restarts, ["pg-2", "pg-0", "pg-1"]);
        assert!(plan.switches_over);
        assert!(
            plan.hba
                .contains(&LineChange::Goes("host all all all md5".to_owned())),
            "{:?}",
            plan.hba
        );
    }

    #[test]
    fn a_rotation_changes_no_setting_and_may_restart_nothing() {
        let plan = plan(SECURE, "{rotateCertificates: true}", false);
        assert_eq!(
            (stages(&plan), plan.restarts.len(), plan.switches_over),
            (vec!["Contract".to_owned()], 0, false)
        );
        assert!(plan.walk[1].new_leaves && !plan.walk[1].new_pods);
        let stays = |line: &LineChange| matches!(line, LineChange::Stays(_));
        assert!(plan.settings.iter().all(stays) && plan.hba.iter().all(stays));
    }

    #[test]
    fn another_issuer_is_trusted_beside_the_old_one_on_the_way() {
        let plan = plan(SECURE, "{issuerRef: {name: b}}", true);
        let trusts: Vec<usize> = plan.walk.iter().map(|stop| stop.trusts.len()).collect();
        let served: Vec<_> = plan
            .walk
            .iter()
            .filter_map(|stop| stop.served.as_deref())
            .collect();
        assert_eq!(
            (trusts, served),
            (vec![1, 2, 2, 1], vec!["a", "a", "b", "b"])
        );
    }

    #[test]
    fn one_certificate_changes_and_the_others_stay() {
        let plan = plan(
            SECURE,
            "{certificates: [{alias: server, dnsNames: [db.example]}]}",
            true,
        );
        let fates: Vec<Fate> = plan
            .certificates
            .iter()
            .map(|planned| planned.fate)
            .collect();
        assert_eq!(fates, [Fate::Issued, Fate::Kept, Fate::Kept]);
    }

    #[test]
    fn removing_tls_deletes_the_certificates() {
        let plan = plan(SECURE, "{remove: true}", false);
        assert!(
            plan.certificates
                .iter()
                .all(|planned| planned.fate == Fate::Deleted)
        );
        assert!(
            plan.walk
                .last()
                .is_some_and(|stop| stop.served.is_none() && stop.new_pods)
        );
    }
}
