//! The current serving certificate.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jiff::{SignedDuration, Timestamp};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::metrics::Metrics;
use crate::pki::key_pair::CertificateAndKey;

/// The current certificate and key. Sources store them here; every new handshake reads them.
///
/// *Guarantee*: a pair stays until another one replaces it, even if it expires. An expired
/// certificate shows a caller the cause; a missing one does not.
#[derive(Clone, Default)]
pub struct ServedCertificate {
    served: Arc<ArcSwapOption<CurrentCertificate>>,
    /// Why the source refused a newer pair.
    refused: Arc<ArcSwapOption<String>>,
}

struct CurrentCertificate {
    pair: Arc<CertificateAndKey>,
    key: Arc<CertifiedKey>,
}

impl ServedCertificate {
    /// Without a pair: every handshake fails until there is one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves this pair from the next handshake on.
    pub fn serve(&self, pair: Arc<CertificateAndKey>, metrics: &Metrics) {
        metrics
            .serving_certificate_expiry
            .set(pair.not_after().as_second());
        let key = Arc::new(pair.certified_key());
        self.served
            .store(Some(Arc::new(CurrentCertificate { pair, key })));
    }

    /// Stores why the source refused its newest pair; `None` clears it.
    pub fn refused(&self, problem: Option<String>) {
        self.refused.store(problem.map(Arc::new));
    }

    /// The current pair.
    #[must_use]
    pub fn pair(&self) -> Option<Arc<CertificateAndKey>> {
        self.served
            .load()
            .as_ref()
            .map(|served| Arc::clone(&served.pair))
    }

    /// `Err` with the reason if there is no valid certificate at this time.
    pub fn readiness(&self, now: Timestamp) -> Result<(), String> {
        let state = match self.pair() {
            None => "none yet".to_owned(),
            Some(pair) if pair.not_after() <= now => {
                format!(
                    "expired {} ago",
                    coarse(now.duration_since(pair.not_after()))
                )
            }
            Some(pair) if now < pair.not_before() => {
                format!(
                    "not valid for another {}",
                    coarse(pair.not_before().duration_since(now))
                )
            }
            Some(_) => return Ok(()),
        };
        match &*self.refused.load() {
            Some(problem) => Err(format!("{state}; the new one is refused: {problem}")),
            None => Err(state),
        }
    }
}

/// A span of time in its largest unit only.
fn coarse(span: SignedDuration) -> String {
    let seconds = span.as_secs();
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

impl ResolvesServerCert for ServedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.served
            .load()
            .as_ref()
            .map(|served| Arc::clone(&served.key))
    }
}

impl fmt::Debug for ServedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServedCertificate")
            .field(&self.pair())
            .finish()
    }
}
