//! Fixture: prints its arguments, environment and working directory.

use std::env;

fn main() {
    println!("args {:?}", env::args().collect::<Vec<_>>());
    for (name, value) in env::vars() {
        println!("{name}={value}");
    }
    println!("cwd {}", env::current_dir().expect("a working directory").display());
}
