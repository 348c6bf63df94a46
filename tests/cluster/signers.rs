//! Issuers that the dev cluster does not have for real: Vault, and Venafi as an issuer of another
//! API group. Both are played, by what their documents say that they refuse and how they answer.
//! cert-manager's own Vault issuer asks the Vault.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Ca, Cluster, Controllers, Form, Mount, Policy, Role, Seat, Signer, TestNamespace, Vault,
    Writes, ca, ca_below, example, one_of_each, sample_or_all, secret, versions,
};
use crate::issuers::{ALIASES, issuer, issuer_ref};
use crate::operations::{by_reload, carry_out, request};
use crate::refusals::is_refused;

const NAMESPACE: &str = "signers";

/// A root, and a CA below it.
fn hierarchy(name: &str) -> (Arc<Ca>, Arc<Ca>) {
    let root = ca(&format!("{name}-root"));
    let below = ca_below(&root, &format!("{name}-ca"));
    (Arc::new(root), Arc::new(below))
}

/// The role that the operations guide describes.
fn role() -> Role {
    let services = ["ha-postgres", "ha-postgres-standby", "ha-postgres-stats"];
    let short = services.map(|name| [name.to_owned(), format!("{name}.{NAMESPACE}")]);
    let full = ["svc", "svc.cluster.local"].map(|end| format!("{NAMESPACE}.{end}"));
    let superuser = "postgres".to_owned();
    Role {
        key_type: "any",
        allowed_domains: short
            .into_iter()
            .flatten()
            .chain(full)
            .chain([superuser])
            .collect(),
        allow_wildcard_certificates: true,
        max_ttl: Duration::from_hours(8760),
    }
}

/// A Vault whose root signs itself at `pki`, and through a CA at `pki_int`; at `pki_alone` that CA
/// was imported without its root.
async fn vault((root, below): &(Arc<Ca>, Arc<Ca>)) -> Vault {
    let mut without_superuser = role();
    without_superuser
        .allowed_domains
        .retain(|domain| domain != "postgres");
    let pki = Mount {
        path: "pki",
        signs: Arc::clone(root),
        ca_chain: vec![],
        roles: vec![
            ("postgres", role()),
            (
                "rsa",
                Role {
                    key_type: "rsa",
                    ..role()
                },
            ),
            ("no-superuser", without_superuser),
            (
                "no-wildcards",
                Role {
                    allow_wildcard_certificates: false,
                    ..role()
                },
            ),
        ],
    };
    let day = Role {
        max_ttl: Duration::from_hours(24),
        ..role()
    };
    let intermediate = Mount {
        path: "pki_int",
        signs: Arc::clone(below),
        ca_chain: vec![below.pem(), root.pem()],
        roles: vec![("day", day)],
    };
    let alone = Mount {
        path: "pki_alone",
        signs: Arc::clone(below),
        ca_chain: vec![below.pem()],
        roles: vec![("postgres", role())],
    };
    Vault::start(vec![pki, intermediate, alone]).await
}

const VAULT_ISSUERS: [(&str, &str); 6] = [
    ("vault", "pki/sign/postgres"),
    ("vault-rsa", "pki/sign/rsa"),
    ("vault-no-superuser", "pki/sign/no-superuser"),
    ("vault-no-wildcards", "pki/sign/no-wildcards"),
    ("vault-day", "pki_int/sign/day"),
    ("vault-alone", "pki_alone/sign/postgres"),
];

fn signer(cluster: &Cluster, whole: &(Arc<Ca>, Arc<Ca>), in_chain: &(Arc<Ca>, Arc<Ca>)) -> Signer {
    let policy = |rsa, domains: &[_], form| Policy {
        rsa,
        domains: domains.to_vec(),
        cas: whole.clone(),
        form,
    };
    let in_cluster = ["signers.svc", "signers.svc.cluster.local"];
    let in_chain = Policy {
        cas: in_chain.clone(),
        ..policy(true, &[], Form::RootInChain)
    };
    let policies = [
        ("venafi-ecdsa", policy(false, &[], Form::Whole)),
        ("venafi-domains", policy(true, &in_cluster, Form::Whole)),
        ("venafi-root-in-chain", in_chain),
        ("venafi-no-root", policy(true, &[], Form::NoRoot)),
    ];
    Signer::start(&cluster.client, NAMESPACE, policies)
}

/// Certificates with ECDSA keys.
fn ecdsa() -> Value {
    let key = json!({"algorithm": "ECDSA", "size": 256});
    json!(ALIASES.map(|alias| json!({"alias": alias, "privateKey": key})))
}

/// A request that an issuer refuses.
#[derive(Clone)]
struct Refusal {
    because: Because,
    name: &'static str,
    tls: Value,
    /// The message names one of these, with the issuer.
    aliases: &'static [&'static str],
    issuer: &'static str,
    /// The message says this.
    words: &'static str,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Because {
    VaultSaysNo,
    VenafiSaysNo,
    TheRootIsMissing,
}

fn vault_says_no() -> Vec<Refusal> {
    let refusal = |name, issuer, aliases, words| Refusal {
        because: Because::VaultSaysNo,
        name,
        tls: json!({"issuerRef": issuer_ref(issuer)}),
        aliases,
        issuer,
        words,
    };
    let rsa = "Errors: * role requires keys of type rsa";
    let mut of_ecdsa = refusal("to-rsa-only", "vault-rsa", &ALIASES, rsa);
    of_ecdsa.tls["certificates"] = ecdsa();
    let superuser = "Errors: * common name postgres not allowed by this role";
    let no_superuser = "vault-no-superuser";
    let wildcard =
        "Errors: * subject alternate name *.ha-postgres-pods.signers.svc not allowed by this role";
    let (no_wildcards, serve) = ("vault-no-wildcards", &["server", "metrics-exporter"]);
    vec![
        of_ecdsa,
        refusal("to-no-superuser", no_superuser, &["client"], superuser),
        refusal("to-no-wildcards", no_wildcards, serve, wildcard),
    ]
}

fn venafi_says_no() -> Vec<Refusal> {
    let refusal = |name, issuer, aliases, words| Refusal {
        because: Because::VenafiSaysNo,
        name,
        tls: json!({"issuerRef": Signer::issuer_ref(issuer)}),
        aliases,
        issuer,
        words,
    };
    // One certificate by another issuer than the rest.
    let one = |name, aliases: &'static [&'static str], words| {
        let mut one = refusal(name, "venafi-domains", aliases, words);
        let issuer = one.tls["issuerRef"].take();
        one.tls = json!({"certificates": [{"alias": aliases[0], "issuerRef": issuer}]});
        one
    };
    let names = "] do not match regular expressions: [^([\\p{L}";
    let superuser = "common name postgres is not allowed in this policy: [^([\\p{L}";
    let keys =
        "the requested Key Type and Size do not match any of the allowed Key Types and Sizes";
    vec![
        one("server-of-domains", &["server"], names),
        one("client-of-domains", &["client"], superuser),
        refusal("to-ecdsa-only", "venafi-ecdsa", &ALIASES, keys),
    ]
}

fn the_root_is_missing() -> Vec<Refusal> {
    let refusal = |name, issuer, reference| Refusal {
        because: Because::TheRootIsMissing,
        name,
        tls: json!({"issuerRef": reference}),
        aliases: &ALIASES,
        issuer,
        words: "self-signed CA",
    };
    let (nowhere, alone) = ("venafi-no-root", "vault-alone");
    vec![
        refusal("to-root-nowhere", nowhere, Signer::issuer_ref(nowhere)),
        refusal("to-no-root", alone, issuer_ref(alone)),
    ]
}

/// The request fails in the issuer's words, and has touched nothing.
async fn is_refused_in_its_words(namespace: &TestNamespace<'_>, refusal: &Refusal) {
    let Refusal {
        because,
        name,
        tls,
        aliases,
        issuer,
        words,
    } = refusal;
    let why = is_refused(namespace, by_reload(request(name, tls))).await;
    let is_named = |alias: &&str| why.contains(&format!("{alias}, of {} {issuer}: ", kind(issuer)));
    for holds in [
        why.contains("Preflight: the trial certificates: "),
        why.contains(words),
        aliases.iter().any(is_named),
    ] {
        assert!(holds, "{name}: {because:?} to {aliases:?}: {words}: {why}");
    }
}

/// The kind of an issuer of these tests.
fn kind(issuer: &str) -> &'static str {
    if issuer.starts_with("vault") {
        "Issuer"
    } else {
        "VenafiClusterIssuer"
    }
}

/// The role allows less than is asked for: nothing is refused, and the end that counts is the real
/// one.
async fn a_life_that_vault_cuts_is_served(namespace: &TestNamespace<'_>, writes: &Writes) {
    let tls = json!({"issuerRef": issuer_ref("vault-day")});
    carry_out(
        namespace,
        writes,
        &by_reload(request("to-a-day", &tls)),
        false,
    )
    .await;
    let left = |object: &str, path: &str| {
        let time: jiff::Timestamp = namespace.path(object, path).parse().expect("a time");
        time.duration_since(jiff::Timestamp::now()).as_mins()
    };
    let end = left("pgops/to-a-day", ".status.pods[0].notAfter");
    assert!((23 * 60..=24 * 60).contains(&end), "{end}");
    let renewal = left("certificate/ha-postgres-server-cert", ".status.renewalTime");
    assert!((15 * 60..=16 * 60).contains(&renewal), "{renewal}");
    assert_eq!(
        namespace.condition("pg/ha-postgres", "CAEndsEarly", "message"),
        ""
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn vault_and_venafi_refuse_before_anything_is_touched_and_issue_under_load() {
    let Some(cluster) = Cluster::connect().await else {
        return;
    };
    let seat = Seat::take(&cluster).await;
    let versions = versions(&cluster);
    let (controllers, writes) = Controllers::counted(&seat, NAMESPACE).await;
    let namespace = &TestNamespace::make(&cluster, NAMESPACE);
    let (of_vault, of_venafi, in_chain) = (
        hierarchy("vault"),
        hierarchy("venafi"),
        hierarchy("in-chain"),
    );
    let vault = vault(&of_vault).await;
    let _signer = signer(&cluster, &of_venafi, &in_chain);
    namespace.apply(&Vault::token());
    for (name, path) in VAULT_ISSUERS {
        namespace.apply(&issuer(name, &vault.issuer(path)));
    }

    let mut database = example("ha-postgres.yaml", "ha-postgres", 2, &versions[&18]);
    database["spec"]["sslMode"] = json!("verify-full");
    database["spec"]["clientAuthMode"] = json!("cert");
    database["spec"]["tls"] = json!({"issuerRef": issuer_ref("vault")});
    namespace.apply(&database);
    namespace.until_phase("ha-postgres", "Ready", 180).await;
    let trusted = || secret(namespace, "ha-postgres-tls", "ca.crt");
    assert_eq!(trusted(), of_vault.0.pem());

    let refusals = [vault_says_no(), venafi_says_no(), the_root_is_missing()].concat();
    for refusal in one_of_each(refusals, |refusal| refusal.because) {
        is_refused_in_its_words(namespace, &refusal).await;
    }

    a_life_that_vault_cuts_is_served(namespace, &writes).await;
    assert_eq!(trusted(), of_vault.0.pem());
    let to = |name: &str| json!({"issuerRef": Signer::issuer_ref(name)});
    let mut whole = to("venafi-ecdsa");
    whole["certificates"] = ecdsa();
    let whole = ("to-a-whole-chain", whole, of_venafi.0);
    let in_chain = (
        "to-a-root-in-tls-crt",
        to("venafi-root-in-chain"),
        in_chain.0,
    );
    for (name, tls, root) in sample_or_all(vec![in_chain.clone()], vec![whole, in_chain]) {
        carry_out(namespace, &writes, &by_reload(request(name, &tls)), false).await;
        assert_eq!(trusted(), root.pem(), "{name}");
    }
    namespace.clear();
    controllers.stop().await;
}
