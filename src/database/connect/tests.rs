use rustls::ServerConfig;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::database::CALL_TIMEOUT;
use crate::database::stranger::{asks, caller, endless, login_options, rest, stranger};
use crate::pki::issued::tests::{Authority, issue};

/// The bytes that a server with this request receives after the start-up packet, and the end of
/// the login.
async fn asked(question: Vec<u8>, hash: PasswordEncryption) -> (Vec<u8>, ProbeError) {
    let (address, received) = stranger(async move |listener| {
        let (mut stream, _) = caller(&listener).await;
        stream.write_all(&question).await.expect("asked");
        rest(&mut stream).await
    })
    .await;
    let failure = login_options(address, hash)
        .log_in()
        .await
        .expect_err("no server");
    (received.await.expect("a stranger"), failure)
}

#[tokio::test]
async fn a_server_that_asks_for_a_clear_password_gets_none() {
    for hash in [PasswordEncryption::Scram, PasswordEncryption::Md5] {
        let (received, failure) = asked(asks(3, b""), hash).await;
        assert_eq!(
            (received.as_slice(), &failure),
            (
                &[][..],
                &ProbeError::Distrusted(LoginRefusal::Clear.to_string().into())
            )
        );
    }
}

#[tokio::test]
async fn a_server_that_asks_for_md5_gets_nothing_where_scram_is_configured() {
    let (received, failure) = asked(asks(5, b"salt"), PasswordEncryption::Scram).await;
    assert_eq!(
        (received.as_slice(), failure),
        (
            &[][..],
            ProbeError::Distrusted(LoginRefusal::Md5.to_string().into())
        )
    );
    let (received, _) = asked(
        [asks(5, b"salt"), asks(3, b"")].concat(),
        PasswordEncryption::Md5,
    )
    .await;
    assert!(
        !String::from_utf8_lossy(&received).contains("secret"),
        "MD5 is answered, by its hash"
    );
}

#[tokio::test]
async fn a_server_that_asks_for_no_password_is_refused() {
    let (received, failure) = asked(asks(0, b""), PasswordEncryption::Md5).await;
    assert_eq!(
        (received.as_slice(), failure),
        (
            &[][..],
            ProbeError::Distrusted(LoginRefusal::Nothing.to_string().into())
        )
    );
}

/// The bytes that a TLS server with these mechanisms receives, and the end of the login.
async fn asked_by_tls(mechanisms: &[u8]) -> (Vec<u8>, ProbeError) {
    let server = issue(&Authority::new("ca"), &Authority::new("other"))
        .served
        .server
        .pair()
        .expect("a pair");
    let question = asks(10, mechanisms);
    let (address, received) = stranger(async move |listener| {
        let (mut stream, _) = caller(&listener).await;
        stream.write_all(b"S").await.expect("TLS is offered");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let resolver = Arc::new(SingleCertAndKey::from(server.certified_key()));
        let config = config
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        let mut stream = TlsAcceptor::from(Arc::new(config))
            .accept(stream)
            .await
            .expect("TLS");
        let length = stream.read_u32().await.expect("a start-up packet");
        stream
            .read_exact(&mut vec![0; length as usize - 4])
            .await
            .expect("a start-up packet");
        stream.write_all(&question).await.expect("asked");
        let mut received = vec![0; 1024];
        let n = stream.read(&mut received).await.unwrap_or_default();
        received.truncate(n);
        received
    })
    .await;
    let way = ConnectOptions {
        mode: SslMode::Require,
        ..login_options(address, PasswordEncryption::Scram)
    };
    let failure = way.log_in().await.expect_err("no server");
    (received.await.expect("a stranger"), failure)
}

#[tokio::test]
async fn no_relayable_proof_is_sent_over_tls() {
    let (received, failure) = asked_by_tls(b"SCRAM-SHA-256\0\0").await;
    assert_eq!(
        (received.as_slice(), failure),
        (
            &[][..],
            ProbeError::Distrusted(LoginRefusal::Unbound.to_string().into())
        )
    );
    let (received, _) = asked_by_tls(b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0").await;
    assert!(
        String::from_utf8_lossy(&received).contains("p=tls-server-end-point,,"),
        "{received:?}"
    );
}

#[tokio::test]
async fn an_error_without_end_is_not_read_to_its_end() {
    let (address, sent) = stranger(async |listener| {
        let (mut stream, _) = caller(&listener).await;
        stream.write_all(b"E\x7f\xff\xff\xff").await.expect("sent");
        endless(&mut stream, &[0; 8 * 1024]).await
    })
    .await;
    let began = Instant::now();
    let failure = login_options(address, PasswordEncryption::Scram)
        .log_in()
        .await
        .expect_err("no server");
    assert_eq!(failure, ProbeError::Protocol(TooMuch.to_string().into()));
    assert!(began.elapsed() < CALL_TIMEOUT);
    // The buffers of a connection are full when we hang up.
    assert!(sent.await.expect("a stranger") < 16 * 1024 * 1024);
}
