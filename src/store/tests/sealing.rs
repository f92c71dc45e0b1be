//! What is sealed: nothing of it lies in the files, and nobody reads it once it is deleted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fs, io};

use proptest::prelude::*;

use super::*;
use crate::store::format::{self, LogFrame, Stored};
use crate::store::seal::{Vault, data_keys};
use crate::store::segment::{Found, Reader};
use crate::store::{Content, OpenError, ReadError, Sealing};

const CANARY: &str = "canary-3f9d";

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    fn key_file(&self) -> PathBuf {
        self.0.path().join("key")
    }

    fn options(&self) -> Options {
        let sealing = Sealing { collections: vec!["secrets"], key_file: self.key_file() };
        Options { sealing: Some(sealing), ..options(&self.store()) }
    }

    fn try_open(&self, limits: &Limits) -> Result<Store, OpenError> {
        Store::open_with(&self.options(), limits)
    }

    fn open(&self, limits: &Limits) -> Store {
        self.try_open(limits).unwrap()
    }

    /// Every file of the store, by name, with none missing: an open store drops what it no longer needs.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        loop {
            let entries = fs::read_dir(self.store()).unwrap().map(|entry| entry.unwrap());
            let read = entries.map(|entry| match fs::read(entry.path()) {
                Ok(content) => Some((entry.file_name().into_string().unwrap(), content)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => panic!("{error}: {}", entry.path().display()),
            });
            if let Some(all) = read.collect() {
                return all;
            }
        }
    }

    fn put_files(&self, files: &BTreeMap<String, Vec<u8>>) {
        fs::remove_dir_all(self.store()).unwrap();
        fs::create_dir(self.store()).unwrap();
        for (name, content) in files {
            fs::write(self.store().join(name), content).unwrap();
        }
    }

    /// The files that hold `text`.
    fn holding(&self, text: &str) -> Vec<String> {
        let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        self.files().into_iter().filter(|(_, bytes)| holds(bytes)).map(|(name, _)| name).collect()
    }

    /// How many data keys there are.
    fn data_keys(&self) -> usize {
        let bytes = fs::read(data_keys::path(&self.store())).unwrap();
        bytes.chunks(128).skip(1).filter(|slot| slot.iter().any(|byte| *byte != 0)).count()
    }

    /// What the first segment says of a Secret, by whoever has all keys there are: the value of each
    /// version or that it is destroyed.
    fn versions_in_the_log(&self, key: &Key) -> Vec<String> {
        let vault = Vault::open(&self.store(), self.options().sealing.as_ref()).unwrap();
        let mut reader = Reader::open(&self.store().join(format!("{:020}.log", 0))).unwrap();
        let mut versions = Vec::new();
        while let Found::Frame(payload) = reader.next().unwrap() {
            let Some(LogFrame::Transaction { committed, writes, .. }) = format::parse_log(payload) else {
                continue;
            };
            for write in writes.into_iter().filter(|write| write.key.name == &*key.name) {
                let Some(content) = write.put else { continue };
                match content.record(key.clone(), write.revision, committed, vault.as_ref()).unwrap() {
                    Stored::Record(record) => versions.push(show_read(&record)),
                    Stored::Destroyed => versions.push(format!("destroyed@{}", write.revision)),
                }
            }
        }
        versions
    }
}

fn secret(name: &str) -> Key {
    Key { collection: "secrets", ..key("ns", name) }
}

fn secrets() -> Range {
    Range { collection: "secrets", namespace: None }
}

/// Segments and snapshots, of Secrets that change, that stay and that go.
#[tokio::test]
async fn nothing_of_a_secret_lies_in_the_files() {
    let world = World::new();
    let store = world.open(&TINY);
    set(&store, secret("stays"), CANARY).await;
    for i in 0..40 {
        set(&store, secret("changes"), &format!("{CANARY}{i}")).await;
        set(&store, key("ns", "open"), &format!("in the open {i}")).await;
        if i % 5 == 0 {
            set(&store, secret("goes"), CANARY).await;
            unset(&store, secret("goes")).await;
        }
    }
    assert_eq!(world.holding(CANARY), [] as [&str; 0]);
    store.close();
    assert_eq!(world.holding(CANARY), [] as [&str; 0]);
    let names = world.files();
    assert!(names.keys().any(|name| name.ends_with(".snap")), "{:?}", names.keys());
    assert!(world.holding("in the open").len() > 3);
    assert_eq!(world.data_keys(), 2);
    let store = world.open(&TINY);
    let values: Vec<_> =
        listed(&store, &secrets()).iter().map(|shown| shown.split('@').next().unwrap().to_owned()).collect();
    assert_eq!(values, [format!("ns/changes={CANARY}39"), format!("ns/stays={CANARY}")]);
    assert!(!world.key_file().starts_with(world.store()));
}

/// The history keeps the bytes of a deleted Secret, and with all the keys that are left they do not open;
/// nor do they when the same name is used again.
#[tokio::test]
async fn deleting_a_secret_destroys_it_in_the_history() {
    let world = World::new();
    let store = world.open(&ROOMY);
    set(&store, secret("a"), "1").await;
    set(&store, secret("a"), "2").await;
    set(&store, secret("b"), "3").await;
    store.close();
    assert_eq!(world.versions_in_the_log(&secret("a")), ["ns/a=1@1+1", "ns/a=2@2+1"]);
    let store = world.open(&ROOMY);
    unset(&store, secret("a")).await;
    // Acknowledged, so it has happened: no need to close.
    assert_eq!(world.data_keys(), 1);
    set(&store, secret("a"), "4").await;
    store.close();
    assert_eq!(world.versions_in_the_log(&secret("a")), ["destroyed@1", "destroyed@2", "ns/a=4@5+5"]);
    assert_eq!(world.versions_in_the_log(&secret("b")), ["ns/b=3@3+3"]);

    let store = world.open(&ROOMY);
    assert_eq!(listed(&store, &secrets()), ["ns/a=4@5+5", "ns/b=3@3+3"]);
    for (revision, expected) in [(0, Some(0)), (1, None), (2, None), (3, None), (4, Some(1)), (5, Some(2))] {
        match store.list_at(revision, &secrets()).await {
            Ok(listing) => assert_eq!(Some(listing.records.len()), expected, "at {revision}"),
            Err(ReadError::Expired { asked, oldest }) => assert_eq!((asked, oldest), (revision, 4)),
            Err(error) => panic!("at {revision}: {error}"),
        }
        // Others are none the wiser.
        assert!(store.list_at(revision, &all()).await.is_ok());
    }
    for from in 0..4 {
        let error = store.watch(secrets(), from).await.err().unwrap();
        assert!(matches!(error, ReadError::Expired { asked, oldest: 4 } if asked == from), "{error}");
    }
    let mut watch = store.watch(secrets(), 4).await.unwrap();
    assert_eq!(soon(watch.next()).await.unwrap().len(), 1);
    let history = store.history(&secret("a")).await.unwrap();
    let told: Vec<_> = history
        .versions
        .iter()
        .map(|version| match &version.content {
            Content::Put(record) => show_read(record),
            Content::Destroyed => format!("destroyed@{}", version.revision),
            Content::Deleted => format!("deleted@{}", version.revision),
        })
        .collect();
    assert_eq!(told, ["destroyed@1", "destroyed@2", "deleted@4", "ns/a=4@5+5"]);
}

/// A watch that reads the files when a Secret that it has not come to is deleted ends, and who comes back
/// is told to list anew.
#[tokio::test]
async fn a_watch_does_not_pass_what_was_destroyed_meanwhile() {
    let world = World::new();
    let store = world.open(&TINY);
    set(&store, secret("a"), "1").await;
    for i in 0..20 {
        set(&store, key("ns", "other"), &i.to_string()).await;
    }
    let mut watch = store.watch(secrets(), 0).await.unwrap();
    unset(&store, secret("a")).await;
    assert!(soon(watch.next()).await.is_none());
    assert!(matches!(store.watch(secrets(), 0).await, Err(ReadError::Expired { oldest: 22, .. })));
    assert!(store.watch(secrets(), 22).await.is_ok());
}

/// One transaction may do it all, and one that fails does nothing.
#[tokio::test]
async fn transactions_keep_and_destroy_just_the_right_keys() {
    let world = World::new();
    let store = world.open(&ROOMY);
    let write = |name: &str, expect, value| put(secret(name), expect, value);
    // Made and gone at once, and made anew.
    store
        .commit(vec![
            write("a", Expect::Absent, "1"),
            delete(secret("a"), 1),
            write("a", Expect::Absent, "2"),
            write("b", Expect::Absent, "3"),
        ])
        .await
        .unwrap();
    assert_eq!((world.data_keys(), listed(&store, &secrets()).len()), (2, 2));
    // Nothing happens.
    let refused =
        vec![delete(secret("a"), 3), write("c", Expect::Absent, "4"), write("b", Expect::Absent, "5")];
    assert!(store.commit(refused).await.is_err());
    assert_eq!(world.data_keys(), 2);
    // Replaced by one of the same name.
    store.commit(vec![delete(secret("a"), 3), write("a", Expect::Absent, "6")]).await.unwrap();
    assert_eq!(world.data_keys(), 2);
    // Many at once, as when a namespace goes.
    let many = (0..100).map(|i| write(&format!("m{i}"), Expect::Absent, "7")).collect();
    let made = store.commit(many).await.unwrap();
    assert_eq!(world.data_keys(), 102);
    let gone = made.iter().flatten().map(|record| delete(record.key.clone(), record.revision)).collect();
    store.commit(gone).await.unwrap();
    assert_eq!(world.data_keys(), 2);
    store.close();
    let expected = ["ns/a=6@6+6", "ns/b=3@4+4"];
    assert_eq!(listed(&world.open(&ROOMY), &secrets()), expected);
    assert_eq!(world.data_keys(), 2);
}

/// Each order in which a crash can leave data keys and log.
#[tokio::test]
async fn a_crash_leaves_no_key_without_its_object() {
    let world = World::new();
    let key_file = data_keys::path(Path::new("")).to_str().unwrap().to_owned();
    let store = world.open(&ROOMY);
    set(&store, secret("a"), "1").await;
    let with_a = world.files();
    set(&store, secret("b"), "2").await;
    let with_both = world.files();
    unset(&store, secret("a")).await;
    let with_b = world.files();
    store.close();
    let mix = |log: &BTreeMap<String, Vec<u8>>, keys: &BTreeMap<String, Vec<u8>>| {
        let mut files = log.clone();
        files.insert(key_file.clone(), keys[&key_file].clone());
        world.put_files(&files);
    };
    // The key of `b` is durable, its creation is not.
    mix(&with_a, &with_both);
    assert_eq!(listed(&world.open(&ROOMY), &secrets()), ["ns/a=1@1+1"]);
    assert_eq!(world.data_keys(), 1);
    // The deletion of `a` is durable, its key is still there.
    mix(&with_b, &with_both);
    assert_eq!(listed(&world.open(&ROOMY), &secrets()), ["ns/b=2@2+2"]);
    assert_eq!(world.data_keys(), 1);
    // This no crash does: a key is missing. Nothing more is destroyed.
    mix(&with_both, &with_a);
    let error = world.try_open(&ROOMY).err().unwrap().to_string();
    let path = data_keys::path(&world.store());
    let start = format!("the data directory is damaged: {} at byte 0: the data key of", path.display());
    assert!(error.starts_with(&format!("{start} secrets/ns/b is missing; ")), "{error}");
    assert_eq!(world.data_keys(), 1);
    let mut damaged = with_both.clone();
    damaged.get_mut(&key_file).unwrap()[128 + 40] ^= 1;
    world.put_files(&damaged);
    let error = world.try_open(&ROOMY).err().unwrap().to_string();
    assert!(error.starts_with(&start) && error.contains(" is damaged; "), "{error}");
    // Nor is a key made where the file of data keys is missing.
    let mut without = with_both.clone();
    without.remove(&key_file);
    world.put_files(&without);
    fs::remove_file(world.key_file()).unwrap();
    let error = world.try_open(&ROOMY).err().unwrap().to_string();
    assert!(error.contains("the data key of secrets/ns/a is missing"), "{error}");
    assert!(!world.key_file().exists());
}

#[tokio::test]
async fn keys_without_a_log_are_not_destroyed() {
    let world = World::new();
    set(&world.open(&ROOMY), secret("a"), "1").await;
    let log = world.store().join(format!("{:020}.log", 0));
    let mislaid = world.0.path().join("mislaid");
    fs::rename(&log, &mislaid).unwrap();
    let error = world.try_open(&ROOMY).err().unwrap().to_string();
    assert!(
        error.contains("datakeys at byte 0: the log and snapshots that it belongs to are missing"),
        "{error}"
    );
    fs::rename(&mislaid, &log).unwrap();
    assert_eq!(listed(&world.open(&ROOMY), &secrets()), ["ns/a=1@1+1"]);
}

/// What was damaged or moved does not open.
#[tokio::test]
async fn a_content_that_was_changed_is_damage() {
    let world = World::new();
    let store = world.open(&ROOMY);
    set(&store, secret("a"), "1").await;
    store.close();
    let log = world.store().join(format!("{:020}.log", 0));
    let mut bytes = fs::read(&log).unwrap();
    let length = u32::from_le_bytes(bytes[32..36].try_into().unwrap()) as usize;
    // Whoever can compute a checksum cannot make a box.
    bytes[40 + length - 1] ^= 1;
    let crc = format::frame_crc(bytes[32..36].try_into().unwrap(), &bytes[40..40 + length]);
    bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    fs::write(&log, bytes).unwrap();
    let error = world.try_open(&ROOMY).err().unwrap().to_string();
    assert!(error.contains("at byte 32: a sealed object does not open; "), "{error}");
}

/// A directory as it was before there was sealing: `open` and Secrets, segments and snapshots.
async fn write_plainly(world: &World) -> (Vec<String>, Revision) {
    let store = Store::open_with(&options(&world.store()), &TINY).unwrap();
    for i in 0..30 {
        set(&store, secret("a"), &format!("{CANARY}{i}")).await;
        set(&store, key("ns", "open"), &i.to_string()).await;
        set(&store, secret("goes"), CANARY).await;
        unset(&store, secret("goes")).await;
    }
    set(&store, secret("b"), CANARY).await;
    store.close();
    assert!(world.holding(CANARY).len() > 3);
    (listed(&store, &secrets()), store.revision())
}

#[tokio::test]
async fn what_was_written_openly_is_sealed() {
    let world = World::new();
    let (expected, revision) = write_plainly(&world).await;
    // Second names show what becomes of files that are removed.
    let names: Vec<String> = world.files().into_keys().filter(|name| name != "lock").collect();
    let kept = world.0.path().join("kept");
    fs::create_dir(&kept).unwrap();
    for name in &names {
        fs::hard_link(world.store().join(name), kept.join(name)).unwrap();
    }
    let store = world.open(&TINY);
    assert_eq!((listed(&store, &secrets()), store.revision()), (expected.clone(), revision));
    assert_eq!(world.holding(CANARY), [] as [&str; 0]);
    for name in &names {
        let bytes = fs::read(kept.join(name)).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "{name} is not overwritten");
    }
    assert!(matches!(store.list_at(revision - 1, &all()).await, Err(ReadError::Expired { .. })));
    assert!(store.list_at(revision, &all()).await.is_ok());
    set(&store, secret("a"), "new").await;
    store.close();
    // Once.
    let before = world.files();
    let store = world.open(&TINY);
    assert_eq!(listed(&store, &secrets())[1..], expected[1..]);
    store.close();
    assert_eq!(world.files(), before);
    // And not back again.
    let error = Store::open_with(&options(&world.store()), &TINY).err().unwrap();
    assert!(matches!(error, OpenError::Sealed(_)), "{error}");
}

/// Whatever a crash leaves of it, the next start completes it.
#[tokio::test]
async fn sealing_goes_on_after_a_crash() {
    let world = World::new();
    let (expected, revision) = write_plainly(&world).await;
    let before = world.files();
    world.open(&TINY).close();
    let after = world.files();
    let snapshot = format!("{revision:020}.snap");
    let mut newest_only = after.clone();
    newest_only.remove(&snapshot);
    let mut half_overwritten = after.clone();
    let mut unfinished = newest_only.clone();
    unfinished.insert(format!("{snapshot}.tmp"), after[&snapshot][..100].to_vec());
    for (name, content) in &before {
        newest_only.entry(name.clone()).or_insert_with(|| content.clone());
        unfinished.entry(name.clone()).or_insert_with(|| content.clone());
        let mut content = content.clone();
        content.iter_mut().take(50).for_each(|byte| *byte = 0);
        if name != "lock" {
            half_overwritten.insert(format!("{name}.gone"), content);
        }
    }
    let mut not_removed = before.clone();
    not_removed.extend(after.clone());
    for (state, files) in [
        ("a new segment", newest_only),
        ("half a snapshot", unfinished),
        ("the snapshot", not_removed),
        ("files half overwritten", half_overwritten),
    ] {
        assert_ne!(files, after, "{state}");
        world.put_files(&files);
        let store = world.open(&TINY);
        assert_eq!((listed(&store, &secrets()), store.revision()), (expected.clone(), revision), "{state}");
        store.close();
        assert_eq!(world.holding(CANARY), [] as [&str; 0], "{state}");
        assert_eq!(world.data_keys(), 2, "{state}");
        let names: Vec<_> = world.files().into_keys().collect();
        assert_eq!(names, after.keys().cloned().collect::<Vec<_>>(), "{state}");
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// The key is put, or deleted if it is there and the flag is set.
    Commit(u8, bool),
    Reopen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let commit = (0..4u8, prop::bool::weighted(0.3)).prop_map(|(index, delete)| Op::Commit(index, delete));
    prop::collection::vec(prop_oneof![30 => commit, 1 => Just(Op::Reopen)], 1..100)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Every revision is read exactly, or refused because what it held was deleted since; never by half.
    #[test]
    fn history_is_whole_or_refused(ops in ops()) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let world = World::new();
            let mut store = world.open(&TINY);
            // At each revision: name, what is shown of it.
            let mut model: Vec<BTreeMap<String, String>> = vec![BTreeMap::new()];
            for op in &ops {
                match op {
                    Op::Reopen => {
                        drop(store);
                        store = world.open(&TINY);
                    }
                    Op::Commit(index, delete) => {
                        let key = secret(&index.to_string());
                        let mut state = model.last().unwrap().clone();
                        if *delete && store.get(&key).is_some() {
                            unset(&store, key).await;
                            state.remove(&index.to_string());
                        } else {
                            let record = set(&store, key, "a value of some length").await;
                            state.insert(index.to_string(), show_read(&record));
                        }
                        model.push(state);
                    }
                }
            }
            drop(store);
            let store = world.open(&TINY);
            let now = model.last().unwrap();
            // Of which life a version is.
            let life = |shown: &str| shown.split('+').nth(1).unwrap().to_owned();
            let lives: Vec<String> = now.values().map(|shown| life(shown)).collect();
            assert_eq!(world.data_keys(), now.len());
            for (revision, state) in (0..).zip(&model) {
                let is_whole = state.values().all(|shown| lives.contains(&life(shown)));
                match store.list_at(revision, &secrets()).await {
                    Ok(listing) => {
                        let shown: Vec<_> = listing.records.iter().map(|record| show_read(record)).collect();
                        assert_eq!(shown, state.values().cloned().collect::<Vec<_>>(), "at {revision}");
                        assert!(is_whole, "at {revision}");
                    }
                    Err(ReadError::Expired { asked, oldest }) => {
                        assert!(!is_whole && asked == revision && oldest > revision, "at {revision}");
                        assert!(store.list_at(oldest, &secrets()).await.is_ok());
                    }
                    Err(error) => panic!("{error}"),
                }
                let is_whole = model[usize::try_from(revision).unwrap()..]
                    .iter()
                    .all(|state| state.values().all(|shown| lives.contains(&life(shown))));
                match store.watch(secrets(), revision).await {
                    Ok(mut watch) => {
                        assert!(is_whole, "watching from {revision}");
                        let mut state = state.clone();
                        while watch.progress() < store.revision() {
                            for event in soon(watch.next()).await.unwrap() {
                                assert!(!event.deleted, "its key is gone");
                                state.insert(event.record.key.name.to_string(), show_read(&event.record));
                            }
                        }
                        assert_eq!(&state, now, "watching from {revision}");
                    }
                    Err(ReadError::Expired { asked, oldest }) => {
                        assert!(!is_whole && asked == revision && oldest > revision, "from {revision}");
                        assert!(store.watch(secrets(), oldest).await.is_ok());
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
}
