//! Durations in Go's syntax, such as `1h20m` or `180s`. Kubernetes writes durations so.

use std::time::Duration;

use jiff::Timestamp;

/// Why a text is not a duration that pgrekey can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationProblem {
    /// Not in Go's syntax.
    #[error("is not a duration such as 30s, 5m or 1h20m")]
    Syntax,
    /// Below zero.
    #[error("is negative")]
    Negative,
    /// Longer than Go can hold (about 292 years).
    #[error("is longer than 292 years")]
    TooLong,
}

/// Nanoseconds of each of Go's units. `ms` stands before `m`, because the first match counts. `µs`
/// has two spellings.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration like Go's `time.ParseDuration`: one or more decimal numbers, each with a unit;
/// or `0`.
///
/// kube's own parser panics on numbers such as `1e300h`, and these texts come from users.
pub fn parse(text: &str) -> Result<Duration, DurationProblem> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationProblem::Syntax);
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or(DurationProblem::Syntax)?;
        let (digits, after) = rest.split_at(number);
        let unit = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let (_, scale) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or(DurationProblem::Syntax)?;
        total = total.saturating_add(scaled(digits, *scale)?);
        rest = after;
    }
    match i64::try_from(total) {
        Err(_) => Err(DurationProblem::TooLong),
        Ok(nanoseconds) if negative && nanoseconds > 0 => Err(DurationProblem::Negative),
        Ok(nanoseconds) => Ok(Duration::from_nanos(nanoseconds.unsigned_abs())),
    }
}

/// A decimal number of units, in nanoseconds. Fractions of a nanosecond are cut off, as in Go.
fn scaled(number: &str, scale: u64) -> Result<u128, DurationProblem> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(DurationProblem::Syntax);
    }
    // Go holds durations in 63 bits: 20 digits are too many whatever the unit.
    let whole: u128 = match whole.trim_start_matches('0') {
        "" => 0,
        digits if digits.len() > 20 => return Err(DurationProblem::TooLong),
        digits => digits.parse().map_err(|_| DurationProblem::Syntax)?,
    };
    let mut nanoseconds = whole * u128::from(scale);
    let mut place = u128::from(scale);
    for digit in fraction.bytes() {
        nanoseconds += u128::from(digit - b'0') * place / 10;
        place /= 10;
    }
    Ok(nanoseconds)
}

/// Writes a duration for people: `1h20m`, `1m30s` for `90s`, `0s`.
#[must_use]
pub fn write(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| format!("{n}{unit}"))
        .collect();
    if parts.is_empty() {
        "0s".to_owned()
    } else {
        parts.concat()
    }
}

/// The time that is `duration` later, or the latest possible time.
///
/// `+` would panic. The times come from objects, which may hold any time.
#[must_use]
pub fn after(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_syntax_is_read() {
        for (text, milliseconds) in [
            ("5m", 300_000),
            ("180s", 180_000),
            ("1h20m", 4_800_000),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("1.s", 1_000),
            ("+2s", 2_000),
            ("100ms", 100),
            ("1000us", 1),
            ("1000\u{b5}s", 1),
            ("0", 0),
            ("-0s", 0),
            ("1h1h", 7_200_000),
        ] {
            assert_eq!(
                parse(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        for text in [
            "",
            "-",
            "5",
            "m",
            "5 m",
            "1e3s",
            "5min",
            "1..s",
            ".s",
            "1.2.3s",
            "NaNs",
            "1d",
            "5M",
            "\u{ff15}s",
        ] {
            assert_eq!(parse(text), Err(DurationProblem::Syntax), "{text}");
        }
        assert_eq!(parse("-5m"), Err(DurationProblem::Negative));
        for text in [
            "9999999h",
            "99999999999999999999999999h",
            "9223372036854775807h",
        ] {
            assert_eq!(parse(text), Err(DurationProblem::TooLong), "{text}");
        }
    }

    #[test]
    fn a_written_duration_can_be_read_and_is_short() {
        for (text, seconds) in [
            ("1h20m", 4800),
            ("5m", 300),
            ("1m30s", 90),
            ("0s", 0),
            ("2160h", 7_776_000),
        ] {
            assert_eq!(write(Duration::from_secs(seconds)), text);
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn after_the_end_of_time_it_stays_there() {
        let second = |second| Timestamp::from_second(second).expect("a time in range");
        assert_eq!(after(second(5), Duration::from_secs(2)), second(7));
        for (time, duration) in [
            (Timestamp::MAX, Duration::from_nanos(1)),
            (Timestamp::MAX, Duration::MAX),
            (Timestamp::MIN, Duration::MAX),
            (second(0), Duration::from_secs(u64::MAX)),
        ] {
            assert_eq!(after(time, duration), Timestamp::MAX);
        }
        assert_eq!(after(Timestamp::MAX, Duration::ZERO), Timestamp::MAX);
    }
}
