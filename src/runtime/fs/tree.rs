//! The nodes of a volume and what each operation does to them.
//!
//! As in a Unix file system, a node is freed once it has neither a name nor an opening. Operations
//! take the time as an argument and know nothing of guests, mounts or access.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;

use super::path::{self, Place};

/// The number of a node, unique in its volume for all time.
pub(super) type Ino = u64;

/// The directory that a volume is.
pub(super) const ROOT: Ino = 1;

/// Most nodes in a volume: empty files take no bytes of its quota, but they take memory.
const NODES_MAX: usize = 100_000;

/// Longest file; a bound for `seek` beyond the end, where the quota counts the hole.
const FILE_MAX: u64 = 1 << 40;

pub(super) struct Tree {
    nodes: BTreeMap<Ino, Node>,
    last: Ino,
    used: u64,
    bytes_max: u64,
}

struct Node {
    kind: Kind,
    /// Names it has.
    links: u64,
    /// Openings it has.
    open: u64,
    accessed: Timestamp,
    modified: Timestamp,
    changed: Timestamp,
}

enum Kind {
    Directory(BTreeMap<String, Ino>),
    File(Content),
    Link(String),
}

enum Content {
    /// Bytes of an object in the store, not copied.
    Shared(Bytes),
    Owned(Vec<u8>),
}

impl Content {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }

    fn owned(&mut self) -> &mut Vec<u8> {
        if let Self::Shared(bytes) = self {
            *self = Self::Owned(bytes.to_vec());
        }
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(_) => unreachable!("just made our own"),
        }
    }
}

/// Kinds of node, for listings and metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeType {
    Directory,
    File,
    Link,
}

/// Metadata of a node.
#[derive(Clone, Debug)]
pub(super) struct Stat {
    pub(super) node_type: NodeType,
    pub(super) size: u64,
    pub(super) links: u64,
    pub(super) accessed: Timestamp,
    pub(super) modified: Timestamp,
    pub(super) changed: Timestamp,
}

/// Looking.
impl Tree {
    pub(super) fn new(bytes_max: u64, now: Timestamp) -> Self {
        let mut tree = Self { nodes: BTreeMap::new(), last: 0, used: 0, bytes_max };
        let root = tree.add(Kind::Directory(BTreeMap::new()), now);
        tree.node_mut(root).links = 1;
        tree
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    pub(super) fn entries(&self, ino: Ino) -> Result<&BTreeMap<String, Ino>, ErrorCode> {
        match &self.node(ino).kind {
            Kind::Directory(entries) => Ok(entries),
            Kind::File(_) | Kind::Link(_) => Err(ErrorCode::NotDirectory),
        }
    }

    pub(super) fn is_directory(&self, ino: Ino) -> bool {
        self.node_type(ino) == NodeType::Directory
    }

    pub(super) fn node_type(&self, ino: Ino) -> NodeType {
        match self.node(ino).kind {
            Kind::Directory(_) => NodeType::Directory,
            Kind::File(_) => NodeType::File,
            Kind::Link(_) => NodeType::Link,
        }
    }

    pub(super) fn link_target(&self, ino: Ino) -> Option<&str> {
        match &self.node(ino).kind {
            Kind::Link(target) => Some(target),
            Kind::Directory(_) | Kind::File(_) => None,
        }
    }

    pub(super) fn stat(&self, ino: Ino) -> Stat {
        let node = self.node(ino);
        Stat {
            node_type: self.node_type(ino),
            size: size(&node.kind),
            links: node.links,
            accessed: node.accessed,
            modified: node.modified,
            changed: node.changed,
        }
    }

    /// At most `length` bytes of a file from `offset` on; none at its end.
    pub(super) fn read(&self, ino: Ino, offset: u64, length: usize) -> Result<Bytes, ErrorCode> {
        let content = match &self.node(ino).kind {
            Kind::File(content) => content,
            Kind::Directory(_) => return Err(ErrorCode::IsDirectory),
            Kind::Link(_) => return Err(ErrorCode::Invalid),
        };
        let whole = content.bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(whole.len());
        let end = start.saturating_add(length).min(whole.len());
        Ok(match content {
            Content::Shared(bytes) => bytes.slice(start..end),
            Content::Owned(bytes) => Bytes::copy_from_slice(&bytes[start..end]),
        })
    }

    fn node(&self, ino: Ino) -> &Node {
        self.nodes.get(&ino).expect("a number in use has its node")
    }

    fn node_mut(&mut self, ino: Ino) -> &mut Node {
        self.nodes.get_mut(&ino).expect("a number in use has its node")
    }
}

/// Changing.
impl Tree {
    pub(super) fn acquire(&mut self, ino: Ino) {
        self.node_mut(ino).open += 1;
    }

    pub(super) fn release(&mut self, ino: Ino) {
        self.node_mut(ino).open -= 1;
        self.free_unused(ino);
    }

    /// Writes at `offset`, or at the end; the file grows as needed. Returns where the writing ended.
    pub(super) fn write(
        &mut self,
        ino: Ino,
        offset: Option<u64>,
        data: &[u8],
        now: Timestamp,
    ) -> Result<u64, ErrorCode> {
        let old = self.file_size(ino)?;
        let start = offset.unwrap_or(old);
        let length = u64::try_from(data.len()).expect("a length fits");
        let end = start.checked_add(length).ok_or(ErrorCode::FileTooLarge)?;
        if data.is_empty() {
            return Ok(end);
        }
        if end > old {
            self.resize(ino, end, now)?;
        }
        let range = index(start)..index(end);
        let node = self.node_mut(ino);
        node.modified = now;
        node.changed = now;
        if let Kind::File(content) = &mut node.kind {
            content.owned()[range].copy_from_slice(data);
        }
        Ok(end)
    }

    /// Cuts a file or fills it up with zeros.
    pub(super) fn resize(&mut self, ino: Ino, size: u64, now: Timestamp) -> Result<(), ErrorCode> {
        let old = self.file_size(ino)?;
        if size > FILE_MAX {
            return Err(ErrorCode::FileTooLarge);
        }
        let used = self.used - old + size;
        if used > self.bytes_max && size > old {
            return Err(ErrorCode::InsufficientSpace);
        }
        self.used = used;
        let node = self.node_mut(ino);
        node.modified = now;
        node.changed = now;
        if let Kind::File(content) = &mut node.kind {
            let bytes = content.owned();
            bytes.resize(index(size), 0);
            if bytes.capacity() > 2 * bytes.len() {
                bytes.shrink_to_fit();
            }
        }
        Ok(())
    }

    pub(super) fn create_file(&mut self, place: &Place, now: Timestamp) -> Result<Ino, ErrorCode> {
        if place.directory {
            return Err(ErrorCode::IsDirectory);
        }
        self.create(place, Kind::File(Content::Owned(Vec::new())), now)
    }

    pub(super) fn create_directory(&mut self, place: &Place, now: Timestamp) -> Result<Ino, ErrorCode> {
        self.create(place, Kind::Directory(BTreeMap::new()), now)
    }

    /// A file that shares its bytes with whoever else has them, without a name yet.
    pub(super) fn add_shared_file(&mut self, content: Bytes, now: Timestamp) -> Ino {
        let kind = Kind::File(Content::Shared(content));
        self.used += size(&kind);
        self.add(kind, now)
    }

    /// A directory without a name yet.
    pub(super) fn add_directory(&mut self, now: Timestamp) -> Ino {
        self.add(Kind::Directory(BTreeMap::new()), now)
    }

    /// Gives a file without content its bytes.
    pub(super) fn fill(&mut self, ino: Ino, content: Bytes, now: Timestamp) {
        let node = self.node_mut(ino);
        (node.modified, node.changed) = (now, now);
        node.kind = Kind::File(Content::Shared(content));
        self.used += size(&self.node(ino).kind);
    }

    /// A link without a name yet.
    pub(super) fn add_link(&mut self, target: String, now: Timestamp) -> Ino {
        self.add(Kind::Link(target), now)
    }

    pub(super) fn create_link(
        &mut self,
        place: &Place,
        target: &str,
        now: Timestamp,
    ) -> Result<Ino, ErrorCode> {
        if target.is_empty() || place.directory {
            return Err(ErrorCode::NoEntry);
        }
        if target.starts_with('/') {
            return Err(ErrorCode::NotPermitted);
        }
        self.create(place, Kind::Link(target.to_owned()), now)
    }

    /// The directory at `path`, made with those above it where they are missing.
    pub(super) fn make_directories(&mut self, path: &str, now: Timestamp) -> Result<Ino, ErrorCode> {
        let mut here = ROOT;
        for element in path.split('/').filter(|element| !element.is_empty()) {
            let place = path::walk(self, here, element, true)?;
            here = match place.node {
                Some(node) => node,
                None => self.create_directory(&place, now)?,
            };
        }
        Ok(here)
    }

    /// Gives a file a second name.
    pub(super) fn hard_link(&mut self, ino: Ino, place: &Place, now: Timestamp) -> Result<(), ErrorCode> {
        if self.is_directory(ino) {
            return Err(ErrorCode::NotPermitted);
        }
        if place.node.is_some() {
            return Err(ErrorCode::Exist);
        }
        if place.directory {
            return Err(ErrorCode::NoEntry);
        }
        let (parent, name) = place.entry()?;
        self.attach(parent, name, ino, now)
    }

    pub(super) fn unlink(&mut self, place: &Place, now: Timestamp) -> Result<(), ErrorCode> {
        let ino = place.existing()?;
        let (parent, name) = place.entry()?;
        if self.is_directory(ino) {
            return Err(ErrorCode::IsDirectory);
        }
        self.detach(parent, name, now);
        Ok(())
    }

    pub(super) fn remove_directory(&mut self, place: &Place, now: Timestamp) -> Result<(), ErrorCode> {
        let ino = place.existing()?;
        let (parent, name) = place.entry()?;
        if !self.entries(ino)?.is_empty() {
            return Err(ErrorCode::NotEmpty);
        }
        self.detach(parent, name, now);
        Ok(())
    }

    /// Renames in one step, replacing a file or an empty directory of the same kind.
    pub(super) fn rename(&mut self, from: &Place, to: &Place, now: Timestamp) -> Result<(), ErrorCode> {
        let ino = from.existing()?;
        let (from_parent, from_name) = from.entry()?;
        let (to_parent, to_name) = to.entry()?;
        let directory = self.is_directory(ino);
        if to.directory && !directory {
            return Err(ErrorCode::NotDirectory);
        }
        if directory && self.contains(ino, to_parent) {
            return Err(ErrorCode::Invalid);
        }
        if let Some(old) = to.node {
            if old == ino {
                return Ok(());
            }
            match (directory, self.is_directory(old)) {
                (true, false) => return Err(ErrorCode::NotDirectory),
                (false, true) => return Err(ErrorCode::IsDirectory),
                (true, true) if !self.entries(old)?.is_empty() => return Err(ErrorCode::NotEmpty),
                (true, true) | (false, false) => self.detach(to_parent, to_name, now),
            }
        }
        self.attach(to_parent, to_name, ino, now)?;
        self.detach(from_parent, from_name, now);
        Ok(())
    }

    pub(super) fn set_times(
        &mut self,
        ino: Ino,
        accessed: Option<Timestamp>,
        modified: Option<Timestamp>,
        now: Timestamp,
    ) {
        let node = self.node_mut(ino);
        node.accessed = accessed.unwrap_or(node.accessed);
        node.modified = modified.unwrap_or(node.modified);
        node.changed = now;
    }

    fn create(&mut self, place: &Place, kind: Kind, now: Timestamp) -> Result<Ino, ErrorCode> {
        if place.node.is_some() {
            return Err(ErrorCode::Exist);
        }
        let (parent, name) = place.entry()?;
        if self.nodes.len() >= NODES_MAX {
            return Err(ErrorCode::InsufficientSpace);
        }
        if self.node(parent).links == 0 {
            return Err(ErrorCode::NoEntry);
        }
        let ino = self.add(kind, now);
        self.attach(parent, name, ino, now)?;
        Ok(ino)
    }

    fn add(&mut self, kind: Kind, now: Timestamp) -> Ino {
        self.last += 1;
        let node = Node { kind, links: 0, open: 0, accessed: now, modified: now, changed: now };
        self.nodes.insert(self.last, node);
        self.last
    }

    pub(super) fn attach(
        &mut self,
        parent: Ino,
        name: &str,
        ino: Ino,
        now: Timestamp,
    ) -> Result<(), ErrorCode> {
        let directory = self.node_mut(parent);
        let Kind::Directory(entries) = &mut directory.kind else {
            return Err(ErrorCode::NotDirectory);
        };
        entries.insert(name.to_owned(), ino);
        directory.modified = now;
        directory.changed = now;
        let node = self.node_mut(ino);
        node.links += 1;
        node.changed = now;
        Ok(())
    }

    pub(super) fn detach(&mut self, parent: Ino, name: &str, now: Timestamp) {
        let directory = self.node_mut(parent);
        directory.modified = now;
        directory.changed = now;
        let Kind::Directory(entries) = &mut directory.kind else { return };
        if let Some(ino) = entries.remove(name) {
            let node = self.node_mut(ino);
            node.links -= 1;
            node.changed = now;
            self.free_unused(ino);
        }
    }

    /// Frees a node without names and openings, and what only it held.
    fn free_unused(&mut self, ino: Ino) {
        let mut todo = vec![ino];
        while let Some(ino) = todo.pop() {
            let node = self.node(ino);
            if node.links > 0 || node.open > 0 {
                continue;
            }
            let Some(node) = self.nodes.remove(&ino) else { continue };
            match node.kind {
                Kind::File(_) => self.used -= size(&node.kind),
                Kind::Link(_) => {}
                Kind::Directory(entries) => {
                    for ino in entries.into_values() {
                        self.node_mut(ino).links -= 1;
                        todo.push(ino);
                    }
                }
            }
        }
    }

    /// Whether `inner` is `outer` or below it.
    fn contains(&self, outer: Ino, inner: Ino) -> bool {
        let mut todo = vec![outer];
        while let Some(ino) = todo.pop() {
            if ino == inner {
                return true;
            }
            if let Kind::Directory(entries) = &self.node(ino).kind {
                todo.extend(entries.values());
            }
        }
        false
    }

    fn file_size(&self, ino: Ino) -> Result<u64, ErrorCode> {
        match &self.node(ino).kind {
            kind @ Kind::File(_) => Ok(size(kind)),
            Kind::Directory(_) => Err(ErrorCode::IsDirectory),
            Kind::Link(_) => Err(ErrorCode::Invalid),
        }
    }
}

fn size(kind: &Kind) -> u64 {
    let length = match kind {
        Kind::Directory(_) => 0,
        Kind::File(content) => content.bytes().len(),
        Kind::Link(target) => target.len(),
    };
    u64::try_from(length).expect("a length fits")
}

/// An offset within a file, all of which is in memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("what the quota allowed fits into memory")
}
