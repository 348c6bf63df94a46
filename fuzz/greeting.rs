//! What a server sends before it has let us in: whatever it is, no password goes to who asks for it
//! in clear, and it does not matter in which pieces it comes.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pgrekey::database::login::{AuthenticationTerms, Greeting, LoginRefusal};
use pgrekey::database::probe::{check_plaintext_answer, check_tls_answer};

/// A request for the password in clear.
const CLEAR: &[u8] = b"R\0\0\0\x08\0\0\0\x03";

/// What comes of these bytes: what comes after the login, or why there is none.
fn heard<'a>(
    terms: AuthenticationTerms,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<Vec<u8>>, LoginRefusal> {
    let mut greeting = Greeting::new(terms);
    let mut rest: Option<Vec<u8>> = None;
    for piece in pieces {
        match &mut rest {
            Some(rest) => rest.extend(piece),
            None => rest = greeting.receive(piece)?.map(Into::into),
        }
        let _ = greeting.send(piece);
    }
    Ok(rest)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, rest)) = bytes.split_first() else {
        return;
    };
    let terms = AuthenticationTerms {
        md5: first & 1 != 0,
        nothing: first & 2 != 0,
    };
    let whole = heard(terms, [rest]);
    assert_eq!(
        whole,
        heard(terms, rest.chunks(usize::from(first >> 2) + 1))
    );
    if rest.starts_with(CLEAR) {
        assert_eq!(whole, Err(LoginRefusal::Clear));
    }
    let _ = check_tls_answer(first);
    let mut answer = BytesMut::from(rest);
    while let Ok(Some(_)) = check_plaintext_answer(&mut answer) {}
});
