//! The syntax of `postgresql.conf`, for settings that users bring.

use std::collections::BTreeMap;
use std::fmt;

/// A line that is not a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

/// The settings in a text, names in lower case. As in PostgreSQL, the last value of a name counts.
///
/// `include` and its like are refused: there are no other files in the pod, and they would get around the rules.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, BadLine> {
    text.lines()
        .enumerate()
        .filter_map(|(at, line)| setting(line.trim()).map_err(|problem| BadLine { line: at + 1, problem }).transpose())
        .collect()
}

type Problem = &'static str;

fn setting(line: &str) -> Result<Option<(String, String)>, Problem> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.');
    let (name, rest) = line.split_at(line.find(|c| !is_part(c)).unwrap_or(line.len()));
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return Err("a setting starts with its name");
    }
    let name = name.to_ascii_lowercase();
    if matches!(name.as_str(), "include" | "include_dir" | "include_if_exists") {
        return Err("other files cannot be included: write their settings here");
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let (value, rest) = match rest.strip_prefix('\'') {
        Some(inside) => quoted(inside)?,
        None => unquoted(rest)?,
    };
    let rest = rest.trim_start();
    if !rest.is_empty() && !rest.starts_with('#') {
        return Err("there is more than one value: quote it with '...' if it has spaces");
    }
    Ok(Some((name, value)))
}

fn unquoted(text: &str) -> Result<(String, &str), Problem> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '/' | '+' | '-');
    let (value, rest) = text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()));
    if value.is_empty() { Err("the value is missing, or needs quotes: '...'") } else { Ok((value.to_owned(), rest)) }
}

/// What is left of a quoted string after its opening quote: `''` is a quote, and backslash escapes as in C.
fn quoted(text: &str) -> Result<(String, &str), Problem> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' if text[at + 1..].starts_with('\'') => {
                chars.next();
                value.push('\'');
            }
            '\'' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next().map(|(_, escaped)| escaped) {
                Some('b') => value.push('\u{8}'),
                Some('f') => value.push('\u{c}'),
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some('0'..='7') => return Err("octal escapes are not understood"),
                Some(other) => value.push(other),
                None => break,
            },
            c => value.push(c),
        }
    }
    Err("the closing quote is missing")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Result<(String, String), &'static str> {
        match parse(line) {
            Ok(settings) => Ok(settings.into_iter().next().expect("one setting")),
            Err(bad) => Err(bad.problem),
        }
    }

    #[test]
    fn every_way_to_write_a_setting_is_understood() {
        for (line, name, value) in [
            ("max_connections = 200", "max_connections", "200"),
            ("max_connections=200", "max_connections", "200"),
            ("max_connections 200", "max_connections", "200"),
            ("  Work_Mem = 16MB   # plenty", "work_mem", "16MB"),
            ("log_line_prefix = '%m [%p] '", "log_line_prefix", "%m [%p] "),
            ("log_line_prefix = 'it''s # not a comment'", "log_line_prefix", "it's # not a comment"),
            (r"log_line_prefix = 'a\'b\\c\td'", "log_line_prefix", "a'b\\c\td"),
            ("pg_stat_statements.track = all", "pg_stat_statements.track", "all"),
            ("random_page_cost = 1.1", "random_page_cost", "1.1"),
            ("archive_command = ''", "archive_command", ""),
            ("x.ä = 1", "", ""),
        ] {
            if name.is_empty() {
                assert!(one(line).is_err(), "{line}");
            } else {
                assert_eq!(one(line), Ok((name.to_owned(), value.to_owned())), "{line}");
            }
        }
    }

    #[test]
    fn comments_and_empty_lines_are_nothing_and_the_last_value_counts() {
        let settings = parse("# a comment\n\n  \nwork_mem = 1MB\r\nWORK_MEM = 2MB\n").expect("settings");
        assert_eq!(settings, BTreeMap::from([("work_mem".to_owned(), "2MB".to_owned())]));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for line in [
            "= 1",
            "work_mem",
            "work_mem =",
            "work_mem = 1 2",
            "x = 'open",
            "x = '\\101'",
            "include 'more.conf'",
            "x = 'a\\",
        ] {
            let bad = parse(&format!("work_mem = 1MB\n{line}")).expect_err(line);
            assert_eq!(bad.line, 2, "{line}");
        }
    }
}
