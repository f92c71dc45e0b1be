//! Prints a file whenever its content changes, until it is stopped.
//!
//! `logger FILE`. Mount a ConfigMap, edit it, and watch `kubectl logs -f`.

use std::time::Duration;

/// How often to look. WASI has no way to wait for a change of a file.
const INTERVAL: Duration = Duration::from_millis(20);

fn main() {
    let path = std::env::args().nth(1).expect("usage: logger FILE");
    let mut last = None;
    loop {
        let now = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        if last.as_ref() != Some(&now) {
            match &now {
                Ok(content) => println!("{path}: {}", content.trim_end()),
                Err(error) => println!("{path}: {error}"),
            }
            last = Some(now);
        }
        std::thread::sleep(INTERVAL);
    }
}
