//! The TLS posture of a cluster, and the posture that a spec asks for.
//!
//! Each part of a posture reaches the pods in one of these ways:
//!
//! | part | way | reaches |
//! |---|---|---|
//! | `files` | Secret `NAME-tls` | each pod when its volume is refreshed; the volume itself only new pods |
//! | `serve`, `accept` | Patroni's shared configuration | all pods at once |
//! | `hash` | `ALTER ROLE` on the primary | all pods, by replication |
//! | `conninfo` | `patroni.yml` | each pod when its Patroni reloads |

use std::collections::BTreeSet;

use crate::api::defaults;
use crate::api::postgres::PostgresSpec;
use crate::api::tls::{ClientAuthMode, SslMode};
use crate::pki::{CaId, Leaf, Material};

/// The TLS that a cluster offers and demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posture {
    /// The files under `/tls/certs`. `None` if pods have no such volume.
    pub files: Option<Files>,
    /// Whether servers speak TLS.
    pub serve: ServerTls,
    /// The methods in `pg_hba`, for each kind of connection.
    pub accept: HbaMethods,
    /// The hash of the superuser's password and of new passwords.
    pub hash: PasswordEncryption,
    /// How a standby connects to its primary.
    pub conninfo: ReplicationConninfo,
}

impl Posture {
    /// A cluster without TLS. `Method::Cert` needs TLS and counts as `Method::Scram` here.
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

    /// A cluster that accepts only TLS. `mode` is that of its own clients.
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

    /// The leaf that servers serve, if they speak TLS.
    #[must_use]
    pub fn served(&self) -> Option<Leaf> {
        match self.serve {
            ServerTls::Plain => None,
            ServerTls::Tls => self.files.as_ref().map(|files| files.material.server),
        }
    }

    /// The leaf that a standby presents to its primary, if it presents one.
    #[must_use]
    pub fn presented(&self) -> Option<Leaf> {
        self.files
            .as_ref()
            .filter(|_| self.conninfo.sends_client_cert)
            .map(|files| files.material.client)
    }

    /// The CAs in `ca.crt`. Empty without files.
    #[must_use]
    pub fn trust(&self) -> BTreeSet<CaId> {
        self.files
            .as_ref()
            .map(|files| files.trust.clone())
            .unwrap_or_default()
    }

    /// Whether this posture needs the volume with certificates.
    #[must_use]
    pub fn needs_files(&self) -> bool {
        self.serve == ServerTls::Tls
            || self.conninfo.sends_client_cert
            || self.conninfo.mode >= SslMode::VerifyCa
    }

    /// Whether the change to `next` replaces the pods: it adds or removes the volume with
    /// certificates.
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
    /// The CAs in `ca.crt`, for client certificates and for connections of standbys.
    pub trust: BTreeSet<CaId>,
}

impl Files {
    /// These leaves, and trust in the CAs of the server's and the client's leaf.
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
    /// `ssl = on`, with the server's leaf of the files.
    Tls,
}

/// The methods that servers accept, for each kind of connection. `None`: connections of this kind
/// are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HbaMethods {
    /// The method for plaintext connections.
    pub plain: Option<Method>,
    /// The method for TLS connections.
    pub tls: Option<Method>,
}

impl HbaMethods {
    /// The hash by which a server may ask for a client's password, in this mode. During the
    /// removal of TLS, servers may still accept a TLS connection by the method for plaintext.
    #[must_use]
    pub fn hash(&self, mode: SslMode) -> PasswordEncryption {
        let method = match mode {
            SslMode::Disable => self.plain,
            _ => self.tls.or(self.plain),
        };
        method.map_or(PasswordEncryption::Scram, Method::hash)
    }
}

/// How a client authenticates: the method of a `pg_hba` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `md5`: a password stored as either hash.
    Md5,
    /// `scram-sha-256`: a password stored as SCRAM hash.
    Scram,
    /// `cert`: a client certificate whose common name is the user.
    Cert,
}

impl Method {
    /// The hash of passwords under this method. `cert` does not use it; SCRAM fits any later
    /// method.
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

/// The hash of a password: PostgreSQL's `password_encryption`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PasswordEncryption {
    /// Valid for the method `md5` only.
    Md5,
    /// Valid for both password methods.
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

/// How a standby connects to its primary. It always carries its password too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationConninfo {
    /// libpq's `sslmode`.
    pub mode: SslMode,
    /// Whether it presents the client's leaf of the files.
    pub sends_client_cert: bool,
}

/// The posture that a spec asks for, given PostgreSQL's major version and the issued leaves.
///
/// `None` if the spec asks for TLS and no certificates have been issued yet.
///
/// With TLS, plaintext is refused in every `sslMode`. Missing fields have KubeDB's defaults:
/// `verify-full` with TLS; `md5` before PostgreSQL 18, `scram` since.
#[must_use]
pub fn posture(spec: &PostgresSpec, major: u32, issued: Option<&Material>) -> Option<Posture> {
    let method = method(spec, major);
    match conninfo(spec) {
        None => Some(Posture::plain(method)),
        Some(mode) => issued.map(|material| Posture::tls(mode, method, *material)),
    }
}

/// How clients authenticate, by the spec.
#[must_use]
pub fn method(spec: &PostgresSpec, major: u32) -> Method {
    let password = Method::from(defaults::client_auth_mode(Some(major)));
    match spec.client_auth_mode.map(Method::from) {
        // Admission refuses `cert` without TLS. With the webhooks off, the default password method
        // still lets clients log in.
        Some(Method::Cert) if conninfo(spec).is_none() => password,
        asked => asked.unwrap_or(password),
    }
}

/// The `sslMode` of the cluster's own clients, if the spec asks for TLS.
fn conninfo(spec: &PostgresSpec) -> Option<SslMode> {
    let mode = spec.ssl_mode.unwrap_or(defaults::SSL_MODE_WITH_TLS);
    (spec.tls.is_some() && mode != SslMode::Disable).then_some(mode)
}

#[cfg(test)]
pub(crate) mod tests;
