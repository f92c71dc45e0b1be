//! Fixture: calls itself far deeper than any stack goes.

#[inline(never)]
fn deeper(left: u64) -> u64 {
    let frame = std::hint::black_box([left; 32]);
    if left == 0 { 0 } else { deeper(left - 1).wrapping_add(frame[1]) }
}

fn main() {
    println!("{}", deeper(u64::MAX));
}
