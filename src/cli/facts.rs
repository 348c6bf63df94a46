//! Facts about a cluster, read from files with manifests.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow};

use crate::cli::manifest;
use crate::cli::manifest::Document;
use crate::rules::Snapshot;

/// The text of a file; `-` is standard input.
pub(crate) fn read_text(file: &Path) -> anyhow::Result<String> {
    let bytes = if file == Path::new("-") {
        let mut bytes = vec![];
        std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
        bytes
    } else {
        std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?
    };
    String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8 text", file.display()))
}

/// The facts that the manifests of a directory state.
pub(crate) fn facts_in(directory: &Path) -> anyhow::Result<Snapshot> {
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| {
        file.extension()
            .is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known))
    });
    files.sort();
    let mut facts = Snapshot::default();
    for file in files {
        let documents = manifest::parse(&read_text(&file)?)
            .map_err(|problem| anyhow!("{}:{problem}", file.display()))?;
        for document in documents.into_iter().flat_map(Document::objects) {
            facts
                .learn(&document.value())
                .with_context(|| format!("{} does not decode", file.display()))?;
        }
    }
    Ok(facts)
}
