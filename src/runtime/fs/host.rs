//! Volumes offered to guests as `wasi:filesystem`.
//!
//! The bindings are wasmtime-wasi's own; these implementations shadow its interfaces in the linker,
//! so a guest never reaches a file of the machine. The bindings fix the type of a descriptor, but
//! the resource table goes by number and checks the type only on access: our own descriptors travel
//! behind wasmtime-wasi's type.

use std::sync::Arc;

use jiff::Timestamp;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable, ResourceTableError};
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, Descriptor, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry,
    DirectoryEntryStream, ErrorCode, Filesize, HostDescriptor, HostDirectoryEntryStream, MetadataHashValue,
    NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::super::budget::{Budget, Charge};
use super::handle::{Files, Handle};
use super::stream::{CHUNK_MAX, Reader, Writer};
use super::tree::{NodeType, Stat};

/// What the host holds for an open descriptor or a stream of a file, roughly.
const OPEN_BYTES: u64 = 512;

/// A descriptor, with what it takes of the guest's memory.
struct Opened {
    handle: Handle,
    _charge: Charge,
}

/// What is left to list of a directory.
struct Listing {
    entries: std::vec::IntoIter<DirectoryEntry>,
    _charge: Charge,
}

/// The part of a guest's store that these interfaces need.
pub(in crate::runtime) trait HasFiles: Send {
    fn files(&mut self) -> FilesView<'_>;
}

pub(in crate::runtime) struct FilesView<'a> {
    pub(in crate::runtime) files: &'a Files,
    pub(in crate::runtime) table: &'a mut ResourceTable,
    pub(in crate::runtime) budget: &'a Arc<Budget>,
}

struct HasFilesView;

impl HasData for HasFilesView {
    type Data<'a> = FilesView<'a>;
}

/// Replaces wasmtime-wasi's file system in `linker`.
pub(in crate::runtime) fn shadow<T: HasFiles + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    types::add_to_linker::<T, HasFilesView>(linker, T::files)?;
    preopens::add_to_linker::<T, HasFilesView>(linker, T::files)?;
    linker.allow_shadowing(false);
    Ok(())
}

type Fd = Resource<Descriptor>;

impl FilesView<'_> {
    fn handle(&self, fd: &Fd) -> Result<&Handle, ResourceTableError> {
        Ok(&self.table.get(&Resource::<Opened>::new_borrow(fd.rep()))?.handle)
    }

    fn push(&mut self, handle: Handle) -> wasmtime::Result<Fd> {
        let charge = self.budget.charge(OPEN_BYTES)?;
        Ok(Resource::new_own(self.table.push(Opened { handle, _charge: charge })?.rep()))
    }

    /// Takes memory; without room for it the guest ends.
    fn charge(&self, bytes: u64) -> FsResult<Charge> {
        self.budget.charge(bytes).map_err(FsError::trap)
    }

    /// Waits for late content that `path` leads to.
    async fn arrive(&mut self, fd: &Fd, flags: PathFlags, path: &str) -> FsResult<()> {
        let awaited = self.handle(fd)?.awaited(path, follows(flags));
        if let Some(awaited) = awaited {
            awaited.arrive().await?;
        }
        Ok(())
    }
}

impl preopens::Host for FilesView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Fd, String)>> {
        let mut directories = Vec::with_capacity(self.files.mounts.len());
        for (path, handle) in &self.files.mounts {
            directories.push((self.push(handle.clone())?, path.clone()));
        }
        Ok(directories)
    }
}

impl types::Host for FilesView<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(self.table.get(&error)?.downcast_ref::<std::io::Error>().map(ErrorCode::from))
    }
}

impl HostDirectoryEntryStream for FilesView<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        Ok(self.table.get_mut(&Resource::<Listing>::new_borrow(stream.rep()))?.entries.next())
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Listing>::new_own(stream.rep()))?;
        Ok(())
    }
}

impl HostDescriptor for FilesView<'_> {
    async fn advise(&mut self, fd: Fd, _: Filesize, _: Filesize, _: Advice) -> FsResult<()> {
        self.handle(&fd)?;
        Ok(())
    }

    async fn sync_data(&mut self, fd: Fd) -> FsResult<()> {
        self.handle(&fd)?;
        Ok(())
    }

    async fn sync(&mut self, fd: Fd) -> FsResult<()> {
        self.handle(&fd)?;
        Ok(())
    }

    async fn get_flags(&mut self, fd: Fd) -> FsResult<DescriptorFlags> {
        let handle = self.handle(&fd)?;
        let directory = handle.look(|state| Ok(state.tree.is_directory(handle.node(state)?)))?;
        if !directory {
            return Ok(handle.flags);
        }
        let change =
            if handle.read_only { DescriptorFlags::empty() } else { DescriptorFlags::MUTATE_DIRECTORY };
        Ok(DescriptorFlags::READ | change)
    }

    async fn get_type(&mut self, fd: Fd) -> FsResult<DescriptorType> {
        let handle = self.handle(&fd)?;
        if handle.preopen {
            return Ok(DescriptorType::Directory);
        }
        handle.look(|state| Ok(descriptor_type(state.tree.node_type(handle.node(state)?))))
    }

    async fn stat(&mut self, fd: Fd) -> FsResult<DescriptorStat> {
        let handle = self.handle(&fd)?;
        let mut stat = handle.look(|state| Ok(descriptor_stat(&state.tree.stat(handle.node(state)?))))?;
        if handle.preopen {
            stat.type_ = DescriptorType::Directory;
        }
        Ok(stat)
    }

    async fn stat_at(&mut self, fd: Fd, flags: PathFlags, path: String) -> FsResult<DescriptorStat> {
        self.arrive(&fd, flags, &path).await?;
        let handle = self.handle(&fd)?;
        handle.look(|state| {
            let ino = handle.place(state, &path, follows(flags))?.existing()?;
            Ok(descriptor_stat(&state.tree.stat(ino)))
        })
    }

    async fn metadata_hash(&mut self, fd: Fd) -> FsResult<MetadataHashValue> {
        let handle = self.handle(&fd)?;
        Ok(handle.metadata_hash(handle.look(|state| handle.node(state))?))
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Fd,
        flags: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        let handle = self.handle(&fd)?;
        let ino = handle.look(|state| handle.place(state, &path, follows(flags))?.existing())?;
        Ok(handle.metadata_hash(ino))
    }

    async fn is_same_object(&mut self, a: Fd, b: Fd) -> wasmtime::Result<bool> {
        let (a, b) = (self.handle(&a)?, self.handle(&b)?);
        let node = |handle: &Handle| handle.look(|state| handle.node(state)).ok();
        Ok(a.device == b.device && node(a).is_some() && node(a) == node(b))
    }

    async fn set_size(&mut self, fd: Fd, size: Filesize) -> FsResult<()> {
        let handle = self.handle(&fd)?;
        handle.may_write()?;
        handle.change(|state, now| {
            let ino = handle.node(state)?;
            state.tree.resize(ino, size, now)
        })
    }

    async fn set_times(&mut self, fd: Fd, accessed: NewTimestamp, modified: NewTimestamp) -> FsResult<()> {
        let handle = self.handle(&fd)?;
        handle.change(|state, now| {
            let (accessed, modified) = (new_time(accessed, now)?, new_time(modified, now)?);
            let ino = handle.node(state)?;
            state.tree.set_times(ino, accessed, modified, now);
            Ok(())
        })
    }

    async fn set_times_at(
        &mut self,
        fd: Fd,
        flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let handle = self.handle(&fd)?;
        handle.change(|state, now| {
            let ino = handle.place(state, &path, follows(flags))?.existing()?;
            let (accessed, modified) = (new_time(accessed, now)?, new_time(modified, now)?);
            state.tree.set_times(ino, accessed, modified, now);
            Ok(())
        })
    }

    async fn read(&mut self, fd: Fd, length: Filesize, offset: Filesize) -> FsResult<(Vec<u8>, bool)> {
        let handle = self.handle(&fd)?;
        let length = usize::try_from(length).unwrap_or(CHUNK_MAX).min(CHUNK_MAX);
        let bytes = handle.look(|state| {
            handle.may(DescriptorFlags::READ)?;
            state.tree.read(handle.node(state)?, offset, length)
        })?;
        Ok((bytes.to_vec(), bytes.is_empty() && length > 0))
    }

    async fn write(&mut self, fd: Fd, data: Vec<u8>, offset: Filesize) -> FsResult<Filesize> {
        let handle = self.handle(&fd)?;
        handle.may_write()?;
        let end = handle.change(|state, now| {
            let ino = handle.node(state)?;
            state.tree.write(ino, Some(offset), &data, now)
        })?;
        Ok(end - offset)
    }

    fn read_via_stream(&mut self, fd: Fd, offset: Filesize) -> FsResult<Resource<DynInputStream>> {
        let handle = self.handle(&fd)?;
        handle.look(|state| match state.tree.node_type(handle.node(state)?) {
            NodeType::File => handle.may(DescriptorFlags::READ),
            NodeType::Directory => Err(ErrorCode::IsDirectory),
            NodeType::Link => Err(ErrorCode::Invalid),
        })?;
        let reader = Reader { open: handle.hold()?, offset, _charge: self.charge(OPEN_BYTES)? };
        Ok(self.table.push(Box::new(reader) as DynInputStream)?)
    }

    fn write_via_stream(&mut self, fd: Fd, offset: Filesize) -> FsResult<Resource<DynOutputStream>> {
        let handle = self.handle(&fd)?;
        handle.may_write()?;
        let writer = Writer { open: handle.hold()?, offset: Some(offset), _charge: self.charge(OPEN_BYTES)? };
        Ok(self.table.push(Box::new(writer) as DynOutputStream)?)
    }

    fn append_via_stream(&mut self, fd: Fd) -> FsResult<Resource<DynOutputStream>> {
        let handle = self.handle(&fd)?;
        handle.may_write()?;
        let writer = Writer { open: handle.hold()?, offset: None, _charge: self.charge(OPEN_BYTES)? };
        Ok(self.table.push(Box::new(writer) as DynOutputStream)?)
    }

    async fn read_directory(&mut self, fd: Fd) -> FsResult<Resource<DirectoryEntryStream>> {
        let handle = self.handle(&fd)?;
        let entries: Vec<DirectoryEntry> = handle.look(|state| {
            let entries = state.tree.entries(handle.node(state)?)?.iter();
            Ok(entries
                .map(|(name, ino)| DirectoryEntry {
                    type_: descriptor_type(state.tree.node_type(*ino)),
                    name: name.clone(),
                })
                .collect())
        })?;
        let names: usize = entries.iter().map(|entry| entry.name.len() + size_of::<DirectoryEntry>()).sum();
        let charge = self.charge(OPEN_BYTES + u64::try_from(names).unwrap_or(u64::MAX))?;
        let listing = Listing { entries: entries.into_iter(), _charge: charge };
        Ok(Resource::new_own(self.table.push(listing)?.rep()))
    }

    async fn open_at(
        &mut self,
        fd: Fd,
        flags: PathFlags,
        path: String,
        open_flags: OpenFlags,
        descriptor_flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        self.arrive(&fd, flags, &path).await?;
        let handle = self.handle(&fd)?.open_at(&path, follows(flags), open_flags, descriptor_flags)?;
        self.push(handle).map_err(FsError::trap)
    }

    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Opened>::new_own(fd.rep()))?;
        Ok(())
    }

    async fn create_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let handle = self.handle(&fd)?;
        handle.change(|state, now| {
            let place = handle.place(state, &path, false)?;
            state.tree.create_directory(&place, now).map(|_| ())
        })
    }

    async fn remove_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let handle = self.handle(&fd)?;
        handle.change(|state, now| {
            let place = handle.place(state, &path, false)?;
            state.tree.remove_directory(&place, now)
        })
    }

    async fn unlink_file_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let handle = self.handle(&fd)?;
        handle.change(|state, now| {
            let place = handle.place(state, &path, false)?;
            state.tree.unlink(&place, now)
        })
    }

    async fn rename_at(&mut self, fd: Fd, path: String, new_fd: Fd, new_path: String) -> FsResult<()> {
        let (from, to) = (self.handle(&fd)?, self.handle(&new_fd)?);
        same_volume(from, to)?;
        from.change(|state, now| {
            let place = from.place(state, &path, false)?;
            let new_place = to.place(state, &new_path, false)?;
            state.tree.rename(&place, &new_place, now)
        })
    }

    async fn link_at(
        &mut self,
        fd: Fd,
        flags: PathFlags,
        path: String,
        new_fd: Fd,
        new_path: String,
    ) -> FsResult<()> {
        let (from, to) = (self.handle(&fd)?, self.handle(&new_fd)?);
        same_volume(from, to)?;
        from.change(|state, now| {
            let ino = from.place(state, &path, follows(flags))?.existing()?;
            let new_place = to.place(state, &new_path, false)?;
            state.tree.hard_link(ino, &new_place, now)
        })
    }

    async fn symlink_at(&mut self, fd: Fd, target: String, path: String) -> FsResult<()> {
        let handle = self.handle(&fd)?;
        handle.change(|state, now| {
            let place = handle.place(state, &path, false)?;
            state.tree.create_link(&place, &target, now).map(|_| ())
        })
    }

    async fn readlink_at(&mut self, fd: Fd, path: String) -> FsResult<String> {
        let handle = self.handle(&fd)?;
        handle.look(|state| {
            let ino = handle.place(state, &path, false)?.existing()?;
            state.tree.link_target(ino).map(str::to_owned).ok_or(ErrorCode::Invalid)
        })
    }
}

fn same_volume(a: &Handle, b: &Handle) -> FsResult<()> {
    if a.device != b.device {
        return Err(ErrorCode::CrossDevice.into());
    }
    if b.read_only {
        return Err(ErrorCode::ReadOnly.into());
    }
    Ok(())
}

fn follows(flags: PathFlags) -> bool {
    flags.contains(PathFlags::SYMLINK_FOLLOW)
}

fn descriptor_type(node_type: NodeType) -> DescriptorType {
    match node_type {
        NodeType::Directory => DescriptorType::Directory,
        NodeType::File => DescriptorType::RegularFile,
        NodeType::Link => DescriptorType::SymbolicLink,
    }
}

fn descriptor_stat(stat: &Stat) -> DescriptorStat {
    DescriptorStat {
        type_: descriptor_type(stat.node_type),
        link_count: stat.links,
        size: stat.size,
        data_access_timestamp: Some(datetime(stat.accessed)),
        data_modification_timestamp: Some(datetime(stat.modified)),
        status_change_timestamp: Some(datetime(stat.changed)),
    }
}

/// WASI knows no time before 1970.
fn datetime(time: Timestamp) -> Datetime {
    Datetime {
        seconds: u64::try_from(time.as_second()).unwrap_or(0),
        nanoseconds: u32::try_from(time.subsec_nanosecond()).unwrap_or(0),
    }
}

fn new_time(time: NewTimestamp, now: Timestamp) -> Result<Option<Timestamp>, ErrorCode> {
    match time {
        NewTimestamp::NoChange => Ok(None),
        NewTimestamp::Now => Ok(Some(now)),
        NewTimestamp::Timestamp(Datetime { seconds, nanoseconds }) => {
            let seconds = i64::try_from(seconds).map_err(|_| ErrorCode::Overflow)?;
            let nanoseconds = i32::try_from(nanoseconds).map_err(|_| ErrorCode::Overflow)?;
            Timestamp::new(seconds, nanoseconds).map(Some).map_err(|_| ErrorCode::Overflow)
        }
    }
}
