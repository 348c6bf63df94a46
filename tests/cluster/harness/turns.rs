//! Which tests run at the same time, and the operator of each.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::cluster::Cluster;
use super::rights::{OPERATOR, Rights};

/// Most tests keep to namespaces of their own. An installation of the chart does not, nor do
/// definitions that come and go.
static WHOLE_CLUSTER: RwLock<()> = RwLock::const_new(());

/// By then every test of a run has asked for its turn.
const ALL_HAVE_ASKED: Duration = Duration::from_secs(1);

/// And the longest have asked for their seats.
const THE_LONGEST_HAVE_ASKED: Duration = Duration::from_millis(500);

/// A turn: beside other tests, or alone.
#[expect(dead_code, reason = "they end with the test that has them")]
pub(super) enum Turn {
    Beside(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

impl Turn {
    pub(super) async fn beside() -> Self {
        Self::Beside(WHOLE_CLUSTER.read().await)
    }

    /// The lock is fair: who wants the cluster alone asks last, or the others would be divided into
    /// those before and those after.
    pub(super) async fn alone() -> Self {
        tokio::time::sleep(ALL_HAVE_ASKED).await;
        Self::Alone(WHOLE_CLUSTER.write().await)
    }
}

/// Where the operators of the tests live. Each has a lease and a ServiceAccount of its own, so that
/// as many databases are at work at the same time: more than two cores do not carry. The audit
/// policy of the dev cluster knows these names.
const NAMESPACES: [&str; 3] = [OPERATOR, "operator-2", "operator-3"];
static SEATS: [Mutex<()>; NAMESPACES.len()] = [const { Mutex::const_new(()) }; NAMESPACES.len()];
static RIGHTS: [OnceLock<Rights>; NAMESPACES.len()] = [const { OnceLock::new() }; NAMESPACES.len()];

/// The place of one operator, for as long as a test has it.
pub(crate) struct Seat {
    /// The namespace that the operator lives in.
    pub(crate) namespace: &'static str,
    /// What it may do. It may do no more.
    pub(crate) rights: &'static Rights,
    _taken: MutexGuard<'static, ()>,
}

impl Seat {
    /// Takes the first that is free.
    pub(crate) async fn take(cluster: &Cluster) -> Self {
        tokio::time::sleep(THE_LONGEST_HAVE_ASKED).await;
        Self::take_early(cluster).await
    }

    /// The same, before all that [`Seat::take`] it: for the longest tests, or the end of the suite
    /// would wait for them.
    pub(crate) async fn take_early(cluster: &Cluster) -> Self {
        let seats = SEATS.iter().enumerate();
        let seats = seats.map(|(n, seat)| Box::pin(async move { (n, seat.lock().await) }));
        let ((n, taken), ..) = futures::future::select_all(seats).await;
        let namespace = NAMESPACES[n];
        let rights = RIGHTS[n].get_or_init(|| {
            // The first operator makes the lease.
            let lease = [
                "delete",
                "lease",
                "-n",
                namespace,
                "pgrekey",
                "--ignore-not-found",
            ];
            cluster.kubectl(&lease, "").must_succeed();
            Rights::give(cluster, namespace)
        });
        cluster.begins_now();
        Self {
            namespace,
            rights,
            _taken: taken,
        }
    }
}
