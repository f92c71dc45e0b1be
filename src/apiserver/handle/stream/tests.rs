use super::*;

/// BEHAVIOURS 8.7.
#[test]
fn a_terminal_has_one_stream_of_output() {
    let asked = |stdin, stdout, stderr, tty| {
        let options = StreamOptions { stdin, stdout, stderr, tty, ..StreamOptions::default() };
        let found = wanted(&options).map(|found| (found.stdin, found.stdout, found.stderr));
        found.map_err(|error| error.to_string())
    };
    assert_eq!(asked(false, true, true, false), Ok((false, true, true)));
    assert_eq!(asked(true, true, true, true), Ok((true, true, false)));
    let none = "you must specify at least 1 of stdin, stdout, stderr";
    assert_eq!(asked(false, false, false, true), Err(none.to_owned()));
}
