//! Files as WASI streams: always ready, since everything is in memory.

use async_trait::async_trait;
use bytes::Bytes;
use rustix::io::Errno;
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::super::budget::Charge;
use super::Open;

/// Most bytes moved in one step, which holds the volume's lock.
pub(super) const CHUNK_MAX: usize = 64 * 1024;

pub(super) struct Reader {
    pub(super) open: Open,
    pub(super) offset: u64,
    pub(super) _charge: Charge,
}

pub(super) struct Writer {
    pub(super) open: Open,
    /// `None` appends.
    pub(super) offset: Option<u64>,
    pub(super) _charge: Charge,
}

#[async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {}
}

impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let bytes = self.open.volume.state().tree.read(self.open.ino, self.offset, size.min(CHUNK_MAX));
        let bytes = bytes.map_err(failed)?;
        if bytes.is_empty() && size > 0 {
            return Err(StreamError::Closed);
        }
        self.offset += u64::try_from(bytes.len()).expect("a length fits");
        Ok(bytes)
    }
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {}
}

impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut state = self.open.volume.write();
        let now = state.now();
        let end = state.tree.write(self.open.ino, self.offset, &bytes, now).map_err(failed)?;
        if let Some(offset) = &mut self.offset {
            *offset = end;
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK_MAX)
    }
}

/// The host finds its way from a stream's error back to an error code through `std::io::Error`.
fn failed(error: ErrorCode) -> StreamError {
    let errno = match error {
        ErrorCode::InsufficientSpace => Errno::NOSPC,
        ErrorCode::FileTooLarge => Errno::FBIG,
        ErrorCode::IsDirectory => Errno::ISDIR,
        _ => Errno::IO,
    };
    StreamError::LastOperationFailed(std::io::Error::from(errno).into())
}
