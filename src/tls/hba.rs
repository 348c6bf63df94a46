//! The `pg_hba` lines of a posture.

use crate::tls::posture::{Method, Posture, ServerTls};

/// The lines, in order: the first that matches decides.
///
/// The socket inside a pod needs neither password nor certificate: Patroni, the exporter and people
/// can log in whatever the state of TLS. `replication` is no database, so `all` does not cover it.
#[must_use]
pub fn lines(posture: &Posture) -> Vec<String> {
    // `host` also matches TLS connections, so it is exact only if no server speaks TLS.
    let plain = if posture.serve == ServerTls::Plain {
        "host"
    } else {
        "hostnossl"
    };
    let remote = [
        ("hostssl", posture.accept.tls),
        (plain, posture.accept.plain),
    ]
    .into_iter()
    .filter_map(|(kind, method)| method.map(|method| (kind, word(method))))
    .flat_map(|(kind, method)| {
        ["all", "replication"].map(|database| format!("{kind} {database} all all {method}"))
    });
    ["local all all trust", "local replication all trust"]
        .map(str::to_owned)
        .into_iter()
        .chain(remote)
        .collect()
}

/// `clientcert=verify-full` exists since PostgreSQL 12; rule `version-supported` refuses older
/// ones.
const fn word(method: Method) -> &'static str {
    match method {
        Method::Md5 => "md5",
        Method::Scram => "scram-sha-256",
        Method::Cert => "cert clientcert=verify-full",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tls::SslMode;
    use crate::tls::posture::tests::material;
    use crate::tls::posture::{HbaMethods, ServerTls};
    use crate::tls::walk;

    /// The method that the first matching line asks of a remote connection, parsed as PostgreSQL
    /// does.
    fn asked<'a>(lines: &'a [String], database: &str, tls: bool) -> Option<&'a str> {
        lines.iter().find_map(|line| {
            let (kind, rest) = line.split_once(' ')?;
            let (of, rest) = rest.split_once(' ')?;
            let matches_kind = match kind {
                "host" => true,
                "hostssl" => tls,
                "hostnossl" => !tls,
                _ => false,
            };
            (matches_kind && of == database).then(|| rest.trim_start_matches("all all "))
        })
    }

    #[test]
    fn the_hba_lines_accept_exactly_the_methods_of_the_posture() {
        let methods = [Method::Md5, Method::Scram, Method::Cert];
        let ends: Vec<Posture> = methods[..2]
            .iter()
            .map(|method| Posture::plain(*method))
            .chain(methods.map(|method| Posture::tls(SslMode::Require, method, material(1, 1, 1))))
            .collect();
        for posture in ends
            .iter()
            .flat_map(|from| ends.iter().flat_map(move |to| walk(from, to)))
        {
            let lines = lines(&posture);
            for database in ["all", "replication"] {
                assert_eq!(
                    asked(&lines, database, false),
                    posture.accept.plain.map(word),
                    "{lines:?}"
                );
                if posture.serve == ServerTls::Tls {
                    assert_eq!(
                        asked(&lines, database, true),
                        posture.accept.tls.map(word),
                        "{lines:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_socket_is_always_open() {
        let nothing = Posture {
            accept: HbaMethods {
                plain: None,
                tls: None,
            },
            ..Posture::plain(Method::Md5)
        };
        assert_eq!(
            lines(&nothing),
            ["local all all trust", "local replication all trust"]
        );
    }

    #[test]
    fn a_cluster_with_tls_has_no_line_for_plaintext() {
        let lines = lines(&Posture::tls(
            SslMode::Prefer,
            Method::Cert,
            material(1, 1, 1),
        ));
        assert_eq!(
            lines[2..],
            [
                "hostssl all all all cert clientcert=verify-full",
                "hostssl replication all all cert clientcert=verify-full"
            ]
        );
    }
}
