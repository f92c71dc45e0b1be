//! Fixture: ends with the exit code given. WASI 0.1 keeps it, WASI 0.2 makes every failure 1.

fn main() {
    let code = std::env::args().nth(1).map_or(0, |text| text.parse().expect("a whole number"));
    println!("leaving with {code}");
    std::process::exit(code);
}
