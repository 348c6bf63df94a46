use super::*;

fn time(second: i64) -> Timestamp {
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
    let narrow = Screen::of_columns(8);
    assert_eq!(narrow.table(&["N", "V"], &rows)[1], "a  012..");
    assert_eq!(
        Screen::default().table(&["N", "V"], &rows)[1],
        "a  0123456789"
    );
}

#[test]
fn long_texts_are_broken_between_words() {
    let narrow = Screen::of_columns(8);
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
fn wide_characters_take_two_columns() {
    let rows = [vec!["\u{6f22}\u{5b57}".into(), "x".into()]];
    let narrow = Screen::of_columns(5);
    assert_eq!(
        Screen::default().table(&["NAME", "V"], &rows),
        ["NAME  V", "\u{6f22}\u{5b57}  x"]
    );
    assert_eq!(
        narrow.line(Tone::Plain, "\u{6f22}\u{5b57}\u{6f22}"),
        "\u{6f22}.."
    );
}

#[test]
fn colours_take_no_room_and_are_left_out_where_they_are_not_wanted() {
    let rows = [vec![Cell::new(Tone::Good, "ok"), "x".into()]];
    let colors = Screen {
        color: true,
        ..Screen::of_columns(80)
    };
    assert_eq!(
        colors.table(&["ABC", "V"], &rows)[1],
        "\x1b[32mok\x1b[0m   x"
    );
    assert_eq!(Screen::default().table(&["ABC", "V"], &rows)[1], "ok   x");
}

#[test]
fn an_expiry_says_how_many_days_are_left() {
    let day = 24 * 3600;
    for (then, says, tone) in [
        (-1, "1969-12-31 (over)", Tone::Bad),
        (7200, "1970-01-01 (in 2h)", Tone::Bad),
        (day, "1970-01-02 (1d)", Tone::Busy),
        (30 * day, "1970-01-31 (30d)", Tone::Plain),
    ] {
        assert_eq!(expiry(time(0), time(then)), Cell::new(tone, says));
    }
    assert_eq!(elapsed(time(0), time(72)), "1m12s");
}
