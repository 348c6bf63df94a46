//! Which clients can connect: the rules of libpq and of `pg_hba` about TLS.
//!
//! The facts, all from PostgreSQL's sources and tried on 17 and 18:
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

use crate::api::tls::SslMode;
use crate::pki::CaId;
use crate::tls::posture::{Method, PasswordEncryption, Posture};

/// A client that connects. Its names and common name are assumed to fit: issued certificates are
/// checked for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// libpq's `sslmode`.
    pub mode: SslMode,
    /// The CAs in its root file; `None` if it has no such file.
    pub roots: Option<BTreeSet<CaId>>,
    /// How the server stores its password. `None` if it sends none.
    pub password_encryption: Option<PasswordEncryption>,
    /// The issuer of its certificate. `None` if it has none.
    pub certificate: Option<CaId>,
}

/// Why a client cannot connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectRefusal {
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

impl ConnectRefusal {
    /// Whether libpq gives up instead of trying the other kind of connection.
    const fn is_final(&self) -> bool {
        matches!(self, Self::NoPassword | Self::UnknownClientCa(_))
    }
}

impl fmt::Display for ConnectRefusal {
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

/// Whether this client can connect.
pub fn can_connect(client: &Client, server: &Posture) -> Result<(), ConnectRefusal> {
    let unless_final =
        |refusal: ConnectRefusal, next: fn(&Client, &Posture) -> Result<(), ConnectRefusal>| {
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

/// Whether a standby in one posture can replicate from a primary in another. It always sends the
/// superuser's password, which is stored as the primary's posture says.
pub fn can_replicate(standby: &Posture, primary: &Posture) -> Result<(), ConnectRefusal> {
    let client = Client {
        mode: standby.conninfo.mode,
        roots: standby.files.as_ref().map(|files| files.trust.clone()),
        password_encryption: Some(primary.hash),
        certificate: standby.presented().map(|leaf| leaf.ca),
    };
    can_connect(&client, primary)
}

fn by_plaintext(client: &Client, server: &Posture) -> Result<(), ConnectRefusal> {
    match server.accept.plain {
        None => Err(ConnectRefusal::PlaintextRefused),
        // The method `cert` is valid on TLS lines only: the server would not load it here.
        Some(Method::Cert) => Err(ConnectRefusal::NoCertificate),
        Some(method) => by_password(client, method),
    }
}

fn by_tls(client: &Client, server: &Posture) -> Result<(), ConnectRefusal> {
    let leaf = server.served().ok_or(ConnectRefusal::NoTls)?;
    match &client.roots {
        Some(roots) if !roots.contains(&leaf.ca) => {
            return Err(ConnectRefusal::UnknownServerCa(leaf.ca));
        }
        None if client.mode >= SslMode::VerifyCa => return Err(ConnectRefusal::NoRoots),
        _ => {}
    }
    if let Some(ca) = client.certificate.filter(|ca| !server.trust().contains(ca)) {
        return Err(ConnectRefusal::UnknownClientCa(ca));
    }
    match server.accept.tls {
        None => Err(ConnectRefusal::TlsRefused),
        Some(Method::Cert) => client
            .certificate
            .map(|_| ())
            .ok_or(ConnectRefusal::NoCertificate),
        Some(method) => by_password(client, method),
    }
}

fn by_password(client: &Client, method: Method) -> Result<(), ConnectRefusal> {
    match (client.password_encryption, method) {
        (None, _) => Err(ConnectRefusal::NoPassword),
        (Some(PasswordEncryption::Md5), Method::Scram) => Err(ConnectRefusal::WrongHash),
        (Some(_), _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::posture::tests::{ca, material};
    use crate::tls::posture::{HbaMethods, ReplicationConninfo};

    fn client(mode: SslMode) -> Client {
        Client {
            mode,
            roots: Some(BTreeSet::from([ca(1)])),
            password_encryption: Some(PasswordEncryption::Scram),
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
            (SslMode::Require, Err(ConnectRefusal::NoTls)),
            (SslMode::VerifyCa, Err(ConnectRefusal::NoTls)),
            (SslMode::VerifyFull, Err(ConnectRefusal::NoTls)),
        ] {
            assert_eq!(can_connect(&client(mode), &server), verdict, "{mode:?}");
        }
    }

    #[test]
    fn each_mode_meets_a_server_with_nothing_but_tls() {
        for mode in SslMode::ALL {
            let verdict = if mode == SslMode::Disable {
                Err(ConnectRefusal::PlaintextRefused)
            } else {
                Ok(())
            };
            assert_eq!(
                can_connect(&client(mode), &tls(Method::Scram)),
                verdict,
                "{mode:?}"
            );
        }
    }

    #[test]
    fn prefer_goes_on_in_plaintext_when_its_certificate_is_missing() {
        let server = Posture {
            accept: HbaMethods {
                plain: Some(Method::Md5),
                tls: Some(Method::Cert),
            },
            ..tls(Method::Cert)
        };
        assert_eq!(can_connect(&client(SslMode::Prefer), &server), Ok(()));
        assert_eq!(
            can_connect(&client(SslMode::Require), &server),
            Err(ConnectRefusal::NoCertificate)
        );
    }

    #[test]
    fn prefer_does_not_go_on_when_its_certificate_is_of_an_unknown_ca() {
        let server = Posture {
            accept: HbaMethods {
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
            can_connect(&client, &server),
            Err(ConnectRefusal::UnknownClientCa(ca(9)))
        );
    }

    #[test]
    fn a_missing_password_ends_the_attempt() {
        let server = Posture {
            accept: HbaMethods {
                plain: Some(Method::Scram),
                tls: Some(Method::Cert),
            },
            ..tls(Method::Cert)
        };
        let client = Client {
            password_encryption: None,
            certificate: Some(ca(1)),
            ..client(SslMode::Allow)
        };
        assert_eq!(
            can_connect(&client, &server),
            Err(ConnectRefusal::NoPassword)
        );
        assert_eq!(
            can_connect(
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
                can_connect(&client, &tls(Method::Scram)),
                Err(ConnectRefusal::UnknownServerCa(ca(1))),
                "{mode:?}"
            );
        }
        let without = |mode| Client {
            roots: None,
            ..client(mode)
        };
        assert_eq!(
            can_connect(&without(SslMode::Require), &tls(Method::Scram)),
            Ok(())
        );
        assert_eq!(
            can_connect(&without(SslMode::VerifyCa), &tls(Method::Scram)),
            Err(ConnectRefusal::NoRoots)
        );
    }

    #[test]
    fn md5_takes_both_hashes_and_scram_only_its_own() {
        let stored = |hash| Client {
            password_encryption: Some(hash),
            ..client(SslMode::Require)
        };
        for (hash, method, verdict) in [
            (PasswordEncryption::Md5, Method::Md5, Ok(())),
            (PasswordEncryption::Scram, Method::Md5, Ok(())),
            (PasswordEncryption::Scram, Method::Scram, Ok(())),
            (
                PasswordEncryption::Md5,
                Method::Scram,
                Err(ConnectRefusal::WrongHash),
            ),
        ] {
            assert_eq!(
                can_connect(&stored(hash), &tls(method)),
                verdict,
                "{hash:?} {method:?}"
            );
        }
    }

    #[test]
    fn a_standby_without_its_certificate_does_not_join() {
        let blind = Posture {
            conninfo: ReplicationConninfo {
                mode: SslMode::VerifyFull,
                sends_client_cert: false,
            },
            ..tls(Method::Cert)
        };
        assert_eq!(
            can_replicate(&tls(Method::Cert), &tls(Method::Cert)),
            Ok(())
        );
        assert_eq!(
            can_replicate(&blind, &tls(Method::Cert)),
            Err(ConnectRefusal::NoCertificate)
        );
    }

    #[test]
    fn a_refusal_says_why_in_words() {
        assert!(
            ConnectRefusal::UnknownServerCa(ca(7))
                .to_string()
                .contains(&"07".repeat(32))
        );
    }
}
