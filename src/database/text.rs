//! Text from or about a server, made safe for logs, status and events.

use std::fmt;

use serde::Deserialize;

/// The most characters of a text.
const LONGEST: usize = 300;

/// Text from or about a server: one line of at most 300 characters, without characters that control
/// a terminal or change the direction of writing. A foreign server may have sent it, and people and
/// line-based programs read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(from = "String")]
pub struct ServerText(String);

impl From<&str> for ServerText {
    fn from(text: &str) -> Self {
        let mut shown = String::new();
        let mut room = LONGEST;
        for c in text.chars() {
            // `escape_debug` leaves printable characters as they are, except for quotes and
            // backslashes.
            let is_plain = matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1;
            let length = if is_plain { 1 } else { c.escape_debug().len() };
            let Some(left) = room.checked_sub(length) else {
                shown.push('…');
                break;
            };
            room = left;
            if is_plain {
                shown.push(c);
            } else {
                shown.extend(c.escape_debug());
            }
        }
        Self(shown)
    }
}

impl From<String> for ServerText {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl fmt::Display for ServerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        ServerText::from(text).to_string()
    }

    #[test]
    fn a_server_text_stays_on_one_line_and_in_its_direction() {
        assert_eq!(
            shown("no pg_hba.conf entry for \"größe\" (28000)"),
            "no pg_hba.conf entry for \"größe\" (28000)"
        );
        assert_eq!(shown("a\nlevel=ERROR\r\tb\0"), r"a\nlevel=ERROR\r\tb\0");
        assert_eq!(
            shown("\u{1b}[2J\u{9b}\u{202e}\u{2028}\u{200b}\u{e0041}"),
            r"\u{1b}[2J\u{9b}\u{202e}\u{2028}\u{200b}\u{e0041}"
        );
    }

    #[test]
    fn a_server_text_is_cut_and_no_escape_is_torn() {
        assert_eq!(shown(&"ä".repeat(300)), "ä".repeat(300));
        assert_eq!(shown(&"ä".repeat(301)), format!("{}…", "ä".repeat(300)));
        assert_eq!(
            shown(&format!("{}\n\n", "a".repeat(297))),
            format!("{}\\n…", "a".repeat(297))
        );
    }
}
