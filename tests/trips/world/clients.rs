//! The clients: their volumes, and whether the primary lets them in.

use std::collections::BTreeSet;

use pgrekey::api::tls::SslMode;
use pgrekey::pki::CaId;
use pgrekey::plan::operation::goal;
use pgrekey::tls::{Client, PasswordEncryption, can_connect, posture};

use super::World;
use super::certificates::{ca, material};

/// The volumes of a client: the CAs that it trusts, and the CA that has signed its certificate.
#[derive(Clone, Debug)]
pub(crate) struct ClientVolumes {
    roots: BTreeSet<CaId>,
    signer: Option<CaId>,
}

impl World {
    /// The clients that can connect before and after the operation, if they trust the CAs that are
    /// published there.
    pub(super) fn clients_of_both_ends(&self) -> Vec<Client> {
        let wished = goal::target_spec(&self.database.spec, &self.request, self.major);
        let issuer = wished
            .tls
            .as_ref()
            .and_then(|tls| tls.issuer_ref.as_ref())
            .map_or("old", |issuer| &issuer.name);
        let to = posture(&wished, self.major, Some(&material(9, issuer))).expect("a posture");
        let passwords = [
            None,
            Some(PasswordEncryption::Md5),
            Some(PasswordEncryption::Scram),
        ];
        SslMode::ALL
            .into_iter()
            .flat_map(|mode| passwords.map(|password| (mode, password)))
            .flat_map(|(mode, password)| {
                [None, Some(ca("old"))].map(|certificate| (mode, password, certificate))
            })
            .map(|(mode, password, certificate)| Client {
                mode,
                roots: None,
                password_encryption: password,
                certificate,
            })
            .filter(|client| {
                [&self.written, &to].into_iter().all(|end| {
                    let roots = Some(end.trust()).filter(|roots| !roots.is_empty());
                    can_connect(
                        &Client {
                            roots,
                            ..client.clone()
                        },
                        end,
                    )
                    .is_ok()
                })
            })
            .collect()
    }

    /// The volumes of a client, if they are up to date.
    pub(crate) fn client_volumes(&self) -> ClientVolumes {
        ClientVolumes {
            roots: self.published.clone(),
            signer: self.issued.map(|issued| issued.client.ca),
        }
    }

    /// Whether the primary lets in a client with these volumes.
    pub(crate) fn lets_in(&self, volumes: ClientVolumes) -> Result<(), String> {
        let serving = self.posture_of(self.leader_pod().ok_or("no leader")?);
        let client = Client {
            mode: SslMode::VerifyFull,
            roots: Some(volumes.roots),
            password_encryption: None,
            certificate: volumes.signer,
        };
        can_connect(&client, &serving).map_err(|refusal| format!("{client:?}: {refusal}"))
    }

    /// Whether servers and clients trust the CA that signs now, and no other.
    pub(crate) fn trusts_only_the_signer(&self) -> bool {
        let only = BTreeSet::from([ca(self.signer.expect("another signer"))]);
        self.published == only
            && self
                .pods
                .iter()
                .all(|pod| pod.loaded.as_ref().is_some_and(|f| f.trust == only))
    }
}
