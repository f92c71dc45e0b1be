use super::*;

/// Types each of `keys` as one message; the echo, the input, and how it ended, as text.
#[track_caller]
fn check(on_interrupt: OnInterrupt, keys: &[&str], echo: &str, input: &str, ending: &str) {
    let mut terminal = Terminal::new(on_interrupt);
    let mut all = Heard::default();
    for keys in keys {
        let heard = terminal.typed(keys.as_bytes());
        all.echo.extend(heard.echo);
        all.input.extend(heard.input);
        all.end |= heard.end;
        all.interrupt |= heard.interrupt;
    }
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert_eq!((text(all.echo), text(all.input)), (echo.to_owned(), input.to_owned()), "{keys:?}");
    let found = match (all.end, all.interrupt) {
        (false, false) => "",
        (true, false) => "end",
        (false, true) => "interrupt",
        (true, true) => "both",
    };
    assert_eq!(found, ending, "{keys:?}");
}

#[test]
fn lines_are_edited_echoed_and_handed_over() {
    let check = |keys: &[&str], echo: &str, input: &str, ending| {
        check(OnInterrupt::End, keys, echo, input, ending);
    };
    check(&["ls\r"], "ls\r\n", "ls\n", "");
    check(&["l", "s", "\n"], "ls\r\n", "ls\n", "");
    check(&["a\rb\r"], "a\r\nb\r\n", "a\nb\n", "");
    check(&["ls"], "ls", "", "");
    check(&["lx\x7fs\r"], "lx\x08 \x08s\r\n", "ls\n", "");
    check(&["\x7f\x08\r"], "\r\n", "\n", "");
    check(&["aß\x7f\r"], "aß\x08 \x08\r\n", "a\n", "");
    check(&["a\x01\x7f\r"], "a^A\x08 \x08\x08 \x08\r\n", "a\n", "");
    check(&["one two  \x17x\r"], &format!("one two  {}x\r\n", "\x08 \x08".repeat(5)), "one x\n", "");
    check(&["abc\x15d\r"], &format!("abc{}d\r\n", "\x08 \x08".repeat(3)), "d\n", "");
    check(&["\x04"], "", "", "end");
    // Behind some text it hands that over; the next one is behind nothing.
    check(&["ab\x04", "\x04"], "ab", "ab", "end");
    check(&["a\tb\r"], "a\tb\r\n", "a\tb\n", "");
}

#[test]
fn keys_that_move_are_not_heard() {
    let check = |keys: &[&str], input: &str| {
        let echo = input.replace('\n', "\r\n");
        check(OnInterrupt::End, keys, &echo, input, "");
    };
    check(&["a\x1b[Ab\r"], "ab\n");
    check(&["a\x1b", "[", "1;5", "Cb\r"], "ab\n");
    check(&["a\x1bOFb\x1b[3~c\r"], "abc\n");
    check(&["a\x1bfb\r"], "ab\n");
    check(&["a\x1b\r"], "a\n");
    check(&["a\x1b[\r"], "a\n");
}

#[test]
fn an_interrupt_ends_what_runs_or_begins_the_line_anew() {
    use OnInterrupt::{End, EndIfEmpty, NewLine};
    check(End, &["\x03"], "^C\r\n", "", "interrupt");
    check(End, &["abc\x03def\r"], "abc^C\r\n", "", "interrupt");
    check(End, &["\x1c"], "^\\\r\n", "", "interrupt");
    check(End, &["a\r\x03"], "a\r\n^C\r\n", "a\n", "interrupt");
    check(EndIfEmpty, &["abc\x03d\r"], "abc^C\r\nd\r\n", "\nd\n", "");
    check(EndIfEmpty, &["abc\x03", "\x03"], "abc^C\r\n^C\r\n", "\n", "interrupt");
    check(NewLine, &["abc\x03\x03"], "abc^C\r\n^C\r\n", "\n\n", "");
}

#[test]
fn a_line_is_bounded() {
    let mut terminal = Terminal::new(OnInterrupt::End);
    let heard = terminal.typed(&[b'x'; LINE_MAX + 2]);
    assert_eq!(heard.echo.len(), LINE_MAX + 2);
    assert!(heard.echo.ends_with(b"x\x07\x07"));
    assert_eq!(terminal.typed(b"\r").input.len(), LINE_MAX + 1);
}

#[test]
fn output_has_a_terminals_line_ends() {
    for (pieces, shown_as) in [
        (&["a\nb\n"][..], "a\r\nb\r\n"),
        (&["a\r\nb"], "a\r\nb"),
        (&["a\r", "\nb", "\n"], "a\r\nb\r\n"),
        (&["a\r", "", "\n"], "a\r\n"),
        (&["\n\n"], "\r\n\r\n"),
        (&["plain"], "plain"),
    ] {
        let mut after = false;
        let all: Vec<u8> =
            pieces.iter().flat_map(|piece| shown(Bytes::from_static(piece.as_bytes()), &mut after)).collect();
        assert_eq!(String::from_utf8(all).unwrap(), shown_as, "{pieces:?}");
    }
}
