//! Fixture: computes for ever and never calls the host.

fn main() {
    println!("spinning");
    let mut n = 0u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}
