//! The invariants of walks, for every pair of specs and from every stage of every walk.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::api::tls::SslMode;
use crate::pki::{CaId, Material};
use crate::tls::posture::tests::{ca, material};
use crate::tls::posture::{Method, PasswordEncryption, Posture, ServerTls};
use crate::tls::{Client, can_connect, can_replicate, published, walk};

const METHODS: [Method; 3] = [Method::Md5, Method::Scram, Method::Cert];

/// Leaves of one CA, new leaves of the same CA, leaves of another CA, and server and client leaves
/// of different CAs.
fn materials() -> [Material; 4] {
    [
        material(1, 1, 1),
        material(2, 1, 1),
        material(3, 2, 2),
        material(4, 1, 2),
    ]
}

/// Every posture that a spec can ask for: plaintext with either password method, and TLS by mode,
/// method and material.
fn spec_postures() -> Vec<Posture> {
    let tls = SslMode::ALL[1..].iter().flat_map(|mode| {
        METHODS
            .into_iter()
            .flat_map(|method| materials().map(|material| Posture::tls(*mode, method, material)))
    });
    METHODS[..2]
        .iter()
        .map(|method| Posture::plain(*method))
        .chain(tls)
        .collect()
}

/// Every kind of client by mode, password and certificate, without the CAs that it trusts.
fn clients() -> Vec<(SslMode, Secret, Option<CaId>)> {
    let passwords = [
        Secret::None,
        Secret::OfRole(PasswordEncryption::Md5),
        Secret::OfRole(PasswordEncryption::Scram),
        Secret::OfSuperuser,
    ];
    SslMode::ALL
        .into_iter()
        .flat_map(|mode| passwords.map(|password| (mode, password)))
        .flat_map(|(mode, password)| {
            [None, Some(ca(1)), Some(ca(2))].map(|certificate| (mode, password, certificate))
        })
        .collect()
}

/// A password: of a user's role, whose hash stays as it is, or of the superuser, whose hash the
/// posture gives.
#[derive(Clone, Copy, Debug)]
enum Secret {
    None,
    OfRole(PasswordEncryption),
    OfSuperuser,
}

fn connects(
    who: &(SslMode, Secret, Option<CaId>),
    roots: Option<BTreeSet<CaId>>,
    server: &Posture,
) -> Result<(), String> {
    let password = match who.1 {
        Secret::None => None,
        Secret::OfRole(hash) => Some(hash),
        Secret::OfSuperuser => Some(server.hash),
    };
    let client = Client {
        mode: who.0,
        roots,
        password_encryption: password,
        certificate: who.2,
    };
    can_connect(&client, server).map_err(|refusal| format!("{client:?}: {refusal}"))
}

/// The states of pods during a stage from `a` to `b`, in the order in which its parts are applied:
/// settings, then files, then conninfo. Each part is applied after every pod was seen to have the
/// one before. The hash follows the settings by replication. No pod serves TLS without files.
fn halfway(a: &Posture, b: &Posture) -> [Vec<Posture>; 3] {
    let pod = |settings: &Posture, hash, files: &Posture, conninfo| Posture {
        files: files.files.clone(),
        serve: settings.serve,
        accept: settings.accept,
        hash,
        conninfo,
    };
    let hashes = [a.hash, b.hash];
    let settings = [a, b]
        .into_iter()
        .flat_map(|of| hashes.map(|hash| pod(of, hash, a, a.conninfo)));
    let files = [a, b]
        .into_iter()
        .flat_map(|of| hashes.map(|hash| pod(b, hash, of, a.conninfo)));
    let conninfos = [a, b].map(|of| pod(b, b.hash, b, of.conninfo));
    let is_possible = |pod: &Posture| pod.files.is_some() || pod.serve == ServerTls::Plain;
    [
        settings.filter(is_possible).collect(),
        files.filter(is_possible).collect(),
        conninfos.to_vec(),
    ]
}

/// Standbys replicate throughout the walk, whatever part of a stage has reached each pod.
fn replication_holds(walk: &[Posture]) -> Result<(), String> {
    for pair in walk.windows(2) {
        let [a, b] = pair else { continue };
        if b.needs_files() && a.files.is_none() {
            return Err(format!("{b:#?} needs files that are not there in {a:#?}"));
        }
        for pods in halfway(a, b) {
            for (standby, primary) in pods
                .iter()
                .flat_map(|one| pods.iter().map(move |other| (one, other)))
            {
                can_replicate(standby, primary)
                    .map_err(|refusal| format!("{refusal}: {standby:#?} joins {primary:#?}"))?;
            }
        }
    }
    walk.iter().try_for_each(|stage| {
        can_replicate(stage, stage).map_err(|refusal| format!("{refusal}: {stage:#?} joins itself"))
    })
}

/// A client that can connect at both ends can connect at every stage, with the bundle that is
/// published then or without one.
fn clients_are_served(walk: &[Posture]) -> Result<(), String> {
    let last = walk.len() - 1;
    for who in clients() {
        for has_roots in [true, false] {
            let at = |stage: usize| {
                connects(
                    &who,
                    has_roots.then(|| published(walk, stage)),
                    &walk[stage],
                )
            };
            if at(0).is_ok() && at(last).is_ok() {
                (1..last).try_for_each(|stage| {
                    at(stage).map_err(|why| format!("stage {stage} of {walk:#?}: {why}"))
                })?;
            }
        }
    }
    Ok(())
}

/// The same during a stage.
fn clients_are_served_halfway(walk: &[Posture]) -> Result<(), String> {
    let ends = |who: &_| {
        let at = |stage: usize| connects(who, Some(published(walk, stage)), &walk[stage]);
        at(0).is_ok() && at(walk.len() - 1).is_ok()
    };
    let served = clients().into_iter().filter(ends);
    for (who, (stage, pair)) in
        served.flat_map(|who| walk.windows(2).enumerate().map(move |step| (who, step)))
    {
        // The client may still have the bundle of the stage before.
        for server in halfway(&pair[0], &pair[1]).concat() {
            connects(&who, Some(published(walk, stage)), &server)
                .map_err(|why| format!("after stage {stage} of {walk:#?}: {why} at {server:#?}"))?;
        }
    }
    Ok(())
}

/// A client whose certificate is renewed with the database's can connect with either of the two
/// while both CAs are trusted.
fn renewed_clients_are_served(walk: &[Posture]) -> Result<(), String> {
    let (first, last) = (&walk[0], &walk[walk.len() - 1]);
    let (Some(old), Some(new)) = (&first.files, &last.files) else {
        return Ok(());
    };
    for who in clients().into_iter().filter(|who| who.2.is_none()) {
        let shows = |certificate: CaId, stage: usize| {
            connects(
                &(who.0, who.1, Some(certificate)),
                Some(published(walk, stage)),
                &walk[stage],
            )
        };
        let (old, new) = (old.material.client.ca, new.material.client.ca);
        if shows(old, 0).is_ok() && shows(new, walk.len() - 1).is_ok() {
            for stage in 1..walk.len() - 1 {
                shows(old, stage)
                    .and_then(|()| shows(new, stage))
                    .map_err(|why| format!("stage {stage}: {why}"))?;
            }
        }
    }
    Ok(())
}

fn invariants_hold(from: &Posture, to: &Posture) -> Result<(), String> {
    let walk = walk(from, to);
    if walk.first() != Some(from) || walk.last() != Some(to) {
        return Err("the ends of the walk are not its ends".to_owned());
    }
    if walk.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("a step changes nothing".to_owned());
    }
    replication_holds(&walk)?;
    clients_are_served(&walk)?;
    renewed_clients_are_served(&walk)
}

fn check(result: Result<(), String>) {
    if let Err(why) = result {
        panic!("{why}");
    }
}

#[test]
fn every_spec_reaches_every_other_and_no_client_is_refused_on_the_way() {
    let ends = spec_postures();
    for from in &ends {
        for to in &ends {
            check(invariants_hold(from, to));
        }
    }
}

#[test]
fn from_every_stage_the_way_on_and_the_way_back_keep_replication() {
    let ends = spec_postures();
    for from in &ends {
        for to in &ends {
            for stage in walk(from, to) {
                for end in [from, to] {
                    check(replication_holds(&walk(&stage, end)));
                }
            }
        }
    }
}

#[test]
fn a_walk_to_where_one_is_has_one_stage() {
    for end in spec_postures() {
        assert_eq!(walk(&end, &end), [end]);
    }
}

fn end() -> impl Strategy<Value = Posture> {
    prop::sample::select(spec_postures())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_half_done_step_refuses_no_client(from in end(), to in end(), turn in any::<prop::sample::Index>()) {
        let way = walk(&from, &to);
        for walk in [walk(&way[turn.index(way.len())], &from), way] {
            clients_are_served_halfway(&walk).map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn from_every_stage_every_spec_is_reached_and_no_client_is_refused(
        from in end(), to in end(), third in end(), turn in any::<prop::sample::Index>(), again in any::<prop::sample::Index>(),
    ) {
        let way = walk(&from, &to);
        let stage = &way[turn.index(way.len())];
        for end in [&from, &to, &third] {
            invariants_hold(stage, end).map_err(TestCaseError::fail)?;
        }
        let back = walk(stage, &third);
        let stage = &back[again.index(back.len())];
        for end in [&from, &third] {
            invariants_hold(stage, end).map_err(TestCaseError::fail)?;
        }
    }
}
