//! How long each test of the cluster took.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::Instant;

/// Runs from the beginning of a test to its end, and then adds a line to the file that
/// `PGREKEY_TEST_TIMES` names: the seconds that it took, `ok` or `FAILED`, its name, and the seconds
/// that it had waited for its turn.
pub(super) struct Stopwatch {
    asked: Instant,
    began: Cell<Instant>,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self {
            asked: now,
            began: Cell::new(now),
        }
    }

    pub(super) fn begins_now(&self) {
        self.began.set(Instant::now());
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        let (took, waited) = (self.began.get().elapsed(), self.began.get() - self.asked);
        let thread = std::thread::current();
        let (name, seconds) = (thread.name().unwrap_or("?"), took.as_secs_f32());
        let waited = waited.as_secs();
        let result = if std::thread::panicking() {
            "FAILED"
        } else {
            "ok"
        };
        println!("{name} took {seconds:.1} s, after {waited} s for its turn");
        let file = std::env::var_os("PGREKEY_TEST_TIMES");
        let file = file.map(|path| OpenOptions::new().create(true).append(true).open(path));
        if let Some(Ok(mut file)) = file {
            let line = format!(
                "{seconds:8.1}  {result:<6}  cluster {name}, after {waited} s for its turn\n"
            );
            let _ = file.write_all(line.as_bytes());
        }
    }
}
