//! Prints a file whenever its content changes, until it is stopped.
//!
//! `logger FILE [MILLISECONDS]`: how often to look. Mount a ConfigMap, edit it, and watch `kubectl logs -f`.

use std::time::Duration;

/// How often to look, if nothing else is said. WASI has no way to wait for a change of a file.
const INTERVAL: Duration = Duration::from_millis(20);

fn main() {
    let mut args = std::env::args().skip(1);
    let path = args.next().expect("usage: logger FILE [MILLISECONDS]");
    let interval = args.next().map_or(INTERVAL, |millis| {
        Duration::from_millis(millis.parse().expect("MILLISECONDS must be a whole number"))
    });
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
        std::thread::sleep(interval);
    }
}
