//! The rights that the chart gives an operator, and the wall around them: the suite runs its
//! operators with them and no others.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kube::Config;
use kube::config::Kubeconfig;
use serde_json::json;

use super::cluster::{Cluster, config_of};
use crate::support::Helm;

/// Where the operator of the suite lives, and its lease. Its ServiceAccount is of this name too.
pub(crate) const OPERATOR: &str = "pgrekey";

/// An operator's ServiceAccount, with the rights that the chart gives it.
pub(crate) struct Rights {
    kubeconfig: PathBuf,
}

impl Rights {
    /// Gives them, in this namespace.
    pub(crate) fn give(cluster: &Cluster, namespace: &str) -> Self {
        // The chart's pods are to keep to the strictest of the Pod Security Standards.
        let own = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        }});
        cluster.apply(&own.to_string());
        cluster.apply(&rendered(namespace));
        let token = [
            "create",
            "token",
            &account(namespace),
            "-n",
            namespace,
            "--duration=2h",
        ];
        let token = cluster.kubectl(&token, "").must_succeed();
        let mut read = serde_json::to_value(
            Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig"),
        )
        .expect("a kubeconfig is JSON");
        read["users"][0]["user"] = json!({"token": token.trim()});
        let kubeconfig = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{namespace}-{}", std::process::id()));
        std::fs::write(&kubeconfig, read.to_string()).expect("a file of the tests");
        let rights = Self { kubeconfig };
        rights.until_walled(cluster, namespace);
        rights
    }

    /// Policies are in force a little after they are made. What runs before has proved nothing
    /// about them.
    fn until_walled(&self, cluster: &Cluster, namespace: &str) {
        let own = self.kubeconfig.to_str().expect("UTF-8");
        let open = [
            "--kubeconfig",
            own,
            "-n",
            namespace,
            "create",
            "configmap",
            "nobodys",
            "--dry-run=server",
        ];
        let deadline = Instant::now() + Duration::from_secs(30);
        while !cluster
            .kubectl(&open, "")
            .stderr()
            .contains("ValidatingAdmissionPolicy")
        {
            assert!(
                Instant::now() < deadline,
                "there is no wall around the rights of {}",
                account(namespace)
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// For a process.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// For a client.
    pub(crate) async fn config(&self) -> Config {
        config_of(&self.kubeconfig).await
    }
}

/// The chart calls itself by the release, and puts its own name behind another one.
fn account(namespace: &str) -> String {
    if namespace == OPERATOR {
        OPERATOR.to_owned()
    } else {
        format!("{namespace}-pgrekey")
    }
}

fn rendered(namespace: &str) -> String {
    let only =
        ["rbac", "serviceaccount", "wall"].map(|name| format!("--show-only=templates/{name}.yaml"));
    let template = [
        "template",
        namespace,
        "charts/pgrekey",
        "--namespace",
        namespace,
    ];
    let helm = Helm::find().expect("a dev cluster has a helm");
    helm.run(&[&template[..], &only.each_ref().map(String::as_str)].concat())
        .expect("a rendering")
}
