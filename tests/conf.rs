//! What pgrekey reads as settings, PostgreSQL reads too, and means the same by it; what it refuses,
//! PostgreSQL cannot read, but for what is said here.
//!
//! PostgreSQL is the one that `PGREKEY_POSTGRES` names, else the newest of those in
//! `/usr/lib/postgresql`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::path::PathBuf;
use std::process::Command;

use pgrekey::api::postgresql_conf;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;

/// A PostgreSQL with a folder of its own.
struct Server {
    program: PathBuf,
    folder: TempDir,
}

impl Server {
    fn find() -> Option<Self> {
        let named = std::env::var_os("PGREKEY_POSTGRES").map(PathBuf::from);
        let installed = || {
            let folders = std::fs::read_dir("/usr/lib/postgresql").ok()?;
            let programs =
                folders.filter_map(|entry| Some(entry.ok()?.path().join("bin/postgres")));
            programs.filter(|program| program.exists()).max()
        };
        let Some(program) = named.or_else(installed) else {
            println!(
                "skipped: there is no PostgreSQL: install one, or name one by PGREKEY_POSTGRES"
            );
            return None;
        };
        Some(Self {
            program,
            folder: tempfile::tempdir().expect("a folder"),
        })
    }

    /// The value of a setting in this file, or None if PostgreSQL cannot read the file. What it
    /// thinks of values is no matter: it has read them.
    fn reads(&self, text: &str, name: &str) -> Option<String> {
        // Only with `-C` first may root ask.
        std::fs::write(self.folder.path().join("postgresql.conf"), text).expect("a file");
        let output = Command::new(&self.program)
            .args(["-C", name, "-D"])
            .arg(self.folder.path())
            .output();
        let output = output.expect("PostgreSQL runs");
        let said = String::from_utf8_lossy(&output.stderr);
        let is_read = !said.contains("syntax error in file");
        assert!(
            output.status.success() || !is_read || said.contains(" parameter \""),
            "{text:?}: {said}"
        );
        let value = String::from_utf8_lossy(&output.stdout);
        is_read.then(|| value.strip_suffix('\n').unwrap_or(&value).to_owned())
    }

    /// Holds one line against PostgreSQL; whether it was read.
    fn judges(&self, line: &str) -> bool {
        let theirs = self.reads(line, "x.y");
        match postgresql_conf::parse(line) {
            Ok(settings) => {
                assert!(theirs.is_some(), "PostgreSQL does not read {line:?}");
                if let Some(value) = settings.get("x.y") {
                    assert_eq!(theirs.as_ref(), Some(value), "{line:?}");
                    // Patroni writes it anew, and escapes no more than this.
                    let escaped = value.replace('\\', r"\\").replace('\'', "''");
                    assert_eq!(
                        self.reads(&format!("x.y = '{escaped}'\n"), "x.y").as_ref(),
                        Some(value),
                        "{line:?}"
                    );
                }
                true
            }
            Err(bad) => {
                let is_stricter = ["included", "control character", "ASCII", "UTF-8"];
                let expected = is_stricter.iter().any(|part| bad.problem.contains(part));
                assert!(
                    theirs.is_none() || expected,
                    "PostgreSQL reads {line:?}, and we: {bad}"
                );
                false
            }
        }
    }
}

/// Values, one a line.
const VALUES: &str = r#"1
-1
+1
16MB
1.5
1.5GB
.5
1.
.
-
1e5
1.e5
1.5e-3
1.5e
0x1F
0X1F
0xg
1h2
on
a-b
a.b
a.b.c
a.
a.1
a:b/c
a,b
$user
_
é
ü.ü
'a'
'a''b'
''
'a'b'
'a' 'b'
'a
'a\'
'a\''
'\101\1\0'
'\777'
'\303\244'
'\377'
'\n'
'\t'
'\q'
'\b'
1 # c
1#c
'#'
a b
= 1

"a""#;

/// Names, one a line.
const NAMES: &str = "x.y
X.Y
x
_x._y
x.
.x
x..y
x.1
1x.y
x.y.z
x$y.z
x.y$z
x-y
é.y
x.é
'x.y'
=
work_mem
no_such_setting";

#[test]
fn postgresql_reads_each_line_of_the_table_as_we_do() {
    let Some(server) = Server::find() else { return };
    let mut read = 0;
    let odd = ["4MB\u{a0}", "4MB\u{b}", "'a\tb'", "\u{7f}"];
    for value in VALUES.lines().chain(odd) {
        for equals in [" = ", "=", " "] {
            read += usize::from(server.judges(&format!("x.y{equals}{value}")));
        }
    }
    for name in NAMES.lines() {
        read += usize::from(server.judges(&format!("{name} = 1")));
    }
    assert!(read > 60, "{read}");
}

#[test]
fn postgresql_reads_generated_lines_as_we_do() {
    let Some(server) = Server::find() else { return };
    let pieces = vec![
        "x.y", "x", ".", "=", "'", "''", "\\", "#", " ", "\t", "\r", "a", "é", "$", "-", "+", "0",
        "0x", "7", "1.5", "e", "E5", "MB", ",", ":", "/", "_", "\\n", "\\10", "\"",
    ];
    let value = prop::collection::vec(select(pieces), 0..8).prop_map(|pieces| pieces.concat());
    let line = (
        select(vec!["x.y = ", "x.y=", "x.y ", "x.y = '", ""]),
        value,
        select(vec!["", "'", " # c"]),
    );
    let line = line.prop_map(|(begins, value, ends)| format!("{begins}{value}{ends}"));
    let mut runner = TestRunner::deterministic();
    let (mut read, mut refused) = (0, 0);
    for _ in 0..400 {
        let line = line.new_tree(&mut runner).expect("a line").current();
        if server.judges(&line) {
            read += 1;
        } else {
            refused += 1;
        }
    }
    assert!(read > 50 && refused > 50, "{read} read, {refused} refused");
}
