//! What the documents show is true: each command in them is run by a test or says that it is not,
//! and what is taken from a recording is in it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Says at the end of a line that no test runs it.
const NOT_RUN: &str = "# †";

/// What the checks themselves are made of.
const RUN_BY_CI: [&str; 2] = ["make cluster", "make test"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents that people write.
fn documents() -> Vec<PathBuf> {
    let folders = [
        "",
        "docs",
        "dev",
        "certs-dev",
        "examples",
        "charts/pgrekey",
        "charts/pgrekey-crds",
    ];
    let files = folders
        .iter()
        .flat_map(|folder| fs::read_dir(root().join(folder)).expect("a folder"));
    let files = files.map(|file| file.expect("a file").path());
    let mut files: Vec<PathBuf> = files
        .filter(|file| file.extension().is_some_and(|end| end == "md"))
        .collect();
    files.sort();
    files
}

/// The blocks of a document, each with the word after its fence.
fn blocks(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut blocks = vec![];
    let mut open: Option<(&str, Vec<&str>)> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => open = Some((language, vec![])),
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    blocks
}

/// The commands of a block. In a console, where there are prompts, what has none is what was
/// printed.
fn commands<'d>(language: &str, lines: &[&'d str]) -> Vec<&'d str> {
    if !["sh", "bash", "console"].contains(&language) {
        return vec![];
    }
    let has_prompts = lines.iter().any(|line| line.starts_with("$ "));
    let mut continues = false;
    let mut commands = vec![];
    for line in lines {
        let command = if has_prompts {
            line.strip_prefix("$ ")
        } else {
            Some(line.trim())
        };
        let command = command.filter(|command| !command.is_empty() && !command.starts_with('#'));
        commands.extend(command.filter(|_| !continues));
        continues = line.ends_with('\\');
    }
    commands
}

#[test]
fn each_command_is_run_by_a_test_or_says_that_it_is_not() {
    let tutorial = read(&root().join("docs/tutorial.md"));
    // `dev/demo/tutorial`, which the cluster suite runs.
    let told: Vec<&str> = blocks(&tutorial)
        .into_iter()
        .filter(|(language, _)| *language == "sh")
        .flat_map(|(_, lines)| lines)
        .collect();
    let mut unknown = vec![];
    for document in documents() {
        let text = read(&document);
        let is_run = |command: &str| {
            let bare = command.split(" #").next().unwrap_or_default().trim();
            // `the_document_shows_the_real_output` runs every command with a prompt and no mark.
            document.ends_with("docs/cli.md")
                || told
                    .iter()
                    .any(|line| line.split(" #").next().unwrap_or_default().trim() == bare)
                || RUN_BY_CI.contains(&bare)
        };
        for (language, lines) in blocks(&text) {
            let commands = commands(language, &lines);
            let left = commands
                .into_iter()
                .filter(|command| !command.contains(NOT_RUN) && !is_run(command));
            unknown.extend(left.map(|command| format!("{}: {command}", document.display())));
        }
    }
    assert!(
        unknown.is_empty(),
        "mark them with {NOT_RUN}, or have them run:\n{}",
        unknown.join("\n")
    );
}

#[test]
fn the_postures_of_each_operation_are_those_that_plan_shows() {
    let recorded =
        read(&root().join(
            "tests/snapshots/cli__the_tutorial_is_planned_offline_each_request_from_where_the_last_one_leads.snap",
        ));
    let text = read(&root().join("docs/how-it-works.md"));
    let tables: Vec<String> = blocks(&text)
        .into_iter()
        .filter(|(language, lines)| {
            *language == "text"
                && lines
                    .first()
                    .is_some_and(|line| line.starts_with("POSTURE"))
        })
        .map(|(_, lines)| lines.join("\n"))
        .collect();
    assert!(
        tables.len() >= 4,
        "one for each operation: {}",
        tables.len()
    );
    for table in tables {
        assert!(recorded.contains(&table), "no plan shows this:\n{table}");
    }
}
