//! Fixture: writes output without end.

use std::io::Write;

fn main() {
    let mut out = std::io::stdout().lock();
    for line in 0u64.. {
        writeln!(out, "line {line} of far too many").expect("the log takes everything");
    }
}
