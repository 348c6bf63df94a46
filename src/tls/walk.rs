//! From one posture to another, so that nobody who may connect at both ends is refused on the way.

use std::collections::BTreeSet;

use crate::api::tls::SslMode;
use crate::pki::CaId;
use crate::tls::posture::{Files, HbaMethods, Method, Posture, ReplicationConninfo, ServerTls};

/// The postures from `from` to `to`, both included; equal neighbours are one.
///
/// # Expected flow
///
/// 1. *equipped*: pods have files; nothing else changes. Only a walk that adds TLS has this stop.
/// 2. *expanded*: servers take both worlds. Both ends' CAs are trusted. Where one end has no TLS,
///    servers take plaintext and TLS, and standbys dial `prefer`.
/// 3. *migrated*: the leaves of the target are served and presented, and standbys dial as the
///    target wants.
/// 4. `to`: only the target is accepted and trusted; when TLS goes, so do the files.
///
/// # Guarantees
///
/// For neighbours `a` and `b`: a standby at either joins a primary at either, also when each is
/// only halfway between them; `b` needs no files that `a` lacks; and every client that can connect
/// at both ends and trusts what is [`published`] can connect. The ends are exactly `from` and `to`,
/// and a walk from any stop to either end guarantees the same: that is rollback.
///
/// # Assumptions
///
/// Within a step settings come first, then files, then how standbys dial; each is proven on every
/// server before the next one is written.
#[must_use]
pub fn walk(from: &Posture, to: &Posture) -> Vec<Posture> {
    let equipped = Posture {
        files: from.files.clone().or_else(|| to.files.clone()),
        ..from.clone()
    };
    let both = Posture {
        files: None,
        serve: if from.serve == to.serve {
            from.serve
        } else {
            ServerTls::Tls
        },
        accept: HbaMethods {
            plain: either(from.accept.plain, to.accept.plain),
            tls: either(from.accept.tls, to.accept.tls),
        },
        hash: from.hash.max(to.hash),
        conninfo: from.conninfo,
    };
    let crossing = ReplicationConninfo {
        mode: SslMode::Prefer,
        sends_client_cert: from.conninfo.sends_client_cert || to.conninfo.sends_client_cert,
    };
    let expanded = Posture {
        files: trusting_both(from, to),
        // Whoever dials as the target wants already has no crossing to make: a walk that is taken
        // up again goes on.
        conninfo: if from.serve == to.serve || from.conninfo == to.conninfo {
            from.conninfo
        } else {
            crossing
        },
        ..both.clone()
    };
    let migrated = Posture {
        files: trusting_both(to, from),
        conninfo: to.conninfo,
        ..both
    };
    let mut stops = vec![from.clone(), equipped, expanded, migrated, to.clone()];
    stops.dedup();
    stops
}

/// The CAs that clients should trust when a walk has come to stop `at`: what is published as
/// `NAME-ca`.
///
/// Clients mount the bundle and may see a change a minute later, hence what is needed at any later
/// stop is published from the start. Empty: nothing to publish. A stop beyond the end counts as the
/// end.
#[must_use]
pub fn published(walk: &[Posture], at: usize) -> BTreeSet<CaId> {
    let rest = walk
        .get(at..)
        .filter(|rest| !rest.is_empty())
        .unwrap_or(walk.last_chunk::<1>().map_or(&[], |end| end));
    rest.iter()
        .filter_map(|posture| posture.files.as_ref())
        .flat_map(|files| {
            files
                .trust
                .iter()
                .copied()
                .chain([files.material.exporter.ca])
        })
        .collect()
}

/// What passes at either end passes here.
///
/// There is no line in `pg_hba` that takes "certificate or password". But a client that passes both
/// kinds brings both, so the password is what is asked of it in between; and of the two kinds of
/// password `md5` takes both hashes.
fn either(one: Option<Method>, other: Option<Method>) -> Option<Method> {
    match (one, other) {
        (None, method) | (method, None) => method,
        (Some(Method::Md5), _) | (_, Some(Method::Md5)) => Some(Method::Md5),
        (Some(Method::Scram), _) | (_, Some(Method::Scram)) => Some(Method::Scram),
        (Some(Method::Cert), Some(Method::Cert)) => Some(Method::Cert),
    }
}

/// The leaves of `whose`, if it serves them, else those of `other`; and trust in both.
fn trusting_both(whose: &Posture, other: &Posture) -> Option<Files> {
    let (first, second) = if whose.serve == ServerTls::Tls {
        (whose, other)
    } else {
        (other, whose)
    };
    let files = first.files.as_ref().or(second.files.as_ref())?;
    let trust = whose.trust().union(&other.trust()).copied().collect();
    Some(Files {
        material: files.material,
        trust,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::posture::tests::{ca, material};

    fn scram(serial: u8, issuer: u8) -> Posture {
        Posture::tls(
            SslMode::VerifyFull,
            Method::Scram,
            material(serial, issuer, issuer),
        )
    }

    #[test]
    fn adding_tls_equips_expands_migrates_and_contracts() {
        let (from, to) = (Posture::plain(Method::Md5), scram(1, 1));
        let stops = walk(&from, &to);
        assert_eq!(stops.len(), 5);
        assert!(
            from.needs_new_pods(&stops[1])
                && stops[1..].windows(2).all(|w| !w[0].needs_new_pods(&w[1]))
        );
        assert_eq!((stops[1].serve, stops[1].accept), (from.serve, from.accept));
        for stop in &stops[2..4] {
            assert_eq!(
                (stop.serve, stop.accept.plain, stop.accept.tls),
                (ServerTls::Tls, Some(Method::Md5), Some(Method::Scram))
            );
        }
        assert_eq!(
            (stops[2].conninfo.mode, stops[3].conninfo.mode),
            (SslMode::Prefer, SslMode::VerifyFull)
        );
    }

    #[test]
    fn removing_tls_rolls_the_pods_at_the_end_only() {
        let stops = walk(&scram(1, 1), &Posture::plain(Method::Scram));
        let rolls: Vec<bool> = stops
            .windows(2)
            .map(|w| w[0].needs_new_pods(&w[1]))
            .collect();
        assert_eq!(rolls, [false, false, true]);
    }

    #[test]
    fn another_issuer_is_trusted_before_it_is_served_and_the_old_one_until_after() {
        let (old, new) = (scram(1, 1), scram(2, 2));
        let stops = walk(&old, &new);
        let seen: Vec<_> = stops
            .iter()
            .map(|s| (s.served().map(|l| l.ca), s.trust().len()))
            .collect();
        assert_eq!(
            seen,
            [
                (Some(ca(1)), 1),
                (Some(ca(1)), 2),
                (Some(ca(2)), 2),
                (Some(ca(2)), 1)
            ]
        );
    }

    #[test]
    fn a_renewal_by_the_same_issuer_is_one_step() {
        let (old, new) = (scram(1, 1), scram(2, 1));
        assert_eq!(walk(&old, &new), [old, new]);
    }

    #[test]
    fn nothing_to_change_is_no_step() {
        assert_eq!(walk(&scram(1, 1), &scram(1, 1)), [scram(1, 1)]);
    }

    #[test]
    fn a_leaf_that_was_never_served_is_not_served_on_the_way_to_another() {
        let given_up = walk(&Posture::plain(Method::Scram), &scram(1, 1))[1].clone();
        let stops = walk(&given_up, &scram(2, 2));
        assert!(
            stops
                .iter()
                .all(|stop| stop.served().is_none_or(|leaf| leaf.ca == ca(2))),
            "{stops:#?}"
        );
    }

    #[test]
    fn a_walk_that_is_taken_up_again_from_any_stop_goes_on_and_never_back() {
        let ends = [
            Posture::plain(Method::Md5),
            Posture::plain(Method::Scram),
            scram(1, 1),
            scram(2, 2),
        ];
        for (from, to) in ends
            .iter()
            .flat_map(|from| ends.iter().map(move |to| (from, to)))
        {
            let stops = walk(from, to);
            for (at, stop) in stops.iter().enumerate() {
                assert_eq!(walk(stop, to), stops[at..], "from stop {at} of {stops:#?}");
            }
        }
    }

    #[test]
    fn where_plaintext_is_refused_servers_take_tls_also_when_they_are_one_step_behind_or_ahead() {
        let cert = Posture::tls(SslMode::VerifyFull, Method::Cert, material(3, 2, 2));
        let ends = [
            Posture::plain(Method::Md5),
            Posture::plain(Method::Scram),
            scram(1, 1),
            scram(2, 2),
            cert,
        ];
        let pairs = ends
            .iter()
            .flat_map(|from| ends.iter().map(move |to| walk(from, to)));
        let neighbours: Vec<_> = pairs
            .flat_map(|stops| stops.windows(2).map(<[_]>::to_vec).collect::<Vec<_>>())
            .collect();
        assert!(
            neighbours
                .iter()
                .any(|pair| pair[0].accept.plain.is_some() && pair[1].accept.plain.is_none())
        );
        for pair in &neighbours {
            if pair.iter().any(|stop| stop.accept.plain.is_none()) {
                let takes_tls =
                    |stop: &Posture| stop.serve == ServerTls::Tls && stop.accept.tls.is_some();
                assert!(pair.iter().all(takes_tls), "{pair:#?}");
            }
        }
    }

    #[test]
    fn both_cas_are_published_from_the_start_and_the_old_one_goes_last() {
        let stops = walk(&scram(1, 1), &scram(2, 2));
        let both = BTreeSet::from([ca(1), ca(2)]);
        let bundles: Vec<_> = (0..stops.len()).map(|at| published(&stops, at)).collect();
        assert_eq!(
            bundles,
            [both.clone(), both.clone(), both, BTreeSet::from([ca(2)])]
        );
        assert_eq!(published(&stops, 99), BTreeSet::from([ca(2)]));
        assert_eq!(
            published(&[Posture::plain(Method::Md5)], 0),
            BTreeSet::new()
        );
    }
}
