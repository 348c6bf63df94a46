use super::*;
use crate::api::annotations::NAMES;
use crate::api::{Postgres, PostgresOpsRequest, PostgresSpec};
use crate::build::cluster::tests::build;
use crate::plan::operation::goal::target_spec;
use kube::ResourceExt;

fn cluster(spec: PostgresSpec) -> Cluster {
    let mut postgres = Postgres::new("pg", spec);
    postgres.metadata.namespace = Some("demo".to_owned());
    build(&postgres).expect("a database that can be built")
}

fn plan(spec: &str, tls: &str, strategy: PodStrategy) -> Preview {
    let spec: PostgresSpec = serde_saphyr::from_str(spec).expect("a spec");
    plan_request(spec, &request(tls), strategy)
}

fn request(tls: &str) -> PostgresOpsRequest {
    let spec = format!("{{type: ReconfigureTLS, databaseRef: {{name: pg}}, tls: {tls}}}");
    PostgresOpsRequest::new("r", serde_saphyr::from_str(&spec).expect("a request"))
}

fn plan_request(
    spec: PostgresSpec,
    request: &PostgresOpsRequest,
    strategy: PodStrategy,
) -> Preview {
    let to = cluster(target_spec(&spec, request, 17));
    preview(&cluster(spec), &to, &request.spec, strategy, "pg-1")
}

const PLAIN: &str = "{version: '17.12', replicas: 3, storageType: Ephemeral}";
const SECURE: &str = "{version: '17.12', replicas: 3, storageType: Ephemeral, tls: {issuerRef: {name: a}}, \
    clientAuthMode: scram}";

fn stages(preview: &Preview) -> Vec<String> {
    preview
        .walk
        .iter()
        .filter_map(|stop| stop.step.as_ref())
        .map(ToString::to_string)
        .collect()
}

#[test]
fn adding_tls_issues_three_certificates_and_rolls_the_pods_once() {
    let plan = plan(
        PLAIN,
        "{issuerRef: {name: a}, clientAuthMode: cert}",
        PodStrategy::Reload,
    );
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
    let plan = plan(SECURE, "{rotateCertificates: true}", PodStrategy::Reload);
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
    let plan = plan(SECURE, "{issuerRef: {name: b}}", PodStrategy::Restart);
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
fn an_issuer_of_another_group_is_another_issuer_whatever_its_name_is() {
    let external = "{issuerRef: {apiGroup: awspca.cert-manager.io, kind: AWSPCAIssuer, name: a}}";
    let plan = plan(SECURE, external, PodStrategy::Restart);
    let served: Vec<_> = plan
        .walk
        .iter()
        .filter_map(|stop| stop.served.as_deref())
        .collect();
    let other = "AWSPCAIssuer.awspca.cert-manager.io/a";
    assert_eq!(served, ["a", "a", other, other]);
}

#[test]
fn another_key_is_another_certificate() {
    let fates = |key: &str| {
        let change = format!("{{certificates: [{{alias: client, privateKey: {key}}}]}}");
        let plan = plan(SECURE, &change, PodStrategy::Reload);
        plan.certificates
            .iter()
            .map(|planned| planned.fate)
            .collect::<Vec<_>>()
    };
    for key in ["{algorithm: ECDSA}", "{size: 4096}", "{encoding: PKCS8}"] {
        assert_eq!(fates(key), [Fate::Kept, Fate::Issued, Fate::Kept], "{key}");
    }
    assert_eq!(fates("{encoding: PKCS1}"), [Fate::Kept; 3], "as it is");
}

#[test]
fn one_certificate_changes_and_the_others_stay() {
    let plan = plan(
        SECURE,
        "{certificates: [{alias: server, dnsNames: [db.example]}]}",
        PodStrategy::Restart,
    );
    let fates: Vec<Fate> = plan
        .certificates
        .iter()
        .map(|planned| planned.fate)
        .collect();
    assert_eq!(fates, [Fate::Issued, Fate::Kept, Fate::Kept]);
}

#[test]
fn names_that_come_and_names_that_go_are_listed() {
    let named = "{version: '17.12', storageType: Ephemeral, tls: {issuerRef: {name: a}, certificates: \
        [{alias: server, dnsNames: [old.example, localhost], ipAddresses: [192.0.2.1]}]}}";
    let mut request = request("{certificates: [{alias: server, dnsNames: [new.example]}]}");
    let names_of_server = |request: &PostgresOpsRequest| {
        let spec: PostgresSpec = serde_saphyr::from_str(named).expect("a spec");
        let plan = plan_request(spec, request, PodStrategy::Restart);
        assert!(plan.certificates[1..].iter().all(|c| c.names.is_empty()));
        plan.certificates[0].names.clone()
    };
    let comes = || LineChange::Comes("new.example".to_owned());
    assert_eq!(names_of_server(&request), [comes()]);
    request
        .annotations_mut()
        .insert(NAMES.to_owned(), "Replace".to_owned());
    let goes = |name: &str| LineChange::Goes(name.to_owned());
    assert_eq!(
        names_of_server(&request),
        [goes("old.example"), goes("192.0.2.1"), comes()],
        "localhost is a name of pgrekey's too"
    );
}

#[test]
fn removing_tls_deletes_the_certificates() {
    let plan = plan(SECURE, "{remove: true}", PodStrategy::Reload);
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
