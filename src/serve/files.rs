//! The serving certificate from files that another program renews: a mounted Secret, for example of
//! cert-manager.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::pki::key_pair::{CertificateAndKey, KeyPairProblem};
use crate::serve::certificate::ServedCertificate;

/// The kubelet refreshes mounted Secrets about once a minute; 10 s add little to that.
pub const POLL: Duration = Duration::from_secs(10);

/// How often to read again within one poll if the files change between the two reads.
const READS: usize = 3;

/// The files of a certificate and its key.
///
/// The kubelet refreshes a mounted Secret by swapping one symlink above the files. A watch on a
/// file sees the first swap and none after it. So every poll reads the files and compares their
/// bytes.
#[derive(Debug)]
pub struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    /// The bytes that are served.
    served: Option<FilesContent>,
    /// The last problem that was logged.
    problem: Option<String>,
}

#[derive(PartialEq, Eq)]
struct FilesContent {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl fmt::Debug for FilesContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Read").finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
enum FilesProblem {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("the files changed while they were read")]
    Changing,
    #[error("{} and {}: {problem}", certificate.display(), key.display())]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        problem: KeyPairProblem,
    },
}

impl CertificateFiles {
    /// Names the files with the chain (leaf first) and the key.
    #[must_use]
    pub fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self {
            certificate,
            key,
            served: None,
            problem: None,
        }
    }

    /// Polls the files until the signal. No content of the files ends it.
    pub async fn follow(
        mut self,
        every: Duration,
        cell: ServedCertificate,
        metrics: Arc<Metrics>,
        signal: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = signal.cancelled() => return,
                _ = ticks.tick() => self.poll(&cell, &metrics, Timestamp::now()).await,
            }
        }
    }

    /// Serves the pair in the files if it is new and good. Otherwise keeps the current pair and
    /// logs each problem once.
    async fn poll(&mut self, cell: &ServedCertificate, metrics: &Metrics, now: Timestamp) {
        match self.changed(now).await {
            Ok(None) => self.problem = None,
            Ok(Some((read, pair))) => {
                tracing::info!(certificate = %self.certificate.display(), ?pair, "serving a new certificate");
                cell.serve(Arc::new(pair), metrics);
                self.served = Some(read);
                self.problem = None;
            }
            Err(problem) => {
                let problem = problem.to_string();
                if self.problem.as_ref() != Some(&problem) {
                    let kept = if self.served.is_some() {
                        "the last good one is kept"
                    } else {
                        "there is none to serve"
                    };
                    tracing::warn!(problem, "the serving certificate cannot be taken; {kept}");
                    self.problem = Some(problem);
                }
            }
        }
        cell.refused(self.problem.clone());
    }

    /// The pair in the files, if it is good. `None` if it is served already.
    async fn changed(
        &self,
        now: Timestamp,
    ) -> Result<Option<(FilesContent, CertificateAndKey)>, FilesProblem> {
        let read = self.read_pair().await?;
        if self.served.as_ref() == Some(&read) {
            return Ok(None);
        }
        let pair = CertificateAndKey::parse(&read.certificate, &read.key)
            .and_then(|pair| pair.valid_at(now).map(|()| pair))
            .map_err(|problem| {
                let (certificate, key) = (self.certificate.clone(), self.key.clone());
                FilesProblem::Pair {
                    certificate,
                    key,
                    problem,
                }
            })?;
        Ok(Some((read, pair)))
    }

    /// Both files of one version: the kubelet may swap the symlink between the two reads.
    async fn read_pair(&self) -> Result<FilesContent, FilesProblem> {
        let mut certificate = bytes(&self.certificate).await?;
        for _ in 0..READS {
            let key = bytes(&self.key).await?;
            let again = bytes(&self.certificate).await?;
            if again == certificate {
                return Ok(FilesContent { certificate, key });
            }
            certificate = again;
        }
        Err(FilesProblem::Changing)
    }
}

async fn bytes(path: &Path) -> Result<Vec<u8>, FilesProblem> {
    tokio::fs::read(path)
        .await
        .map_err(|error| FilesProblem::Unreadable {
            path: path.to_owned(),
            error,
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;

    const NOW: &str = "2026-06-01T00:00:00Z";

    /// A directory like the kubelet's: `tls.crt -> ..data/tls.crt`, `..data -> <one directory per
    /// version>`.
    struct Mounted {
        directory: TempDir,
        versions: usize,
        files: CertificateFiles,
        cell: ServedCertificate,
        metrics: Metrics,
    }

    impl Mounted {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            for name in ["tls.crt", "tls.key"] {
                symlink(Path::new("..data").join(name), directory.path().join(name)).unwrap();
            }
            let files = CertificateFiles::new(
                directory.path().join("tls.crt"),
                directory.path().join("tls.key"),
            );
            Self {
                directory,
                versions: 0,
                files,
                cell: ServedCertificate::new(),
                metrics: Metrics::new(),
            }
        }

        /// Swaps in a new version, as the kubelet does: a rename over the symlink.
        fn swap(&mut self, (certificate, key): &(String, String)) {
            self.versions += 1;
            let version = format!("..version-{}", self.versions);
            let at = self.directory.path().join(&version);
            std::fs::create_dir(&at).unwrap();
            std::fs::write(at.join("tls.crt"), certificate).unwrap();
            std::fs::write(at.join("tls.key"), key).unwrap();
            let new = self.directory.path().join("..data_tmp");
            symlink(version, &new).unwrap();
            std::fs::rename(new, self.directory.path().join("..data")).unwrap();
        }

        /// The name of the leaf that is served after a poll, and the problem of that poll.
        async fn poll_once(&mut self) -> (Option<String>, Option<String>) {
            self.files
                .poll(&self.cell, &self.metrics, NOW.parse().unwrap())
                .await;
            (
                self.cell.pair().and_then(|pair| pair.names().next()),
                self.files.problem.clone(),
            )
        }
    }

    fn pair(name: &str, until: i32) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(until - 1, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[tokio::test]
    async fn every_swap_of_the_symlink_is_seen() {
        let mut mounted = Mounted::new();
        let (served, problem) = mounted.poll_once().await;
        assert_eq!(served, None);
        assert!(problem.unwrap().contains("tls.crt: No such file"));
        for name in ["one", "two", "three", "four"] {
            mounted.swap(&pair(name, 2027));
            assert_eq!(mounted.poll_once().await, (Some(name.to_owned()), None));
        }
        let expiry = mounted.metrics.serving_certificate_expiry.get();
        assert_eq!(
            expiry,
            "2027-01-01T00:00:00Z"
                .parse::<Timestamp>()
                .unwrap()
                .as_second()
        );
    }

    #[tokio::test]
    async fn the_last_good_pair_is_kept_while_the_files_are_bad() {
        let mut mounted = Mounted::new();
        let good = pair("good", 2027);
        mounted.swap(&good);
        mounted.poll_once().await;
        let (certificate, key) = pair("next", 2027);
        for (what, bad, says) in [
            (
                "wrong key",
                (certificate.clone(), good.1.clone()),
                "not the one of the certificate",
            ),
            (
                "half-written",
                (certificate[..certificate.len() / 2].to_owned(), key.clone()),
                "is the file complete?",
            ),
            (
                "half a key",
                (certificate.clone(), key[..key.len() / 2].to_owned()),
                "is the file complete?",
            ),
            ("empty", (String::new(), String::new()), "no certificate"),
            (
                "expired",
                pair("next", 2026),
                "expired at 2026-01-01T00:00:00Z",
            ),
            (
                "not yet valid",
                pair("next", 2028),
                "not valid before 2027-01-01T00:00:00Z",
            ),
        ] {
            mounted.swap(&bad);
            let (served, problem) = mounted.poll_once().await;
            assert_eq!(served.as_deref(), Some("good"), "{what}");
            assert!(problem.unwrap().contains(says), "{what}");
        }
        mounted.swap(&(certificate, key));
        assert_eq!(mounted.poll_once().await, (Some("next".to_owned()), None));
    }

    #[tokio::test]
    async fn readiness_says_since_when_it_is_expired_and_why_the_new_one_is_refused() {
        let mut mounted = Mounted::new();
        assert_eq!(
            mounted.cell.readiness(NOW.parse().unwrap()),
            Err("none yet".to_owned())
        );
        mounted.swap(&pair("good", 2027));
        mounted.poll_once().await;
        assert_eq!(mounted.cell.readiness(NOW.parse().unwrap()), Ok(()));
        let late = "2027-01-01T00:03:10Z".parse().unwrap();
        assert_eq!(
            mounted.cell.readiness(late),
            Err("expired 3 min ago".to_owned())
        );
        mounted.swap(&(String::new(), String::new()));
        mounted.poll_once().await;
        let why = mounted.cell.readiness(late).unwrap_err();
        assert!(
            why.starts_with("expired 3 min ago; the new one is refused: "),
            "{why}"
        );
    }
}
