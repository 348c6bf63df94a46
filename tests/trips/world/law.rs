//! The law of a simulated cluster: at every moment, and at the end.

use kube::ResourceExt;
use pgrekey::api::tls::SslMode;
use pgrekey::tls::{Client, Method, Posture, can_connect, can_replicate, posture};

use super::World;
use super::pods::SimPod;

impl World {
    /// Whether every pod takes TLS where plaintext is not written to be taken: pgrekey does not try
    /// plaintext there.
    pub(super) fn lets_pgrekey_in(&self) -> Result<(), String> {
        let takes_tls =
            |pod: &SimPod| pod.settings.1.tls.is_some() && self.posture_of(pod).served().is_some();
        let shut = self
            .pods
            .iter()
            .find(|pod| self.is_up(pod) && !takes_tls(pod));
        match shut.filter(|_| self.written.accept.plain.is_none()) {
            Some(pod) => Err(format!(
                "{} takes no TLS, and plaintext is not written to be taken",
                pod.name
            )),
            None => Ok(()),
        }
    }

    /// The law of every moment.
    ///
    /// `restarts` is how often a pod may have been restarted by now.
    pub(crate) fn law(&mut self, disturbed: bool, restarts: u32) -> Result<(), String> {
        if !disturbed {
            self.pods_go_one_at_a_time(restarts)?;
        }
        self.lets_pgrekey_in()?;
        let Some(primary) = self.leader_pod().filter(|pod| self.is_up(pod)) else {
            return Ok(());
        };
        let (name, serving) = (primary.name.clone(), self.posture_of(primary));
        self.standbys_join(&serving)?;
        self.issued_certificate_connects(&serving)
            .and_then(|()| self.clients_connect(serving))
            .map_err(|why| format!("at {name}: {why}"))
    }

    /// At most one pod is down, and none has been evicted more often than `restarts`.
    fn pods_go_one_at_a_time(&self, restarts: u32) -> Result<(), String> {
        let down: Vec<&str> = self
            .pods
            .iter()
            .filter(|pod| !self.is_up(pod))
            .map(|pod| pod.name.as_str())
            .collect();
        if down.len() > 1 {
            return Err(format!("more than one pod is down: {down:?}"));
        }
        if let Some(pod) = self.pods.iter().find(|pod| pod.evictions > restarts) {
            return Err(format!(
                "{} was restarted {} times",
                pod.name, pod.evictions
            ));
        }
        Ok(())
    }

    /// Every standby can replicate from the primary.
    fn standbys_join(&self, serving: &Posture) -> Result<(), String> {
        for standby in self
            .pods
            .iter()
            .filter(|pod| self.is_up(pod) && pod.name != self.leader)
        {
            can_replicate(&self.dials_as(standby), serving).map_err(|refusal| {
                format!("{} does not join {}: {refusal}", standby.name, self.leader)
            })?;
        }
        Ok(())
    }

    /// A client with the certificate that was issued last can connect: users' pods may mount it.
    fn issued_certificate_connects(&self, serving: &Posture) -> Result<(), String> {
        let (Some(issued), Some(Method::Cert)) = (self.issued, serving.accept.tls) else {
            return Ok(());
        };
        let client = Client {
            mode: SslMode::VerifyFull,
            roots: Some(self.published.clone()),
            password_encryption: None,
            certificate: Some(issued.client.ca),
        };
        can_connect(&client, serving)
            .map_err(|refusal| format!("a client with the certificate that was issued: {refusal}"))
    }

    /// Every client that can connect before and after the operation can connect now.
    fn clients_connect(&mut self, serving: Posture) -> Result<(), String> {
        let now = (serving, self.published.clone());
        if self.judged.as_ref() == Some(&now) {
            return Ok(());
        }
        let serving = &now.0;
        let roots = Some(self.published.clone()).filter(|roots| !roots.is_empty());
        for client in &self.clients {
            let client = Client {
                roots: roots.clone(),
                password_encryption: client.password_encryption.map(|_| self.hash),
                ..client.clone()
            };
            if client
                .certificate
                .is_some_and(|ca| !serving.trust().contains(&ca))
            {
                // A client with a certificate from the old CA needs a new one once that CA has gone.
                continue;
            }
            can_connect(&client, serving).map_err(|refusal| format!("{client:?}: {refusal}"))?;
        }
        self.judged = Some(now);
        Ok(())
    }

    /// The law of the end: the database is resumed, and every pod shows the posture of its spec.
    pub(crate) fn is_well(&self) -> Result<(), String> {
        if self.paused {
            return Err("the database is still paused".to_owned());
        }
        if !self.request.finalizers().is_empty() && !self.request_is_gone {
            return Err("the request is still held".to_owned());
        }
        let cluster = self.observed_cluster();
        let served = self.written.files.as_ref().map(|files| files.material);
        let wanted =
            posture(&self.database.spec, self.major, served.as_ref()).ok_or("no posture")?;
        if cluster.applied != wanted {
            return Err("what is written is not what the spec asks for".to_owned());
        }
        cluster
            .pods
            .iter()
            .try_for_each(|pod| match cluster.drift(pod) {
                None => Ok(()),
                Some(lack) => Err(format!("{}: {lack:?}", pod.name)),
            })
    }
}
