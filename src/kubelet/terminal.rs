//! A terminal's line discipline, as a pure state machine: what a person types at `kubectl exec -it` and
//! `attach -it`, made the lines that a program reads. A guest has no driver that would do it, and no signals.
//!
//! As a Unix terminal has it: what is typed is echoed; backspace, ^W and ^U erase; return hands the line over;
//! ^D hands over what there is, which on an empty line is the end of the input; ^C interrupts. Nothing can be
//! edited but at the end of the line, so the keys that would move elsewhere are not heard.

use bytes::Bytes;

#[cfg(test)]
mod tests;

/// The longest line, in bytes, as Linux has it; more is answered by a bell.
const LINE_MAX: usize = 4096;

/// What ^C does to whoever reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnInterrupt {
    /// Ends the run.
    End,
    /// Begins the line anew if something was typed, as shells have it; else ends the run.
    EndIfEmpty,
    /// Begins the line anew: a container's own run is not ended by those who look at it.
    NewLine,
}

/// What comes of what was typed, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// For the terminal.
    pub echo: Vec<u8>,
    /// For the program.
    pub input: Vec<u8>,
    /// The input ends behind that.
    pub end: bool,
    /// The run is to end; what was typed behind it is not heard.
    pub interrupt: bool,
}

/// The state of one terminal.
#[derive(Clone, Debug)]
pub struct Terminal {
    on_interrupt: OnInterrupt,
    line: Vec<u8>,
    escape: Escape,
}

/// Where a key stands that sends several bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    No,
    /// Behind ESC.
    Begun,
    /// Behind ESC and a bracket, up to a letter or a tilde.
    Sequence,
}

impl Terminal {
    #[must_use]
    pub fn new(on_interrupt: OnInterrupt) -> Self {
        Self { on_interrupt, line: Vec::new(), escape: Escape::No }
    }

    /// Takes in what was typed.
    pub fn typed(&mut self, bytes: &[u8]) -> Heard {
        let mut heard = Heard::default();
        for &byte in bytes {
            if !self.swallows(byte) {
                self.key(byte, &mut heard);
            }
            if heard.interrupt {
                break;
            }
        }
        heard
    }

    /// Whether the byte belongs to a key that is not heard.
    fn swallows(&mut self, byte: u8) -> bool {
        let (is_heard, next) = match (self.escape, byte) {
            (Escape::No, 0x1b) => (false, Escape::Begun),
            (Escape::No, _) => (true, Escape::No),
            (Escape::Begun, b'[' | b'O') => (false, Escape::Sequence),
            // No key sends these behind ESC: somebody pressed both.
            (Escape::Begun, ..0x20) => (true, Escape::No),
            (Escape::Begun, _) | (Escape::Sequence, 0x40..=0x7e) => (false, Escape::No),
            (Escape::Sequence, ..0x20) => (true, Escape::No),
            (Escape::Sequence, _) => (false, Escape::Sequence),
        };
        self.escape = next;
        !is_heard
    }

    fn key(&mut self, byte: u8, heard: &mut Heard) {
        match byte {
            b'\r' | b'\n' => {
                heard.echo.extend_from_slice(b"\r\n");
                self.line.push(b'\n');
                heard.input.append(&mut self.line);
            }
            // ^C, and ^\, which ends a program as well.
            0x03 | 0x1c => {
                heard.echo.extend_from_slice(if byte == 0x03 { b"^C\r\n" } else { b"^\\\r\n" });
                let goes_on = match self.on_interrupt {
                    OnInterrupt::End => false,
                    OnInterrupt::EndIfEmpty => !self.line.is_empty(),
                    OnInterrupt::NewLine => true,
                };
                self.line.clear();
                if goes_on {
                    // A shell then shows its prompt.
                    heard.input.push(b'\n');
                } else {
                    heard.interrupt = true;
                }
            }
            // ^D.
            0x04 if self.line.is_empty() => heard.end = true,
            0x04 => heard.input.append(&mut self.line),
            0x08 | 0x7f => {
                self.erase(heard);
            }
            // ^W: blanks, and the word before them.
            0x17 => {
                while self.line.last().is_some_and(|last| *last == b' ') && self.erase(heard) {}
                while self.line.last().is_some_and(|last| *last != b' ') && self.erase(heard) {}
            }
            // ^U.
            0x15 => while self.erase(heard) {},
            _ if self.line.len() >= LINE_MAX => heard.echo.push(0x07),
            byte => {
                self.line.push(byte);
                if is_shown_as_two(byte) {
                    heard.echo.extend_from_slice(&[b'^', byte ^ 0x40]);
                } else {
                    heard.echo.push(byte);
                }
            }
        }
    }

    /// Erases the last character, which may have several bytes; whether there was one.
    fn erase(&mut self, heard: &mut Heard) -> bool {
        while let Some(last) = self.line.pop() {
            if last & 0xc0 != 0x80 {
                let columns = if is_shown_as_two(last) { 2 } else { 1 };
                heard.echo.extend_from_slice(&b"\x08 \x08".repeat(columns));
                return true;
            }
        }
        false
    }
}

/// Whether a character is shown as `^X`.
fn is_shown_as_two(byte: u8) -> bool {
    byte < 0x20 && byte != b'\t'
}

/// Output with the ends of its lines as a terminal wants them. `after_return` says, and is told, whether the
/// piece before ended with a carriage return.
#[must_use]
pub fn shown(bytes: Bytes, after_return: &mut bool) -> Bytes {
    let mut is_after =
        std::mem::replace(after_return, bytes.last().map_or(*after_return, |last| *last == b'\r'));
    if !bytes.contains(&b'\n') {
        return bytes;
    }
    let mut shown = Vec::with_capacity(bytes.len() + bytes.len() / 16 + 1);
    for &byte in &bytes {
        if byte == b'\n' && !is_after {
            shown.push(b'\r');
        }
        shown.push(byte);
        is_after = byte == b'\r';
    }
    shown.into()
}
