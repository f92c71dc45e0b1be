use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::store::{Content, History, ReadError};

#[derive(Clone, Debug)]
enum Op {
    /// Each key is put, or deleted if it is there and the flag is set.
    Commit(Vec<(u8, bool)>),
    Reopen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let commit = prop::collection::vec((0..6u8, any::<bool>()), 1..4).prop_map(Op::Commit);
    prop::collection::vec(prop_oneof![30 => commit, 1 => Just(Op::Reopen)], 1..120)
}

fn key_of(index: u8) -> Key {
    key(if index.is_multiple_of(2) { "even" } else { "odd" }, &index.to_string())
}

/// What was stored at each revision, as [`show`] has it.
type Model = Vec<BTreeMap<Key, String>>;

/// Does it all, keeping a model beside it. `open` opens the same store again.
async fn run(open: impl Fn() -> Store, ops: &[Op]) -> (Store, Model) {
    let mut store = open();
    let mut model: Model = vec![BTreeMap::new()];
    for op in ops {
        let Op::Commit(changes) = op else {
            drop(store);
            store = open();
            let expected: Vec<_> = model.last().unwrap().values().cloned().collect();
            assert_eq!((store.revision() + 1, listed(&store, &all())), (model.len() as u64, expected));
            continue;
        };
        let mut there: BTreeMap<Key, Revision> = BTreeMap::new();
        for record in store.list(&all(), None, None, &|_| true).records {
            there.insert(record.key.clone(), record.revision);
        }
        let (mut writes, mut deleted) = (Vec::new(), Vec::new());
        for ((index, delete), revision) in changes.iter().zip(store.revision() + 1..) {
            let key = key_of(*index);
            let expect = there.get(&key).map_or(Expect::Absent, |revision| Expect::Revision(*revision));
            deleted.push(*delete && there.remove(&key).is_some());
            if deleted.last() == Some(&true) {
                writes.push(Write { key, expect, change: Change::Delete });
            } else {
                there.insert(key.clone(), revision);
                writes.push(put(key, expect, "a value of some length"));
            }
        }
        let records = store.commit(writes).await.unwrap();
        for (record, deleted) in records.into_iter().flatten().zip(deleted) {
            let mut state = model.last().unwrap().clone();
            if deleted {
                state.remove(&record.key);
            } else {
                state.insert(record.key.clone(), show_read(&record));
            }
            model.push(state);
        }
    }
    (store, model)
}

/// Reads every revision there was; gives the oldest that could be read.
async fn check(store: &Store, model: &Model) -> Revision {
    let mut oldest = None;
    for (revision, state) in (0..).zip(model) {
        match store.list_at(revision, &all()).await {
            Ok(listing) => {
                let shown: Vec<_> = listing.records.iter().map(|record| show_read(record)).collect();
                assert_eq!(shown, state.values().cloned().collect::<Vec<_>>(), "at {revision}");
                assert_eq!(listing.revision, revision);
                assert!(*oldest.get_or_insert(revision) <= revision);
                check_page(store, revision, state).await;
            }
            Err(ReadError::Expired { asked, oldest: first }) => {
                assert_eq!(asked, revision);
                assert!(first > revision, "{first} > {revision}");
                assert!(oldest.is_none(), "{revision} is newer than {oldest:?}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    let oldest = oldest.expect("the newest revision can always be read");
    for index in 0..6 {
        let history = store.history(&key_of(index)).await.unwrap();
        assert_eq!((history.since, history.until), (oldest, store.revision()));
        assert_eq!(versions(&history), versions_in(model, oldest, &key_of(index)), "of key {index}");
    }
    oldest
}

/// Each version's revision, and what was put there.
fn versions(history: &History) -> Vec<(Revision, Option<String>)> {
    let shown = |content: &Content| match content {
        Content::Put(record) => Some(show_read(record)),
        Content::Deleted | Content::Destroyed => None,
    };
    history.versions.iter().map(|version| (version.revision, shown(&version.content))).collect()
}

/// The same as the model has it, from what was there at `since` on.
fn versions_in(model: &Model, since: Revision, key: &Key) -> Vec<(Revision, Option<String>)> {
    let revision_of = |shown: &str| shown.split(['@', '+']).nth(1).unwrap().parse().unwrap();
    let mut states =
        (0..).zip(model).skip_while(|(at, _)| *at < since).map(|(at, state)| (at, state.get(key)));
    let mut before = states.next().unwrap().1;
    let mut versions: Vec<_> =
        before.iter().map(|shown| (revision_of(shown), Some((*shown).clone()))).collect();
    for (at, now) in states {
        if now != before {
            versions.push((at, now.cloned()));
            before = now;
        }
    }
    versions
}

async fn check_page(store: &Store, revision: Revision, state: &BTreeMap<Key, String>) {
    let keep = |record: &Record| &*record.key.name != "3";
    let page = store.page_at(revision, &within("odd"), Some(("odd", "1")), Some(1), &keep).await.unwrap();
    let expected =
        state.iter().filter(|(key, _)| *key > &key_of(1) && &*key.name == "5").map(|(_, shown)| shown);
    let shown: Vec<_> = page.records.iter().map(|record| show_read(record)).collect();
    assert_eq!(shown, expected.cloned().collect::<Vec<_>>());
}

fn on_disk(directory: &Path, limits: &Limits, history_bytes: u64) -> impl Fn() -> Store {
    let options =
        Options { directory: directory.to_owned(), clock: Clock::real(), history_bytes, sealing: None };
    move || Store::open_with(&options, limits).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_revision_can_be_read_in_memory(ops in ops()) {
        let ops: Vec<_> = ops.into_iter().filter(|op| matches!(op, Op::Commit(_))).collect();
        crate::clock::virtual_runtime().unwrap().block_on(async {
            let (store, model) = run(ephemeral, &ops).await;
            assert_eq!(check(&store, &model).await, 0);
            let (store, model) = run(|| Store::ephemeral_with(Clock::real(), &TINY), &ops).await;
            check(&store, &model).await;
        });
    }

    #[test]
    fn every_revision_can_be_read_on_disk(ops in ops()) {
        let directory = tempfile::tempdir().unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let (store, model) = run(on_disk(directory.path(), &TINY, 1 << 30), &ops).await;
            assert_eq!(check(&store, &model).await, 0);
        });
    }
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn total_bytes(directory: &Path) -> u64 {
    files(directory).iter().map(|name| directory.join(name).metadata().unwrap().len()).sum()
}

fn puts(count: u8) -> Vec<Op> {
    (0..count).map(|i| Op::Commit(vec![(i % 6, false)])).collect()
}

/// History is dropped oldest first; what is left of it is read exactly, after a restart too.
#[tokio::test]
async fn history_is_kept_by_size() {
    for history_bytes in [0, 5000, 12_000] {
        let directory = tempfile::tempdir().unwrap();
        let open = on_disk(directory.path(), &TINY, history_bytes);
        let (store, model) = run(&open, &puts(200)).await;
        store.close();
        // The state needs a snapshot and up to two segments: a roll waits for the snapshot before.
        let most = history_bytes + 4 * TINY.segment_bytes + 4096;
        assert!(total_bytes(directory.path()) <= most, "{history_bytes}: {:?}", files(directory.path()));
        let store = open();
        let oldest = check(&store, &model).await;
        assert!(oldest > 0, "{:?}", files(directory.path()));
        assert!(200 - oldest >= history_bytes / 600, "{oldest} {:?}", files(directory.path()));
        let error = store.watch(all(), oldest - 1).await.err().unwrap();
        assert!(matches!(error, ReadError::Expired { oldest: first, .. } if first == oldest), "{error}");
        assert!(store.watch(all(), oldest).await.is_ok());
    }
}

/// Opening starts at the newest snapshot, so what is before it need not even be there.
#[tokio::test]
async fn snapshots_hold_everything() {
    let directory = tempfile::tempdir().unwrap();
    let open = on_disk(directory.path(), &TINY, 1 << 30);
    let (store, model) = run(&open, &puts(100)).await;
    store.close();
    let names = files(directory.path());
    let snapshots: Vec<_> = names.iter().filter(|name| name.ends_with(".snap")).collect();
    assert!(snapshots.len() > 3, "{names:?}");
    let newest = *snapshots.last().unwrap();
    for name in &names {
        if name.as_str() < newest.strip_suffix(".snap").unwrap() {
            std::fs::remove_file(directory.path().join(name)).unwrap();
        }
    }
    let store = open();
    assert_eq!(listed(&store, &all()), model[100].values().cloned().collect::<Vec<_>>());
    let base: Revision = newest.strip_suffix(".snap").unwrap().parse().unwrap();
    assert_eq!(check(&store, &model).await, base);
}

/// A snapshot is of one revision, though writes go on while it is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_consistent_under_writers() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { window_events: 4, segment_bytes: 64 << 10, ..TINY };
    let open = on_disk(directory.path(), &limits, 1 << 30);
    let store = open();
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut wrote = Vec::new();
            for i in 0..200 {
                let key = key(&format!("n{writer}"), &format!("x{}", i % 40));
                let there = store.get(&key).is_some();
                if there && i % 3 == 0 {
                    let record = unset(&store, key).await;
                    wrote.push((record.revision, record.key.clone(), None));
                } else {
                    let record = set(&store, key, "some value").await;
                    wrote.push((record.revision, record.key.clone(), Some(show(&record))));
                }
            }
            wrote
        })
    });
    let mut wrote = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        wrote.extend(writer.await.unwrap());
    }
    wrote.sort();
    store.close();
    let snapshots = files(directory.path()).iter().filter(|name| name.ends_with(".snap")).count();
    assert!(snapshots > 2, "{:?}", files(directory.path()));
    let store = open();
    let mut state = BTreeMap::new();
    for (revision, key, shown) in wrote {
        match shown {
            Some(shown) => state.insert(key, shown),
            None => state.remove(&key),
        };
        if revision % 97 == 0 || revision == 1600 {
            let listing = store.list_at(revision, &all()).await.unwrap();
            let shown: Vec<_> = listing.records.iter().map(|record| show_read(record)).collect();
            assert_eq!(shown, state.values().cloned().collect::<Vec<_>>(), "at {revision}");
        }
    }
}
