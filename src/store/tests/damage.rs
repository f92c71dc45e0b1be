use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::store::OpenError;
use crate::store::format::{self, Contents, HEADER_BYTES};
use crate::store::record::Moment;

/// Revisions 1 to 6 in three transactions, each flushed by itself, and the store closed.
async fn write_some(directory: &Path) -> Vec<String> {
    let store = open(directory, &ROOMY);
    for i in 0..3 {
        store.commit(vec![create(&format!("a{i}"), "1"), create(&format!("b{i}"), "2")]).await.unwrap();
    }
    let shown = listed(&store, &all());
    store.close();
    shown
}

fn log(directory: &Path) -> PathBuf {
    directory.join("00000000000000000000.log")
}

/// Where the frames of a log begin, and where the last ends.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut offsets = vec![HEADER_BYTES];
    while let Some(header) = bytes.get(offsets[offsets.len() - 1]..).filter(|rest| rest.len() >= 8) {
        let length = u32::from_le_bytes(header[..4].try_into().unwrap()) as usize;
        offsets.push(offsets[offsets.len() - 1] + 8 + length);
    }
    offsets
}

fn try_open(directory: &Path) -> Result<Store, OpenError> {
    Store::open_with(&options(directory), &ROOMY)
}

/// The names in the store, after checking that no transaction is there by half.
#[track_caller]
fn whole_transactions(store: &Store) -> usize {
    let names = store.list(&all(), None, None, &|_| true).records.len();
    assert_eq!((names % 2, store.revision()), (0, names as u64));
    names / 2
}

/// A write that a crash tore is cut off, wherever it was torn; what was before it is there, and the
/// sequence goes on.
#[tokio::test]
async fn a_torn_end_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let expected = write_some(directory.path()).await;
    let whole = std::fs::read(log(directory.path())).unwrap();
    let offsets = frames(&whole);
    // Three transactions, the mark of closing, and the end.
    assert_eq!((offsets.len(), offsets[4]), (5, whole.len()));
    for end in
        (HEADER_BYTES..offsets[1]).step_by(29).chain(offsets[1]..=offsets[2]).chain(offsets[3]..=offsets[4])
    {
        let mut torn = whole[..end].to_vec();
        // As space is taken in advance, and as it is not.
        torn.resize(end + if end % 2 == 0 { 4096 } else { 0 }, 0);
        std::fs::write(log(directory.path()), torn).unwrap();
        let store = open(directory.path(), &ROOMY);
        let transactions = offsets[1..4].iter().filter(|offset| **offset <= end).count();
        assert_eq!(whole_transactions(&store), transactions, "torn at {end}");
        if end % 16 == 0 {
            set(&store, key("ns", "new"), "3").await;
            drop(store);
            let store = open(directory.path(), &ROOMY);
            assert_eq!(listed(&store, &all()).len(), 2 * transactions + 1);
            assert_eq!(store.revision(), 2 * transactions as u64 + 1);
        }
    }
    std::fs::write(log(directory.path()), whole).unwrap();
    assert_eq!(listed(&open(directory.path(), &ROOMY), &all()), expected);
}

/// The pages of one write may reach the disk in any order.
#[tokio::test]
async fn a_write_torn_in_its_middle_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path(), &ROOMY));
    let start = std::fs::read(log(directory.path())).unwrap();
    let events = |first: Revision| {
        let key = key("ns", &first.to_string());
        let mut map = k8s_openapi::api::core::v1::ConfigMap::default();
        map.metadata.name = Some(key.name.to_string());
        let encoded = map.encode();
        let record = Record::commit(key, first, first, Moment(0), None, Box::new(map), &encoded);
        [crate::store::Event { revision: first, record, previous: None, deleted: false }]
    };
    let mut batch = Vec::new();
    for revision in 1..=4 {
        format::put_transaction(&mut batch, start.len() as u64, Moment(0), &events(revision));
    }
    let frame = batch.len() / 4;
    for (from, to, there) in [(frame, 2 * frame, 1), (0, 8, 0), (2 * frame + 20, 3 * frame + 20, 2)] {
        let mut bytes = start.clone();
        bytes.extend_from_slice(&batch);
        bytes[start.len() + from..start.len() + to].fill(0);
        std::fs::write(log(directory.path()), bytes).unwrap();
        assert_eq!(open(directory.path(), &ROOMY).revision(), there);
    }
}

/// Any bit that flips in what was acknowledged is found.
#[tokio::test]
async fn a_flipped_bit_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    write_some(directory.path()).await;
    let whole = std::fs::read(log(directory.path())).unwrap();
    let offsets = frames(&whole);
    for at in 0..offsets[3] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(log(directory.path()), bytes).unwrap();
        let frame = offsets[..3].iter().rfind(|offset| **offset <= at).copied().unwrap_or(0);
        match try_open(directory.path()) {
            Err(OpenError::Damaged { path, offset, .. }) => {
                assert_eq!((path, offset), (log(directory.path()), frame as u64), "flipped at {at}");
            }
            Err(error) => panic!("flipped at {at}: {error}"),
            Ok(_) => panic!("flipped at {at}: opened"),
        }
    }
    let mut bytes = whole.clone();
    bytes[offsets[1] + 30] ^= 1;
    std::fs::write(log(directory.path()), bytes).unwrap();
    assert_eq!(
        try_open(directory.path()).err().unwrap().to_string(),
        format!(
            "the data directory is damaged: {} at byte {}: a frame's checksum does not match; \
             restore it from a copy, or start afresh with another --data-dir",
            log(directory.path()).display(),
            offsets[1]
        )
    );
}

/// Also in sealed segments and snapshots, which no crash can tear.
#[tokio::test]
async fn older_files_are_checked_as_far_as_they_are_needed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &TINY);
    for i in 0..60 {
        set(&store, key("ns", "a"), &i.to_string()).await;
    }
    store.close();
    let mut names: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let newest = |extension: &str| {
        names.iter().rfind(|path| path.extension().is_some_and(|found| found == extension)).unwrap()
    };
    let refuses = |path: &PathBuf, change: &dyn Fn(&mut Vec<u8>), message: &str| {
        let whole = std::fs::read(path).unwrap();
        let mut bytes = whole.clone();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
        let error = Store::open_with(&options(directory.path()), &TINY).err().expect(message).to_string();
        assert!(error.contains(message) && error.contains(path.to_str().unwrap()), "{error}");
        std::fs::write(path, whole).unwrap();
    };
    let snapshot = newest("snap");
    refuses(snapshot, &|bytes| bytes[60] ^= 1, "a frame's checksum does not match");
    refuses(snapshot, &|bytes| bytes.truncate(HEADER_BYTES), "the snapshot is cut short");
    refuses(snapshot, &|bytes| bytes.truncate(20), "the header is cut short");
    refuses(snapshot, &|bytes| bytes[20] ^= 1, "the header is not one of Coracle's");
    refuses(newest("log"), &|bytes| bytes.clear(), "the header is cut short");
    // Without its snapshots the newest segment has nothing to go on from, except all the others.
    for path in names.iter().filter(|path| path.extension().is_some_and(|extension| extension == "snap")) {
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(open(directory.path(), &TINY).revision(), 60);
    refuses(&names[0], &|bytes| bytes[100] ^= 1, "a frame's checksum does not match");
    std::fs::write(&names[0], &std::fs::read(&names[0]).unwrap()[..HEADER_BYTES]).unwrap();
    let error = Store::open_with(&options(directory.path()), &TINY).err().unwrap().to_string();
    assert!(error.contains("but what is before it ends at 0"), "{error}");
}

#[tokio::test]
async fn what_is_missing_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &TINY);
    for i in 0..30 {
        set(&store, key("ns", "a"), &i.to_string()).await;
    }
    store.close();
    std::fs::remove_file(log(directory.path())).unwrap();
    assert_eq!(open(directory.path(), &TINY).revision(), 30, "history may be missing");
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "snap") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let error = Store::open_with(&options(directory.path()), &TINY).err().unwrap().to_string();
    assert!(error.contains("the snapshot that it goes on from is missing"), "{error}");
}

#[tokio::test]
async fn a_held_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &ROOMY);
    let message = format!(
        "the data directory {} is in use by another process; stop it, or choose another with --data-dir",
        directory.path().display()
    );
    assert_eq!(try_open(directory.path()).err().unwrap().to_string(), message);
    // A second handle keeps it; closing, or the end of the last handle, lets go.
    let other = store.clone();
    drop(store);
    assert!(try_open(directory.path()).is_err());
    other.close();
    let store = try_open(directory.path()).unwrap();
    drop(store);
    assert!(try_open(directory.path()).is_ok());
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    write_some(directory.path()).await;
    let mut bytes = std::fs::read(log(directory.path())).unwrap();
    bytes[..HEADER_BYTES].copy_from_slice(&format::header_of(4, Contents::Log, 0, 0));
    std::fs::write(log(directory.path()), bytes).unwrap();
    let message = format!(
        "the data directory {} was written by a newer Coracle (format 4, this one reads 3); use that version",
        directory.path().display()
    );
    assert_eq!(try_open(directory.path()).err().unwrap().to_string(), message);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let path = directory.path().join("file/store");
    let error = try_open(&path).err().unwrap().to_string();
    assert!(error.starts_with(&format!("cannot open {}: ", path.display())), "{error}");
}

#[tokio::test]
async fn files_are_the_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b");
    let store = open(&path, &TINY);
    for i in 0..30 {
        set(&store, key("ns", "a"), &i.to_string()).await;
    }
    store.close();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    let mut seen = 0;
    for entry in std::fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
        seen += 1;
    }
    assert!(seen > 3);
}

/// Closing what was not written to writes nothing.
#[tokio::test]
async fn opening_and_closing_leaves_the_files_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    write_some(directory.path()).await;
    let before = std::fs::read(log(directory.path())).unwrap();
    for _ in 0..3 {
        open(directory.path(), &ROOMY).close();
    }
    assert_eq!(std::fs::read(log(directory.path())).unwrap(), before);
}

/// A log that cannot be written refuses all later writes, and none of them is seen.
#[tokio::test]
async fn a_failed_write_is_never_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &TINY);
    set(&store, key("ns", "a"), "1").await;
    // The next segment cannot be made.
    std::fs::remove_dir_all(directory.path()).unwrap();
    let mut failed = 0;
    for i in 0..60 {
        match store.commit(vec![create(&format!("b{i}"), "1")]).await {
            Ok(_) => assert_eq!(failed, 0, "a write after a failed one"),
            Err(error) => {
                assert!(error.to_string().starts_with("the store cannot write its log: "), "{error}");
                failed += 1;
            }
        }
    }
    assert!(failed > 0);
    let names = store.list(&all(), None, None, &|_| true).records.len();
    assert_eq!((names, store.revision()), (61 - failed, 61 - failed as u64));
}
