//! A server that plays Vault's PKI engine for cert-manager's Vault issuer: it answers what that
//! issuer calls, and refuses in Vault's words.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use pgrekey::api::duration::parse;
use rcgen::{CertificateSigningRequestParams, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::operator::host;
use super::pki::{Ca, answer, common_name, dns_names};

/// The token that it takes.
const TOKEN: &str = "a-token-of-the-tests";

/// A role of the PKI engine, with the fields of Vault's documentation. Those that it lacks are as
/// by default, but for `allow_bare_domains`, `allow_subdomains` and `allow_localhost`, which are
/// true.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    /// `rsa`, or `any`.
    pub(crate) key_type: &'static str,
    pub(crate) allowed_domains: Vec<String>,
    pub(crate) allow_wildcard_certificates: bool,
    pub(crate) max_ttl: Duration,
}

impl Role {
    /// Why it refuses this, in Vault's words and order.
    fn judge(&self, asked: &CertificateSigningRequestParams) -> Result<(), String> {
        let is_rsa = *asked.public_key.algorithm() == PKCS_RSA_SHA256;
        if self.key_type == "rsa" && !is_rsa {
            return Err(format!("role requires keys of type {}", self.key_type));
        }
        let name = common_name(asked);
        if !self.allows(&name) {
            return Err(format!("common name {name} not allowed by this role"));
        }
        let names = dns_names(asked);
        match names.into_iter().find(|name| !self.allows(name)) {
            None => Ok(()),
            Some(name) => Err(format!(
                "subject alternate name {name} not allowed by this role"
            )),
        }
    }

    fn allows(&self, name: &str) -> bool {
        let below = name.strip_prefix("*.");
        if below.is_some() && !self.allow_wildcard_certificates {
            return false;
        }
        let host = below.unwrap_or(name);
        let is_of = |domain: &String| {
            name == domain
                || host.ends_with(&format!(".{domain}"))
                || below == Some(domain.as_str())
        };
        host == "localhost" || self.allowed_domains.iter().any(is_of)
    }
}

/// A PKI engine: the CA that signs, and what it tells of the CAs above.
pub(crate) struct Mount {
    /// Where it is mounted.
    pub(crate) path: &'static str,
    pub(crate) signs: Arc<Ca>,
    /// `ca_chain` of its answers; left out where it is empty.
    pub(crate) ca_chain: Vec<String>,
    /// Its roles, by name.
    pub(crate) roles: Vec<(&'static str, Role)>,
}

impl Mount {
    /// Answers a request to sign: the data, or the error.
    fn sign(&self, role: &str, body: &[u8]) -> Result<Value, String> {
        let (_, role) = self
            .roles
            .iter()
            .find(|(name, _)| *name == role)
            .ok_or_else(|| format!("unknown role: {role}"))?;
        let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let csr = body["csr"].as_str().unwrap_or_default();
        let asked = CertificateSigningRequestParams::from_pem(csr)
            .map_err(|error| format!("certificate request could not be parsed: {error}"))?;
        role.judge(&asked)?;
        let ttl = parse(body["ttl"].as_str().unwrap_or_default());
        let ttl = ttl.map_err(|problem| format!("ttl {problem}"))?;
        let mut data = json!({
            "certificate": answer(&self.signs, &asked, ttl.min(role.max_ttl)),
            "issuing_ca": self.signs.pem(),
        });
        if !self.ca_chain.is_empty() {
            data["ca_chain"] = json!(self.ca_chain);
        }
        Ok(data)
    }
}

/// The server, until it is dropped.
pub(crate) struct Vault {
    address: SocketAddr,
    run: JoinHandle<()>,
}

impl Vault {
    /// Starts it on this machine, where cert-manager reaches it.
    pub(crate) async fn start(mounts: Vec<Mount>) -> Self {
        let listener = TcpListener::bind((host(), 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let health = json!({"initialized": true, "sealed": false, "standby": false}).to_string();
        let router = Router::new()
            .route("/v1/sys/health", get(move || async move { health }))
            .route("/v1/{mount}/sign/{role}", post(sign))
            .with_state(Arc::new(mounts));
        let run = async { axum::serve(listener, router).await.expect("it serves") };
        Self {
            address,
            run: tokio::spawn(run),
        }
    }

    /// The Secret with its token, for the issuers.
    pub(crate) fn token() -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vault-token"},
            "stringData": {"token": TOKEN}})
    }

    /// The spec of the issuer that asks for certificates of this role, `MOUNT/sign/ROLE`.
    pub(crate) fn issuer(&self, path: &str) -> Value {
        let token = json!({"name": "vault-token", "key": "token"});
        json!({"vault": {"server": format!("http://{}", self.address), "path": path,
            "auth": {"tokenSecretRef": token}}})
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.run.abort();
    }
}

async fn sign(
    State(mounts): State<Arc<Vec<Mount>>>,
    Path((mount, role)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let token = headers.get("X-Vault-Token");
    if token.is_none_or(|token| token != TOKEN) {
        let errors = json!({"errors": ["permission denied"]});
        return (StatusCode::FORBIDDEN, errors.to_string());
    }
    let mount = mounts.iter().find(|one| one.path == mount);
    let Some(mount) = mount else {
        return (StatusCode::NOT_FOUND, json!({"errors": []}).to_string());
    };
    match mount.sign(&role, &body) {
        Ok(data) => (StatusCode::OK, json!({"data": data}).to_string()),
        Err(why) => (
            StatusCode::BAD_REQUEST,
            json!({"errors": [why]}).to_string(),
        ),
    }
}
