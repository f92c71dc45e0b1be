//! A terminal without a driver: somebody types, and the program itself must echo it and end its lines.

use std::io::{self, BufRead, IsTerminal, Write};

/// Whether somebody types.
pub fn is_one() -> bool {
    io::stdin().is_terminal()
}

/// Output whose lines end as a terminal wants it.
pub struct Output<W> {
    inner: W,
    on_terminal: bool,
}

impl<W: Write> Output<W> {
    pub fn new(inner: W, on_terminal: bool) -> Self {
        Self { inner, on_terminal }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.on_terminal {
            return Ok(heard(self.inner.write(bytes)));
        }
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            match line.strip_suffix(b"\n") {
                Some(line) => {
                    heard(self.inner.write_all(line));
                    heard(self.inner.write_all(b"\r\n"));
                }
                None => heard(self.inner.write_all(line)),
            }
        }
        heard(self.inner.flush());
        Ok(bytes.len())
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

/// A line that somebody types, echoed; `None` at the end of the input.
pub fn read_line(input: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        let Some(&byte) = input.fill_buf()?.first() else {
            return Ok((!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned()));
        };
        input.consume(1);
        match byte {
            b'\r' | b'\n' => {
                out.write_all(b"\n")?;
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            // ^D ends the input on an empty line.
            0x04 if line.is_empty() => return Ok(None),
            // ^C and ^U begin the line anew.
            0x03 | 0x15 => {
                out.write_all(b"^C\n")?;
                return Ok(Some(String::new()));
            }
            0x08 | 0x7f => {
                while let Some(last) = line.pop() {
                    // A character may have several bytes.
                    if last & 0xc0 != 0x80 {
                        out.write_all(b"\x08 \x08")?;
                        break;
                    }
                }
            }
            byte if byte < 0x20 => {}
            byte => {
                line.push(byte);
                out.write_all(&[byte])?;
            }
        }
        out.flush()?;
    }
}
