//! Operators as processes of their own, and the registration of their webhooks.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Stdio};

use pgrekey::serve::registration::configuration_names;
use pgrekey::serve::table::WebhookType;
use serde_json::{Value, json};

use super::cluster::{Cluster, eventually, pgrekey, printed};
use super::namespace::TestNamespace;
use super::pki::CertificateFiles;
use super::turns::Seat;

/// An object with this label is not shown to the webhooks: it is how the suite makes what they
/// would refuse.
pub(crate) const UNSEEN: &str = "unseen";

/// An operator on this machine, where the API server reaches it.
pub(crate) struct Operator {
    child: Child,
    /// Where its webhooks are served.
    pub(crate) webhooks: SocketAddr,
}

impl Operator {
    /// Starts one on this seat, whose webhooks are called by the address of this machine. It keeps
    /// the CA of every registration right that names this address.
    pub(crate) fn start(seat: &Seat, further: &[&str]) -> Self {
        Self::start_as(seat, &["--certificate-name", &host()], further)
    }

    /// Starts one on this seat that serves this certificate, and leaves registrations alone.
    fn start_with(seat: &Seat, files: &CertificateFiles, further: &[&str]) -> Self {
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let (certificate, key) = (text(&files.certificate), text(&files.key));
        let files = [
            "--certificate-source=files",
            "--certificate-file",
            &certificate,
            "--key-file",
            &key,
        ];
        Self::start_as(seat, &files, further)
    }

    /// Starts one on this seat, whose webhooks nobody calls: it leaves registrations alone.
    pub(crate) fn start_unregistered(seat: &Seat, further: &[&str]) -> Self {
        Self::start_as(seat, &["--certificate-name=nobody.invalid"], further)
    }

    fn start_as(seat: &Seat, certificate: &[&str], further: &[&str]) -> Self {
        let host = host();
        let free = |host: &str| {
            TcpListener::bind((host, 0))
                .and_then(|l| l.local_addr())
                .expect("a free port")
        };
        let (webhooks, health) = (free(&host), free("127.0.0.1"));
        let child = pgrekey(&["run", "--namespace", seat.namespace])
            .args([
                "--webhook-address",
                &webhooks.to_string(),
                "--health-address",
                &health.to_string(),
            ])
            .args(certificate)
            .args(further)
            .env("KUBECONFIG", seat.rights.kubeconfig())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgrekey runs");
        Self { child, webhooks }
    }
}

/// The address of this machine, as the API server reaches it.
pub(super) fn host() -> String {
    std::env::var("PGREKEY_HOST_IP").expect("PGREKEY_HOST_IP: `make test-cluster` sets it")
}

/// It is killed: it puts nothing in order before.
impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Label of the registrations of the tests, which says whose it is: what has none is another
/// installation's.
const LABEL: &str = "suite";

const KINDS: [&str; 2] = [
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
];

/// The registration of an operator's webhooks, until it is dropped.
pub(crate) struct Registration<'a> {
    cluster: &'a Cluster,
    label: String,
}

impl<'a> Registration<'a> {
    /// Registers them as `pgrekey webhook-config` prints them, for the objects in these namespaces
    /// alone. The names are those of every installation, so one test alone may do it, and the
    /// operator fills its CA in.
    pub(crate) fn make(
        cluster: &'a Cluster,
        operator: &Operator,
        own: &str,
        judged: &[String],
    ) -> Self {
        for kind in KINDS {
            let others = ["get", kind, "-l", &format!("!{LABEL}"), "-o", "name"];
            let others = cluster.kubectl(&others, "").must_succeed();
            for name in configuration_names(WebhookType::Validate)
                .chain(configuration_names(WebhookType::Mutate))
            {
                let is_taken = others
                    .lines()
                    .any(|other| other.ends_with(&format!("/{name}")));
                assert!(
                    !is_taken,
                    "another installation has registered {name}: a cluster without one is needed"
                );
            }
        }
        let all = printed_for(operator, own, "names", &[]);
        Self::apply(cluster, all, judged, "names")
    }

    /// The same, beside others: by names that end like the namespace, and with this CA.
    fn make_beside(
        cluster: &'a Cluster,
        operator: &Operator,
        own: &str,
        namespace: &str,
        ca: &Path,
    ) -> Self {
        let ca = ["--ca-bundle", ca.to_str().expect("UTF-8")];
        let mut all = printed_for(operator, own, namespace, &ca);
        for configuration in &mut all {
            if let Value::String(name) = &mut configuration["metadata"]["name"] {
                name.push('.');
                name.push_str(namespace);
            }
        }
        Self::apply(cluster, all, &[namespace.to_owned()], namespace)
    }

    fn apply(cluster: &'a Cluster, all: Vec<Value>, judged: &[String], whose: &str) -> Self {
        for mut configuration in all {
            let webhook = &mut configuration["webhooks"][0];
            let expressions = webhook["namespaceSelector"]["matchExpressions"]
                .as_array_mut()
                .expect("a list");
            expressions.push(
                json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": judged}),
            );
            webhook["objectSelector"] =
                json!({"matchExpressions": [{"key": UNSEEN, "operator": "DoesNotExist"}]});
            cluster.apply(&configuration.to_string());
        }
        let label = format!("{LABEL}={whose}");
        Self { cluster, label }
    }
}

/// The configurations as `pgrekey webhook-config` prints them.
fn printed_for(operator: &Operator, own: &str, whose: &str, further: &[&str]) -> Vec<Value> {
    let (url, label) = (
        format!("https://{}", operator.webhooks),
        format!("{LABEL}={whose}"),
    );
    let print = [
        "webhook-config",
        "--namespace",
        own,
        "--url",
        &url,
        "--label",
        &label,
    ];
    let all = printed(&[&print, further].concat());
    serde_saphyr::from_multiple(&all).expect("YAML")
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        for kind in KINDS {
            self.cluster
                .kubectl(&["delete", kind, "-l", &self.label], "");
        }
    }
}

/// What users have after an installation, for one namespace: the webhooks judge what is made there,
/// and the controllers carry it out.
pub(crate) struct Installation<'a> {
    // Dropped first: nobody would answer the API server without the operator.
    _registration: Registration<'a>,
    _operator: Operator,
    _seat: Seat,
}

impl<'a> Installation<'a> {
    /// Makes it, and the namespace.
    pub(crate) async fn make(
        cluster: &'a Cluster,
        name: &'static str,
    ) -> (Self, TestNamespace<'a>) {
        let controllers = ["--watch-namespace", name, "--identity", name];
        let seat = Seat::take(cluster).await;
        let files = CertificateFiles::make(&host(), name);
        let operator = Operator::start_with(&seat, &files, &controllers);
        let registration =
            Registration::make_beside(cluster, &operator, seat.namespace, name, &files.ca);
        // What an earlier run has left behind goes only while somebody deals with it.
        let namespace = TestNamespace::make(cluster, name);
        let judged = || async {
            let refused = |kind: &str, of: &str, spec: Value| {
                let object = json!({"apiVersion": of, "kind": kind, "metadata": {"name": "wrong"}, "spec": spec});
                let create = ["-n", name, "create", "--dry-run=server", "-f", "-"];
                cluster.kubectl(&create, &object.to_string()).stderr()
            };
            let tls =
                json!({"type": "ReconfigureTLS", "databaseRef": {"name": "nobody"}, "tls": {}});
            refused("PostgresOpsRequest", "ops.kubedb.com/v1alpha1", tls)
                .contains("[database-exists]")
                && refused("Postgres", "kubedb.com/v1", json!({"version": "none"}))
                    .contains("[version-exists]")
        };
        eventually("the webhooks judge", judged).await;
        (
            Self {
                _registration: registration,
                _operator: operator,
                _seat: seat,
            },
            namespace,
        )
    }
}
