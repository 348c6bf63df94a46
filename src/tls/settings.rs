//! The PostgreSQL settings of a posture.

use crate::tls::layout;
use crate::tls::posture::{Posture, ServerTls};

/// Name and value of each setting. Without TLS the paths have PostgreSQL's defaults, which `SHOW`
/// then prints.
#[must_use]
pub fn settings(posture: &Posture) -> Vec<(&'static str, &'static str)> {
    let tls: &[_] = match posture.serve {
        ServerTls::Plain => &[("ssl", "off")],
        ServerTls::Tls => &[
            ("ssl", "on"),
            ("ssl_ca_file", layout::SERVER_TRUST),
            ("ssl_cert_file", layout::SERVER_CERTIFICATE),
            ("ssl_key_file", layout::SERVER_KEY),
        ],
    };
    [("password_encryption", posture.hash.as_str())]
        .into_iter()
        .chain(tls.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::reserved_settings;
    use crate::api::tls::SslMode;
    use crate::tls::posture::Method;
    use crate::tls::posture::tests::material;

    #[test]
    fn the_settings_of_a_posture_are_reserved() {
        for posture in [
            Posture::plain(Method::Md5),
            Posture::tls(SslMode::Require, Method::Cert, material(1, 1, 1)),
        ] {
            for (name, _) in settings(&posture) {
                assert!(
                    reserved_settings::reserved_setting(name).is_some(),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn a_cluster_without_tls_names_no_files() {
        assert_eq!(
            settings(&Posture::plain(Method::Md5)),
            [("password_encryption", "md5"), ("ssl", "off")]
        );
    }
}
