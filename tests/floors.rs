//! The floors of the crate hold: no module uses one above it, and the pure ones stay pure.
//!
//! The sources are read as tokens, so comments and strings do not count, and every spelling of a
//! path does: `crate::a::b`, `use crate::{a::b, c}`, `super::super::a`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// One module at the root of the crate.
struct Floor {
    module: &'static str,
    /// The modules that it may use besides itself.
    uses: &'static [&'static [&'static str]],
    /// No clock, no effects, no randomness, no environment.
    pure: bool,
}

/// What judges: no floor above it adds to this list.
const JUDGMENT: &[&str] = &["api", "pki", "tls", "rules", "build", "plan"];
const BESIDE: &[&str] = &["telemetry", "metrics"];
const EDGES: &[&str] = &["cluster", "database", "serve"];

const fn pure(module: &'static str, uses: &'static [&'static [&'static str]]) -> Floor {
    Floor {
        module,
        uses,
        pure: true,
    }
}

const fn effects(module: &'static str, uses: &'static [&'static [&'static str]]) -> Floor {
    Floor {
        module,
        uses,
        pure: false,
    }
}

const FLOORS: &[Floor] = &[
    pure("api", &[]),
    pure("pki", &[&["api"]]),
    pure("tls", &[&["api", "pki"]]),
    pure("rules", &[&["api", "pki", "tls"]]),
    pure("build", &[&["api", "pki", "tls"]]),
    pure("plan", &[&["api", "pki", "tls", "rules", "build"]]),
    effects("telemetry", &[&["api"]]),
    effects("metrics", &[&["api"]]),
    effects("cluster", &[JUDGMENT, BESIDE]),
    effects("database", &[JUDGMENT, BESIDE]),
    effects("serve", &[JUDGMENT, BESIDE]),
    effects("controller", &[JUDGMENT, BESIDE, EDGES]),
    effects("cli", &[JUDGMENT, BESIDE, EDGES, &["controller"]]),
];

/// What a pure module must not name. A path is forbidden together with everything below it.
const IMPURE: &[&[&str]] = &[
    &["async"],
    &["tokio"],
    &["kube", "Client"],
    &["kube", "client"],
    &["kube", "Api"],
    &["kube", "api", "Api"],
    &["kube", "runtime"],
    &["SystemTime"],
    &["Instant"],
    &["Timestamp", "now"],
    &["Zoned", "now"],
    &["std", "env"],
    &["std", "fs"],
    &["rand"],
    &["tracing"],
];

/// A path as it is written, with the number of inline modules around it.
struct Named {
    segments: Vec<String>,
    inline_modules: usize,
}

/// Every path in the source, `use` groups multiplied out; single identifiers are paths too.
fn paths(source: &str) -> Vec<Named> {
    let tokens: TokenStream = source.parse().expect("the source is Rust");
    let mut found = vec![];
    collect(tokens, &[], 0, &mut found);
    found
}

fn collect(tokens: TokenStream, prefix: &[String], inline_modules: usize, found: &mut Vec<Named>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut path = prefix.to_vec();
    let mut at = 0;
    let is_colon =
        |i: usize| matches!(tokens.get(i), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(ident) => {
                path.push(ident.to_string());
                if is_colon(at + 1) && is_colon(at + 2) {
                    at += 3;
                    if let Some(TokenTree::Group(group)) = tokens.get(at)
                        && group.delimiter() == Delimiter::Brace
                    {
                        collect(group.stream(), &path, inline_modules, found);
                        at += 1;
                        path = prefix.to_vec();
                    }
                    continue;
                }
                let segments = std::mem::replace(&mut path, prefix.to_vec());
                found.push(Named {
                    segments,
                    inline_modules,
                });
            }
            TokenTree::Group(group) => {
                let opens_module = at >= 2
                    && matches!(&tokens[at - 2], TokenTree::Ident(keyword) if keyword == "mod")
                    && group.delimiter() == Delimiter::Brace;
                collect(
                    group.stream(),
                    &[],
                    inline_modules + usize::from(opens_module),
                    found,
                );
            }
            _ => path = prefix.to_vec(),
        }
        at += 1;
    }
}

/// Which root module a path leads to, if it leads out of its own file by name: `module` is the
/// file's own path.
fn root_module(named: &Named, module: &[String]) -> Option<String> {
    let supers = named.segments.iter().take_while(|s| *s == "super").count();
    if named.segments.first().is_some_and(|s| s == "crate") {
        return named.segments.get(1).cloned();
    }
    (supers > 0 && supers == module.len() + named.inline_modules)
        .then(|| named.segments.get(supers).cloned())?
}

/// What is wrong with one file of the module tree; `module` is its path, such as `["rules",
/// "tls"]`.
fn violations(module: &[String], source: &str) -> Vec<String> {
    let Some(floor) = FLOORS.iter().find(|f| f.module == module[0]) else {
        return vec![format!(
            "module `{}` has no floor: give it one in tests/floors.rs",
            module[0]
        )];
    };
    let mut wrong = vec![];
    for named in paths(source) {
        if let Some(used) = root_module(&named, module)
            && FLOORS.iter().any(|f| f.module == used)
            && used != floor.module
            && !floor.uses.concat().contains(&used.as_str())
        {
            wrong.push(format!("`{}` must not use `{used}`", module.join("::")));
        }
        let names = |forbidden: &&&[&str]| {
            named
                .segments
                .windows(forbidden.len())
                .any(|w| w == **forbidden)
        };
        if floor.pure
            && let Some(word) = IMPURE.iter().find(names)
        {
            wrong.push(format!(
                "`{}` is pure and must not name `{}`",
                module.join("::"),
                word.join("::")
            ));
        }
    }
    wrong
}

/// Every file below `src/` that belongs to a root module, with its module path.
fn sources() -> Vec<(Vec<String>, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let relative = path
                    .strip_prefix(&root)
                    .expect("below src")
                    .with_extension("");
                let mut module: Vec<String> = relative
                    .iter()
                    .map(|part| part.to_string_lossy().into_owned())
                    .collect();
                module.pop_if(|last| last == "mod");
                if module != ["lib"] && module != ["main"] {
                    files.push((module, path));
                }
            }
        }
    }
    files
}

#[test]
fn every_module_uses_only_floors_below_it() {
    let files = sources();
    assert!(!files.is_empty(), "no sources found");
    let wrong: Vec<String> = files
        .iter()
        .flat_map(|(module, path)| {
            let source = std::fs::read_to_string(path).expect("a source can be read");
            violations(module, &source)
                .into_iter()
                .map(move |what| format!("{}: {what}", path.display()))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The test above is only worth something if each of these is found.
#[test]
fn a_broken_floor_is_found_however_it_is_spelled() {
    let broken: &[(&[&str], &str)] = &[
        (&["rules"], "use crate::cluster::Stores;"),
        (
            &["rules", "tls"],
            "use crate::{api::Postgres, cluster::Stores};",
        ),
        (&["rules", "tls"], "use super::super::cluster;"),
        (
            &["rules", "tls"],
            "mod tests { use super::super::super::cluster; }",
        ),
        (&["rules"], "fn f() { let x = crate::cluster::now(); }"),
        (&["rules"], "use crate::build;"),
        (&["cluster"], "use crate::database::probe;"),
        (&["api"], "use crate::tls::Posture;"),
        (&["plan"], "async fn decide() {}"),
        (&["plan"], "fn f() { tokio::spawn(g()); }"),
        (&["plan"], "use kube::{Client, Resource};"),
        (&["plan"], "use kube::{runtime::controller};"),
        (&["plan"], "use std::time::Instant;"),
        (&["plan"], "fn f() -> SystemTime { g() }"),
        (&["plan"], "fn f() { jiff::Timestamp::now(); }"),
        (&["plan"], "use std::{env, fs};"),
        (&["plan"], "fn f() { tracing::info!(\"x\"); }"),
        (&["invented"], ""),
    ];
    for (module, source) in broken {
        let module: Vec<String> = module.iter().map(ToString::to_string).collect();
        assert!(
            !violations(&module, source).is_empty(),
            "not found in {module:?}: {source}"
        );
    }
}

#[test]
fn allowed_paths_pass() {
    let fine: &[(&[&str], &str)] = &[
        (
            &["plan"],
            "use crate::{api::Postgres, build::Cluster, rules, tls::walk};",
        ),
        (
            &["plan", "ledger"],
            "use super::decide; // async, tokio and crate::cluster in a comment",
        ),
        (
            &["rules"],
            "const MESSAGE: &str = \"crate::cluster async\";",
        ),
        (
            &["cli"],
            "async fn run() { crate::controller::run().await }",
        ),
        (
            &["api"],
            "use kube::CustomResource; use kube::api::ObjectMeta;",
        ),
    ];
    for (module, source) in fine {
        let module: Vec<String> = module.iter().map(ToString::to_string).collect();
        assert_eq!(
            violations(&module, source),
            Vec::<String>::new(),
            "{module:?}: {source}"
        );
    }
}

/// A file of the module tree: its module path and its source.
struct Source {
    module: Vec<String>,
    text: String,
}

/// The source without its inline test modules: a test may use the fixtures of another file.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests {")
        .map_or(text, |at| &text[..at])
}

/// The names that a file hands on by `pub use`, each with its path from the crate's root.
fn reexports(source: &Source) -> Vec<(String, Vec<String>)> {
    let mut found = vec![];
    for statement in without_tests(&source.text).split(';') {
        let Some(at) = statement
            .find("pub use ")
            .or_else(|| statement.find("pub(crate) use "))
        else {
            continue;
        };
        for named in paths(
            &statement[at..]
                .replace("pub use", "")
                .replace("pub(crate) use", ""),
        ) {
            if let (Some(path), Some(name)) = (
                absolute(&named, &source.module),
                named.segments.last().cloned(),
            ) {
                found.push((name, path));
            }
        }
    }
    found
}

/// The path from the crate's root, of a path that begins with `crate`, `super` or `self`, or with a
/// name that may be a child module.
fn absolute(named: &Named, module: &[String]) -> Option<Vec<String>> {
    let segments = &named.segments;
    let first = segments.first()?.as_str();
    let supers = segments
        .iter()
        .take_while(|segment| *segment == "super")
        .count();
    match first {
        "crate" => Some(segments[1..].to_vec()),
        // Of `pub(super)`, and of a test module inside the file.
        "super" if named.inline_modules > 0 || supers == segments.len() => None,
        "super" => {
            let parent = module.len().checked_sub(supers)?;
            Some([&module[..parent], &segments[supers..]].concat())
        }
        "self" => Some([module, &segments[1..]].concat()),
        _ if segments.len() > 1 => Some([module, segments].concat()),
        _ => None,
    }
}

/// The files that each file imports, by module path. A name that a file only hands on counts as an
/// import of the file that defines it.
fn imports(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let files: BTreeSet<String> = sources
        .iter()
        .map(|source| source.module.join("::"))
        .collect();
    let handed_on: BTreeMap<(String, String), Vec<String>> = sources
        .iter()
        .flat_map(|source| {
            let module = source.module.join("::");
            reexports(source)
                .into_iter()
                .map(move |(name, path)| ((module.clone(), name), path))
        })
        .collect();
    let defining_file = |path: Vec<String>| {
        let mut path = path;
        // No name is handed on more often.
        for _ in 0..8 {
            let depth = (1..=path.len())
                .rev()
                .find(|depth| files.contains(&path[..*depth].join("::")))?;
            let file = path[..depth].join("::");
            let next = path
                .get(depth)
                .and_then(|name| handed_on.get(&(file.clone(), name.clone())));
            match next {
                Some(next) if *next != path => path = [next, &path[depth + 1..]].concat(),
                _ => return Some(file),
            }
        }
        None
    };
    sources
        .iter()
        .map(|source| {
            let own = source.module.join("::");
            let text = without_tests(&source.text)
                .split_inclusive(';')
                .filter(|statement| {
                    !statement.contains("pub use ") && !statement.contains("pub(crate) use ")
                })
                .collect::<String>();
            let used = paths(&text)
                .iter()
                .filter_map(|named| defining_file(absolute(named, &source.module)?))
                .filter(|file| *file != own)
                .collect();
            (own, used)
        })
        .collect()
}

/// The files that import each other in a circle, by repeatedly leaving out files that import no
/// other or are imported by no other of those that are left.
fn circle(imports: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut left: BTreeSet<String> = imports.keys().cloned().collect();
    loop {
        let imported: BTreeSet<&String> = left
            .iter()
            .flat_map(|file| &imports[file])
            .filter(|file| left.contains(*file))
            .collect();
        let stays: BTreeSet<String> = left
            .iter()
            .filter(|file| {
                imported.contains(*file) && imports[*file].iter().any(|used| left.contains(used))
            })
            .cloned()
            .collect();
        if stays == left {
            return left;
        }
        left = stays;
    }
}

#[test]
fn no_two_files_import_each_other_in_a_circle() {
    let sources: Vec<Source> = sources()
        .into_iter()
        .filter(|(module, _)| module.last().is_none_or(|name| name != "tests"))
        .map(|(module, path)| Source {
            module,
            text: std::fs::read_to_string(path).expect("a source can be read"),
        })
        .collect();
    let imports = imports(&sources);
    let circle = circle(&imports);
    let edges: Vec<String> = circle
        .iter()
        .map(|file| {
            let used = imports[file].intersection(&circle).cloned();
            format!("{file} imports {}", used.collect::<Vec<_>>().join(", "))
        })
        .collect();
    assert!(circle.is_empty(), "\n{}", edges.join("\n"));
}

/// The test above is only worth something if a circle is found, also through a name that a parent
/// hands on.
#[test]
fn a_circle_is_found_however_it_is_spelled() {
    let source = |module: &str, text: &str| Source {
        module: module.split("::").map(str::to_owned).collect(),
        text: text.to_owned(),
    };
    let found = |sources: &[Source]| circle(&imports(sources)).into_iter().collect::<Vec<_>>();
    let parent = || source("plan", "mod a;\nmod b;\npub use a::A;\npub use b::B;");
    assert_eq!(
        found(&[
            parent(),
            source("plan::a", "use crate::plan::B; pub struct A(B);"),
            source("plan::b", "pub fn f() { super::a::g(); }"),
        ]),
        ["plan::a", "plan::b"]
    );
    assert_eq!(
        found(&[
            parent(),
            source("plan::a", "use crate::plan::B; pub struct A(B);"),
            source(
                "plan::b",
                "pub struct B;\n#[cfg(test)]\nmod tests { use crate::plan::A; }"
            ),
        ]),
        Vec::<String>::new()
    );
}
