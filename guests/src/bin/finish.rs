//! Works piece by piece, and when it is asked to stop finishes the piece at hand and ends well: an example of
//! `wit/lifecycle`.
//!
//! `finish [PIECE_SECONDS [ignore]]`: with `ignore` it hears the request and goes on all the same.

wit_bindgen::generate!({
    path: ["../wit/deps/io", "../wit/lifecycle"],
    world: "coracle:lifecycle/imports",
    generate_all,
});

use std::time::Duration;

use coracle::lifecycle::stop;

fn main() {
    let mut args = std::env::args().skip(1);
    let seconds = args.next().map_or(1.0, |text| text.parse().expect("PIECE_SECONDS must be a number"));
    let ignores = args.next().is_some_and(|word| word == "ignore");
    let piece = Duration::from_secs_f64(seconds);
    println!("working");
    for number in 1_u64.. {
        std::thread::sleep(piece);
        if let Some(request) = stop::requested() {
            let left = Duration::from_nanos(request.left).as_secs_f64();
            println!("asked to stop within {left:.1} s, after {number} pieces");
            if !ignores {
                break;
            }
            // Waiting for the request, as one does who has nothing else to do, returns at once now.
            stop::subscribe().block();
            println!("going on");
            std::thread::sleep(Duration::from_secs(24 * 3600));
        }
    }
    println!("finished");
}
