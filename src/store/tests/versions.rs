use std::time::Duration;

use super::*;
use crate::store::{Content, History};

/// `revision time value`, with the time as seconds since the clock's start.
fn lines(history: &History) -> Vec<String> {
    let line = |version: &crate::store::Version| {
        let time = version.time.map_or("?".into(), |time| (time.as_second() - START).to_string());
        let value = match &version.content {
            Content::Put(record) => show_read(record),
            Content::Destroyed => "destroyed".into(),
            Content::Deleted => "deleted".into(),
        };
        format!("{} {time}s {value}", version.revision)
    };
    history.versions.iter().map(line).collect()
}

const START: i64 = 1_700_000_000;

/// Starts anew wherever it is made.
fn clock() -> Clock {
    Clock::starting_at(jiff::Timestamp::from_second(START).unwrap())
}

/// A second passes before each change.
async fn live(store: &Store) {
    let wait = async || Clock::real().sleep(Duration::from_secs(1)).await;
    wait().await;
    set(store, key("ns", "a"), "1").await;
    wait().await;
    set(store, key("ns", "b"), "1").await;
    wait().await;
    set(store, key("ns", "a"), "2").await;
    wait().await;
    unset(store, key("ns", "a")).await;
    wait().await;
    set(store, key("ns", "a"), "3").await;
}

const LIVED: &[&str] = &["1 1s ns/a=1@1+1", "3 3s ns/a=2@3+1", "4 4s deleted", "5 5s ns/a=3@5+5"];

#[tokio::test(start_paused = true)]
async fn every_version_has_its_time() {
    let store = Store::ephemeral(clock());
    live(&store).await;
    let history = store.history(&key("ns", "a")).await.unwrap();
    assert_eq!((history.since, history.until), (0, 5));
    assert_eq!(lines(&history), LIVED);
    assert_eq!(lines(&store.history(&key("ns", "b")).await.unwrap()), ["2 2s ns/b=1@2+2"]);
    assert_eq!(lines(&store.history(&key("other", "a")).await.unwrap()), [""; 0]);
    // What is gone now has a history as well.
    unset(&store, key("ns", "b")).await;
    assert_eq!(lines(&store.history(&key("ns", "b")).await.unwrap()), ["2 2s ns/b=1@2+2", "6 5s deleted"]);
}

/// An object that never changes is told of from what is stored now, at the time when it was made.
#[tokio::test(start_paused = true)]
async fn what_left_the_window_is_said_to_be_missing() {
    let store = Store::ephemeral_with(clock(), &TINY);
    live(&store).await;
    for i in 0..20 {
        set(&store, key("ns", "b"), &i.to_string()).await;
    }
    let history = store.history(&key("ns", "a")).await.unwrap();
    assert!(history.since >= 5, "{history:?}");
    assert_eq!(lines(&history), ["5 5s ns/a=3@5+5"]);
}

/// Segments and snapshots keep times, of records that are old and of those that are not.
#[tokio::test(start_paused = true)]
async fn times_outlive_the_process() {
    for limits in [&ROOMY, &TINY] {
        let directory = tempfile::tempdir().unwrap();
        let options = |history_bytes| Options {
            directory: directory.path().to_owned(),
            clock: clock(),
            history_bytes,
            sealing: None,
        };
        let store = Store::open_with(&options(1 << 30), limits).unwrap();
        live(&store).await;
        for i in 0..40 {
            set(&store, key("ns", "c"), &i.to_string()).await;
        }
        store.close();
        let store = Store::open_with(&options(0), limits).unwrap();
        let history = store.history(&key("ns", "a")).await.unwrap();
        assert_eq!((history.since, history.until), (0, 45));
        assert_eq!(lines(&history), LIVED);
        let time = |key| store.get(&key).unwrap().time().unwrap().as_second() - START;
        assert_eq!((time(key("ns", "b")), time(key("ns", "a"))), (2, 5));
        // Now the older history goes.
        for i in 0..40 {
            set(&store, key("ns", "c"), &i.to_string()).await;
        }
        store.close();
        let store = Store::open_with(&options(0), limits).unwrap();
        let history = store.history(&key("ns", "a")).await.unwrap();
        assert_eq!(history.since > 5, limits.segment_bytes == TINY.segment_bytes, "{history:?}");
        assert_eq!(lines(&history).last().unwrap(), LIVED.last().unwrap());
    }
}

/// A record that a watch tells of as gone keeps no time that is not its own.
#[tokio::test(start_paused = true)]
async fn deletions_carry_the_time_of_the_deletion() {
    let store = Store::ephemeral(clock());
    live(&store).await;
    let mut watch = store.watch(all(), 0).await.unwrap();
    let events = soon(watch.next()).await.unwrap();
    let times: Vec<_> = events.iter().map(|e| e.record.time().unwrap().as_second() - START).collect();
    assert_eq!(times, [1, 2, 3, 4, 5]);
}

/// The directory in `format-1` was written by the version before times were noted: snapshots, and logs
/// that go on from them; `a` and `b` were put in turn, and `gone` put and deleted twice.
#[tokio::test(start_paused = true)]
async fn a_directory_of_format_1_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/tests/format-1");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
        names.push(entry.file_name().into_string().unwrap());
    }
    assert!(names.iter().any(|name| name.ends_with(".snap")), "{names:?}");
    let options = Options {
        directory: directory.path().to_owned(),
        clock: clock(),
        history_bytes: 1 << 30,
        sealing: None,
    };
    let store = Store::open_with(&options, &TINY).unwrap();
    let before = store.revision();
    let listed_before = listed(&store, &all());
    assert_eq!(listed_before.len(), 2);
    let gone = store.history(&key("ns", "gone")).await.unwrap();
    let twice = ["1 ?s ns/gone=0@1+1", "2 ?s deleted", "19 ?s ns/gone=0@19+19", "20 ?s deleted"];
    assert_eq!((gone.since, before), (0, 36));
    assert_eq!(lines(&gone), twice);
    // It goes on, in files of the present format, which keep what is not known.
    set(&store, key("ns", "a"), "new").await;
    store.close();
    let store = Store::open_with(&options, &TINY).unwrap();
    let history = lines(&store.history(&key("ns", "a")).await.unwrap());
    let (last, old) = history.split_last().unwrap();
    assert_eq!(last, &format!("{} 0s ns/a=new@{}+3", before + 1, before + 1));
    assert!(old.len() > 3 && old.iter().all(|line| line.contains(" ?s ns/a=")), "{history:?}");
    for i in 0..40 {
        set(&store, key("ns", "a"), &i.to_string()).await;
    }
    store.close();
    let store = Store::open_with(&options, &TINY).unwrap();
    assert_eq!(store.get(&key("ns", "b")).unwrap().time(), None);
    assert_eq!(store.history(&key("ns", "a")).await.unwrap().since, 0);
    let header = |name: &str| std::fs::read(directory.path().join(name)).unwrap()[8];
    assert_eq!(header(&format!("{before:020}.log")), 3);
}
