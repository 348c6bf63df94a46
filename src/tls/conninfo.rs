//! The libpq parameters of a posture, by which Patroni and the standbys of a cluster connect.

use crate::api::tls::SslMode;
use crate::tls::layout;
use crate::tls::posture::Posture;

/// Name and value of each parameter.
///
/// The root file is named in every mode: libpq then checks the chain whenever it speaks TLS, so
/// that a standby streams from no foreign server.
#[must_use]
pub fn parameters(posture: &Posture) -> Vec<(&'static str, &'static str)> {
    let mode = posture.conninfo.mode;
    let roots = posture.files.is_some() && mode != SslMode::Disable;
    [("sslmode", Some(mode.as_str()))]
        .into_iter()
        .chain([("sslrootcert", roots.then_some(layout::CLIENT_TRUST))])
        .chain([(
            "sslcert",
            posture.presented().map(|_| layout::CLIENT_CERTIFICATE),
        )])
        .chain([("sslkey", posture.presented().map(|_| layout::CLIENT_KEY))])
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::posture::Method;
    use crate::tls::posture::tests::material;

    #[test]
    fn each_kind_of_dialling_names_the_files_it_uses() {
        let names = |posture: &Posture| {
            parameters(posture)
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        let tls = |method| Posture::tls(SslMode::VerifyFull, method, material(1, 1, 1));
        assert_eq!(names(&Posture::plain(Method::Scram)), ["sslmode"]);
        assert_eq!(names(&tls(Method::Scram)), ["sslmode", "sslrootcert"]);
        assert_eq!(
            names(&tls(Method::Cert)),
            ["sslmode", "sslrootcert", "sslcert", "sslkey"]
        );
    }
}
