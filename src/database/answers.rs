//! Finds the ends of a server's answers: the read budget is renewed only after a whole answer.

use crate::database::limited::TooMuch;

/// The most bytes of unsolicited messages in a session: notices, notifications, and settings, which
/// the client library stores. PostgreSQL sends a dozen settings at the start.
const ASIDES: usize = 64 * 1024;

/// The length of a message's header: type and length.
const HEADER: usize = 5;

/// Tracks the messages of a session after login, without storing them.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The received part of the current header.
    header: [u8; HEADER],
    come: usize,
    /// The missing bytes of the current body.
    body: usize,
    /// Bytes of unsolicited messages so far.
    asides: usize,
}

impl Answers {
    /// Takes the next bytes. Returns whether an answer ended in them.
    pub(super) fn receive(&mut self, mut bytes: &[u8]) -> Result<bool, TooMuch> {
        let mut ended = false;
        while !bytes.is_empty() {
            let of_body = self.body.min(bytes.len());
            bytes = &bytes[of_body..];
            self.body -= of_body;
            let of_header = (HEADER - self.come).min(bytes.len());
            let (header, rest) = bytes.split_at(of_header);
            self.header[self.come..self.come + of_header].copy_from_slice(header);
            self.come += of_header;
            bytes = rest;
            if self.come == HEADER {
                let [tag, length @ ..] = self.header;
                // The length includes itself. The client library reports a wrong one.
                self.body = usize::try_from(u32::from_be_bytes(length))
                    .unwrap_or(usize::MAX)
                    .saturating_sub(4);
                self.come = 0;
                ended |= tag == b'Z';
                if matches!(tag, b'N' | b'A' | b'S') {
                    self.asides = self.asides.saturating_add(HEADER + self.body);
                }
            }
        }
        if self.asides > ASIDES {
            Err(TooMuch)
        } else {
            Ok(ended)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &[u8] = b"Z\0\0\0\x05I";
    /// A row whose content looks like the end of an answer.
    const ROW: &[u8] = b"D\0\0\0\x0aZ\0\0\0\x05I";
    /// A setting.
    const ASIDE: &[u8] = b"S\0\0\0\x08a\0b\0";

    #[test]
    fn an_answer_ends_where_the_server_says_that_it_is_ready_however_its_bytes_come() {
        let bytes = [ROW, READY, ROW, READY].concat();
        for size in 1..=bytes.len() {
            let mut answers = Answers::default();
            let ended = bytes
                .chunks(size)
                .filter(|piece| answers.receive(piece) == Ok(true))
                .count();
            assert!((1..=2).contains(&ended), "in pieces of {size}");
            assert_eq!(answers.receive(ROW), Ok(false), "in pieces of {size}");
            assert_eq!(answers.receive(READY), Ok(true), "in pieces of {size}");
        }
    }

    #[test]
    fn endless_unasked_messages_end_the_answer() {
        let mut answers = Answers::default();
        let told = (0..ASIDES)
            .take_while(|_| answers.receive(&[ASIDE, READY].concat()) == Ok(true))
            .count();
        assert_eq!(told, ASIDES / ASIDE.len());
    }
}
