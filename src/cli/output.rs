//! How things are written for people: columns, colours where a terminal has them, times.

use std::io;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;

use crate::api::duration;

/// How something is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Table,
    /// For people with room: nothing is cut or left out
    Wide,
    /// For programs
    Json,
    /// For programs and files
    Yaml,
}

/// What standard output can show.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Screen {
    /// Colours may be used.
    pub(crate) color: bool,
    /// It is a terminal of so many columns and lines; nothing if it is a pipe or a file.
    pub(crate) size: Option<(usize, usize)>,
}

/// What a text means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Strong,
    Dim,
    Good,
    Busy,
    Bad,
}

impl Screen {
    /// Standard output, as it is.
    pub(crate) fn new() -> Self {
        let is_terminal = io::stdout().is_terminal();
        let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let size =
            terminal_size::terminal_size().map(|(width, height)| (width.0.into(), height.0.into()));
        Self {
            color: is_terminal && is_wanted,
            size: is_terminal.then(|| size.unwrap_or((80, 24))),
        }
    }

    /// A text in the colour of its meaning.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Strong => "1",
            Tone::Dim => "2",
            Tone::Good => "32",
            Tone::Busy => "33",
            Tone::Bad => "31",
        };
        if self.color && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// One line, cut where the terminal ends.
    pub(crate) fn line(self, tone: Tone, text: &str) -> String {
        self.paint(tone, &self.cut(text, 0))
    }

    /// A text that must not be cut: as many lines as it takes, broken between words.
    pub(crate) fn wrap(self, tone: Tone, text: &str) -> Vec<String> {
        let Some((width, _)) = self.size else {
            return vec![self.paint(tone, text)];
        };
        let mut lines = vec![String::new()];
        for word in text.split(' ') {
            match lines.last_mut() {
                Some(line) if line.is_empty() => line.push_str(word),
                Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        lines.iter().map(|line| self.line(tone, line)).collect()
    }

    /// A text that begins in this column, cut where the terminal ends.
    fn cut(self, text: &str, column: usize) -> String {
        let Some((width, _)) = self.size else {
            return text.to_owned();
        };
        let room = width.saturating_sub(column);
        if text.chars().count() <= room {
            return text.to_owned();
        }
        let kept: String = text.chars().take(room.saturating_sub(2)).collect();
        format!("{}..", kept.trim_end())
    }

    /// Rows under a header, in columns.
    pub(crate) fn table(self, header: &[&str], rows: &[Vec<Cell>]) -> Vec<String> {
        let header: Vec<Cell> = header
            .iter()
            .map(|title| Cell::new(Tone::Dim, *title))
            .collect();
        let all = || std::iter::once(header.as_slice()).chain(rows.iter().map(Vec::as_slice));
        let width = |at: usize| {
            all()
                .filter_map(|row| row.get(at))
                .map(|cell| cell.text.chars().count())
                .max()
        };
        let widths: Vec<usize> = (0..header.len())
            .map(|at| width(at).unwrap_or_default())
            .collect();
        all().map(|row| self.row(row, &widths)).collect()
    }

    fn row(self, row: &[Cell], widths: &[usize]) -> String {
        let mut line = String::new();
        let mut column = 0;
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            let text = self.cut(&cell.text, column);
            let is_last = row[at + 1..].iter().all(|cell| cell.text.is_empty());
            line += &self.paint(cell.tone, &text);
            if is_last {
                break;
            }
            let gap = (width + 2).saturating_sub(text.chars().count());
            line += &" ".repeat(gap);
            column += width + 2;
        }
        line
    }
}

/// One cell of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) tone: Tone,
    pub(crate) text: String,
}

impl Cell {
    pub(crate) fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self {
            tone,
            text: text.into(),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(Tone::Plain, text)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(Tone::Plain, text)
    }
}

/// The time between two moments, as `1m12s`; nothing shorter than a second.
pub(crate) fn elapsed(from: Timestamp, to: Timestamp) -> String {
    let seconds = u64::try_from(to.as_second() - from.as_second()).unwrap_or_default();
    duration::write(Duration::from_secs(seconds))
}

/// Whole days from now until then; negative when it is over.
pub(crate) fn days(now: Timestamp, then: Timestamp) -> i64 {
    (then.as_second() - now.as_second()).div_euclid(24 * 3600)
}

/// An end with the days that are left: `2027-02-22 (89d)`.
pub(crate) fn end(now: Timestamp, then: Timestamp) -> Cell {
    let date = then.strftime("%Y-%m-%d");
    match days(now, then) {
        ..0 => Cell::new(Tone::Bad, format!("{date} (over)")),
        0 => Cell::new(Tone::Bad, format!("{date} (in {})", elapsed(now, then))),
        days => Cell::new(
            if days < 21 { Tone::Busy } else { Tone::Plain },
            format!("{date} ({days}d)"),
        ),
    }
}

/// A serial number in hex, short enough for a column unless there is room.
pub(crate) fn serial(serial: &str, wide: bool) -> String {
    if wide {
        serial.to_owned()
    } else {
        serial.chars().take(10).collect()
    }
}

/// For programs.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<Vec<String>> {
    Ok(serde_json::to_string_pretty(value)?
        .lines()
        .map(str::to_owned)
        .collect())
}

/// For programs and files.
pub(crate) fn yaml(value: &impl Serialize) -> anyhow::Result<Vec<String>> {
    Ok(serde_saphyr::to_string(value)?
        .lines()
        .map(str::to_owned)
        .collect())
}

/// Writes lines to standard output.
pub(crate) fn print_lines<'l>(lines: impl IntoIterator<Item = &'l String>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_blanks() {
        let rows = [
            vec!["a".into(), "".into()],
            vec!["longer".into(), "x".into()],
        ];
        assert_eq!(
            Screen::default().table(&["N", "VALUE"], &rows),
            ["N       VALUE", "a", "longer  x"]
        );
    }

    #[test]
    fn a_terminal_ends_every_line_and_a_pipe_none() {
        let rows = [vec!["a".into(), "0123456789".into()]];
        let narrow = Screen {
            color: false,
            size: Some((8, 24)),
        };
        assert_eq!(narrow.table(&["N", "V"], &rows)[1], "a  012..");
        assert_eq!(
            Screen::default().table(&["N", "V"], &rows)[1],
            "a  0123456789"
        );
    }

    #[test]
    fn what_must_not_be_cut_is_broken_between_words() {
        let narrow = Screen {
            color: false,
            size: Some((8, 24)),
        };
        assert_eq!(
            narrow.wrap(Tone::Plain, "one two three incomprehensible"),
            ["one two", "three", "incomp.."]
        );
        assert_eq!(
            Screen::default().wrap(Tone::Plain, "one two three"),
            ["one two three"]
        );
    }

    #[test]
    fn colours_take_no_room_and_are_left_out_where_they_are_not_wanted() {
        let rows = [vec![Cell::new(Tone::Good, "ok"), "x".into()]];
        let colors = Screen {
            color: true,
            size: Some((80, 24)),
        };
        assert_eq!(
            colors.table(&["ABC", "V"], &rows)[1],
            "\x1b[32mok\x1b[0m   x"
        );
        assert_eq!(Screen::default().table(&["ABC", "V"], &rows)[1], "ok   x");
    }

    #[test]
    fn an_end_says_how_long_it_is_until_then() {
        let day = 24 * 3600;
        for (then, says, tone) in [
            (-1, "1969-12-31 (over)", Tone::Bad),
            (7200, "1970-01-01 (in 2h)", Tone::Bad),
            (day, "1970-01-02 (1d)", Tone::Busy),
            (30 * day, "1970-01-31 (30d)", Tone::Plain),
        ] {
            assert_eq!(end(at(0), at(then)), Cell::new(tone, says));
        }
        assert_eq!(elapsed(at(0), at(72)), "1m12s");
    }
}
