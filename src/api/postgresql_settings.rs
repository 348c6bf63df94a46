//! PostgreSQL's own settings, and the values that each takes.
//!
//! A server does not start if a file has an unknown setting, or a value that the setting does not
//! take. Every server includes the user's file, so it is checked before any pod mounts it. Facts
//! that only the server knows, such as whether a library or a time zone exists, are not checked.

/// One setting a line, for major versions from 13 on: its name, the first major version that has it
/// (empty: 13), the first that no longer has it (empty: none), and its type: `bool`, `text`, `int`
/// or `real` with minimum, maximum and unit, `word` with the words. Source: Patroni 4.0.7,
/// `available_parameters/0_postgres.yml`, without those that no file may set.
const SETTINGS: &str = include_str!("postgresql_settings.tsv");

/// Whether a server of this major version starts with this setting, as far as its name and type
/// tell. The error says why not. The name is in lower case, as
/// [`crate::api::postgresql_conf::parse`] returns it. A name with a dot belongs to an extension,
/// which checks the value itself.
pub fn check(major: u32, name: &str, value: &str) -> Result<(), &'static str> {
    if name.contains('.') {
        return Ok(());
    }
    let Some(kind) = kind(major, name) else {
        return Err("PostgreSQL of this version has no such setting");
    };
    if kind.takes(value) {
        Ok(())
    } else {
        Err("PostgreSQL does not take this value for this setting")
    }
}

/// The whole number in a text, as a server reads it, without a unit.
#[must_use]
pub fn whole_number(value: &str) -> Option<i64> {
    let text = value.trim();
    let (sign, digits) = text
        .strip_prefix('-')
        .map_or((1, text.strip_prefix('+').unwrap_or(text)), |rest| {
            (-1, rest)
        });
    // As `strtol` with base 0 does.
    let number = match digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        Some(hex) => i64::from_str_radix(hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => i64::from_str_radix(digits, 8),
        None => digits.parse(),
    };
    number
        .ok()
        .filter(|_| digits.starts_with(|c: char| c.is_ascii_digit()))
        .map(|number| sign * number)
}

/// The type of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
enum ValueKind<'a> {
    Bool,
    Text,
    Number {
        whole: bool,
        least: f64,
        most: f64,
        unit: &'a str,
    },
    Word(&'a str),
}

fn kind(major: u32, name: &str) -> Option<ValueKind<'static>> {
    SETTINGS.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?.strip_prefix('\t')?;
        let mut columns = rest.split('\t');
        let from = columns.next()?.parse().unwrap_or(0);
        let until = columns.next()?.parse().unwrap_or(u32::MAX);
        if major < from || major >= until {
            return None;
        }
        let kind = columns.next()?;
        let arguments = columns.next().unwrap_or_default();
        let mut bound = |text: &str| Some((text.parse().ok()?, columns.next()?));
        Some(match kind {
            "bool" => ValueKind::Bool,
            "text" => ValueKind::Text,
            "word" => ValueKind::Word(arguments),
            _ => {
                let (least, most) = bound(arguments)?;
                ValueKind::Number {
                    whole: kind == "int",
                    least,
                    most: most.parse().ok()?,
                    unit: columns.next().unwrap_or_default(),
                }
            }
        })
    })
}

impl ValueKind<'_> {
    fn takes(self, value: &str) -> bool {
        match self {
            Self::Text => true,
            Self::Bool => is_truth_value(value),
            Self::Word(words) => words
                .split('|')
                .any(|word| word.eq_ignore_ascii_case(value)),
            Self::Number {
                whole,
                least,
                most,
                unit,
            } => {
                let number =
                    number(value, unit).map(|number| if whole { number.round() } else { number });
                number.is_some_and(|number| (least..=most).contains(&number))
            }
        }
    }
}

/// Like PostgreSQL's `parse_bool`: any beginning of a word that is not also the beginning of
/// another.
fn is_truth_value(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    begins("true", 1)
        || begins("false", 1)
        || begins("yes", 1)
        || begins("no", 1)
        || value == "on"
        || begins("off", 2)
        || value == "1"
        || value == "0"
}

/// A number with a unit, converted to the unit of the setting.
fn number(value: &str, base: &str) -> Option<f64> {
    let value = value.trim();
    // A hexadecimal number has no unit.
    if let Some(number) = whole_number(value) {
        return i32::try_from(number).ok().map(f64::from);
    }
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-');
    let end = value.find(|c| !is_part(c)).unwrap_or(value.len());
    // An exponent is part of a number; no unit begins with `e`.
    let end = match value[end..].strip_prefix(['e', 'E']) {
        Some(rest) => end + 1 + rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
        None => end,
    };
    let (digits, unit) = value.split_at(end);
    let number = whole_number(digits)
        .and_then(|n| i32::try_from(n).ok())
        .map(f64::from)
        .or_else(|| digits.parse().ok())?;
    let unit = unit.trim_start();
    if unit.is_empty() {
        Some(number)
    } else {
        Some(number * size(unit)? / size(base)?)
    }
    .filter(|_| same(unit, base))
}

/// The size of a unit in the smallest unit of its kind: bytes, or microseconds.
fn size(unit: &str) -> Option<f64> {
    Some(match unit {
        "B" | "us" => 1.0,
        "kB" => 1024.0,
        "8kB" => 8.0 * 1024.0,
        "MB" => 1024.0 * 1024.0,
        "GB" => 1024.0 * 1024.0 * 1024.0,
        "TB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "ms" => 1e3,
        "s" => 1e6,
        "min" => 6e7,
        "h" => 3.6e9,
        "d" => 8.64e10,
        _ => return None,
    })
}

/// Whether two units measure the same quantity. No unit goes with every unit.
fn same(unit: &str, base: &str) -> bool {
    unit.is_empty() || unit.ends_with('B') == base.ends_with('B')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read() {
        for line in SETTINGS.lines() {
            let mut columns = line.split('\t');
            let (name, from) = (
                columns.next().expect("a name"),
                columns.next().expect("a version"),
            );
            let major = from.parse().unwrap_or(13);
            assert!(kind(major, name).is_some(), "{line}");
            if let Some(ValueKind::Number { unit, .. }) = kind(major, name) {
                assert!(unit.is_empty() || size(unit).is_some(), "{line}");
            }
            assert_eq!(name, name.to_ascii_lowercase());
        }
    }

    #[test]
    fn a_setting_counts_for_the_versions_that_have_it() {
        assert!(check(17, "summarize_wal", "on").is_ok());
        assert!(check(16, "summarize_wal", "on").is_err());
        assert!(check(15, "promote_trigger_file", "x").is_err());
        assert!(check(18, "log_connections", "receipt,authorization").is_ok());
        assert!(check(17, "log_connections", "receipt,authorization").is_err());
        assert!(check(17, "wrok_mem", "4MB").is_err());
        assert!(check(17, "transaction_read_only", "on").is_err());
        assert!(check(17, "pg_stat_statements.track", "whatever").is_ok());
    }

    /// Seen on PostgreSQL 15: `postgres -C port` with each of these lines in its configuration.
    #[test]
    fn values_are_taken_as_postgresql_takes_them() {
        for (name, value, taken) in [
            ("work_mem", "64", true),
            ("work_mem", "64kB", true),
            ("work_mem", " 64 MB ", true),
            ("work_mem", "1.5GB", true),
            ("work_mem", "0x40", true),
            ("work_mem", "63", false),
            ("work_mem", "64kb", false),
            ("work_mem", "64 s", false),
            ("work_mem", "lots", false),
            ("work_mem", "", false),
            ("work_mem", "4TB", false),
            ("statement_timeout", "1h", true),
            ("statement_timeout", "30d", false),
            ("statement_timeout", "1e3", true),
            ("statement_timeout", "1e3ms", true),
            ("statement_timeout", "1kB", false),
            ("max_connections", "200", true),
            ("max_connections", "200kB", false),
            ("max_connections", "0", false),
            ("max_connections", "-1", false),
            ("random_page_cost", "1.1", true),
            ("random_page_cost", "-1", false),
            ("seq_page_cost", "1e10", true),
            ("jit", "ON", true),
            ("jit", "f", true),
            ("jit", "o", false),
            ("jit", "of", true),
            ("jit", "maybe", false),
            ("wal_level", "Logical", true),
            ("wal_level", "log", false),
            ("archive_mode", "always", true),
            ("archive_mode", "t", false),
            ("default_transaction_isolation", "repeatable read", true),
            ("log_line_prefix", "", true),
        ] {
            assert_eq!(check(15, name, value).is_ok(), taken, "{name} = {value}");
        }
    }

    #[test]
    fn a_whole_number_is_read_as_by_strtol() {
        for (text, number) in [
            ("42", Some(42)),
            ("+42", Some(42)),
            ("-7", Some(-7)),
            ("0x2A", Some(42)),
            ("052", Some(42)),
            ("0", Some(0)),
        ] {
            assert_eq!(whole_number(text), number);
        }
        for text in ["", "4 2", "42kB", "--1", "1e3", "1.5", "0x", "x"] {
            assert_eq!(whole_number(text), None, "{text}");
        }
    }
}
