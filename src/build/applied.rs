//! The posture that is written down in a cluster's objects, read back: the inverse of
//! [`crate::build::patroni::dynamic`], [`crate::build::patroni::local`],
//! [`crate::build::secrets::tls`] and of what [`crate::build::pod`] mounts.
//!
//! Where a cluster *is* decides what comes next, and its objects are the only memory of that. What
//! servers make of it shows on the wire alone.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde_json::Value;

use crate::api::PetSet;
use crate::api::tls::SslMode;
use crate::build::pod::CERTS_VOLUME;
use crate::build::secrets::ServedMaterial;
use crate::tls::posture::{
    Files, HbaMethods, Method, PasswordEncryption, Posture, ReplicationConninfo, ServerTls,
};

/// The objects in which a posture is written down.
#[derive(Clone, Copy, Debug)]
pub struct PostureManifests<'a> {
    /// Data of Secret `NAME-tls`, if there is one.
    pub tls: Option<&'a BTreeMap<String, ByteString>>,
    /// Annotation `config` of ConfigMap `NAME-config`, as JSON.
    pub shared: &'a Value,
    /// `patroni.yml`.
    pub patroni: &'a str,
    /// Whether pods have the volume with certificates: see [`has_files`].
    pub files: bool,
}

/// Why no posture can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Pods have the volume, and the Secret behind it is gone, incomplete or damaged.
    #[error("pods have the volume with certificates, and the Secret behind it cannot be read")]
    Files,
    /// Not what pgrekey writes.
    #[error("the cluster's shared configuration says {0} in a way that pgrekey does not write")]
    Shared(&'static str),
    /// Not what pgrekey writes.
    #[error("patroni.yml says {0} in a way that pgrekey does not write")]
    Patroni(&'static str),
}

/// Whether the pods of this set have the volume with certificates.
#[must_use]
pub fn has_files(set: &PetSet) -> bool {
    let spec = set.spec.template.spec.as_ref();
    spec.and_then(|spec| spec.volumes.as_ref())
        .is_some_and(|all| all.iter().any(|volume| volume.name == CERTS_VOLUME))
}

/// Reads the posture back. A Secret without a volume counts as no files: nobody has them.
pub fn read_posture(objects: &PostureManifests<'_>) -> Result<Posture, Unreadable> {
    let (serve, hash) = settings(&objects.shared["postgresql"]["parameters"])?;
    Ok(Posture {
        files: objects
            .files
            .then(|| files(objects.tls).ok_or(Unreadable::Files))
            .transpose()?,
        serve,
        accept: accept(objects.shared)?,
        hash,
        conninfo: dial(objects.patroni)?,
    })
}

fn files(data: Option<&BTreeMap<String, ByteString>>) -> Option<Files> {
    let served = ServedMaterial::from_data(data?, "")?;
    let trust = crate::pki::issued::cas(served.trust.as_bytes())
        .into_keys()
        .collect();
    Some(Files {
        material: served.material()?,
        trust,
    })
}

fn settings(parameters: &Value) -> Result<(ServerTls, PasswordEncryption), Unreadable> {
    let serve = match parameters["ssl"].as_str() {
        Some("on") => ServerTls::Tls,
        Some("off") => ServerTls::Plain,
        _ => return Err(Unreadable::Shared("ssl")),
    };
    let stored = [PasswordEncryption::Md5, PasswordEncryption::Scram]
        .into_iter()
        .find(|hash| parameters["password_encryption"] == hash.as_str());
    Ok((
        serve,
        stored.ok_or(Unreadable::Shared("password_encryption"))?,
    ))
}

/// What servers take, by the cluster's shared configuration.
pub fn accept(shared: &Value) -> Result<HbaMethods, Unreadable> {
    let strange = Unreadable::Shared("pg_hba");
    let mut accept = HbaMethods {
        plain: None,
        tls: None,
    };
    for line in shared["postgresql"]["pg_hba"].as_array().ok_or(strange)? {
        let words: Vec<&str> = line.as_str().ok_or(strange)?.split(' ').collect();
        let [kind, database, _, rest @ ..] = words.as_slice() else {
            return Err(strange);
        };
        let side = match *kind {
            "hostssl" => &mut accept.tls,
            "host" | "hostnossl" => &mut accept.plain,
            _ => continue,
        };
        let method = match rest {
            [_, "md5"] => Method::Md5,
            [_, "scram-sha-256"] => Method::Scram,
            [_, "cert", ..] => Method::Cert,
            _ => return Err(strange),
        };
        // The lines come in pairs, and what is asked of replication is what is asked of everybody.
        if *database == "all" {
            *side = Some(method);
        } else if *side != Some(method) {
            return Err(strange);
        }
    }
    Ok(accept)
}

fn dial(patroni: &str) -> Result<ReplicationConninfo, Unreadable> {
    let strange = Unreadable::Patroni("how a standby dials");
    let local: Value = serde_saphyr::from_str(patroni).map_err(|_| strange)?;
    let login = &local["postgresql"]["authentication"]["replication"];
    let mode = SslMode::ALL
        .into_iter()
        .find(|mode| login["sslmode"] == mode.as_str())
        .ok_or(strange)?;
    Ok(ReplicationConninfo {
        mode,
        sends_client_cert: login.get("sslcert").is_some(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use secrecy::ExposeSecret;
    use serde_json::json;

    use super::*;
    use crate::build::cluster::tests::{cluster, postgres};
    use crate::build::patroni::{dynamic, local};
    use crate::build::{pet_set, secrets};
    use crate::pki::Material;
    use crate::pki::issued::tests::{Authority, issue};
    use crate::pki::issued::{Cas, Issued};
    use crate::tls::walk;

    /// What has been issued: by one CA, again by it, by another, and by one for the server and one
    /// for the client.
    fn issues() -> Vec<Issued> {
        let (one, other) = (Authority::new("one"), Authority::new("other"));
        vec![
            issue(&one, &one),
            issue(&one, &one),
            issue(&other, &other),
            issue(&one, &other),
        ]
    }

    /// Every posture that a spec can ask for.
    fn ends(issues: &[Issued]) -> Vec<Posture> {
        let tls = SslMode::ALL[1..].iter().flat_map(|mode| {
            [Method::Md5, Method::Scram, Method::Cert]
                .into_iter()
                .flat_map(move |method| {
                    issues
                        .iter()
                        .map(move |issued| Posture::tls(*mode, method, issued.material))
                })
        });
        [Method::Md5, Method::Scram]
            .map(Posture::plain)
            .into_iter()
            .chain(tls)
            .collect()
    }

    /// The objects of a posture, and the posture in them.
    fn there_and_back(posture: &Posture, issues: &[Issued]) -> Result<Posture, Unreadable> {
        let cluster = cluster(&postgres("{version: '17', tls: {issuerRef: {name: i}}}"));
        let cas: Cas = issues
            .iter()
            .flat_map(|issued| issued.cas.clone())
            .collect();
        let issued_as =
            |material: &Material| issues.iter().find(|issued| issued.material == *material);
        let secret = posture.files.as_ref().map(|files| {
            let served = issued_as(&files.material).expect("issued").served.clone();
            let served = served
                .trusting(&files.material, &files.trust, &cas)
                .expect("known CAs");
            secrets::tls(&cluster, &served, None).data.expect("data")
        });
        let local = local::config_map(&cluster, posture).data.expect("data");
        read_posture(&PostureManifests {
            tls: secret.as_ref(),
            shared: &dynamic::config(&cluster, posture),
            patroni: &local[local::PATRONI_YML],
            files: has_files(&pet_set::pet_set(&cluster, posture)),
        })
    }

    #[test]
    fn every_posture_of_every_walk_is_read_as_it_was_written() {
        let issues = issues();
        let ends = ends(&issues);
        let mut seen: Vec<Posture> = vec![];
        for stop in ends
            .iter()
            .flat_map(|from| ends.iter().flat_map(move |to| walk(from, to)))
        {
            if !seen.contains(&stop) {
                assert_eq!(there_and_back(&stop, &issues).as_ref(), Ok(&stop));
                seen.push(stop);
            }
        }
        assert!(seen.len() > ends.len() * 3, "{}", seen.len());
    }

    #[test]
    fn a_secret_that_no_pod_mounts_is_not_files() {
        let issues = issues();
        let data = secrets::tls(
            &cluster(&postgres("version: '17'")),
            &issues[0].served,
            None,
        )
        .data;
        let cluster = cluster(&postgres("version: '17'"));
        let plain = Posture::plain(Method::Scram);
        let local = local::config_map(&cluster, &plain).data.expect("data");
        let read = read_posture(&PostureManifests {
            tls: data.as_ref(),
            shared: &dynamic::config(&cluster, &plain),
            patroni: &local[local::PATRONI_YML],
            files: false,
        });
        assert_eq!(read, Ok(plain));
    }

    #[test]
    fn what_pgrekey_does_not_write_is_not_guessed_at() {
        let cluster = cluster(&postgres("version: '17'"));
        let posture = Posture::plain(Method::Md5);
        let local =
            local::config_map(&cluster, &posture).data.expect("data")[local::PATRONI_YML].clone();
        let shared = dynamic::config(&cluster, &posture);
        let with = |path: &str, value: Value| {
            let mut shared = shared.clone();
            *shared.pointer_mut(path).expect("a path") = value;
            shared
        };
        let read = |shared: &Value, patroni: &str, files| {
            read_posture(&PostureManifests {
                tls: None,
                shared,
                patroni,
                files,
            })
        };
        assert_eq!(read(&shared, &local, false), Ok(posture));
        assert_eq!(read(&shared, &local, true), Err(Unreadable::Files));
        assert_eq!(
            read(&shared, "", false),
            Err(Unreadable::Patroni("how a standby dials"))
        );
        for (path, value, what) in [
            ("/postgresql/parameters/ssl", json!("maybe"), "ssl"),
            (
                "/postgresql/parameters/password_encryption",
                json!(null),
                "password_encryption",
            ),
            (
                "/postgresql/pg_hba",
                json!(["host all all all trust"]),
                "pg_hba",
            ),
            (
                "/postgresql/pg_hba",
                json!([
                    "host all all all md5",
                    "host replication all all scram-sha-256"
                ]),
                "pg_hba",
            ),
            ("/postgresql/pg_hba", json!("host"), "pg_hba"),
        ] {
            assert_eq!(
                read(&with(path, value), &local, false),
                Err(Unreadable::Shared(what)),
                "{path}"
            );
        }
    }

    #[test]
    fn a_damaged_secret_is_not_files() {
        let issues = issues();
        let cluster = cluster(&postgres("{version: '17', tls: {issuerRef: {name: i}}}"));
        let posture = Posture::tls(SslMode::VerifyFull, Method::Scram, issues[0].material);
        let local = local::config_map(&cluster, &posture).data.expect("data");
        let data = secrets::tls(&cluster, &issues[0].served, None)
            .data
            .expect("data");
        let another = issues[1]
            .served
            .server
            .key
            .expose_secret()
            .as_bytes()
            .to_vec();
        for key in [
            "ca.crt",
            "server.crt",
            "server.key",
            "client.key",
            "exporter.key",
            "exporter-ca.crt",
        ] {
            for value in [None, Some(vec![]), Some(vec![0xff]), Some(another.clone())] {
                let value = value.map(ByteString);
                let mut data = data.clone();
                data.remove(key);
                data.extend(value.map(|value| (key.to_owned(), value)));
                let shared = dynamic::config(&cluster, &posture);
                let patroni = &local[local::PATRONI_YML];
                let read = read_posture(&PostureManifests {
                    tls: Some(&data),
                    shared: &shared,
                    patroni,
                    files: true,
                });
                assert_eq!(read, Err(Unreadable::Files), "{key}");
            }
        }
        assert_eq!(
            posture.trust(),
            BTreeSet::from([issues[0].material.server.ca])
        );
    }
}
