//! Puts load on its node, or says how it fares under that of others.
//!
//! - `load cpu [SECONDS]` computes, for ever unless given.
//! - `load memory MIB [SECONDS]` holds so much memory, for ever unless given.
//! - `load late [COUNT [MILLISECONDS]]` sleeps so often (200) for so long (5) and prints by how much it
//!   woke too late: `late: p50 80 us, p99 200 us, max 300 us`.

use std::hint::black_box;
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).map(|text| text.parse::<f64>().expect("a number"));
    let end = |at: usize| number(at).map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    match args.first().map(String::as_str) {
        Some("cpu") => {
            let end = end(1);
            println!("computing");
            let mut sum = 0_u64;
            while end.is_none_or(|end| Instant::now() < end) {
                for i in 0..1_000_000_u64 {
                    sum = black_box(sum.wrapping_mul(31).wrapping_add(i));
                }
            }
            println!("computed {sum}");
        }
        Some("memory") => {
            let mib = number(1).expect("MIB is given");
            let end = end(2);
            // Written to, so that it is really there.
            let held = vec![1_u8; (mib * 1_048_576.0) as usize];
            println!("holding {} bytes", black_box(&held).len());
            while end.is_none_or(|end| Instant::now() < end) {
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        Some("late") => late(number(1).unwrap_or(200.0) as usize, number(2).unwrap_or(5.0)),
        _ => {
            eprintln!("load cpu [SECONDS] | memory MIB [SECONDS] | late [COUNT [MILLISECONDS]]");
            std::process::exit(2);
        }
    }
}

fn late(count: usize, millis: f64) {
    let nap = Duration::from_secs_f64(millis / 1e3);
    println!("sleeping");
    let mut late: Vec<u128> = (0..count)
        .map(|_| {
            let due = Instant::now() + nap;
            std::thread::sleep(nap);
            Instant::now().saturating_duration_since(due).as_micros()
        })
        .collect();
    late.sort_unstable();
    let at = |share: usize| late[(late.len() * share / 100).min(late.len() - 1)];
    println!("late: p50 {} us, p99 {} us, max {} us", at(50), at(99), at(100));
}
