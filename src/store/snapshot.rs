//! A whole state in a file: where recovery and reading the past begin.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::directory::Directory;
use super::format::{self, Contents};
use super::segment::create;
use super::{Range, Record, Revision, Shared};

/// So many records are taken under one hold of the lock.
const BLOCK_RECORDS: usize = 512;

/// A block is not much longer than this, or one record.
const BLOCK_BYTES: usize = 1 << 20;

/// Writes a snapshot of the state at `at`, for which [`super::state::State::start_saving`] was called
/// at that revision. The state may move on meanwhile: records that changed since are skipped, and taken
/// from what was saved of them. Gives up when `stop` is set.
pub(super) fn write(
    shared: &Shared,
    directory: &Directory,
    at: Revision,
    stop: &AtomicBool,
) -> io::Result<()> {
    let result = write_file(shared, directory, at, stop);
    if result.is_err() {
        drop(shared.write().end_saving());
    }
    result
}

fn write_file(shared: &Shared, directory: &Directory, at: Revision, stop: &AtomicBool) -> io::Result<()> {
    let path = directory.file(Contents::Snapshot, at).with_extension("snap.tmp");
    let mut output = Output::new(&path, &format::header(Contents::Snapshot, at, directory.sealed))?;
    let collections = shared.read().collections();
    for collection in collections {
        let range = Range { collection, namespace: None };
        let mut reached: Option<Arc<Record>> = None;
        loop {
            if stop.load(Ordering::Relaxed) {
                std::fs::remove_file(&path)?;
                return Err(io::Error::new(io::ErrorKind::Interrupted, "the store is closing"));
            }
            let after = reached.as_ref().map(|record| (&*record.key.namespace, &*record.key.name));
            let block: Vec<_> = shared.read().range(&range, after).take(BLOCK_RECORDS).cloned().collect();
            let Some(last) = block.last().cloned() else { break };
            let old: Vec<_> = block.into_iter().filter(|record| record.revision <= at).collect();
            output.records(&old)?;
            reached = Some(last);
        }
    }
    // A record that was replaced after it was written is written twice, which does no harm.
    let replaced = shared.write().end_saving();
    for block in replaced.chunks(BLOCK_RECORDS) {
        output.records(block)?;
    }
    let bytes = output.end()?;
    directory.publish(&path, Contents::Snapshot, at, bytes)
}

struct Output {
    file: std::fs::File,
    buffer: Vec<u8>,
    count: u64,
    bytes: u64,
}

impl Output {
    fn new(path: &Path, header: &[u8]) -> io::Result<Self> {
        let file = create(path)?;
        Ok(Self { file, buffer: header.to_vec(), count: 0, bytes: 0 })
    }

    fn records(&mut self, block: &[Arc<Record>]) -> io::Result<()> {
        let mut rest = block;
        while !rest.is_empty() {
            let (mut count, mut bytes) = (0, 0);
            while count < rest.len() && (count == 0 || bytes < BLOCK_BYTES) {
                bytes += rest[count].json.len();
                count += 1;
            }
            let (block, others) = rest.split_at(count);
            format::put_records(&mut self.buffer, block.iter().map(|record| &**record));
            self.count += format::to_u64(count);
            self.flush()?;
            rest = others;
        }
        Ok(())
    }

    fn end(mut self) -> io::Result<u64> {
        format::put_end(&mut self.buffer, self.count);
        self.flush()?;
        self.file.sync_all()?;
        Ok(self.bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.bytes += format::to_u64(self.buffer.len());
        self.buffer.clear();
        Ok(())
    }
}
