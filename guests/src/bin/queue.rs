//! Works on its Job's queue until all is done: an example of `wit/queue`.
//!
//! `queue_worker [LEASE_SECONDS]`. What an item says is done: `print TEXT`; `push TEXT` adds an item;
//! `fail` cannot be done; `drop` ends the worker at once with the item in its hands; `late` says that it
//! is done when another has it already; `extend` has it for longer.

wit_bindgen::generate!({ path: "../wit/queue", world: "coracle:queue/imports" });

use std::time::Duration;

use coracle::queue::work::{self, Error, Item};

fn main() {
    let lease = std::env::args().nth(1).map_or(60, |text| text.parse().expect("LEASE_SECONDS is a number"));
    loop {
        match work::next(lease) {
            Ok(Some(item)) => work_on(&item, lease),
            Ok(None) => break,
            Err(error) => {
                println!("no more: {error:?}");
                std::process::exit(1);
            }
        }
    }
    let length = work::length().expect("the queue is there to the end");
    println!("done: {} waiting, {} claimed, {} failed", length.waiting, length.claimed, length.failed);
}

fn work_on(item: &Item, lease: u32) {
    let text = String::from_utf8_lossy(&item.payload);
    let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
    println!("{text} ({})", item.attempt);
    let mut token = item.token;
    match word {
        "push" => work::push(rest.as_bytes()).expect("the queue takes more"),
        "fail" => {
            work::fail(&item.id, token, "it says so").expect("it is ours to fail");
            return;
        }
        "drop" if item.attempt == 1 => std::process::exit(3),
        "late" if item.attempt == 1 => std::thread::sleep(Duration::from_secs(u64::from(lease) + 2)),
        "extend" => {
            token = work::extend(&item.id, token, lease * 2).expect("it is ours to extend");
            assert!(
                matches!(work::complete(&item.id, item.token), Err(Error::Lost)),
                "the old token is void"
            );
        }
        _ => {}
    }
    match work::complete(&item.id, token) {
        Ok(()) => {}
        Err(Error::Lost) => println!("{text}: lost"),
        Err(error) => panic!("{text}: {error:?}"),
    }
}
