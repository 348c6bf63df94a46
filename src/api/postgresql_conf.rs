//! Parser of `postgresql.conf`, for settings that users bring. It follows PostgreSQL's own scanner
//! and parser exactly: if PostgreSQL cannot read one line of a file it takes none of them, and does
//! not start.

use std::collections::BTreeMap;
use std::fmt;

use crate::api::bounds::{MAX_CONF, MAX_SETTINGS};

/// A line that is not a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Number of the line, from 1.
    pub line: usize,
    /// The problem.
    pub problem: &'static str,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

/// The settings in a text, with names in lower case. As in PostgreSQL, the last value of a name
/// counts.
///
/// What is read here PostgreSQL reads too, also once it has been written anew. Refused beyond what
/// PostgreSQL refuses:
/// * `include` and its like: there are no other files in the pod, and they would get around the
///   rules;
/// * values with line breaks and other control characters but tabs: Patroni escapes quotes and
///   backslashes only, and a broken line keeps every server from starting;
/// * names with other than ASCII letters, which no setting has;
/// * more than [`MAX_CONF`] bytes or [`MAX_SETTINGS`] settings.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, BadLine> {
    let mut settings = BTreeMap::new();
    let mut read = 0;
    for (at, line) in text.split('\n').enumerate() {
        let bad = |problem| BadLine {
            line: at + 1,
            problem,
        };
        read += line.len() + 1;
        if read > MAX_CONF + 1 {
            return Err(bad("here the text has more than 64 KiB"));
        }
        settings.extend(setting(line).map_err(bad)?);
        if settings.len() > MAX_SETTINGS {
            return Err(bad("this is one setting more than 1000"));
        }
    }
    Ok(settings)
}

/// One line, as PostgreSQL's parser reads its tokens: a name, perhaps `=`, a value, and nothing
/// more.
fn setting(line: &str) -> Result<Option<(String, String)>, &'static str> {
    let Some((name, rest)) = token(line) else {
        return Ok(None);
    };
    let (Token::Name(name) | Token::Qualified(name)) = name else {
        return Err("a setting starts with its name");
    };
    if !name.is_ascii() {
        return Err("a name has letters of ASCII, digits, underscores and at most one dot");
    }
    let name = name.to_ascii_lowercase();
    if matches!(
        name.as_str(),
        "include" | "include_dir" | "include_if_exists"
    ) {
        return Err("other files cannot be included: write their settings here");
    }
    let (value, rest) = match token(rest) {
        Some((Token::Equals, rest)) => token(rest),
        other => other,
    }
    .ok_or("the value is missing, or needs quotes: '...'")?;
    let value = match value {
        Token::Name(word) | Token::Word(word) => word.to_owned(),
        Token::Quoted(inside) => unescaped(inside)?,
        Token::Qualified(_) => return Err("a value with a dot in it needs quotes: '...'"),
        Token::Equals => return Err("there is an = too many, or the value needs quotes: '...'"),
        Token::Other("'") => return Err("the closing quote is missing"),
        Token::Other(_) => return Err("the value needs quotes: '...'"),
    };
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(
            "the value has a line break or another control character, which cannot be kept",
        );
    }
    match token(rest) {
        None => Ok(Some((name, value))),
        Some(_) => Err(
            "there is more than one value: quote it with '...' if it has spaces or other characters",
        ),
    }
}

/// The tokens of PostgreSQL's scanner (`guc-file.l`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// `ID`.
    Name(&'a str),
    /// `QUALIFIED_ID`: two `ID` with a dot between them.
    Qualified(&'a str),
    /// `STRING`, without its quotes and still escaped.
    Quoted(&'a str),
    /// `UNQUOTED_STRING`, `INTEGER` and `REAL`: tokens that can only be values.
    Word(&'a str),
    Equals,
    /// A character that begins no token.
    Other(&'a str),
}

/// The first token of a line, and the rest of the line. `None` if only a comment follows. The
/// longest match wins; among equally long ones the first of `ID`, `QUALIFIED_ID`,
/// `UNQUOTED_STRING`.
fn token<'l>(line: &'l str) -> Option<(Token<'l>, &'l str)> {
    let line = line.trim_start_matches([' ', '\t', '\r']);
    let first = line.chars().next().filter(|first| *first != '#')?;
    let (length, token): (usize, fn(&'l str) -> Token<'l>) = if is_letter(first) {
        let name = while_of(line, is_letter_or_digit);
        let qualified = line[name..]
            .strip_prefix('.')
            .filter(|rest| rest.starts_with(is_letter));
        let qualified = qualified.map_or(0, |rest| name + 1 + while_of(rest, is_letter_or_digit));
        let word = while_of(line, |c| is_letter_or_digit(c) || "-._:/".contains(c));
        if word > name.max(qualified) {
            (word, Token::Word)
        } else if qualified > name {
            (qualified, Token::Qualified)
        } else {
            (name, Token::Name)
        }
    } else if first == '=' {
        (1, |_| Token::Equals)
    } else if let Some(end) = line.strip_prefix('\'').and_then(closing_quote) {
        (end + 2, |quoted| {
            Token::Quoted(&quoted[1..quoted.len() - 1])
        })
    } else {
        match integer(line).max(real(line)) {
            0 => (first.len_utf8(), Token::Other),
            number => (number, Token::Word),
        }
    };
    let (text, rest) = line.split_at(length);
    Some((token(text), rest))
}

/// PostgreSQL takes every byte above ASCII for a letter.
fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_letter_or_digit(c: char) -> bool {
    is_letter(c) || c.is_ascii_digit()
}

/// The number of bytes at the beginning that match.
fn while_of(text: &str, is: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is(c)).unwrap_or(text.len())
}

/// The length of a whole number with its unit: `[-+]?([0-9]+|0x[0-9a-fA-F]+)[a-zA-Z]*`. 0 if there
/// is none.
fn integer(text: &str) -> usize {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let sign = text.len() - digits.len();
    let with_unit = |number: usize| match number {
        0 => 0,
        number => sign + number + while_of(&digits[number..], |c| c.is_ascii_alphabetic()),
    };
    let decimal = while_of(digits, |c| c.is_ascii_digit());
    let hexadecimal = digits
        .strip_prefix("0x")
        .map_or(0, |rest| while_of(rest, |c| c.is_ascii_hexdigit()));
    with_unit(decimal).max(if hexadecimal == 0 {
        0
    } else {
        with_unit(2 + hexadecimal)
    })
}

/// The length of a number with a point: `[-+]?[0-9]*\.[0-9]*([Ee][-+]?[0-9]+)?`. 0 if there is
/// none.
fn real(text: &str) -> usize {
    let digits = |text: &str| while_of(text, |c| c.is_ascii_digit());
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let Some(fraction) = unsigned[digits(unsigned)..].strip_prefix('.') else {
        return 0;
    };
    let rest = &fraction[digits(fraction)..];
    let exponent = rest
        .strip_prefix(['e', 'E'])
        .map(|exponent| exponent.strip_prefix(['-', '+']).unwrap_or(exponent));
    let rest = exponent
        .filter(|exponent| digits(exponent) > 0)
        .map_or(rest, |exponent| &exponent[digits(exponent)..]);
    text.len() - rest.len()
}

/// The position of the closing quote, in the text after the opening one. `''` and an escaped quote
/// do not close.
fn closing_quote(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()?),
            '\'' if chars.next_if(|(_, next)| *next == '\'').is_none() => return Some(at),
            _ => {}
        }
    }
    None
}

/// The value of a string (`DeescapeQuotedString`): `''` is a quote, and backslash escapes are those
/// of C.
fn unescaped(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        match (*byte, rest) {
            (b'\'', [b'\'', after @ ..]) => {
                bytes.push(b'\'');
                rest = after;
            }
            (b'\\', [b'0'..=b'7', ..]) => {
                let digits = rest
                    .iter()
                    .take(3)
                    .take_while(|digit| (b'0'..=b'7').contains(digit))
                    .count();
                bytes.push(rest[..digits].iter().fold(0, |byte: u8, digit| {
                    byte.wrapping_mul(8).wrapping_add(digit - b'0')
                }));
                rest = &rest[digits..];
            }
            (b'\\', [escaped, after @ ..]) => {
                bytes.push(match escaped {
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    other => *other,
                });
                rest = after;
            }
            (other, _) => bytes.push(other),
        }
    }
    String::from_utf8(bytes).map_err(|_| "the escapes make no text in UTF-8")
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
            ("\t Work_Mem = 16MB   # plenty", "work_mem", "16MB"),
            (
                "log_line_prefix = '%m [%p] '",
                "log_line_prefix",
                "%m [%p] ",
            ),
            (
                "log_line_prefix='it''s # not a comment'",
                "log_line_prefix",
                "it's # not a comment",
            ),
            (
                r"log_line_prefix = 'a\'b\\c\td\q'",
                "log_line_prefix",
                "a'b\\c\tdq",
            ),
            (
                r"log_line_prefix = '\101\0622\303\244'",
                "log_line_prefix",
                "A22ä",
            ),
            (
                "pg_stat_statements.track = all",
                "pg_stat_statements.track",
                "all",
            ),
            ("random_page_cost = 1.1", "random_page_cost", "1.1"),
            ("x.y = -.5e-3", "x.y", "-.5e-3"),
            ("x.y = 0x1Fg", "x.y", "0x1Fg"),
            ("x.y = DateStyle-is:a/b.c", "x.y", "DateStyle-is:a/b.c"),
            ("x.y = é", "x.y", "é"),
            ("archive_command = ''", "archive_command", ""),
        ] {
            assert_eq!(one(line), Ok((name.to_owned(), value.to_owned())), "{line}");
        }
    }

    #[test]
    fn comments_and_empty_lines_are_nothing_and_the_last_value_counts() {
        let settings =
            parse("# a comment\n\n  \nwork_mem = 1MB\r\nWORK_MEM = 2MB\n").expect("settings");
        assert_eq!(
            settings,
            BTreeMap::from([("work_mem".to_owned(), "2MB".to_owned())])
        );
    }

    #[test]
    fn an_error_names_its_line() {
        for line in [
            "= 1",
            "work_mem",
            "work_mem =",
            "work_mem = 1 2",
            "work_mem == 1",
            "x = 'open",
            "x = 'a\\",
            "x = 'a''",
            "include 'more.conf'",
            "Include_Dir = 'd'",
            // Names that the scanner takes apart.
            "foo. = 1",
            "a..b = 1",
            "a.1 = 1",
            "a$b.c = 1",
            "a.b.c = 1",
            "x.ä = 1",
            "1.a = 1",
            // Values that it takes apart.
            "x = a.b",
            "x = 1.5GB",
            "x = 1e5",
            "x = 4MB\u{a0}",
            "x = $libdir",
            "x = a,b",
            // What would not be kept as it is.
            r"x = '%m\n'",
            r"x = '\r'",
            r"x = '\000'",
            r"x = '\377'",
            "x = 'a\u{7f}'",
        ] {
            let bad = parse(&format!("work_mem = 1MB\n{line}")).expect_err(line);
            assert_eq!(bad.line, 2, "{line}");
        }
    }

    #[test]
    fn a_text_without_end_is_refused_where_it_gets_too_long() {
        let comment = format!("#{}\n", "c".repeat(1022));
        assert!(parse(&comment.repeat(64)).is_ok());
        let bad = parse(&format!("{}x = 1", comment.repeat(64))).expect_err("too long");
        assert_eq!(
            (bad.line, bad.problem),
            (65, "here the text has more than 64 KiB")
        );
        let many = |settings: usize| {
            (0..settings)
                .map(|i| format!("x.a{i}=1"))
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert!(parse(&many(MAX_SETTINGS)).is_ok());
        assert_eq!(
            parse(&many(MAX_SETTINGS + 1)).expect_err("too many").line,
            MAX_SETTINGS + 1
        );
    }
}
