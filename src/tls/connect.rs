//! Who gets in: the rules of libpq and of `pg_hba`, as far as TLS is concerned.
//!
//! The facts, all of PostgreSQL's own sources and tried on 17 and 18:
//!
//! * `pg_hba`: the first line that matches decides; there is no falling through to the next.
//! * A root file, when there is one, is used in *every* mode that speaks TLS: `prefer` and
//!   `require` check the chain then.
//! * A client certificate that is shown is checked under every method, a password's line included.
//! * `prefer` goes on in plaintext when the server has no TLS, when the handshake fails on the
//!   client's side, and when the server answers with an error (such as a missing client
//!   certificate). `allow` is the mirror image. Neither goes on when libpq itself gives up (no
//!   password to send), nor when the server drops a TLS 1.3 session after the handshake, which is
//!   what happens to a client certificate of a CA that the server has not loaded.

use std::collections::BTreeSet;
use std::fmt;

use super::posture::{CaId, Hash, Method, Posture};
use crate::api::tls::SslMode;

/// Somebody who connects. Names and common names are taken to fit: what is issued is checked for
/// that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// libpq's `sslmode`.
    pub mode: SslMode,
    /// The CAs in its root file; `None` if it has no such file.
    pub roots: Option<BTreeSet<CaId>>,
    /// How the server stores its password; `None` if it brings none.
    pub password: Option<Hash>,
    /// The issuer of its certificate; `None` if it brings none.
    pub certificate: Option<CaId>,
}

/// Why somebody does not get in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The server takes no plaintext.
    PlaintextRefused,
    /// The server speaks no TLS.
    NoTls,
    /// The server speaks TLS, and no line of its `pg_hba` takes it.
    TlsRefused,
    /// The mode checks the server, and there is no root file to check with.
    NoRoots,
    /// The server's certificate comes from a CA that is not in the root file.
    UnknownServerCa(CaId),
    /// The client's certificate comes from a CA that the server has not loaded.
    UnknownClientCa(CaId),
    /// The server wants a certificate, and the client has none.
    NoCertificate,
    /// The server wants a password, and the client has none.
    NoPassword,
    /// The server wants a SCRAM hash, and the password is stored as MD5.
    WrongHash,
}

impl Refusal {
    /// Whether libpq gives up, where it would else try the other kind of connection.
    const fn is_final(&self) -> bool {
        matches!(self, Self::NoPassword | Self::UnknownClientCa(_))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PlaintextRefused => write!(f, "the server takes no plaintext connections"),
            Self::NoTls => write!(
                f,
                "the server does not speak TLS, and the client insists on it"
            ),
            Self::TlsRefused => write!(f, "no line of pg_hba takes TLS connections"),
            Self::NoRoots => {
                write!(
                    f,
                    "the client should check the server's certificate and has no CA to check it with"
                )
            }
            Self::UnknownServerCa(ca) => {
                write!(
                    f,
                    "the server's certificate comes from CA {ca}, which the client does not trust"
                )
            }
            Self::UnknownClientCa(ca) => {
                write!(
                    f,
                    "the client's certificate comes from CA {ca}, which the server does not trust"
                )
            }
            Self::NoCertificate => write!(
                f,
                "the server wants a client certificate, and the client has none"
            ),
            Self::NoPassword => write!(f, "the server wants a password, and the client has none"),
            Self::WrongHash => write!(
                f,
                "the server wants SCRAM, and the password is stored as MD5"
            ),
        }
    }
}

/// Whether this client would get in.
pub fn admits(client: &Client, server: &Posture) -> Result<(), Refusal> {
    let unless_final = |refusal: Refusal, next: fn(&Client, &Posture) -> Result<(), Refusal>| {
        if refusal.is_final() {
            Err(refusal)
        } else {
            next(client, server)
        }
    };
    match client.mode {
        SslMode::Disable => by_plaintext(client, server),
        SslMode::Allow => {
            by_plaintext(client, server).or_else(|refusal| unless_final(refusal, by_tls))
        }
        SslMode::Prefer => {
            by_tls(client, server).or_else(|refusal| unless_final(refusal, by_plaintext))
        }
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => by_tls(client, server),
    }
}

/// Whether a standby in one posture would replicate from a primary in another. It brings the
/// superuser's password always, and that is stored as the primary's posture says.
pub fn joins(standby: &Posture, primary: &Posture) -> Result<(), Refusal> {
    let client = Client {
        mode: standby.dial.mode,
        roots: standby.files.as_ref().map(|files| files.trust.clone()),
        password: Some(primary.hash),
        certificate: standby.presented().map(|leaf| leaf.ca),
    };
    admits(&client, primary)
}

fn by_plaintext(client: &Client, server: &Posture) -> Result<(), Refusal> {
    match server.accept.plain {
        None => Err(Refusal::PlaintextRefused),
        // pg_hba's `cert` is for TLS lines only: the server would not load it.
        Some(Method::Cert) => Err(Refusal::NoCertificate),
        Some(method) => by_password(client, method),
    }
}

fn by_tls(client: &Client, server: &Posture) -> Result<(), Refusal> {
    let leaf = server.served().ok_or(Refusal::NoTls)?;
    match &client.roots {
        Some(roots) if !roots.contains(&leaf.ca) => return Err(Refusal::UnknownServerCa(leaf.ca)),
        None if client.mode >= SslMode::VerifyCa => return Err(Refusal::NoRoots),
        _ => {}
    }
    if let Some(ca) = client.certificate.filter(|ca| !server.trust().contains(ca)) {
        return Err(Refusal::UnknownClientCa(ca));
    }
    match server.accept.tls {
        None => Err(Refusal::TlsRefused),
        Some(Method::Cert) => client.certificate.map(|_| ()).ok_or(Refusal::NoCertificate),
        Some(method) => by_password(client, method),
    }
}

fn by_password(client: &Client, method: Method) -> Result<(), Refusal> {
    match (client.password, method) {
        (None, _) => Err(Refusal::NoPassword),
        (Some(Hash::Md5), Method::Scram) => Err(Refusal::WrongHash),
        (Some(_), _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::posture::tests::{ca, material};
    use super::super::posture::{Accept, Dial};
    use super::*;

    fn client(mode: SslMode) -> Client {
        Client {
            mode,
            roots: Some(BTreeSet::from([ca(1)])),
            password: Some(Hash::Scram),
            certificate: None,
        }
    }

    fn tls(method: Method) -> Posture {
        Posture::tls(SslMode::VerifyFull, method, material(1, 1, 1))
    }

    #[test]
    fn each_mode_meets_a_server_without_tls() {
        let server = Posture::plain(Method::Scram);
        for (mode, verdict) in [
            (SslMode::Disable, Ok(())),
            (SslMode::Allow, Ok(())),
            (SslMode::Prefer, Ok(())),
            (SslMode::Require, Err(Refusal::NoTls)),
            (SslMode::VerifyCa, Err(Refusal::NoTls)),
            (SslMode::VerifyFull, Err(Refusal::NoTls)),
        ] {
            assert_eq!(admits(&client(mode), &server), verdict, "{mode:?}");
        }
    }

    #[test]
    fn each_mode_meets_a_server_with_nothing_but_tls() {
        for mode in SslMode::ALL {
            let verdict = if mode == SslMode::Disable {
                Err(Refusal::PlaintextRefused)
            } else {
                Ok(())
            };
            assert_eq!(
                admits(&client(mode), &tls(Method::Scram)),
                verdict,
                "{mode:?}"
            );
        }
    }

    #[test]
    fn prefer_goes_on_in_plaintext_when_its_certificate_is_missing() {
        let server = Posture {
            accept: Accept {
                plain: Some(Method::Md5),
                tls: Some(Method::Cert),
            },
            ..tls(Method::Cert)
        };
        assert_eq!(admits(&client(SslMode::Prefer), &server), Ok(()));
        assert_eq!(
            admits(&client(SslMode::Require), &server),
            Err(Refusal::NoCertificate)
        );
    }

    #[test]
    fn prefer_does_not_go_on_when_its_certificate_is_of_an_unknown_ca() {
        let server = Posture {
            accept: Accept {
                plain: Some(Method::Md5),
                tls: Some(Method::Scram),
            },
            ..tls(Method::Scram)
        };
        let client = Client {
            certificate: Some(ca(9)),
            ..client(SslMode::Prefer)
        };
        assert_eq!(
            admits(&client, &server),
            Err(Refusal::UnknownClientCa(ca(9)))
        );
    }

    #[test]
    fn a_missing_password_ends_the_attempt() {
        let server = Posture {
            accept: Accept {
                plain: Some(Method::Scram),
                tls: Some(Method::Cert),
            },
            ..tls(Method::Cert)
        };
        let client = Client {
            password: None,
            certificate: Some(ca(1)),
            ..client(SslMode::Allow)
        };
        assert_eq!(admits(&client, &server), Err(Refusal::NoPassword));
        assert_eq!(
            admits(
                &Client {
                    mode: SslMode::Prefer,
                    ..client
                },
                &server
            ),
            Ok(())
        );
    }

    #[test]
    fn a_root_file_is_used_by_every_mode_that_speaks_tls() {
        for mode in [
            SslMode::Allow,
            SslMode::Require,
            SslMode::VerifyCa,
            SslMode::VerifyFull,
        ] {
            let client = Client {
                roots: Some(BTreeSet::from([ca(2)])),
                ..client(mode)
            };
            assert_eq!(
                admits(&client, &tls(Method::Scram)),
                Err(Refusal::UnknownServerCa(ca(1))),
                "{mode:?}"
            );
        }
        let without = |mode| Client {
            roots: None,
            ..client(mode)
        };
        assert_eq!(
            admits(&without(SslMode::Require), &tls(Method::Scram)),
            Ok(())
        );
        assert_eq!(
            admits(&without(SslMode::VerifyCa), &tls(Method::Scram)),
            Err(Refusal::NoRoots)
        );
    }

    #[test]
    fn md5_takes_both_hashes_and_scram_only_its_own() {
        let stored = |hash| Client {
            password: Some(hash),
            ..client(SslMode::Require)
        };
        for (hash, method, verdict) in [
            (Hash::Md5, Method::Md5, Ok(())),
            (Hash::Scram, Method::Md5, Ok(())),
            (Hash::Scram, Method::Scram, Ok(())),
            (Hash::Md5, Method::Scram, Err(Refusal::WrongHash)),
        ] {
            assert_eq!(
                admits(&stored(hash), &tls(method)),
                verdict,
                "{hash:?} {method:?}"
            );
        }
    }

    #[test]
    fn a_standby_without_its_certificate_does_not_join() {
        let blind = Posture {
            dial: Dial {
                mode: SslMode::VerifyFull,
                present: false,
            },
            ..tls(Method::Cert)
        };
        assert_eq!(joins(&tls(Method::Cert), &tls(Method::Cert)), Ok(()));
        assert_eq!(
            joins(&blind, &tls(Method::Cert)),
            Err(Refusal::NoCertificate)
        );
    }

    #[test]
    fn a_refusal_says_why_in_words() {
        assert!(
            Refusal::UnknownServerCa(ca(7))
                .to_string()
                .contains(&"07".repeat(32))
        );
    }
}
