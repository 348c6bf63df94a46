//! The state of a cluster's TLS, and which state a spec asks for.
//!
//! A posture reaches the pods by three ways, and each part of it belongs to one of them:
//!
//! | part | way | reaches |
//! |---|---|---|
//! | `files` | Secret `NAME-tls` | each pod when its volume is refreshed; the volume itself only new pods |
//! | `serve`, `accept` | Patroni's shared configuration | all pods at once |
//! | `hash` | `ALTER ROLE` on the primary | all pods, by replication |
//! | `dial` | `patroni.yml` | each pod when its agent reloads |

use std::collections::BTreeSet;

use crate::api::defaults;
use crate::api::postgres::PostgresSpec;
use crate::api::tls::{ClientAuthMode, SslMode};
use crate::pki::{CaId, Leaf, Material};

/// What a cluster offers and demands, TLS-wise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posture {
    /// What pods have under `/tls/certs`; `None` if they have no such volume.
    pub files: Option<Files>,
    /// Whether servers speak TLS.
    pub serve: ServerTls,
    /// What servers take, by way of connection: the rows of `pg_hba`.
    pub accept: HbaMethods,
    /// How the superuser's password is stored, and how new passwords are.
    pub hash: PasswordEncryption,
    /// How a standby dials its primary.
    pub conninfo: ReplicationConninfo,
}

impl Posture {
    /// A cluster without TLS whose clients log in by password. `Method::Cert` needs TLS and counts
    /// as `Method::Scram` here.
    #[must_use]
    pub fn plain(method: Method) -> Self {
        let method = if method == Method::Cert {
            Method::Scram
        } else {
            method
        };
        Self {
            files: None,
            serve: ServerTls::Plain,
            accept: HbaMethods {
                plain: Some(method),
                tls: None,
            },
            hash: method.hash(),
            conninfo: ReplicationConninfo {
                mode: SslMode::Disable,
                sends_client_cert: false,
            },
        }
    }

    /// A cluster with TLS and nothing but TLS, whatever the mode its own clients dial with.
    #[must_use]
    pub fn tls(mode: SslMode, method: Method, material: Material) -> Self {
        Self {
            files: Some(Files::trusting_its_signers(material)),
            serve: ServerTls::Tls,
            accept: HbaMethods {
                plain: None,
                tls: Some(method),
            },
            hash: method.hash(),
            conninfo: ReplicationConninfo {
                mode,
                sends_client_cert: method == Method::Cert,
            },
        }
    }

    /// The leaf that clients see, if servers speak TLS.
    #[must_use]
    pub fn served(&self) -> Option<Leaf> {
        match self.serve {
            ServerTls::Plain => None,
            ServerTls::Tls => self.files.as_ref().map(|files| files.material.server),
        }
    }

    /// The leaf that a standby shows to its primary, if it shows one.
    #[must_use]
    pub fn presented(&self) -> Option<Leaf> {
        self.files
            .as_ref()
            .filter(|_| self.conninfo.sends_client_cert)
            .map(|files| files.material.client)
    }

    /// The CAs in `ca.crt`; none without files.
    #[must_use]
    pub fn trust(&self) -> BTreeSet<CaId> {
        self.files
            .as_ref()
            .map(|files| files.trust.clone())
            .unwrap_or_default()
    }

    /// Whether a pod that lacks the volume with certificates cannot be in this posture.
    #[must_use]
    pub fn needs_files(&self) -> bool {
        self.serve == ServerTls::Tls
            || self.conninfo.sends_client_cert
            || self.conninfo.mode >= SslMode::VerifyCa
    }

    /// Whether going from here to `next` takes new pods: the volume with certificates comes or goes
    /// with its pod.
    #[must_use]
    pub fn needs_new_pods(&self, next: &Self) -> bool {
        self.files.is_some() != next.files.is_some()
    }
}

/// The content of `/tls/certs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The leaves and their keys.
    pub material: Material,
    /// The CAs in `ca.crt`, for client certificates and for dialling.
    pub trust: BTreeSet<CaId>,
}

impl Files {
    /// These leaves, and trust in those who issued what a server and its standbys show.
    #[must_use]
    pub fn trusting_its_signers(material: Material) -> Self {
        Self {
            material,
            trust: BTreeSet::from([material.server.ca, material.client.ca]),
        }
    }
}

/// Whether servers speak TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerTls {
    /// `ssl = off`.
    Plain,
    /// `ssl = on`, with the server leaf of the files.
    Tls,
}

/// What servers take, by way of connection. `None`: connections of this kind are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HbaMethods {
    /// What a plaintext connection must bring.
    pub plain: Option<Method>,
    /// What a TLS connection must bring.
    pub tls: Option<Method>,
}

impl HbaMethods {
    /// As what a server may ask for a client's password, over TLS or in plaintext. Where TLS is on
    /// its way out, servers may still take it as they take plaintext.
    #[must_use]
    pub fn hash(&self, over_tls: bool) -> PasswordEncryption {
        let method = if over_tls {
            self.tls.or(self.plain)
        } else {
            self.plain
        };
        method.map_or(PasswordEncryption::Scram, Method::hash)
    }
}

/// How a client proves who it is: the method of a `pg_hba` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A password, however it is stored: `md5` takes SCRAM hashes too.
    Md5,
    /// A password stored as SCRAM hash.
    Scram,
    /// A client certificate whose common name is the user.
    Cert,
}

impl Method {
    /// How passwords are stored under this method. Under `cert` nobody looks, and SCRAM is right
    /// for whatever comes next.
    #[must_use]
    pub const fn hash(self) -> PasswordEncryption {
        match self {
            Self::Md5 => PasswordEncryption::Md5,
            Self::Scram | Self::Cert => PasswordEncryption::Scram,
        }
    }
}

impl From<ClientAuthMode> for Method {
    fn from(mode: ClientAuthMode) -> Self {
        match mode {
            ClientAuthMode::Md5 => Self::Md5,
            ClientAuthMode::Scram => Self::Scram,
            ClientAuthMode::Cert => Self::Cert,
        }
    }
}

/// How a password is stored: PostgreSQL's `password_encryption`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PasswordEncryption {
    /// Only the method `md5` takes it.
    Md5,
    /// Both password methods take it.
    Scram,
}

impl PasswordEncryption {
    /// As PostgreSQL writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Scram => "scram-sha-256",
        }
    }
}

/// How a standby dials its primary. It always carries its password too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationConninfo {
    /// libpq's `sslmode`.
    pub mode: SslMode,
    /// Whether it shows the client leaf of the files.
    pub sends_client_cert: bool,
}

/// The posture that a spec asks for, given PostgreSQL's major version and what has been issued for
/// it.
///
/// `None`: the spec wants TLS and nothing has been issued yet.
///
/// TLS on means that plaintext is refused, for every `sslMode`. What a spec leaves out has KubeDB's
/// defaults: `verify-full` with TLS; `md5` before PostgreSQL 18, `scram` since.
#[must_use]
pub fn posture(spec: &PostgresSpec, major: u32, issued: Option<&Material>) -> Option<Posture> {
    let method = method(spec, major);
    match conninfo(spec) {
        None => Some(Posture::plain(method)),
        Some(mode) => issued.map(|material| Posture::tls(mode, method, *material)),
    }
}

/// How clients prove who they are, by a spec.
#[must_use]
pub fn method(spec: &PostgresSpec, major: u32) -> Method {
    let password = Method::from(defaults::client_auth_mode(Some(major)));
    match spec.client_auth_mode.map(Method::from) {
        // Admission refuses `cert` without TLS; were it off, the default password method is what
        // still lets people in.
        Some(Method::Cert) if conninfo(spec).is_none() => password,
        asked => asked.unwrap_or(password),
    }
}

/// The mode by which the cluster's own clients dial, if the spec wants TLS.
fn conninfo(spec: &PostgresSpec) -> Option<SslMode> {
    let mode = spec.ssl_mode.unwrap_or(defaults::SSL_MODE_WITH_TLS);
    (spec.tls.is_some() && mode != SslMode::Disable).then_some(mode)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::api::postgres::TlsConfig;
    use crate::pki::Fingerprint;

    /// A CA named by one byte.
    pub(crate) fn ca(name: u8) -> CaId {
        CaId(Fingerprint([name; 32]))
    }

    /// The `serial`th leaves of two CAs.
    pub(crate) fn material(serial: u8, server: u8, client: u8) -> Material {
        let leaf = |kind: u8, issuer: u8| Leaf {
            fingerprint: Fingerprint([serial ^ kind; 32]),
            ca: ca(issuer),
        };
        Material {
            server: leaf(0x10, server),
            client: leaf(0x20, client),
            exporter: leaf(0x30, server),
        }
    }

    fn with_tls(mode: Option<SslMode>) -> PostgresSpec {
        PostgresSpec {
            tls: Some(TlsConfig::default()),
            ssl_mode: mode,
            ..Default::default()
        }
    }

    #[test]
    fn a_spec_without_tls_is_plain_with_the_password_of_its_version() {
        let spec = PostgresSpec::default();
        assert_eq!(posture(&spec, 17, None), Some(Posture::plain(Method::Md5)));
        assert_eq!(
            posture(&spec, 18, None),
            Some(Posture::plain(Method::Scram))
        );
    }

    #[test]
    fn a_password_is_given_as_md5_only_where_that_is_written() {
        let (md5, scram, cert) = (Some(Method::Md5), Some(Method::Scram), Some(Method::Cert));
        for (plain, tls, in_plaintext, over_tls) in [
            (md5, None, PasswordEncryption::Md5, PasswordEncryption::Md5),
            (md5, md5, PasswordEncryption::Md5, PasswordEncryption::Md5),
            (
                md5,
                scram,
                PasswordEncryption::Md5,
                PasswordEncryption::Scram,
            ),
            (
                md5,
                cert,
                PasswordEncryption::Md5,
                PasswordEncryption::Scram,
            ),
            (
                scram,
                md5,
                PasswordEncryption::Scram,
                PasswordEncryption::Md5,
            ),
            (
                None,
                md5,
                PasswordEncryption::Scram,
                PasswordEncryption::Md5,
            ),
            (
                scram,
                None,
                PasswordEncryption::Scram,
                PasswordEncryption::Scram,
            ),
            (
                None,
                None,
                PasswordEncryption::Scram,
                PasswordEncryption::Scram,
            ),
        ] {
            let accept = HbaMethods { plain, tls };
            assert_eq!(
                (accept.hash(false), accept.hash(true)),
                (in_plaintext, over_tls),
                "{accept:?}"
            );
        }
    }

    #[test]
    fn tls_refuses_plaintext_whatever_the_mode() {
        let issued = material(1, 1, 1);
        for mode in [
            SslMode::Allow,
            SslMode::Prefer,
            SslMode::Require,
            SslMode::VerifyCa,
            SslMode::VerifyFull,
        ] {
            let asked = posture(&with_tls(Some(mode)), 18, Some(&issued)).expect("issued");
            assert_eq!(
                asked.accept,
                HbaMethods {
                    plain: None,
                    tls: Some(Method::Scram)
                }
            );
            assert_eq!(asked.conninfo.mode, mode);
        }
        assert_eq!(
            posture(&with_tls(None), 18, Some(&issued)).map(|p| p.conninfo.mode),
            Some(SslMode::VerifyFull)
        );
    }

    #[test]
    fn tls_waits_until_something_is_issued() {
        assert_eq!(posture(&with_tls(None), 17, None), None);
    }

    #[test]
    fn only_certificate_login_presents_a_certificate() {
        for (asked, presents) in [
            (ClientAuthMode::Md5, false),
            (ClientAuthMode::Scram, false),
            (ClientAuthMode::Cert, true),
        ] {
            let spec = PostgresSpec {
                client_auth_mode: Some(asked),
                ..with_tls(None)
            };
            let issued = material(1, 1, 2);
            let posture = posture(&spec, 17, Some(&issued)).expect("issued");
            assert_eq!(posture.presented(), presents.then_some(issued.client));
            assert_eq!(posture.trust(), BTreeSet::from([ca(1), ca(2)]));
        }
    }
}
