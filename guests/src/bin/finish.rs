//! Works piece by piece, and when it is asked to stop finishes the piece at hand and ends well: an example of
//! `wit/lifecycle`.
//!
//! `finish [PIECE_SECONDS [ignore|spin]]`: with `ignore` it hears the request and goes on all the same, asleep;
//! with `spin` it computes meanwhile, and never asks.

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
    let then = args.next().unwrap_or_default();
    let piece = Duration::from_secs_f64(seconds);
    println!("working");
    if then == "spin" {
        let mut sum = 0_u64;
        loop {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
    }
    for number in 1_u64.. {
        std::thread::sleep(piece);
        if let Some(request) = stop::requested() {
            let left = Duration::from_nanos(request.left).as_secs_f64();
            println!("asked to stop within {left:.1} s, after {number} pieces");
            if then != "ignore" {
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
