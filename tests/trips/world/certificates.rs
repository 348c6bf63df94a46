//! cert-manager: the issuers, the certificates, and the keys that were issued.

use std::collections::BTreeMap;

use pgrekey::api::postgres::PostgresSpec;
use pgrekey::pki::{CaId, Fingerprint, Leaf, Material};
use pgrekey::tls::Alias;

use super::World;

/// The CA of an issuer, by the name of the issuer.
pub(crate) fn ca(issuer: &str) -> CaId {
    CaId(Fingerprint(
        [issuer
            .bytes()
            .fold(7, |sum, byte| sum ^ byte.rotate_left(3)); 32],
    ))
}

pub(super) fn material(serial: u8, issuer: &str) -> Material {
    let leaf = |kind: u8| Leaf {
        fingerprint: Fingerprint([kind ^ serial; 32]),
        ca: ca(issuer),
    };
    Material {
        server: leaf(0x10),
        client: leaf(0x20),
        exporter: leaf(0x40),
    }
}

#[derive(Clone, Debug)]
pub(super) struct SimCertificate {
    pub(super) spec: PostgresSpec,
    pub(super) revision: i64,
    pub(super) asked: Option<i64>,
    pub(super) issued_at: Option<i64>,
}

/// The certificates of a database that has been served with them from the beginning.
pub(super) fn issued(spec: &PostgresSpec) -> BTreeMap<Alias, SimCertificate> {
    let certificate = SimCertificate {
        spec: spec.clone(),
        revision: 1,
        asked: None,
        issued_at: None,
    };
    Alias::ALL
        .into_iter()
        .map(|alias| (alias, certificate.clone()))
        .collect()
}

impl World {
    /// cert-manager renews every certificate by itself.
    pub(crate) fn renew(&mut self) {
        let second = self.second;
        self.certificates
            .values_mut()
            .for_each(|certificate| certificate.issued_at = Some(second + 1));
    }

    /// cert-manager issues the certificates that are due this second.
    pub(super) fn issue_certificates(&mut self) {
        let second = self.second;
        for trial in self.trial.values_mut() {
            trial.has_secret |= trial.issued_at.is_some_and(|at| at <= second);
        }
        for certificate in self.certificates.values_mut() {
            if certificate.issued_at.is_some_and(|at| at <= second) {
                certificate.issued_at = None;
                certificate.revision += 1;
                let issuer = certificate
                    .spec
                    .tls
                    .as_ref()
                    .and_then(|tls| tls.issuer_ref.clone())
                    .expect("an issuer");
                self.serial = self
                    .serial
                    .max(u8::try_from(certificate.revision).expect("few"));
                self.issued = Some(material(self.serial, self.signer.unwrap_or(&issuer.name)));
            }
        }
    }

    /// From now on another CA signs for every issuer.
    pub(crate) fn rekey(&mut self, signer: &'static str) {
        self.signer = Some(signer);
    }

    /// A Certificate is applied.
    pub(super) fn certify(&mut self, alias: Alias, spec: &PostgresSpec) {
        let second = self.second;
        let fresh = SimCertificate {
            spec: spec.clone(),
            revision: 0,
            asked: None,
            issued_at: Some(second + 2),
        };
        let certificate = self.certificates.entry(alias).or_insert(fresh);
        if certificate.spec.tls != spec.tls {
            certificate.spec = spec.clone();
            certificate.issued_at = Some(second + 2);
        }
    }

    pub(crate) fn primary_serves_what_was_issued(&self) -> bool {
        let loaded = self
            .leader_pod()
            .and_then(|pod| pod.loaded.as_ref())
            .map(|files| files.material);
        loaded == self.issued && loaded != self.origin
    }
}
