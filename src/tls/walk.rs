//! The walk from one posture to another: a client that can connect at both ends is refused at no
//! stage. The field calls this *parallel change*: expand, migrate, contract.

use std::collections::BTreeSet;

use crate::api::tls::SslMode;
use crate::pki::CaId;
use crate::tls::posture::{Files, HbaMethods, Method, Posture, ReplicationConninfo, ServerTls};

/// The stages from `from` to `to`, both included, without equal neighbours.
///
/// # Expected flow
///
/// 1. *mounted*: pods have files; nothing else changes. Only a walk that adds TLS has this stage.
/// 2. *expanded*: servers accept clients of both ends, and trust the CAs of both. If one end has no
///    TLS, servers accept plaintext and TLS, and standbys connect with `prefer`.
/// 3. *migrated*: servers and standbys use the target's leaves, and standbys connect as the target
///    asks.
/// 4. `to`: only the target is accepted and trusted; a target without TLS has no files.
///
/// # Guarantees
///
/// For neighbours `a` and `b`: a standby at either can replicate from a primary at either, also
/// while both are between `a` and `b`; `b` needs no files that `a` lacks; and every client that can
/// connect at both ends and trusts the [`published`] CAs can connect. The ends are exactly `from`
/// and `to`. A walk from any stage to either end guarantees the same: that is rollback.
///
/// # Assumptions
///
/// Within a stage, settings are applied first, then files, then conninfo. Each is verified on every
/// server before the next one is applied.
#[must_use]
pub fn walk(from: &Posture, to: &Posture) -> Vec<Posture> {
    let mounted = Posture {
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
        // Standbys that already connect as the target asks keep doing so: an interrupted walk goes
        // on.
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
    let mut stages = vec![from.clone(), mounted, expanded, migrated, to.clone()];
    stages.dedup();
    stages
}

/// The CAs that clients must trust at stage `at` of a walk: the bundle that is published as
/// `NAME-ca`.
///
/// Clients mount the bundle and may see a change a minute later, so the CAs of every later stage
/// are published from the start. Empty: no bundle. A stage beyond the end counts as the end.
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

/// The method for connections that either end accepts.
///
/// `pg_hba` has no "certificate or password". A client that can connect at both ends has both, so
/// the stages between ask for the password; `md5` accepts both hashes.
fn either(one: Option<Method>, other: Option<Method>) -> Option<Method> {
    match (one, other) {
        (None, method) | (method, None) => method,
        (Some(Method::Md5), _) | (_, Some(Method::Md5)) => Some(Method::Md5),
        (Some(Method::Scram), _) | (_, Some(Method::Scram)) => Some(Method::Scram),
        (Some(Method::Cert), Some(Method::Cert)) => Some(Method::Cert),
    }
}

/// Whether clients and standbys log in with a password over TLS at some stage of the walk to a posture
/// with TLS and this method. Then libpq has to know a channel binding for the leaves of both ends:
/// under `md5` too, where a role's password is stored as SCRAM's hash.
#[must_use]
pub fn asks_for_password(from: &Posture, to: Method) -> bool {
    either(from.accept.tls, Some(to)) != Some(Method::Cert)
}

/// The leaves of `whose`, or those of `other` if it has none; and trust in the CAs of both.
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
        let stages = walk(&from, &to);
        assert_eq!(stages.len(), 5);
        assert!(
            from.needs_new_pods(&stages[1])
                && stages[1..].windows(2).all(|w| !w[0].needs_new_pods(&w[1]))
        );
        assert_eq!(
            (stages[1].serve, stages[1].accept),
            (from.serve, from.accept)
        );
        for stage in &stages[2..4] {
            assert_eq!(
                (stage.serve, stage.accept.plain, stage.accept.tls),
                (ServerTls::Tls, Some(Method::Md5), Some(Method::Scram))
            );
        }
        assert_eq!(
            (stages[2].conninfo.mode, stages[3].conninfo.mode),
            (SslMode::Prefer, SslMode::VerifyFull)
        );
    }

    #[test]
    fn a_walk_asks_for_a_password_where_one_of_its_stages_does() {
        const METHODS: [Method; 3] = [Method::Md5, Method::Scram, Method::Cert];
        let with = |method, serial| {
            Posture::tls(
                SslMode::VerifyFull,
                method,
                material(serial, serial, serial),
            )
        };
        let plain = [Method::Md5, Method::Scram].map(Posture::plain);
        let ends = METHODS
            .map(|method| with(method, 1))
            .into_iter()
            .chain(plain);
        for from in ends {
            for to in METHODS {
                let mut stages = walk(&from, &with(to, 2)).into_iter();
                let asks = stages.any(|stage| {
                    let method = stage.accept.tls;
                    method.is_some_and(|method| method != Method::Cert)
                });
                assert_eq!(asks_for_password(&from, to), asks, "{from:?} {to:?}");
            }
        }
        assert!(asks_for_password(&with(Method::Cert, 1), Method::Scram));
        assert!(!asks_for_password(&with(Method::Cert, 1), Method::Cert));
    }

    #[test]
    fn removing_tls_rolls_the_pods_at_the_end_only() {
        let stages = walk(&scram(1, 1), &Posture::plain(Method::Scram));
        let rolls: Vec<bool> = stages
            .windows(2)
            .map(|w| w[0].needs_new_pods(&w[1]))
            .collect();
        assert_eq!(rolls, [false, false, true]);
    }

    #[test]
    fn another_issuer_is_trusted_before_it_is_served_and_the_old_one_until_after() {
        let (old, new) = (scram(1, 1), scram(2, 2));
        let stages = walk(&old, &new);
        let seen: Vec<_> = stages
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
        let stages = walk(&given_up, &scram(2, 2));
        assert!(
            stages
                .iter()
                .all(|stage| stage.served().is_none_or(|leaf| leaf.ca == ca(2))),
            "{stages:#?}"
        );
    }

    #[test]
    fn a_walk_that_is_taken_up_again_from_any_stage_goes_on_and_never_back() {
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
            let stages = walk(from, to);
            for (at, stage) in stages.iter().enumerate() {
                assert_eq!(
                    walk(stage, to),
                    stages[at..],
                    "from stage {at} of {stages:#?}"
                );
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
            .flat_map(|stages| stages.windows(2).map(<[_]>::to_vec).collect::<Vec<_>>())
            .collect();
        assert!(
            neighbours
                .iter()
                .any(|pair| pair[0].accept.plain.is_some() && pair[1].accept.plain.is_none())
        );
        for pair in &neighbours {
            if pair.iter().any(|stage| stage.accept.plain.is_none()) {
                let takes_tls =
                    |stage: &Posture| stage.serve == ServerTls::Tls && stage.accept.tls.is_some();
                assert!(pair.iter().all(takes_tls), "{pair:#?}");
            }
        }
    }

    #[test]
    fn both_cas_are_published_from_the_start_and_the_old_one_goes_last() {
        let stages = walk(&scram(1, 1), &scram(2, 2));
        let both = BTreeSet::from([ca(1), ca(2)]);
        let bundles: Vec<_> = (0..stages.len()).map(|at| published(&stages, at)).collect();
        assert_eq!(
            bundles,
            [both.clone(), both.clone(), both, BTreeSet::from([ca(2)])]
        );
        assert_eq!(published(&stages, 99), BTreeSet::from([ca(2)]));
        assert_eq!(
            published(&[Posture::plain(Method::Md5)], 0),
            BTreeSet::new()
        );
    }
}
