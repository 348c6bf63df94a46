use super::*;
use crate::api::Postgres;
use crate::api::annotations::SERVER_NAMES;
use crate::build::BuildInputs;
use crate::build::cluster::tests::{cluster, postgres, version};

/// The database with `live_pods` pods in a Kubernetes cluster with this domain.
fn cluster_in(domain: &str, live_pods: i32, postgres: &Postgres) -> Cluster {
    let inputs = BuildInputs {
        version: &version("17"),
        superuser: "postgres",
        user_conf: None,
        live_pods,
        cluster_domain: domain,
    };
    Cluster::build(postgres, &inputs).expect("a cluster")
}

/// The names of a certificate, as its issuer is asked for them.
fn asked(cluster: &Cluster, alias: Alias) -> Vec<String> {
    let spec = certificate(cluster, alias).expect("a Certificate").spec;
    [spec.dns_names, spec.ip_addresses].concat()
}

const NAMED: &str = "{version: '17', replicas: 2, tls: {issuerRef: {name: i}, certificates: \
    [{alias: server, dnsNames: [db.example.com]}]}, serviceTemplates: [{alias: primary, spec: \
    {loadBalancerIP: '2001:db8::7'}}]}";

#[test]
fn the_names_are_kubedbs_with_the_domain_of_the_cluster() {
    let cluster = cluster_in("k8s.example", 0, &postgres(NAMED));
    assert_eq!(
        asked(&cluster, Alias::Server),
        [
            "*.pg-pods.demo.svc",
            "*.pg-pods.demo.svc.k8s.example",
            "db.example.com",
            "localhost",
            "pg",
            "pg-standby",
            "pg-standby.demo",
            "pg-standby.demo.svc",
            "pg-standby.demo.svc.k8s.example",
            "pg.demo",
            "pg.demo.svc",
            "pg.demo.svc.k8s.example",
            "127.0.0.1",
            "2001:db8::7",
        ]
    );
}

#[test]
fn names_of_services_are_full_names_of_services_and_of_each_pod() {
    let mut named = postgres(NAMED);
    let choose = |postgres: &mut Postgres, names: &str| {
        let names = (SERVER_NAMES.to_owned(), names.to_owned());
        postgres.annotations_mut().extend([names]);
    };
    choose(&mut named, "Services");
    let cluster = cluster_in("k8s.example", 0, &named);
    assert_eq!(
        asked(&cluster, Alias::Server),
        [
            "db.example.com",
            "pg-0.pg-pods.demo.svc",
            "pg-0.pg-pods.demo.svc.k8s.example",
            "pg-1.pg-pods.demo.svc",
            "pg-1.pg-pods.demo.svc.k8s.example",
            "pg-standby.demo.svc",
            "pg-standby.demo.svc.k8s.example",
            "pg.demo.svc",
            "pg.demo.svc.k8s.example",
            "2001:db8::7",
        ]
    );
    assert_eq!(
        asked(&cluster, Alias::MetricsExporter),
        [
            "pg-0.pg-pods.demo.svc",
            "pg-0.pg-pods.demo.svc.k8s.example",
            "pg-1.pg-pods.demo.svc",
            "pg-1.pg-pods.demo.svc.k8s.example",
            "pg-stats.demo.svc",
            "pg-stats.demo.svc.k8s.example",
        ]
    );
    assert_eq!(asked(&cluster, Alias::Client), Vec::<String>::new());
    let plain = cluster_in("k8s.example", 0, &postgres(NAMED));
    let common = |cluster: &Cluster| {
        Alias::ALL.map(|alias| certificate(cluster, alias).map(|c| c.spec.common_name))
    };
    assert_eq!(common(&cluster), common(&plain));
    choose(&mut named, "services");
    let invalid = cluster_in("k8s.example", 0, &named);
    assert_eq!(asked(&invalid, Alias::Server), asked(&plain, Alias::Server));
}

#[test]
fn a_pod_that_is_to_go_keeps_its_name_until_it_has_gone() {
    let mut named = postgres(NAMED);
    let services = (SERVER_NAMES.to_owned(), "Services".to_owned());
    named.annotations_mut().extend([services]);
    let pods = |live_pods| {
        let names = asked(&cluster_in("local", live_pods, &named), Alias::Server);
        let is_pod = |name: &&String| name.ends_with(".pg-pods.demo.svc");
        names.iter().filter(is_pod).count()
    };
    assert_eq!([0, 1, 2, 3, 5, 2_000].map(pods), [2, 2, 2, 3, 5, 32]);
}

#[test]
fn without_tls_nothing_is_asked_for() {
    assert_eq!(certificates(&cluster(&postgres("version: '17'"))), []);
}

#[test]
fn an_alias_may_have_an_issuer_and_a_secret_of_its_own() {
    let cluster = cluster(&postgres(
        "{version: '17', tls: {issuerRef: {name: all}, certificates: [{alias: client, secretName: mine, \
         issuerRef: {kind: ClusterIssuer, name: people}}]}}",
    ));
    let issuer =
        |alias| certificate(&cluster, alias).map(|c| (c.spec.issuer_ref.name, c.spec.secret_name));
    assert_eq!(
        issuer(Alias::Server),
        Some(("all".to_owned(), "pg-server-cert".to_owned()))
    );
    assert_eq!(
        issuer(Alias::Client),
        Some(("people".to_owned(), "mine".to_owned()))
    );
}

#[test]
fn a_trial_asks_for_what_will_be_asked_for_into_a_secret_of_its_own() {
    let cluster = cluster(&postgres(
        "{version: '17', tls: {issuerRef: {name: all}, certificates: [{alias: client, secretName: mine, \
         duration: 24h0m0s, subject: {organizations: [Example]}, uris: ['spiffe://pg'], \
         issuerRef: {kind: ClusterIssuer, name: people}}]}}",
    ));
    for alias in Alias::ALL {
        let real = certificate(&cluster, alias).expect("a Certificate");
        let mut trial = trial_certificate(&cluster, alias, "uid").expect("a trial");
        assert_ne!(trial.name_any(), real.name_any());
        assert_eq!(trial.name_any(), trial.spec.secret_name);
        assert_eq!(trial.annotations()[TRIAL_OF], "uid");
        assert_eq!(trial.labels(), real.labels());
        trial.spec.secret_name.clone_from(&real.spec.secret_name);
        assert_eq!(trial.spec, real.spec);
    }
}

#[test]
fn the_key_is_as_the_entry_says_and_else_cert_managers_default() {
    let key = |private_key: &str| {
        let cluster = cluster(&postgres(&format!(
            "{{version: '17', tls: {{issuerRef: {{name: i}}, certificates: [{{alias: server{private_key}}}]}}}}"
        )));
        certificate(&cluster, Alias::Server).and_then(|c| c.spec.private_key)
    };
    for (asked, algorithm, size, encoding) in [
        ("", None, None, "PKCS1"),
        (", privateKey: {size: 4096}", None, Some(4096), "PKCS1"),
        (
            ", privateKey: {algorithm: ECDSA, size: 384, encoding: PKCS8}",
            Some("ECDSA"),
            Some(384),
            "PKCS8",
        ),
        (
            ", privateKey: {algorithm: Ed25519, size: 256}",
            Some("Ed25519"),
            None,
            "PKCS8",
        ),
    ] {
        let expected = CertificatePrivateKey {
            algorithm: algorithm.map(str::to_owned),
            encoding: Some(encoding.to_owned()),
            size,
            rotation_policy: Some("Always".to_owned()),
        };
        assert_eq!(key(asked), Some(expected), "{asked}");
    }
}

#[test]
fn an_issuer_of_another_group_keeps_its_group_and_kind() {
    let cluster = cluster(&postgres(
        "{version: '17', tls: {issuerRef: {apiGroup: awspca.cert-manager.io, kind: AWSPCAIssuer, name: i}}}",
    ));
    let asked = certificate(&cluster, Alias::Client).map(|c| c.spec.issuer_ref);
    let expected = CertificateIssuerRef {
        name: "i".to_owned(),
        kind: Some("AWSPCAIssuer".to_owned()),
        group: Some("awspca.cert-manager.io".to_owned()),
    };
    assert_eq!(asked, Some(expected));
}

#[test]
fn a_common_name_that_would_be_too_long_is_left_out() {
    let mut postgres = postgres("{version: '17', tls: {issuerRef: {name: i}}}");
    postgres.metadata.namespace = Some("n".repeat(63));
    let cluster = cluster(&postgres);
    assert_eq!(
        certificate(&cluster, Alias::Server).and_then(|c| c.spec.common_name),
        None
    );
    assert_eq!(
        certificate(&cluster, Alias::Client).and_then(|c| c.spec.common_name),
        Some("postgres".to_owned())
    );
}
