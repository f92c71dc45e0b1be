//! Puts load on its node, or says how it fares under that of others.
//!
//! - `load cpu [SECONDS]` computes, for ever unless given.
//! - `load memory MIB [SECONDS]` holds so much memory, for ever unless given.
//! - `load late [COUNT [MILLISECONDS]]` sleeps so often (200) for so long (5) and prints by how much it
//!   woke too late: `late: p50 80 us, p99 200 us, max 300 us`.
//! - `load get COUNT ADDRESS` asks for `/` over HTTP so often, one connection after the other, and prints how
//!   long that took: `got: 1000 in 0.25 s`.
//!
//! And as a guest does that takes whatever it can get, until it is stopped or told no, which it prints:
//!
//! - `load grow` allocates without end.
//! - `load recurse` calls itself without end.
//! - `load spew` writes output without end.
//! - `load open DIRECTORY` opens a file over and over; `load list DIRECTORY` opens a directory over and over.
//! - `load fill DIRECTORY` writes files without end.
//! - `load listen` and `load dial` have ever more sockets: listening, or connected to themselves.
//! - `load sleep` sleeps for ever.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).map(|text| text.parse::<f64>().expect("a number"));
    let end = |at: usize| number(at).map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    match args.first().map(String::as_str) {
        Some("cpu") => {
            let end = end(1);
            println!("computing");
            let (mut sum, mut rounds) = (0_u64, 0_u64);
            while end.is_none_or(|end| Instant::now() < end) {
                for i in 0..1_000_000_u64 {
                    sum = black_box(sum.wrapping_mul(31).wrapping_add(i));
                }
                rounds += 1;
            }
            println!("computed {sum} in {rounds} rounds");
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
        Some("grow") => {
            let mut held = Vec::new();
            loop {
                held.push(black_box(vec![1_u8; 1 << 20]));
            }
        }
        Some("recurse") => println!("{}", deeper(u64::MAX)),
        Some("spew") => {
            for number in 0_u64.. {
                println!("line {number} of output that nobody asked for");
            }
        }
        Some("open") => {
            let path = format!("{}/load", directory(&args));
            std::fs::write(&path, "load").expect("a directory that can be written");
            hoard(|_| File::open(&path));
        }
        Some("list") => {
            let path = directory(&args).to_owned();
            for number in 0..100 {
                std::fs::write(format!("{path}/a-name-of-some-length-{number}"), "").expect("a small file");
            }
            hoard(|_| {
                let mut listing = std::fs::read_dir(&path)?;
                listing.next().transpose().map(|_| listing)
            });
        }
        Some("fill") => {
            let path = directory(&args).to_owned();
            hoard(|number| std::fs::write(format!("{path}/{number}"), vec![1_u8; 64 << 10]));
        }
        Some("listen") => hoard(|_| TcpListener::bind("0.0.0.0:0")),
        Some("dial") => {
            let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
            let address = listener.local_addr().expect("bound");
            hoard(|_| {
                let near = TcpStream::connect(address)?;
                Ok((near, listener.accept()?))
            });
        }
        Some("sleep") => {
            println!("sleeping");
            rest();
        }
        Some("get") => {
            let address = args.get(2).expect("ADDRESS is given");
            get(number(1).expect("COUNT is given") as usize, address);
        }
        _ => {
            eprintln!(
                "load cpu [SECONDS] | memory MIB [SECONDS] | late [COUNT [MILLISECONDS]] | get COUNT ADDRESS"
            );
            eprintln!("load grow | recurse | spew | open DIR | list DIR | fill DIR | listen | dial | sleep");
            std::process::exit(2);
        }
    }
}

fn directory(args: &[String]) -> &str {
    args.get(1).expect("DIRECTORY is given")
}

/// Takes one more and one more, and keeps them all; then waits.
fn hoard<T>(mut take: impl FnMut(usize) -> std::io::Result<T>) {
    println!("taking");
    let mut held = Vec::new();
    let error = loop {
        match take(held.len()) {
            Ok(one) => held.push(one),
            Err(error) => break error,
        }
    };
    println!("told no after {}: {error}", held.len());
    rest();
}

fn rest() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

#[inline(never)]
fn deeper(left: u64) -> u64 {
    let frame = black_box([left; 32]);
    if left == 0 { 0 } else { deeper(left - 1).wrapping_add(frame[1]) }
}

fn get(count: usize, address: &str) {
    println!("getting");
    let start = Instant::now();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).expect("somebody is there");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("it listens");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    println!("got: {count} in {} s", start.elapsed().as_secs_f64());
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
