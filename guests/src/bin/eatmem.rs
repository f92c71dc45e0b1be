//! Fixture: takes memory, MiB by MiB, until it has as many as asked for, or all there is.

fn main() {
    let mebibytes = std::env::args().nth(1).map_or(usize::MAX, |text| text.parse().expect("a whole number"));
    let mut held = Vec::new();
    while held.len() < mebibytes {
        held.push(vec![1u8; 1 << 20]);
    }
    println!("holding {} MiB", std::hint::black_box(&held).len());
}
