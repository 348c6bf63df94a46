//! Foreign servers, for tests.

use std::net::SocketAddr;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::api::tls::SslMode;
use crate::database::connect::ConnectOptions;
use crate::tls::PasswordEncryption;

/// The key of a session for cancel requests.
pub(super) const KEY: [u8; 8] = *b"\0\0\0\x07\0\0\0\x09";

/// A message of a server.
pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.put_u32(u32::try_from(body.len() + 4).expect("short"));
    message.extend(body);
    message
}

/// An authentication request, by its code.
pub(super) fn asks(code: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[code.to_be_bytes().as_slice(), rest].concat())
}

/// `ReadyForQuery`.
pub(super) fn done() -> Vec<u8> {
    [message(b'C', b"SET\0"), message(b'Z', b"I")].concat()
}

/// Starts a server that handles its first connection with `act`. Returns its address.
pub(super) async fn stranger<F: Future<Output: Send> + Send + 'static>(
    at_work: impl FnOnce(TcpListener) -> F,
) -> (SocketAddr, JoinHandle<F::Output>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (address, tokio::spawn(at_work(listener)))
}

/// Accepts the next connection and reads its start-up packet.
pub(super) async fn caller(listener: &TcpListener) -> (TcpStream, Vec<u8>) {
    let (mut stream, _) = listener.accept().await.expect("a caller");
    let length = stream.read_u32().await.expect("a length");
    let mut packet = vec![0; length as usize - 4];
    stream.read_exact(&mut packet).await.expect("a packet");
    (stream, packet)
}

/// Completes the login of a client by MD5, and answers its first query.
pub(super) async fn accept_login(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = caller(listener).await;
    stream.write_all(&asks(5, b"salt")).await.expect("asked");
    next_message(&mut stream).await;
    let welcome = [asks(0, b""), message(b'K', &KEY), message(b'Z', b"I")].concat();
    stream.write_all(&welcome).await.expect("let in");
    next_message(&mut stream).await;
    stream.write_all(&done()).await.expect("answered");
    stream
}

/// The next message of the client.
pub(super) async fn next_message(stream: &mut TcpStream) -> BytesMut {
    let _tag = stream.read_u8().await.expect("a message");
    let length = stream.read_u32().await.expect("a length");
    let mut body = BytesMut::zeroed(length as usize - 4);
    stream.read_exact(&mut body).await.expect("a message");
    body
}

/// The bytes that the client sends until it closes the connection.
pub(super) async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = vec![];
    // A client that closes with unread bytes resets the connection.
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

/// Sends `piece` again and again until the client closes. Returns the number of bytes.
pub(super) async fn endless(stream: &mut TcpStream, piece: &[u8]) -> usize {
    let mut sent = 0;
    while let Ok(n) = stream.write(piece).await {
        sent += n;
    }
    sent
}

/// Options for a login without TLS.
pub(super) fn login_options(address: SocketAddr, hash: PasswordEncryption) -> ConnectOptions {
    ConnectOptions {
        address,
        host: "localhost".to_owned(),
        user: "postgres".to_owned(),
        password: Some("secret".into()),
        hash,
        major: None,
        pair: None,
        mode: SslMode::Disable,
        roots: vec![],
    }
}
