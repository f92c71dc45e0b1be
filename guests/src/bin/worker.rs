//! Works for a while, then ends.
//!
//! `worker [SECONDS [CODE]]`: sleeps for `SECONDS` (1 unless given, fractions allowed) and ends with
//! the exit code `CODE` (0 unless given).

use std::time::Duration;

fn main() {
    let mut args = std::env::args().skip(1);
    let seconds: f64 = args.next().map_or(1.0, |text| text.parse().expect("SECONDS is a number"));
    let code: i32 = args.next().map_or(0, |text| text.parse().expect("CODE is a whole number"));
    println!("working for {seconds} s");
    std::thread::sleep(Duration::from_secs_f64(seconds));
    println!("done");
    std::process::exit(code);
}
