//! More pods: each gets its name into the certificate before it starts.

use crate::build::Cluster;
use crate::build::certificates::has_name_of_pod;
use crate::build::current_posture::CurrentPosture;
use crate::tls::ServerTls;

/// How many pods a set of `pods` pods gets now, on the way to the larger number of the spec.
///
/// Standbys and pgrekey dial pods by name, and check it. A new pod serves the certificate that is in
/// Secret `NAME-tls` when it starts, so it starts once that has its name. KubeDB's wildcard covers
/// every pod. The first pod needs no name to start: no certificate comes into service without pods.
#[must_use]
pub fn next_size(cluster: &Cluster, pods: i32, current: &CurrentPosture) -> i32 {
    if current.posture.serve == ServerTls::Plain {
        return cluster.replicas();
    }
    let served = current.served.as_ref();
    let certificate = served.and_then(|served| served.server.pair().ok());
    let has_name = |ordinal: &i32| {
        certificate
            .as_ref()
            .is_some_and(|certificate| has_name_of_pod(certificate, cluster, *ordinal))
    };
    let new = (pods.max(1)..cluster.replicas()).take_while(has_name);
    new.last().map_or(pods.max(1), |ordinal| ordinal + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::cluster::tests::{build, postgres};
    use crate::pki::issued::tests::{Authority, issue};
    use crate::pki::issued::{Pem, ServedMaterial};
    use crate::tls::{Method, Posture, posture};

    fn cluster(replicas: i32) -> Cluster {
        let spec =
            format!("{{version: '17', replicas: {replicas}, tls: {{issuerRef: {{name: i}}}}}}");
        build(&postgres(&spec)).expect("a cluster")
    }

    /// Served certificates of which the server's has these names.
    fn served(names: &[&str]) -> ServedMaterial {
        let ca = Authority::new("ca");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let own = rcgen::generate_simple_self_signed(names).expect("a certificate");
        ServedMaterial {
            server: Pem {
                certificate: own.cert.pem(),
                key: own.signing_key.serialize_pem().into(),
            },
            ..issue(&ca, &ca).served
        }
    }

    #[test]
    fn a_pod_more_starts_when_the_served_certificate_has_its_name() {
        const POD_0: &str = "pg-0.pg-pods.demo.svc";
        const POD_1: &str = "pg-1.pg-pods.demo.svc";
        const POD_2: &str = "pg-2.pg-pods.demo.svc";
        for (pods, desired, names, expected) in [
            (1, 3, &[POD_0][..], 1),
            (1, 3, &[POD_0, POD_1], 2),
            (1, 3, &[POD_0, POD_2], 1),
            (1, 3, &[POD_0, POD_1, POD_2], 3),
            (2, 3, &["*.pg-pods.demo.svc"], 3),
            (2, 3, &["*.pg-pods.other.svc", "pg.demo.svc"], 2),
            (3, 3, &[POD_0], 3),
            // A database that is started again.
            (0, 2, &[POD_0], 1),
            (0, 2, &["pg.demo.svc"], 1),
            (0, 2, &[POD_0, POD_1], 2),
        ] {
            let cluster = cluster(desired);
            let ca = Authority::new("ca");
            let material = issue(&ca, &ca).material;
            let current = CurrentPosture {
                posture: posture(cluster.spec(), 17, Some(&material)).expect("a posture"),
                served: Some(served(names)),
            };
            let case = format!("{pods} of {desired}, {names:?}");
            assert_eq!(next_size(&cluster, pods, &current), expected, "{case}");
            let plain = CurrentPosture {
                posture: Posture::plain(Method::Scram),
                ..current
            };
            assert_eq!(next_size(&cluster, pods, &plain), desired, "{case}");
            let lost = CurrentPosture {
                served: None,
                posture: posture(cluster.spec(), 17, Some(&material)).expect("a posture"),
            };
            let kept = if pods == 0 { 1 } else { pods };
            assert_eq!(next_size(&cluster, pods, &lost), kept, "{case}");
        }
    }
}
