//! Settings that users bring: whatever the text, reading it ends, and what was read is read again
//! as it was, once Patroni has written it anew.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgrekey::api::postgresql_conf;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(settings) = postgresql_conf::parse(text) else {
        return;
    };
    // Patroni escapes quotes and backslashes, and nothing else.
    let line = |(name, value): (&String, &String)| {
        format!(
            "{name} = '{}'\n",
            value.replace('\\', r"\\").replace('\'', "''")
        )
    };
    let written: String = settings.iter().map(line).collect();
    match postgresql_conf::parse(&written) {
        Ok(again) => assert_eq!(settings, again),
        // Quotes and escapes make it longer.
        Err(bad) => assert!(bad.problem.contains("64 KiB"), "{bad}: {written:?}"),
    }
});
