//! The messages of a server before login, and the requests that we refuse to answer.
//!
//! # Expected flow
//! After the start-up packet a server requests authentication, once, and ends with
//! `AuthenticationOk`; or it sends an error. All its messages pass through here before the client
//! library sees them, and so does the library's answer to a SCRAM request. (PostgreSQL
//! documentation, "Message Flow", "Start-up".)
//!
//! # Guarantees
//! A server that requests the password in clear, its MD5 hash against the posture, or a method that
//! we do not support, gets no answer: the library never sees the request. A TLS server without
//! channel binding gets no SCRAM proof: it may be a relay. A server that requests no authentication
//! is trusted only if [`AuthenticationTerms::nothing`] allows it.

use bytes::BytesMut;
use postgres_protocol::authentication::sasl::SCRAM_SHA_256;
use postgres_protocol::message::backend::Message;

/// The authentication that a server may request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthenticationTerms {
    /// Whether it may request the MD5 hash of the password, with which anybody can log in as with
    /// the password.
    pub md5: bool,
    /// Whether it may request none: it has our client certificate, and its own certificate has been
    /// verified.
    pub nothing: bool,
}

/// Why a server gets no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginRefusal {
    /// It requests the password in clear.
    #[error(
        "it asks for the password in clear, which pgrekey never sends: its pg_hba is not pgrekey's, or another program answers"
    )]
    Clear,
    /// It requests the MD5 hash of the password.
    #[error(
        "it asks for the MD5 of the password, where only SCRAM is allowed: its pg_hba is not pgrekey's, or another program answers"
    )]
    Md5,
    /// It requests no authentication.
    #[error(
        "it asks for nothing, so it proves nothing: its pg_hba is not pgrekey's, or another program answers"
    )]
    Nothing,
    /// It offers no channel binding.
    #[error(
        "it takes SCRAM without channel binding, which PostgreSQL with TLS offers: a relay may be in between"
    )]
    Unbound,
    /// It requests a method that we do not support.
    #[error(
        "it asks for a login by {0}, which pgrekey does not support: its pg_hba is not pgrekey's, or another program answers"
    )]
    Unknown(&'static str),
    /// It does not speak PostgreSQL's protocol.
    #[error("it does not speak PostgreSQL's protocol")]
    NotPostgres,
}

/// The login phase of a session.
#[derive(Debug)]
pub struct Greeting {
    terms: AuthenticationTerms,
    stage: LoginStage,
    /// The received part of an incomplete message. The stream's budget bounds it.
    begun: BytesMut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoginStage {
    /// No request yet.
    Start,
    /// It requested SCRAM. The client library verifies the server's signature.
    Scram,
    /// It requested MD5.
    Md5,
    /// It sent an error.
    Refused,
}

impl Greeting {
    /// A session without a message so far.
    #[must_use]
    pub fn new(terms: AuthenticationTerms) -> Self {
        Self {
            terms,
            stage: LoginStage::Start,
            begun: BytesMut::new(),
        }
    }

    /// Takes the next bytes. After `AuthenticationOk`, returns the bytes that follow it.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Option<BytesMut>, LoginRefusal> {
        self.begun.extend_from_slice(bytes);
        loop {
            // Only a request, an error or a notice is valid here. Anything else is refused at its
            // first byte, before it fills the buffer.
            if self
                .begun
                .first()
                .is_some_and(|tag| !matches!(tag, b'R' | b'E' | b'N'))
            {
                return Err(LoginRefusal::NotPostgres);
            }
            let message = Message::parse(&mut self.begun).map_err(|_| LoginRefusal::NotPostgres)?;
            let Some(message) = message else {
                return Ok(None);
            };
            if self.check(&message)? {
                return Ok(Some(self.begun.split()));
            }
        }
    }

    /// Checks one message. Returns whether it is `AuthenticationOk`.
    fn check(&mut self, message: &Message) -> Result<bool, LoginRefusal> {
        let next = match (self.stage, message) {
            (LoginStage::Start, Message::AuthenticationOk) => {
                return if self.terms.nothing {
                    Ok(true)
                } else {
                    Err(LoginRefusal::Nothing)
                };
            }
            (LoginStage::Scram | LoginStage::Md5, Message::AuthenticationOk) => return Ok(true),
            (LoginStage::Start, Message::AuthenticationMd5Password(_)) if self.terms.md5 => {
                LoginStage::Md5
            }
            (_, Message::AuthenticationMd5Password(_)) => return Err(LoginRefusal::Md5),
            (_, Message::AuthenticationCleartextPassword) => return Err(LoginRefusal::Clear),
            (_, Message::AuthenticationGss | Message::AuthenticationGssContinue(_)) => {
                return Err(LoginRefusal::Unknown("GSSAPI"));
            }
            (_, Message::AuthenticationKerberosV5) => {
                return Err(LoginRefusal::Unknown("Kerberos"));
            }
            (_, Message::AuthenticationSspi) => return Err(LoginRefusal::Unknown("SSPI")),
            (_, Message::AuthenticationScmCredential) => {
                return Err(LoginRefusal::Unknown("credentials of the system"));
            }
            (LoginStage::Start, Message::AuthenticationSasl(_))
            | (
                LoginStage::Scram,
                Message::AuthenticationSaslContinue(_) | Message::AuthenticationSaslFinal(_),
            ) => LoginStage::Scram,
            (stage, Message::NoticeResponse(_)) => stage,
            (_, Message::ErrorResponse(_)) => LoginStage::Refused,
            _ => return Err(LoginRefusal::NotPostgres),
        };
        self.stage = next;
        Ok(false)
    }

    /// Checks the bytes that the library is about to send.
    ///
    /// `y` at the beginning of the first SCRAM message says that we support channel binding and the
    /// server does not offer it (RFC 5802, section 6). A PostgreSQL server with TLS always offers
    /// it, so this is no PostgreSQL server, or a relay that removed the offer. `n` says that we do
    /// not support it for this certificate: its signature has no digest.
    pub fn send(&self, bytes: &[u8]) -> Result<(), LoginRefusal> {
        /// The header of a message: type and length.
        const HEADER: usize = 5;
        const LENGTH: usize = 4;
        let mechanism = bytes
            .get(HEADER..)
            .and_then(|rest| rest.strip_prefix(SCRAM_SHA_256.as_bytes()));
        let first = mechanism
            .and_then(|rest| rest.strip_prefix(&[0]))
            .and_then(|rest| rest.get(LENGTH));
        if self.stage == LoginStage::Scram && first == Some(&b'y') {
            Err(LoginRefusal::Unbound)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use postgres_protocol::message::frontend;

    use super::*;

    const STRICT: AuthenticationTerms = AuthenticationTerms {
        md5: false,
        nothing: false,
    };

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![tag];
        message.put_u32(u32::try_from(body.len() + 4).expect("short"));
        message.extend(body);
        message
    }

    /// An authentication request of this code.
    fn asks(code: u32, rest: &[u8]) -> Vec<u8> {
        message(b'R', &[code.to_be_bytes().as_slice(), rest].concat())
    }

    fn scram() -> Vec<u8> {
        asks(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
    }

    /// Whether these messages complete the login, or why the server gets no answer.
    fn heard(terms: AuthenticationTerms, messages: &[Vec<u8>]) -> Result<bool, LoginRefusal> {
        let whole = Greeting::new(terms)
            .receive(&messages.concat())
            .map(|rest| rest.is_some());
        let mut greeting = Greeting::new(terms);
        let mut by_byte = Ok(false);
        for byte in messages.concat() {
            by_byte = greeting.receive(&[byte]).map(|rest| rest.is_some());
            if by_byte != Ok(false) {
                break;
            }
        }
        assert_eq!(
            whole, by_byte,
            "it matters in which pieces the messages come"
        );
        whole
    }

    #[test]
    fn a_server_gets_an_answer_only_to_the_configured_login_method() {
        let md5 = AuthenticationTerms {
            md5: true,
            ..STRICT
        };
        let ok = || asks(0, b"");
        let by_scram = [scram(), asks(11, b"r=1,s=2,i=4096"), asks(12, b"v=3"), ok()];
        for terms in [STRICT, md5] {
            assert_eq!(heard(terms, &by_scram), Ok(true));
            assert_eq!(heard(terms, &[asks(3, b"")]), Err(LoginRefusal::Clear));
            assert_eq!(
                heard(terms, &[scram(), asks(3, b"")]),
                Err(LoginRefusal::Clear),
                "in the middle of SCRAM"
            );
            assert_eq!(
                heard(terms, &[scram(), asks(5, b"salt")]),
                Err(LoginRefusal::Md5),
                "in the middle of SCRAM"
            );
            assert_eq!(heard(terms, &[ok()]), Err(LoginRefusal::Nothing));
            assert_eq!(
                heard(terms, &[asks(7, b"")]),
                Err(LoginRefusal::Unknown("GSSAPI"))
            );
        }
        assert_eq!(heard(STRICT, &[asks(5, b"salt")]), Err(LoginRefusal::Md5));
        assert_eq!(heard(md5, &[asks(5, b"salt"), ok()]), Ok(true));
        assert_eq!(
            heard(
                AuthenticationTerms {
                    nothing: true,
                    ..STRICT
                },
                &[ok()]
            ),
            Ok(true)
        );
    }

    #[test]
    fn a_server_of_another_protocol_is_named_as_such() {
        for wrong in [
            b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
            asks(99, b""),
            message(b'Z', b"I"),
            asks(12, b"v=3"),
        ] {
            assert_eq!(heard(STRICT, &[wrong]), Err(LoginRefusal::NotPostgres));
        }
        assert_eq!(
            heard(STRICT, &[message(b'E', b"CXX000\0\0")]),
            Ok(false),
            "the library tells what an error says"
        );
    }

    #[test]
    fn bytes_after_the_login_are_kept() {
        let mut greeting = Greeting::new(AuthenticationTerms {
            nothing: true,
            ..STRICT
        });
        let rest = greeting.receive(&[asks(0, b""), b"Z\0\0".to_vec()].concat());
        assert_eq!(
            rest.map(|rest| rest.map(|rest| rest.to_vec())),
            Ok(Some(b"Z\0\0".to_vec()))
        );
    }

    #[test]
    fn no_proof_goes_to_a_server_that_is_not_bound_to_a_certificate_that_could_bind_it() {
        let mut greeting = Greeting::new(STRICT);
        greeting.receive(&scram()).expect("SCRAM is fine");
        let said = |mechanism: &str, first: &str| {
            let mut message = BytesMut::new();
            frontend::sasl_initial_response(mechanism, first.as_bytes(), &mut message)
                .expect("a message");
            greeting.send(&message)
        };
        assert_eq!(
            said("SCRAM-SHA-256", "y,,n=,r=nonce"),
            Err(LoginRefusal::Unbound)
        );
        assert_eq!(said("SCRAM-SHA-256", "n,,n=,r=nonce"), Ok(()));
        assert_eq!(
            said("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=nonce"),
            Ok(())
        );
    }
}
