//! Servers that are none of ours, for tests.

use std::net::SocketAddr;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::api::tls::SslMode;
use crate::database::connect::ConnectOptions;
use crate::tls::PasswordEncryption;

/// The identity of a session, as the server tells it for a request to give a query up.
pub(super) const KEY: [u8; 8] = *b"\0\0\0\x07\0\0\0\x09";

/// A message of a server.
pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.put_u32(u32::try_from(body.len() + 4).expect("short"));
    message.extend(body);
    message
}

/// A request for a proof, by its code.
pub(super) fn asks(code: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[code.to_be_bytes().as_slice(), rest].concat())
}

/// What a server says when it is done.
pub(super) fn done() -> Vec<u8> {
    [message(b'C', b"SET\0"), message(b'Z', b"I")].concat()
}

/// One that does this with the first connection that it gets, and where it is.
pub(super) async fn stranger<F: Future<Output: Send> + Send + 'static>(
    at_work: impl FnOnce(TcpListener) -> F,
) -> (SocketAddr, JoinHandle<F::Output>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (address, tokio::spawn(at_work(listener)))
}

/// The next connection, its start-up packet read.
pub(super) async fn caller(listener: &TcpListener) -> (TcpStream, Vec<u8>) {
    let (mut stream, _) = listener.accept().await.expect("a caller");
    let length = stream.read_u32().await.expect("a length");
    let mut packet = vec![0; length as usize - 4];
    stream.read_exact(&mut packet).await.expect("a packet");
    (stream, packet)
}

/// Lets a caller in who takes MD5, and answers the first thing that he does.
pub(super) async fn let_in(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = caller(listener).await;
    stream.write_all(&asks(5, b"salt")).await.expect("asked");
    heard(&mut stream).await;
    let welcome = [asks(0, b""), message(b'K', &KEY), message(b'Z', b"I")].concat();
    stream.write_all(&welcome).await.expect("let in");
    heard(&mut stream).await;
    stream.write_all(&done()).await.expect("answered");
    stream
}

/// The next message of a caller.
pub(super) async fn heard(stream: &mut TcpStream) -> BytesMut {
    let _tag = stream.read_u8().await.expect("a message");
    let length = stream.read_u32().await.expect("a length");
    let mut body = BytesMut::zeroed(length as usize - 4);
    stream.read_exact(&mut body).await.expect("a message");
    body
}

/// What a caller says until he hangs up.
pub(super) async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = vec![];
    // Somebody who hangs up without having read everything resets the connection.
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

/// Sends the same for as long as somebody listens; how many bytes that were.
pub(super) async fn endless(stream: &mut TcpStream, piece: &[u8]) -> usize {
    let mut sent = 0;
    while let Ok(n) = stream.write(piece).await {
        sent += n;
    }
    sent
}

/// How to dial one, without TLS.
pub(super) fn dial(address: SocketAddr, hash: PasswordEncryption) -> ConnectOptions {
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
