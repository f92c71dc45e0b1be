//! Reading and writing one file of frames.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::format::{self, FRAME_HEADER_BYTES, HEADER_BYTES, PAYLOAD_BYTES_MAX};

/// Files are read in pieces of at least this size.
const READ_BYTES: usize = 256 << 10;

/// The log's newest file, being written.
pub(super) struct Segment {
    file: File,
    /// Where the next frame goes. Everything before is flushed.
    end: u64,
    /// Up to here space is taken; it holds zeros.
    allocated: u64,
    step_bytes: u64,
    /// Whether the last frame says that the store was closed, and the file ends there.
    is_closed: bool,
}

impl Segment {
    /// Goes on in a file whose frames end at `end`; whatever is behind must be zeros.
    pub(super) fn resume(file: File, end: u64, step_bytes: u64, is_closed: bool) -> io::Result<Self> {
        let allocated = file.metadata()?.len();
        Ok(Self { file, end, allocated, step_bytes, is_closed })
    }

    /// Where the next frame will be, which is also what is flushed.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Writes whole frames and flushes them. After an error nothing is known of them.
    pub(super) fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        let end = self.end + format::to_u64(frames.len());
        if end > self.allocated {
            // Whole steps, so that the file's length, which a flush must then write too, seldom changes.
            let allocated = end.div_ceil(self.step_bytes) * self.step_bytes;
            allocate(&self.file, self.allocated, allocated - self.allocated)?;
            self.allocated = allocated;
        }
        self.file.write_all_at(frames, self.end)?;
        self.file.sync_data()?;
        self.end = end;
        self.is_closed = false;
        Ok(())
    }

    /// Gives back the space that is not used. Nothing more is appended, except after recovery.
    pub(super) fn trim(&mut self) -> io::Result<()> {
        if self.allocated > self.end {
            self.file.set_len(self.end)?;
            self.allocated = self.end;
        }
        Ok(())
    }

    /// Marks that everything written was flushed, if anything was written.
    pub(super) fn close(&mut self) -> io::Result<()> {
        if !self.is_closed {
            let mut mark = Vec::new();
            format::put_closed(&mut mark, self.end);
            self.append(&mark)?;
            self.trim()?;
            self.file.sync_all()?;
            self.is_closed = true;
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, from: u64, length: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    use rustix::io::Errno;
    match rustix::fs::fallocate(file, FallocateFlags::empty(), from, length) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(from + length),
        other => Ok(other?),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &File, from: u64, length: u64) -> io::Result<()> {
    file.set_len(from + length)
}

/// A new file that only its owner can read.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// What a reader finds where a frame may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Frame(&'a [u8]),
    /// Zeros, or the end of the file.
    End,
    Bad(&'static str),
}

/// Reads frames one after the other, also of a file that is being appended to.
pub(super) struct Reader {
    file: File,
    /// Where the next frame is.
    offset: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl Reader {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::new(File::open(path)?))
    }

    pub(super) fn new(file: File) -> Self {
        Self { file, offset: format::to_u64(HEADER_BYTES), buffer: Vec::new(), buffer_at: 0 }
    }

    /// The header, or `None` if the file is too short to have one.
    pub(super) fn header(&mut self) -> io::Result<Option<[u8; HEADER_BYTES]>> {
        let mut header = [0; HEADER_BYTES];
        match self.file.read_exact_at(&mut header, 0) {
            Ok(()) => Ok(Some(header)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the next frame is.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The payload of the next frame.
    pub(super) fn next(&mut self) -> io::Result<Found<'_>> {
        let mut length = self.check()?;
        if length.is_err() {
            // What was read ahead may have been written in the meantime.
            self.buffer.clear();
            length = self.check()?;
        }
        Ok(match length {
            Ok(length) => {
                let start = self.position() + FRAME_HEADER_BYTES;
                self.offset += format::to_u64(FRAME_HEADER_BYTES + length);
                Found::Frame(&self.buffer[start..start + length])
            }
            Err(None) => Found::End,
            Err(Some(what)) => Found::Bad(what),
        })
    }

    /// Whether there is nothing but zeros from the next frame's place on.
    pub(super) fn is_zero_from_here(&self) -> io::Result<bool> {
        let mut piece = vec![0; READ_BYTES];
        let mut offset = self.offset;
        loop {
            let count = self.file.read_at(&mut piece, offset)?;
            if count == 0 {
                return Ok(true);
            }
            if piece[..count].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            offset += format::to_u64(count);
        }
    }

    /// Everything from the next frame's place on.
    pub(super) fn rest(&self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        loop {
            let at = rest.len();
            rest.resize(at + READ_BYTES, 0);
            let count = self.file.read_at(&mut rest[at..], self.offset + format::to_u64(at))?;
            rest.truncate(at + count);
            if count == 0 {
                return Ok(rest);
            }
        }
    }

    /// Loads the next frame; gives its payload's length, or why there is none, `None` being the end.
    fn check(&mut self) -> io::Result<Result<usize, Option<&'static str>>> {
        self.load(FRAME_HEADER_BYTES)?;
        let at = self.position();
        let Some(header) = self.buffer.get(at..at + FRAME_HEADER_BYTES) else {
            let is_zero = self.buffer[at..].iter().all(|byte| *byte == 0);
            return Ok(Err(if is_zero { None } else { Some("a frame is cut short") }));
        };
        let length_bytes = [header[0], header[1], header[2], header[3]];
        let crc = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let length = match usize::try_from(u32::from_le_bytes(length_bytes)) {
            Ok(0) if crc == 0 => return Ok(Err(None)),
            Ok(length) if (1..=PAYLOAD_BYTES_MAX).contains(&length) => length,
            Ok(_) | Err(_) => return Ok(Err(Some("a frame's length is impossible"))),
        };
        self.load(FRAME_HEADER_BYTES + length)?;
        let start = self.position() + FRAME_HEADER_BYTES;
        let Some(payload) = self.buffer.get(start..start + length) else {
            return Ok(Err(Some("a frame is cut short")));
        };
        if format::frame_crc(length_bytes, payload) != crc {
            return Ok(Err(Some("a frame's checksum does not match")));
        }
        Ok(Ok(length))
    }

    /// Where in the buffer the next frame is.
    fn position(&self) -> usize {
        usize::try_from(self.offset - self.buffer_at).expect("the buffer holds the next frame's place")
    }

    /// Has `count` bytes of the next frame in the buffer, if the file has as many.
    fn load(&mut self, count: usize) -> io::Result<()> {
        if self.buffer.is_empty() {
            self.buffer_at = self.offset;
        }
        if self.buffer.len() >= self.position() + count {
            return Ok(());
        }
        let consumed = self.position();
        self.buffer.drain(..consumed);
        self.buffer_at = self.offset;
        let mut held = self.buffer.len();
        let length = self.file.metadata()?.len();
        let left = usize::try_from(length.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        self.buffer.resize(count.max(READ_BYTES).min(left).max(held), 0);
        while held < self.buffer.len() {
            match self.file.read_at(&mut self.buffer[held..], self.buffer_at + format::to_u64(held))? {
                0 => break,
                count => held += count,
            }
        }
        self.buffer.truncate(held);
        Ok(())
    }
}
