//! The files under `/tls/certs`, at KubeDB's paths.

/// The mount path of the volume with certificates.
pub const ROOT: &str = "/tls/certs";

/// The server's leaf.
pub const SERVER_CERTIFICATE: &str = "/tls/certs/server/server.crt";
/// The server's key.
pub const SERVER_KEY: &str = "/tls/certs/server/server.key";
/// The CAs of the client certificates that the server accepts.
pub const SERVER_TRUST: &str = "/tls/certs/server/ca.crt";
/// The leaf that clients inside the pod present.
pub const CLIENT_CERTIFICATE: &str = "/tls/certs/client/client.crt";
/// Its key.
pub const CLIENT_KEY: &str = "/tls/certs/client/client.key";
/// The CAs that clients inside the pod trust.
pub const CLIENT_TRUST: &str = "/tls/certs/client/ca.crt";
/// The exporter's leaf.
pub const EXPORTER_CERTIFICATE: &str = "/tls/certs/exporter/tls.crt";
/// Its key.
pub const EXPORTER_KEY: &str = "/tls/certs/exporter/tls.key";

/// Keys of the Secret `NAME-tls` and where each is mounted below [`ROOT`].
pub const FILES: &[(&str, &str)] = &[
    ("ca.crt", "server/ca.crt"),
    ("server.crt", "server/server.crt"),
    ("server.key", "server/server.key"),
    ("ca.crt", "client/ca.crt"),
    ("client.crt", "client/client.crt"),
    ("client.key", "client/client.key"),
    ("exporter-ca.crt", "exporter/ca.crt"),
    ("exporter.crt", "exporter/tls.crt"),
    ("exporter.key", "exporter/tls.key"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_that_is_used_is_mounted() {
        for path in [
            SERVER_CERTIFICATE,
            SERVER_KEY,
            SERVER_TRUST,
            CLIENT_CERTIFICATE,
            CLIENT_KEY,
            CLIENT_TRUST,
            EXPORTER_CERTIFICATE,
            EXPORTER_KEY,
        ] {
            assert!(
                FILES
                    .iter()
                    .any(|(_, mounted)| format!("{ROOT}/{mounted}") == path),
                "{path}"
            );
        }
    }
}
