use super::*;
use crate::store::{Content, Event, ReadError, Version, Watch};

#[track_caller]
fn show_event(event: &Event) -> String {
    assert_eq!(event.revision, event.record.revision);
    let sign = match (event.deleted, &event.previous) {
        (true, Some(previous)) => {
            assert!(previous.revision < event.revision);
            '-'
        }
        (false, Some(_)) => '~',
        (false, None) => '+',
        (true, None) => panic!("a deletion has something to delete"),
    };
    format!("{sign}{}", show_read(&event.record))
}

fn show_events(events: &[Event]) -> Vec<String> {
    events.iter().map(show_event).collect()
}

async fn next(watch: &mut Watch) -> Vec<String> {
    show_events(&soon(watch.next()).await.unwrap())
}

/// Whatever is there now, without waiting.
async fn ready(watch: &mut Watch) -> Vec<String> {
    let mut shown = Vec::new();
    loop {
        tokio::select! {
            biased;
            events = watch.next() => match events {
                Some(events) => shown.extend(show_events(&events)),
                None => return shown,
            },
            () = tokio::task::yield_now() => return shown,
        }
    }
}

#[tokio::test]
async fn a_watch_tells_what_comes_after_its_start() {
    let store = ephemeral();
    set(&store, key("a", "x"), "1").await;
    let mut from_zero = store.watch(all(), 0).await.unwrap();
    let mut from_one = store.watch(all(), 1).await.unwrap();
    let mut inside = store.watch(within("b"), 0).await.unwrap();
    assert_eq!(next(&mut from_zero).await, ["+a/x=1@1+1"]);
    set(&store, key("a", "x"), "2").await;
    set(&store, key("b", "y"), "3").await;
    unset(&store, key("a", "x")).await;
    let rest = ["~a/x=2@2+1", "+b/y=3@3+3", "-a/x=2@4+1"];
    assert_eq!(next(&mut from_zero).await, rest);
    assert_eq!(next(&mut from_one).await, rest);
    assert_eq!(next(&mut inside).await, ["+b/y=3@3+3"]);
    // What was not in the range counts as seen.
    assert_eq!(inside.progress(), 4);
}

#[tokio::test]
async fn progress_moves_with_what_others_write() {
    let store = ephemeral();
    let mut pods = store.watch(Range { collection: "pods", namespace: None }, 0).await.unwrap();
    let mut inside = store.watch(within("b"), 0).await.unwrap();
    for i in 1..=3 {
        set(&store, key("a", "x"), "1").await;
        assert_eq!(pods.progress(), i);
        assert!(ready(&mut inside).await.is_empty());
        assert_eq!(inside.progress(), i);
    }
    set(&store, key("b", "x"), "1").await;
    assert_eq!(inside.progress(), 3, "an event waits to be taken");
    assert_eq!(next(&mut inside).await, ["+b/x=1@4+4"]);
    assert_eq!((inside.progress(), pods.progress()), (4, 4));
    assert!(ready(&mut pods).await.is_empty());
}

#[tokio::test]
async fn a_watcher_waits_without_being_woken_by_others() {
    let store = ephemeral();
    let mut inside = store.watch(within("b"), 0).await.unwrap();
    let mut task = tokio_test_task(async move { inside.next().await.map(|events| events.len()) });
    assert!(task.is_pending());
    set(&store, key("a", "x"), "1").await;
    assert!(!task.is_woken());
    set(&store, key("b", "x"), "1").await;
    assert!(task.is_woken());
}

/// Polls a future by hand and tells whether it was woken.
struct Polled<F> {
    future: std::pin::Pin<Box<F>>,
    woken: Arc<Flag>,
}

struct Flag(std::sync::atomic::AtomicBool);

impl std::task::Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

fn tokio_test_task<F: Future>(future: F) -> Polled<F> {
    Polled { future: Box::pin(future), woken: Arc::new(Flag(false.into())) }
}

impl<F: Future> Polled<F> {
    fn is_pending(&mut self) -> bool {
        let waker = self.woken.clone().into();
        self.future.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending()
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_slow_watcher_is_cut_off_alone() {
    let store = Store::ephemeral_with(Clock::real(), &TINY);
    let mut slow = store.watch(all(), 0).await.unwrap();
    let mut quick = store.watch(all(), 0).await.unwrap();
    let mut elsewhere = store.watch(within("quiet"), 0).await.unwrap();
    set(&store, key("quiet", "x"), "0").await;
    assert_eq!(next(&mut elsewhere).await.len(), 1);
    let mut seen = 0;
    for i in 0..40 {
        set(&store, key("ns", "a"), &i.to_string()).await;
        seen += next(&mut quick).await.len();
    }
    assert_eq!(seen, 41);
    assert!(slow.next().await.is_none());
    assert!(slow.next().await.is_none());
    // What has left the window was not for this one.
    set(&store, key("quiet", "x"), "1").await;
    assert_eq!(next(&mut elsewhere).await, ["~quiet/x=1@42+1"]);
}

#[tokio::test]
async fn in_memory_what_has_left_the_window_is_expired() {
    let store = Store::ephemeral_with(Clock::real(), &TINY);
    for i in 0..20 {
        set(&store, key("ns", "a"), &i.to_string()).await;
    }
    let error = store.watch(all(), 3).await.err().unwrap();
    assert_eq!(error.to_string(), "revision 3 is older than the history, which begins at 12");
    assert!(matches!(store.list_at(11, &all()).await, Err(ReadError::Expired { asked: 11, oldest: 12 })));
    assert_eq!(store.list_at(12, &all()).await.unwrap().records[0].revision, 12);
    let error = store.watch(all(), 21).await.err().unwrap();
    assert_eq!(error.to_string(), "revision 21 is in the future, the newest is 20");
    assert!(matches!(store.list_at(21, &all()).await, Err(ReadError::Future { asked: 21, current: 20 })));
}

#[tokio::test]
async fn watches_end_with_the_store() {
    let store = ephemeral();
    let mut watch = store.watch(all(), 0).await.unwrap();
    let waiting = tokio::spawn(async move {
        let first = watch.next().await.map(|events| events.len());
        (first, watch.next().await.is_none())
    });
    set(&store, key("ns", "a"), "1").await;
    tokio::task::yield_now().await;
    store.close();
    assert_eq!(soon(waiting).await.unwrap(), (Some(1), true));
    // The last handle closes, too.
    let store = ephemeral();
    let mut watch = store.watch(all(), 0).await.unwrap();
    drop(store);
    assert!(soon(watch.next()).await.is_none());
}

/// Lists and the watches that continue them, under writers: no gap, nothing twice, no half
/// transaction.
async fn check_lists_and_watches(store: Store) {
    let writers = (0..4).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for i in 0..100 {
                let keys = [key(&format!("n{writer}"), "a"), key(&format!("n{writer}"), "b")];
                let writes = keys.map(|key| match store.get(&key) {
                    Some(record) if i % 7 == 3 => delete(key, record.revision),
                    Some(record) => put(key, Expect::Revision(record.revision), &i.to_string()),
                    None => put(key, Expect::Absent, &i.to_string()),
                });
                store.commit(writes.into()).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let readers = (0..12).map(|reader| {
        let store = store.clone();
        tokio::spawn(async move {
            let range = if reader % 2 == 0 { all() } else { within(&format!("n{}", reader % 4)) };
            let listing = store.list(&range, None, None, &|_| true);
            let mut shown = std::collections::BTreeMap::new();
            for record in listing.records {
                shown.insert(record.key.clone(), record);
            }
            let mut watch = store.watch(range.clone(), listing.revision).await.unwrap();
            let mut last = listing.revision;
            while watch.progress() < 800 {
                let events = tokio::select! {
                    biased;
                    events = soon(watch.next()) => events.unwrap(),
                    // What is written last may be of no interest here.
                    () = store.reached(800) => Vec::new(),
                };
                for event in events {
                    assert!(event.revision > last);
                    last = event.revision;
                    let previous = if event.deleted {
                        shown.remove(&event.record.key)
                    } else {
                        shown.insert(event.record.key.clone(), event.record.clone())
                    };
                    let revision = |record: Option<Arc<Record>>| record.map(|record| record.revision);
                    assert_eq!(revision(previous), revision(event.previous));
                }
                assert_eq!(shown.len() % 2, 0, "a transaction is seen whole");
            }
            let now: Vec<_> = store.list(&range, None, None, &|_| true).records;
            assert_eq!(
                shown.values().map(|record| show_read(record)).collect::<Vec<_>>(),
                now.iter().map(|record| show_read(record)).collect::<Vec<_>>()
            );
        })
    });
    let readers: Vec<_> = readers.collect();
    for task in writers.into_iter().chain(readers) {
        soon(task).await.unwrap();
    }
    assert_eq!(store.revision(), 800);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_and_its_watch_leave_no_gap_in_memory() {
    check_lists_and_watches(ephemeral()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_and_its_watch_leave_no_gap_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    check_lists_and_watches(open(directory.path(), &Limits { window_events: 1 << 20, ..TINY })).await;
}

/// A watch that starts far back reads the files, while the log rolls under it, and ends in the window.
#[tokio::test]
async fn a_watch_from_far_back_catches_up() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &TINY);
    let mut expected = Vec::new();
    let mut write = async |i: u32| {
        let key = key(if i.is_multiple_of(3) { "a" } else { "b" }, &format!("x{}", i % 5));
        if i % 11 == 7 && store.get(&key).is_some() {
            expected.push(format!("-{}", show(&unset(&store, key).await)));
        } else {
            let sign = if store.get(&key).is_some() { '~' } else { '+' };
            expected.push(format!("{sign}{}", show(&set(&store, key, &i.to_string()).await)));
        }
    };
    for i in 0..100 {
        write(i).await;
    }
    let mut from_zero = store.watch(all(), 0).await.unwrap();
    let mut from_forty = store.watch(within("b"), 40).await.unwrap();
    assert_eq!(from_forty.progress(), 40);
    for i in 100..200 {
        write(i).await;
    }
    let (mut zero, mut forty) = (Vec::new(), Vec::new());
    while from_zero.progress() < 200 {
        zero.extend(next(&mut from_zero).await);
    }
    while from_forty.progress() < 200 {
        forty.extend(next(&mut from_forty).await);
    }
    // From here on both read from the window.
    write(202).await;
    write(203).await;
    zero.extend(next(&mut from_zero).await);
    forty.extend(next(&mut from_forty).await);
    assert_eq!(zero, expected);
    let inside: Vec<_> = expected[40..].iter().filter(|text| text[1..].starts_with("b/")).cloned().collect();
    assert_eq!(forty, inside);
}

/// Whether somebody still has the content.
fn is_held(record: &std::sync::Weak<Record>) -> bool {
    record.strong_count() > 0
}

#[tokio::test]
async fn what_is_deleted_of_a_forgetful_collection_is_gone_once_everybody_has_it() {
    let store = ephemeral();
    store.forget_deleted(vec!["configmaps"]);
    let mut quick = store.watch(all(), 0).await.unwrap();
    let mut slow = store.watch(within("a"), 0).await.unwrap();
    let mut idle = store.watch(within("quiet"), 0).await.unwrap();
    set(&store, key("a", "other"), "1").await;
    let secret = Arc::downgrade(&set(&store, key("a", "x"), "2").await);
    let kept = Arc::downgrade(&unset(&store, key("a", "x")).await);
    let all_of_it = ["+a/other=1@1+1", "+a/x=2@2+2", "-a/x=2@3+2"];
    assert_eq!(next(&mut quick).await, all_of_it);
    assert!(is_held(&secret) && is_held(&kept), "one has not seen it");
    assert_eq!(next(&mut slow).await, all_of_it);
    assert!(!is_held(&secret) && !is_held(&kept));

    // Those who watch go on, the others' history too; who comes late is told to begin anew.
    set(&store, key("a", "other"), "4").await;
    for watch in [&mut quick, &mut slow] {
        assert_eq!(next(watch).await, ["~a/other=4@4+1"]);
    }
    set(&store, key("quiet", "y"), "5").await;
    assert_eq!(next(&mut idle).await, ["+quiet/y=5@5+5"]);
    assert!(matches!(store.watch(all(), 2).await, Err(ReadError::Expired { asked: 2, oldest: 3 })));
    assert_eq!(next(&mut store.watch(all(), 3).await.unwrap()).await, ["~a/other=4@4+1", "+quiet/y=5@5+5"]);
    assert!(matches!(store.list_at(2, &all()).await, Err(ReadError::Expired { asked: 2, .. })));
    let other = store.history(&key("a", "other")).await.unwrap();
    assert_eq!((other.since, other.versions.len()), (0, 2));
    let gone = store.history(&key("a", "x")).await.unwrap();
    assert!(matches!(
        &gone.versions[..],
        [
            Version { revision: 2, content: Content::Destroyed, .. },
            Version { revision: 3, content: Content::Deleted, .. }
        ]
    ));
}

#[tokio::test]
async fn what_is_deleted_is_gone_with_the_last_watch_that_did_not_look() {
    let store = ephemeral();
    store.forget_deleted(vec!["configmaps"]);
    let watch = store.watch(all(), 0).await.unwrap();
    let secret = Arc::downgrade(&set(&store, key("a", "x"), "1").await);
    unset(&store, key("a", "x")).await;
    // The same name anew is another object.
    let anew = Arc::downgrade(&set(&store, key("a", "x"), "2").await);
    assert!(is_held(&secret));
    drop(watch);
    assert!(!is_held(&secret) && is_held(&anew));
    // Nobody watches: gone at once.
    unset(&store, key("a", "x")).await;
    assert!(!is_held(&anew));
}
