//! Every SQL text of the program names what it uses with its schema: what somebody has put into a
//! database is never found instead.
//!
//! Operators need none: sessions have `pg_catalog` alone on their search path.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};

/// How statements begin.
const STATEMENTS: &[&str] = &[
    "select", "with", "insert", "update", "delete", "alter", "create", "drop", "call", "copy", "do",
];

/// Words that stand before a parenthesis and are no functions.
const SYNTAX: &[&str] = &[
    "and", "any", "array", "as", "by", "case", "coalesce", "else", "exists", "filter", "from",
    "greatest", "in", "lateral", "least", "not", "nullif", "on", "or", "over", "select", "then",
    "using", "values", "when", "where", "with",
];

/// The string literals below `tokens`, as far as they are written without escapes.
fn literals(tokens: TokenStream, found: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => literals(group.stream(), found),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                let text = text.trim_start_matches('r').trim_matches('#');
                found.extend(
                    text.strip_prefix('"')
                        .and_then(|text| text.strip_suffix('"'))
                        .map(str::to_owned),
                );
            }
            _ => {}
        }
    }
}

/// Whether a literal is SQL, and no sentence: statements are in lower case, and speak of
/// PostgreSQL's own things.
fn is_sql(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    STATEMENTS.contains(&first)
        && (first == "select"
            || text.contains("pg_")
            || [" role ", " table ", " database "]
                .iter()
                .any(|w| text.contains(w)))
}

/// The words and signs of a statement; its strings are left out.
fn words(sql: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![];
    for (at, piece) in sql.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push("''".to_owned());
            continue;
        }
        let mut joins = false;
        for c in piece.chars() {
            let is_word = c.is_alphanumeric() || matches!(c, '_' | '$' | '.');
            match words.last_mut().filter(|_| joins && is_word) {
                Some(last) => last.push(c),
                None if !c.is_whitespace() => words.push(c.to_string()),
                None => {}
            }
            joins = is_word;
        }
    }
    words
}

/// What a statement names without its schema: functions, relations and types.
fn unqualified(sql: &str) -> Vec<String> {
    let words = words(sql);
    let is_word = |word: &str| word.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let is_name = |word: &str| is_word(word) && !word.contains('.') && !SYNTAX.contains(&word);
    let mut found = vec![];
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).map_or("", String::as_str);
        let is_call = next == "(" && is_name(word);
        let before: Vec<&str> = words[..at]
            .iter()
            .rev()
            .take(2)
            .map(String::as_str)
            .collect();
        let is_relation =
            matches!(before.as_slice(), ["from" | "join" | "into" | "table", ..]) && is_name(word);
        let is_type = matches!(before.as_slice(), [":", ":", ..]) && is_name(word);
        if is_call || is_relation || is_type {
            found.push(word.clone());
        }
    }
    found
}

#[test]
fn no_sql_text_depends_on_the_search_path() {
    let (mut texts, mut folders) = (
        vec![],
        vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")],
    );
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(&path).expect("a source can be read");
                let tokens: TokenStream = source.parse().expect("the source is Rust");
                let mut found = vec![];
                literals(tokens, &mut found);
                texts.extend(
                    found
                        .into_iter()
                        .filter(|text| is_sql(text))
                        .map(|text| (path.clone(), text)),
                );
            }
        }
    }
    assert!(texts.len() > 5, "hardly any SQL was found: {texts:?}");
    let wrong: Vec<String> = texts
        .iter()
        .flat_map(|(path, sql)| {
            unqualified(sql)
                .into_iter()
                .map(move |name| format!("{}: {name}", path.display()))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "write `pg_catalog.` before these:\n{}",
        wrong.join("\n")
    );
}

/// The test above is only worth something if each of these is found.
#[test]
fn a_name_without_its_schema_is_found() {
    for (sql, name) in [
        ("select unnest(array['a']::pg_catalog.text[])", "unnest"),
        ("select pg_catalog.count(*) from pg_authid", "pg_authid"),
        (
            "select a from pg_catalog.pg_class left join pg_stat_ssl using (pid)",
            "pg_stat_ssl",
        ),
        ("select ('0/0'::pg_lsn)", "pg_lsn"),
        (
            "select x from pg_catalog.pg_class, lateral pg_stat_file(x)",
            "pg_stat_file",
        ),
    ] {
        assert!(is_sql(sql), "{sql}");
        assert_eq!(unqualified(sql), [name], "{sql}");
    }
    let fine = "select coalesce(a, 'count(x)') from (select pg_catalog.now() as a) as b where exists (select from pg_catalog.pg_class)";
    assert_eq!(unqualified(fine), Vec::<String>::new());
    assert!(!is_sql("create the Secret first") && !is_sql("with TLS"));
}
