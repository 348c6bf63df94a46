//! Patroni's REST API: the one call that the Kubernetes API cannot replace.

use std::net::SocketAddr;

use base64::prelude::{BASE64_STANDARD, Engine};
use http::{Method, Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;

use crate::database::limited::{BEFORE_LOGIN, Limited, ReadBudget};
use crate::database::{ProbeError, bounded};

/// Asks Patroni to reload `patroni.yml`. Patroni does so in its next HA loop, and then writes and
/// loads a changed `primary_conninfo`.
///
/// Patroni requires credentials for calls that change something (Patroni documentation, "REST
/// API").
pub async fn reload(
    address: SocketAddr,
    user: &str,
    password: &SecretString,
) -> Result<(), ProbeError> {
    let broken = |error: &dyn std::fmt::Display| ProbeError::Patroni(error.to_string().into());
    bounded(async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| ProbeError::Unreachable(e.to_string().into()))?;
        let stream = Limited::new(stream, ReadBudget::new(BEFORE_LOGIN));
        let (mut sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broken(&e))?;
        let connection = tokio::spawn(connection);
        let request = reload_request(address, user, password).map_err(|e| broken(&e))?;
        let answer = sender.send_request(request).await.map_err(|e| broken(&e));
        connection.abort();
        let status = answer?.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(broken(&format!("answered {status} to a reload")))
        }
    })
    .await
}

fn reload_request(
    address: SocketAddr,
    user: &str,
    password: &SecretString,
) -> http::Result<Request<Empty<&'static [u8]>>> {
    Request::builder()
        .method(Method::POST)
        .uri("/reload")
        .header(header::HOST, address.to_string())
        .header(header::AUTHORIZATION, basic(user, password))
        .body(Empty::new())
}

/// The header `Authorization` of HTTP Basic.
fn basic(user: &str, password: &SecretString) -> String {
    let credentials = format!("{user}:{}", password.expose_secret());
    format!("Basic {}", BASE64_STANDARD.encode(credentials))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_pod_with_an_ipv6_address_stands_in_brackets() {
        for (address, host) in [
            ("10.0.0.1:8008", "10.0.0.1:8008"),
            ("[fd00::1]:8008", "[fd00::1]:8008"),
        ] {
            let address = address.parse().expect("an address");
            let request = reload_request(address, "u", &"p".into()).expect("a request");
            assert_eq!(request.headers()[header::HOST], host);
        }
    }

    #[test]
    fn credentials_are_written_as_http_wants_them() {
        assert_eq!(
            basic("Aladdin", &"open sesame".into()),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
    }
}
