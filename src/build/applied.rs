//! Reads the posture back from a cluster's objects: the inverse of
//! [`crate::build::patroni::dynamic`], [`crate::build::patroni::local`],
//! [`crate::build::secrets::tls`] and of the volumes that [`crate::build::pod`] mounts.
//!
//! The next step follows from the current posture, and only the objects remember it. What the
//! servers really do shows on the wire alone.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;

use crate::api::PetSet;
use crate::api::tls::SslMode;
use crate::build::paths::CERTS_VOLUME;
use crate::build::patroni::local::NoConfig;
use crate::build::patroni::{DynamicConfig, LocalConfig};
use crate::build::secrets::ServedMaterial;
use crate::tls::posture::{
    Files, HbaMethods, Method, PasswordEncryption, Posture, ReplicationConninfo, ServerTls,
};

/// The objects that hold a posture.
#[derive(Clone, Copy, Debug)]
pub struct PostureManifests<'a> {
    /// Data of Secret `NAME-tls`, if there is one.
    pub tls: Option<&'a BTreeMap<String, ByteString>>,
    /// Patroni's dynamic configuration.
    pub dynamic: &'a DynamicConfig,
    /// The text of `patroni.yml`.
    pub local: &'a str,
    /// Whether the template of the pods has the volume with certificates: see [`has_files`].
    pub files: bool,
}

/// Why the posture cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadablePosture {
    /// Pods mount the volume, and the Secret behind it is gone, incomplete or damaged.
    #[error("pods mount the volume with certificates, and the Secret behind it cannot be read")]
    Files,
    /// This part of the dynamic configuration has a value that pgrekey does not write.
    #[error("Patroni's dynamic configuration has a value of {0} that pgrekey does not write")]
    Dynamic(&'static str),
    /// This part of `patroni.yml` has a value that pgrekey does not write.
    #[error("patroni.yml has a value of {0} that pgrekey does not write")]
    Local(&'static str),
}

/// Whether the pods of this set mount the volume with certificates.
#[must_use]
pub fn has_files(set: &PetSet) -> bool {
    let spec = set.spec.template.spec.as_ref();
    spec.and_then(|spec| spec.volumes.as_ref())
        .is_some_and(|all| all.iter().any(|volume| volume.name == CERTS_VOLUME))
}

/// Reads the posture. Without the volume, Secret `NAME-tls` does not count: no pod mounts it.
pub fn read_posture(objects: &PostureManifests<'_>) -> Result<Posture, UnreadablePosture> {
    let (serve, hash) = settings(objects.dynamic)?;
    Ok(Posture {
        files: objects
            .files
            .then(|| files(objects.tls).ok_or(UnreadablePosture::Files))
            .transpose()?,
        serve,
        accept: accept(objects.dynamic)?,
        hash,
        conninfo: conninfo(objects.local)?,
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

fn settings(config: &DynamicConfig) -> Result<(ServerTls, PasswordEncryption), UnreadablePosture> {
    let serve = match config.parameter("ssl") {
        Some("on") => ServerTls::Tls,
        Some("off") => ServerTls::Plain,
        _ => return Err(UnreadablePosture::Dynamic("ssl")),
    };
    let written = config.parameter("password_encryption");
    let hash = [PasswordEncryption::Md5, PasswordEncryption::Scram]
        .into_iter()
        .find(|hash| written == Some(hash.as_str()));
    Ok((
        serve,
        hash.ok_or(UnreadablePosture::Dynamic("password_encryption"))?,
    ))
}

/// The login methods that servers accept, by the lines of `pg_hba.conf`. pgrekey writes `host` lines
/// only while servers have no TLS, so they count as plaintext here, though PostgreSQL takes them for
/// either.
pub fn accept(config: &DynamicConfig) -> Result<HbaMethods, UnreadablePosture> {
    let strange = UnreadablePosture::Dynamic("pg_hba");
    let mut accept = HbaMethods {
        plain: None,
        tls: None,
    };
    for line in config.pg_hba().ok_or(strange)? {
        let words: Vec<&str> = line.split(' ').collect();
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
        // The lines come in pairs: replication has the same method as all databases.
        if *database == "all" {
            *side = Some(method);
        } else if *side != Some(method) {
            return Err(strange);
        }
    }
    Ok(accept)
}

fn conninfo(patroni_yml: &str) -> Result<ReplicationConninfo, UnreadablePosture> {
    let strange = UnreadablePosture::Local("replication.sslmode");
    let local = LocalConfig::parse(patroni_yml).map_err(|NoConfig| strange)?;
    let login = local.replication().ok_or(strange)?;
    let written = login.get("sslmode").map(String::as_str);
    let mode = SslMode::ALL
        .into_iter()
        .find(|mode| written == Some(mode.as_str()))
        .ok_or(strange)?;
    Ok(ReplicationConninfo {
        mode,
        sends_client_cert: login.contains_key("sslcert"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use secrecy::ExposeSecret;
    use serde_json::{Value, json};

    use super::*;
    use crate::build::cluster::tests::{cluster, postgres};
    use crate::build::paths::PATRONI_YML;
    use crate::build::patroni::{dynamic, local};
    use crate::build::{pet_set, secrets};
    use crate::pki::issued::Issued;
    use crate::pki::issued::tests::{Authority, issue};
    use crate::pki::{CaId, Material};
    use crate::tls::walk;

    /// Issued certificates: from one CA, from the same CA again, from another, and from one CA for
    /// the server and another for the client.
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

    /// Builds the objects of a posture and reads it back from them.
    fn there_and_back(posture: &Posture, issues: &[Issued]) -> Result<Posture, UnreadablePosture> {
        let cluster = cluster(&postgres("{version: '17', tls: {issuerRef: {name: i}}}"));
        let cas: BTreeMap<CaId, String> = issues
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
            dynamic: &dynamic::config(&cluster, posture),
            local: &local[PATRONI_YML],
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
            dynamic: &dynamic::config(&cluster, &plain),
            local: &local[PATRONI_YML],
            files: false,
        });
        assert_eq!(read, Ok(plain));
    }

    #[test]
    fn values_that_pgrekey_does_not_write_are_not_guessed_at() {
        let cluster = cluster(&postgres("version: '17'"));
        let posture = Posture::plain(Method::Md5);
        let local = local::config_map(&cluster, &posture).data.expect("data")[PATRONI_YML].clone();
        let shared = dynamic::config(&cluster, &posture);
        let with = |path: &str, value: Value| {
            let mut json = json!(shared);
            *json.pointer_mut(path).expect("a path") = value;
            DynamicConfig::parse(&json.to_string()).expect("JSON")
        };
        let read = |dynamic: &DynamicConfig, local: &str, files| {
            read_posture(&PostureManifests {
                tls: None,
                dynamic,
                local,
                files,
            })
        };
        assert_eq!(read(&shared, &local, false), Ok(posture));
        assert_eq!(read(&shared, &local, true), Err(UnreadablePosture::Files));
        assert_eq!(
            read(&shared, "", false),
            Err(UnreadablePosture::Local("replication.sslmode"))
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
                Err(UnreadablePosture::Dynamic(what)),
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
                let patroni = &local[PATRONI_YML];
                let read = read_posture(&PostureManifests {
                    tls: Some(&data),
                    dynamic: &shared,
                    local: patroni,
                    files: true,
                });
                assert_eq!(read, Err(UnreadablePosture::Files), "{key}");
            }
        }
        assert_eq!(
            posture.trust(),
            BTreeSet::from([issues[0].material.server.ca])
        );
    }
}
