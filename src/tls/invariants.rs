//! The law of walks, over every pair of specs and from every stop of every walk.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::api::tls::SslMode;
use crate::pki::{CaId, Material};
use crate::tls::posture::tests::{ca, material};
use crate::tls::posture::{Method, PasswordEncryption, Posture, ServerTls};
use crate::tls::{Client, can_connect, can_replicate, published, walk};

const METHODS: [Method; 3] = [Method::Md5, Method::Scram, Method::Cert];

/// Leaves of one CA, new leaves of the same, leaves of another CA, and server and client of
/// different ones.
fn materials() -> [Material; 4] {
    [
        material(1, 1, 1),
        material(2, 1, 1),
        material(3, 2, 2),
        material(4, 1, 2),
    ]
}

/// Every posture that a spec can ask for: plaintext by either password, and TLS by mode, method and
/// material.
fn ends() -> Vec<Posture> {
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

/// Everybody who might connect, but for what they trust: by mode, password and certificate.
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

/// A password: of a role of the user's own, whose hash nobody touches, or of the superuser, whose
/// hash the posture names.
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

/// What pods can be while a step from `a` to `b` is half done, by what is on its way to them:
/// settings, then files, then how standbys dial. One is written after every pod has been seen to
/// have the one before. The hash follows settings by replication. No pod serves TLS without files.
fn halfway(a: &Posture, b: &Posture) -> [Vec<Posture>; 3] {
    let pod = |settings: &Posture, hash, files: &Posture, dial| Posture {
        files: files.files.clone(),
        serve: settings.serve,
        accept: settings.accept,
        hash,
        conninfo: dial,
    };
    let hashes = [a.hash, b.hash];
    let settings = [a, b]
        .into_iter()
        .flat_map(|of| hashes.map(|hash| pod(of, hash, a, a.conninfo)));
    let files = [a, b]
        .into_iter()
        .flat_map(|of| hashes.map(|hash| pod(b, hash, of, a.conninfo)));
    let dials = [a, b].map(|of| pod(b, b.hash, b, of.conninfo));
    let is_possible = |pod: &Posture| pod.files.is_some() || pod.serve == ServerTls::Plain;
    [
        settings.filter(is_possible).collect(),
        files.filter(is_possible).collect(),
        dials.to_vec(),
    ]
}

/// Standbys replicate through the whole walk, however little of a step has reached which pod.
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
    walk.iter().try_for_each(|stop| {
        can_replicate(stop, stop).map_err(|refusal| format!("{refusal}: {stop:#?} joins itself"))
    })
}

/// Who can connect at both ends can connect at every stop, with the bundle that is published then
/// or with none.
fn clients_are_served(walk: &[Posture]) -> Result<(), String> {
    let last = walk.len() - 1;
    for who in clients() {
        for has_roots in [true, false] {
            let at =
                |stop: usize| connects(&who, has_roots.then(|| published(walk, stop)), &walk[stop]);
            if at(0).is_ok() && at(last).is_ok() {
                (1..last).try_for_each(|stop| {
                    at(stop).map_err(|why| format!("stop {stop} of {walk:#?}: {why}"))
                })?;
            }
        }
    }
    Ok(())
}

/// The same while a step is half done.
fn clients_are_served_halfway(walk: &[Posture]) -> Result<(), String> {
    let ends = |who: &_| {
        let at = |stop: usize| connects(who, Some(published(walk, stop)), &walk[stop]);
        at(0).is_ok() && at(walk.len() - 1).is_ok()
    };
    let served = clients().into_iter().filter(ends);
    for (who, (stop, pair)) in
        served.flat_map(|who| walk.windows(2).enumerate().map(move |step| (who, step)))
    {
        // What was published for the stop before may still be what the client has.
        for server in halfway(&pair[0], &pair[1]).concat() {
            connects(&who, Some(published(walk, stop)), &server)
                .map_err(|why| format!("after stop {stop} of {walk:#?}: {why} at {server:#?}"))?;
        }
    }
    Ok(())
}

/// A client whose certificate follows the database's own is served whichever of the two it shows
/// while both CAs are trusted.
fn renewed_clients_are_served(walk: &[Posture]) -> Result<(), String> {
    let (first, last) = (&walk[0], &walk[walk.len() - 1]);
    let (Some(old), Some(new)) = (&first.files, &last.files) else {
        return Ok(());
    };
    for who in clients().into_iter().filter(|who| who.2.is_none()) {
        let shows = |certificate: CaId, stop: usize| {
            connects(
                &(who.0, who.1, Some(certificate)),
                Some(published(walk, stop)),
                &walk[stop],
            )
        };
        let (old, new) = (old.material.client.ca, new.material.client.ca);
        if shows(old, 0).is_ok() && shows(new, walk.len() - 1).is_ok() {
            for stop in 1..walk.len() - 1 {
                shows(old, stop)
                    .and_then(|()| shows(new, stop))
                    .map_err(|why| format!("stop {stop}: {why}"))?;
            }
        }
    }
    Ok(())
}

fn law_holds(from: &Posture, to: &Posture) -> Result<(), String> {
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
fn every_spec_reaches_every_other_and_nobody_is_refused_on_the_way() {
    let ends = ends();
    for from in &ends {
        for to in &ends {
            check(law_holds(from, to));
        }
    }
}

#[test]
fn from_every_stop_the_way_on_and_the_way_back_keep_replication() {
    let ends = ends();
    for from in &ends {
        for to in &ends {
            for stop in walk(from, to) {
                for end in [from, to] {
                    check(replication_holds(&walk(&stop, end)));
                }
            }
        }
    }
}

#[test]
fn a_walk_to_where_one_is_has_one_stop() {
    for end in ends() {
        assert_eq!(walk(&end, &end), [end]);
    }
}

fn end() -> impl Strategy<Value = Posture> {
    prop::sample::select(ends())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_half_done_step_refuses_nobody(from in end(), to in end(), turn in any::<prop::sample::Index>()) {
        let way = walk(&from, &to);
        for walk in [walk(&way[turn.index(way.len())], &from), way] {
            clients_are_served_halfway(&walk).map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn from_every_stop_every_spec_is_reached_and_nobody_is_refused(
        from in end(), to in end(), third in end(), turn in any::<prop::sample::Index>(), again in any::<prop::sample::Index>(),
    ) {
        let way = walk(&from, &to);
        let stop = &way[turn.index(way.len())];
        for end in [&from, &to, &third] {
            law_holds(stop, end).map_err(TestCaseError::fail)?;
        }
        let back = walk(stop, &third);
        let stop = &back[again.index(back.len())];
        for end in [&from, &third] {
            law_holds(stop, end).map_err(TestCaseError::fail)?;
        }
    }
}
