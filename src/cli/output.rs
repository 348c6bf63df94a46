//! Output for people: columns, colours on terminals that have them, times; and for programs.

use std::io;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;
use textwrap::WordSplitter;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::api::duration;

/// The format of a command's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Table,
    /// For people with a wide terminal: nothing is cut or left out
    Wide,
    /// For programs
    Json,
    /// For programs and files
    Yaml,
}

impl Output {
    /// How much of long values tables show.
    pub(crate) fn detail(self) -> Detail {
        match self {
            Self::Wide => Detail::Full,
            Self::Table | Self::Json | Self::Yaml => Detail::Short,
        }
    }

    /// Standard output for this format: lines of wide tables are never cut.
    pub(crate) fn screen(self) -> Screen {
        let screen = Screen::stdout();
        match self {
            Self::Wide => Screen {
                size: None,
                ..screen
            },
            Self::Table | Self::Json | Self::Yaml => screen,
        }
    }
}

/// How much of long values a table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    Short,
    Full,
}

/// The abilities of standard output.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Screen {
    /// Whether texts may have colours.
    pub(crate) color: bool,
    /// The size of the terminal. `None` for a pipe or a file.
    pub(crate) size: Option<ScreenSize>,
}

#[cfg(test)]
impl Screen {
    /// A terminal without colours.
    pub(crate) fn of_columns(columns: usize) -> Self {
        Self {
            color: false,
            size: Some(ScreenSize { columns, lines: 24 }),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScreenSize {
    pub(crate) columns: usize,
    pub(crate) lines: usize,
}

/// The meaning of a text, which decides its colour.
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

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Strong => Style::new().bold(),
            Self::Dim => Style::new().dimmed(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Busy => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
        }
    }
}

impl Screen {
    /// Standard output of this process. NO_COLOR, CLICOLOR and TERM decide about colours.
    pub(crate) fn stdout() -> Self {
        let stdout = io::stdout();
        Self {
            color: AutoStream::choice(&stdout) != ColorChoice::Never,
            size: stdout.is_terminal().then(ScreenSize::current),
        }
    }

    /// The text in the colour of its meaning.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let style = tone.style();
        if self.color && !text.is_empty() && !style.is_plain() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    /// One line, cut at the right edge of the terminal.
    pub(crate) fn line(self, tone: Tone, text: &str) -> String {
        self.paint(tone, &self.cut(text, 0))
    }

    /// As many lines as the text needs, broken between words. Only a word that is longer than a
    /// line is cut.
    pub(crate) fn wrap(self, tone: Tone, text: &str) -> Vec<String> {
        let Some(size) = self.size else {
            return vec![self.paint(tone, text)];
        };
        let options = textwrap::Options::new(size.columns)
            .break_words(false)
            .word_splitter(WordSplitter::NoHyphenation);
        textwrap::wrap(text, options)
            .iter()
            .map(|line| self.line(tone, line))
            .collect()
    }

    /// A text that begins in this column, cut at the right edge of the terminal.
    fn cut(self, text: &str, column: usize) -> String {
        let Some(size) = self.size else {
            return text.to_owned();
        };
        let room = size.columns.saturating_sub(column);
        if text.width() <= room {
            return text.to_owned();
        }
        let room = room.saturating_sub(ELLIPSIS.len());
        let kept: String = text
            .chars()
            .scan(0, |width, character| {
                *width += character.width().unwrap_or_default();
                (*width <= room).then_some(character)
            })
            .collect();
        format!("{}{ELLIPSIS}", kept.trim_end())
    }

    /// Rows under a header, in columns.
    pub(crate) fn table(self, header: &[&str], rows: &[Vec<Cell>]) -> Vec<String> {
        let header: Vec<Cell> = header
            .iter()
            .map(|title| Cell::new(Tone::Dim, *title))
            .collect();
        let mut widths = vec![0; header.len()];
        for row in std::iter::once(&header).chain(rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.text.width().max(*width);
            }
        }
        std::iter::once(&header)
            .chain(rows)
            .map(|row| self.row(row, &widths))
            .collect()
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
            let gap = (width + COLUMN_GAP).saturating_sub(text.width());
            line += &" ".repeat(gap);
            column += width + COLUMN_GAP;
        }
        line
    }
}

/// The mark of a text that was cut.
const ELLIPSIS: &str = "..";

/// Blanks between two columns of a table.
const COLUMN_GAP: usize = 2;

impl ScreenSize {
    /// The size of this process's terminal; 80 columns and 24 lines if the terminal does not say.
    fn current() -> Self {
        terminal_size::terminal_size().map_or(
            Self {
                columns: 80,
                lines: 24,
            },
            |(width, height)| Self {
                columns: width.0.into(),
                lines: height.0.into(),
            },
        )
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

/// The time between two moments, such as `1m12s`, in whole seconds.
pub(crate) fn elapsed(from: Timestamp, to: Timestamp) -> String {
    let seconds = u64::try_from(to.as_second() - from.as_second()).unwrap_or_default();
    duration::write(Duration::from_secs(seconds))
}

/// Whole days from `now` until `then`; negative if `then` has passed.
pub(crate) fn days(now: Timestamp, then: Timestamp) -> i64 {
    (then.as_second() - now.as_second()).div_euclid(24 * 3600)
}

/// A certificate that ends within fewer days should have been renewed.
pub(crate) const EXPIRES_SOON_DAYS: i64 = 21;

/// The end of a certificate with the days that are left: `2027-02-22 (89d)`.
pub(crate) fn expiry(now: Timestamp, not_after: Timestamp) -> Cell {
    let date = not_after.strftime("%Y-%m-%d");
    match days(now, not_after) {
        ..0 => Cell::new(Tone::Bad, format!("{date} (over)")),
        0 => Cell::new(
            Tone::Bad,
            format!("{date} (in {})", elapsed(now, not_after)),
        ),
        days => Cell::new(
            if days < EXPIRES_SOON_DAYS {
                Tone::Busy
            } else {
                Tone::Plain
            },
            format!("{date} ({days}d)"),
        ),
    }
}

/// A serial number in hex. The short form has its first ten digits.
pub(crate) fn serial(serial: &str, detail: Detail) -> String {
    match detail {
        Detail::Full => serial.to_owned(),
        Detail::Short => serial.chars().take(10).collect(),
    }
}

/// The value as the lines of its JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<Vec<String>> {
    Ok(serde_json::to_string_pretty(value)?
        .lines()
        .map(str::to_owned)
        .collect())
}

/// The value as the lines of its YAML.
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
mod tests;
