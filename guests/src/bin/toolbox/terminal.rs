//! Output to whoever is there: at a terminal at once, and to nobody not at all.

use std::io::{self, IsTerminal, Write};

/// Whether somebody types: the node hands their lines over, echoed and edited.
pub fn is_one() -> bool {
    io::stdin().is_terminal()
}

pub struct Output<W> {
    inner: W,
    /// Somebody waits for every piece of it.
    on_terminal: bool,
}

impl<W: Write> Output<W> {
    pub fn new(inner: W, on_terminal: bool) -> Self {
        Self { inner, on_terminal }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = heard(self.inner.write(bytes));
        if self.on_terminal {
            heard(self.inner.flush());
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        heard(self.inner.flush());
        Ok(())
    }
}

/// Ends the program when nobody hears it any more, as a signal would elsewhere.
fn heard<T>(written: io::Result<T>) -> T {
    written.unwrap_or_else(|_| std::process::exit(141))
}
