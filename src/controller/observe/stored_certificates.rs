//! The certificates and CAs of a cluster, as Secret `NAME-tls` and ConfigMap `NAME-ca` hold them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use secrecy::ExposeSecret;
use std::collections::{BTreeMap, BTreeSet};

use crate::api::annotations::PREVIOUS_OF;
use crate::build::Cluster;
use crate::build::current_posture::PostureObjects;
use crate::cluster::apply::applied_at;
use crate::cluster::{Error, Objects};
use crate::pki::issued::{IssuedSecret, ServedMaterial, TRUST_KEY, cas};
use crate::pki::key_pair::CertificateAndKey;
use crate::pki::{CaId, Fingerprint};
use crate::tls::Alias;

/// The certificates and CAs of a cluster.
pub(crate) struct StoredCertificates {
    /// The certificates in Secret `NAME-tls`.
    pub(crate) in_secret: Option<ServedMaterial>,
    /// The certificates that were served before this operation; `None` outside an operation.
    pub(crate) previous: Option<ServedMaterial>,
    /// Replacement for an expired client certificate in `NAME-tls`, read from the issued Secret, so
    /// that pgrekey can still log in: servers accept it if they trust its CA.
    replacement_client_pair: Option<CertificateAndKey>,
    /// The CAs in ConfigMap `NAME-ca`.
    pub(crate) client_bundle: BTreeMap<CaId, String>,
    /// When `NAME-tls` or `NAME-ca` last changed; `None` if the API server does not record it.
    pub(crate) trust_changed_at: Option<Timestamp>,
}

impl StoredCertificates {
    /// Reads the certificates. `operation` is the uid of the request that works on the database.
    pub(crate) async fn fetch(
        objects: &Objects,
        cluster: &Cluster,
        posture_objects: &PostureObjects,
        operation: Option<&str>,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let bundle: Option<ConfigMap> = objects.get(&cluster.names().ca_config_map()).await?;
        let in_secret = posture_objects.served_material();
        let secret = posture_objects.tls.as_ref();
        let previous_of = secret.and_then(|secret| secret.annotations().get(PREVIOUS_OF));
        let is_of_operation = operation.is_some() && previous_of.map(String::as_str) == operation;
        let previous = posture_objects.previous_material();
        let replacement_client_pair = if has_ended(in_secret.as_ref(), now) {
            fetch_client_pair(objects, cluster).await?
        } else {
            None
        };
        Ok(Self {
            replacement_client_pair,
            previous: previous.filter(|_| is_of_operation),
            trust_changed_at: secret
                .and_then(applied_at)
                .max(bundle.as_ref().and_then(applied_at)),
            client_bundle: bundle.as_ref().map(published_cas).unwrap_or_default(),
            in_secret,
        })
    }

    /// Every CA of the cluster: of current and previous certificates, and of the client bundle.
    pub(crate) fn cas(&self) -> BTreeMap<CaId, String> {
        let mut cas = self.cas_of_servers();
        cas.extend(self.client_bundle.clone());
        cas
    }

    /// The CAs of current and previous certificates. The client bundle is not among them: whoever
    /// may edit that ConfigMap decides nothing about what is served.
    pub(crate) fn cas_of_servers(&self) -> BTreeMap<CaId, String> {
        self.current_and_previous()
            .flat_map(ServedMaterial::cas)
            .collect()
    }

    /// The leaves of current and previous certificates.
    pub(crate) fn leaves(&self) -> BTreeSet<Fingerprint> {
        self.current_and_previous()
            .flat_map(ServedMaterial::leaves)
            .collect()
    }

    /// The client certificates with which pgrekey may log in.
    pub(crate) fn client_pairs(&self) -> Vec<CertificateAndKey> {
        self.current_and_previous()
            .filter_map(|served| served.client_pair().ok())
            .chain(self.replacement_client_pair.clone())
            .collect()
    }

    fn current_and_previous(&self) -> impl Iterator<Item = &ServedMaterial> {
        self.in_secret.iter().chain(&self.previous)
    }
}

/// The CAs that clients are told to trust.
pub(crate) fn published_cas(bundle: &ConfigMap) -> BTreeMap<CaId, String> {
    let data = bundle.data.as_ref();
    data.and_then(|data| data.get(TRUST_KEY))
        .map(|pem| cas(pem.as_bytes()))
        .unwrap_or_default()
}

fn has_ended(served: Option<&ServedMaterial>, now: Timestamp) -> bool {
    served
        .and_then(ServedMaterial::client_ends)
        .is_some_and(|end| end <= now)
}

/// The client certificate as it was issued last.
async fn fetch_client_pair(
    objects: &Objects,
    cluster: &Cluster,
) -> Result<Option<CertificateAndKey>, Error> {
    let secret: Option<Secret> = objects
        .get(&cluster.certificate_secret(Alias::Client))
        .await?;
    let Some(data) = secret.and_then(|secret| secret.data) else {
        return Ok(None);
    };
    let issued = IssuedSecret::from_data(&data);
    let key = issued.key.expose_secret().as_bytes();
    Ok(CertificateAndKey::parse(&issued.certificate, key).ok())
}
