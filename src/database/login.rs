//! What a server says before it lets us in, and whether we answer.
//!
//! # Expected flow
//! After the start-up packet a server asks for a proof, once, and ends with `AuthenticationOk`; or
//! it sends an error. Everything it sends comes through here before the client library sees it, and
//! what that answers to a request for SCRAM does too. (PostgreSQL documentation, "Message Flow",
//! "Start-up".)
//!
//! # Guarantees
//! A server that asks for the password in clear, for its MD5 where it has no business to, or for
//! something else that we do not give, gets no answer: the library never sees the question. A
//! server that could be bound to its TLS certificate and is not gets no proof either: it may be
//! somebody who hands it on. One that asks for nothing is believed only on better grounds.

use bytes::BytesMut;
use postgres_protocol::authentication::sasl::SCRAM_SHA_256;
use postgres_protocol::message::backend::Message;

/// What a server may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthenticationTerms {
    /// It may ask for the MD5 of the password, which is as good as the password to whoever has it.
    pub md5: bool,
    /// It may ask for nothing: the client certificate that it was shown is what it goes by, and its
    /// own has been checked.
    pub nothing: bool,
}

/// Why a server gets no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginRefusal {
    /// It wants to have the password itself.
    #[error(
        "it asks for the password in clear, which nobody gets: its pg_hba is not ours, or somebody else answers"
    )]
    Clear,
    /// It wants what is as good as the password.
    #[error(
        "it asks for the MD5 of the password, where SCRAM is written: its pg_hba is not ours, or somebody else answers"
    )]
    Md5,
    /// It lets everybody in.
    #[error(
        "it asks for nothing, so it proves nothing: its pg_hba is not ours, or somebody else answers"
    )]
    Nothing,
    /// It does not bind the login to its certificate.
    #[error(
        "it takes SCRAM without channel binding, which a PostgreSQL with TLS has: somebody may be in between"
    )]
    Unbound,
    /// It asks for something that we never have.
    #[error(
        "it asks for a login by {0}, which pgrekey has not: its pg_hba is not ours, or somebody else answers"
    )]
    Unknown(&'static str),
    /// It is no PostgreSQL server.
    #[error("it does not speak PostgreSQL's protocol")]
    NotPostgres,
}

/// The beginning of a session, as far as it has come.
#[derive(Debug)]
pub struct Greeting {
    terms: AuthenticationTerms,
    stage: LoginStage,
    /// What has come of a message that is not all here. The stream has a budget for it.
    begun: BytesMut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoginStage {
    /// Nothing has been asked.
    Start,
    /// It has asked for SCRAM; whether it knows who it lets in is checked by the library.
    Scram,
    /// It has asked for MD5.
    Md5,
    /// It has said no.
    Refused,
}

impl Greeting {
    /// A session of which nothing has been heard.
    #[must_use]
    pub fn new(terms: AuthenticationTerms) -> Self {
        Self {
            terms,
            stage: LoginStage::Start,
            begun: BytesMut::new(),
        }
    }

    /// Takes what has come next. When the server has let us in: what has come after that.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<Option<BytesMut>, LoginRefusal> {
        self.begun.extend_from_slice(bytes);
        loop {
            // A request, an error or a notice: somebody else need not be heard to the end of what
            // may be no message.
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
            if self.weigh(&message)? {
                return Ok(Some(self.begun.split()));
            }
        }
    }

    /// Judges one message; whether it lets us in.
    fn weigh(&mut self, message: &Message) -> Result<bool, LoginRefusal> {
        let next = match (self.stage, message) {
            (LoginStage::Start, Message::AuthenticationOk) => {
                return if self.terms.nothing {
                    Ok(true)
                } else {
                    Err(LoginRefusal::Nothing)
                };
            }
            (LoginStage::Scram | LoginStage::Md5, Message::AuthenticationOk) => return Ok(true),
            (LoginStage::Start, Message::AuthenticationSasl(_)) => LoginStage::Scram,
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
            (
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

    /// Looks at what the library is about to send.
    ///
    /// `y` at the beginning of a first SCRAM message says that we could bind the login to the
    /// server's certificate and the server does not offer it (RFC 5802, section 6). A PostgreSQL
    /// that speaks TLS does, so this one is none, or strips what it offers from somebody else's
    /// words. `n` says that we could not: the signature on that certificate has no digest.
    pub fn say(&self, bytes: &[u8]) -> Result<(), LoginRefusal> {
        /// Type and length of a message, and the length of what is in it.
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

    /// A request of this code.
    fn asks(code: u32, rest: &[u8]) -> Vec<u8> {
        message(b'R', &[code.to_be_bytes().as_slice(), rest].concat())
    }

    fn scram() -> Vec<u8> {
        asks(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
    }

    /// What these messages come to: whether it lets us in, or why it gets no answer.
    fn heard(terms: AuthenticationTerms, messages: &[Vec<u8>]) -> Result<bool, LoginRefusal> {
        let whole = Greeting::new(terms)
            .hear(&messages.concat())
            .map(|rest| rest.is_some());
        let mut greeting = Greeting::new(terms);
        let mut by_byte = Ok(false);
        for byte in messages.concat() {
            by_byte = greeting.hear(&[byte]).map(|rest| rest.is_some());
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
    fn a_server_gets_an_answer_only_to_what_is_written_that_it_asks() {
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
    fn what_is_no_postgresql_is_said_to_be_none() {
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
    fn what_comes_after_the_login_is_handed_on() {
        let mut greeting = Greeting::new(AuthenticationTerms {
            nothing: true,
            ..STRICT
        });
        let rest = greeting.hear(&[asks(0, b""), b"Z\0\0".to_vec()].concat());
        assert_eq!(
            rest.map(|rest| rest.map(|rest| rest.to_vec())),
            Ok(Some(b"Z\0\0".to_vec()))
        );
    }

    #[test]
    fn no_proof_goes_to_a_server_that_is_not_bound_to_a_certificate_that_could_bind_it() {
        let mut greeting = Greeting::new(STRICT);
        greeting.hear(&scram()).expect("SCRAM is fine");
        let said = |mechanism: &str, first: &str| {
            let mut message = BytesMut::new();
            frontend::sasl_initial_response(mechanism, first.as_bytes(), &mut message)
                .expect("a message");
            greeting.say(&message)
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
