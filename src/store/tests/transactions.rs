use super::*;
use crate::store::CommitError;

/// Both forms of the store; the directory lives as long as the pair.
fn stores() -> [(Store, Option<tempfile::TempDir>); 2] {
    let directory = tempfile::tempdir().unwrap();
    [(ephemeral(), None), (open(directory.path(), &ROOMY), Some(directory))]
}

#[tokio::test]
async fn each_write_has_the_next_revision() {
    for (store, _directory) in stores() {
        assert_eq!(store.revision(), 0);
        let records = store.commit(vec![create("b", "1"), create("a", "2")]).await.unwrap();
        let records: Vec<_> = records.iter().flatten().map(show).collect();
        assert_eq!(records, ["ns/b=1@1+1", "ns/a=2@2+2"]);
        assert_eq!(show(&set(&store, key("ns", "b"), "3").await), "ns/b=3@3+1");
        assert_eq!(store.revision(), 3);
        assert_eq!(listed(&store, &all()), ["ns/a=2@2+2", "ns/b=3@3+1"]);
    }
}

#[tokio::test]
async fn expectations_decide() {
    struct Case {
        expect: Expect,
        there: bool,
        happens: bool,
    }
    let cases = [
        Case { expect: Expect::Absent, there: false, happens: true },
        Case { expect: Expect::Absent, there: true, happens: false },
        Case { expect: Expect::Revision(1), there: true, happens: true },
        Case { expect: Expect::Revision(2), there: true, happens: false },
        Case { expect: Expect::Revision(1), there: false, happens: false },
    ];
    for case in cases {
        for (store, _directory) in stores() {
            if case.there {
                set(&store, key("ns", "a"), "old").await;
            }
            let before = store.revision();
            for change in [Change::Nothing, content(&key("ns", "a"), "new")] {
                let write = Write { key: key("ns", "a"), expect: case.expect, change };
                match store.commit(vec![write]).await {
                    Ok(_) => assert!(case.happens),
                    Err(CommitError::Conflict { key, found }) => {
                        assert!(!case.happens);
                        assert_eq!((&*key.name, found.is_some()), ("a", case.there));
                    }
                    Err(error @ CommitError::Unwritable(_)) => panic!("{error}"),
                }
            }
            assert_eq!(store.revision() > before, case.happens);
        }
    }
}

#[tokio::test]
async fn all_or_nothing() {
    for (store, _directory) in stores() {
        set(&store, key("ns", "there"), "1").await;
        let writes = vec![create("a", "2"), delete(key("ns", "there"), 1), create("a", "3")];
        let error = store.commit(writes).await.unwrap_err();
        assert_eq!(error.to_string(), "configmaps/ns/a is not as the write expected");
        assert_eq!(store.revision(), 1);
        assert_eq!(listed(&store, &all()), ["ns/there=1@1+1"]);
        // The revisions of what did not happen are used by what does.
        assert_eq!(set(&store, key("ns", "a"), "4").await.revision, 2);
    }
}

#[tokio::test]
async fn later_writes_see_earlier_ones() {
    for (store, _directory) in stores() {
        set(&store, key("ns", "a"), "1").await;
        let writes = vec![
            delete(key("ns", "a"), 1),
            create("a", "2"),
            put(key("ns", "a"), Expect::Revision(3), "3"),
            Write { key: key("ns", "b"), expect: Expect::Absent, change: Change::Delete },
            Write { key: key("ns", "b"), expect: Expect::Absent, change: Change::Nothing },
        ];
        let records = store.commit(writes).await.unwrap();
        let shown: Vec<_> = records.iter().map(|record| record.as_ref().map(show)).collect();
        let expected = ["ns/a=1@2+1", "ns/a=2@3+3", "ns/a=3@4+3"].map(|text| Some(text.to_owned()));
        assert_eq!(shown[..3], expected);
        assert_eq!(shown[3..], [None, None]);
        assert_eq!(listed(&store, &all()), ["ns/a=3@4+3"]);
    }
}

/// Transactions that meet in one flush see each other; one that fails leaves no trace in the rest.
#[tokio::test]
async fn transactions_of_one_batch_are_checked_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &ROOMY);
    let commits = (0..200).map(|i| {
        let store = store.clone();
        tokio::spawn(async move {
            store
                .commit(vec![create(&format!("own{i}"), "x"), create(&format!("shared{}", i % 10), "x")])
                .await
        })
    });
    let mut done = 0;
    for commit in commits.collect::<Vec<_>>() {
        match commit.await.unwrap() {
            Ok(records) => {
                done += 1;
                let revisions: Vec<_> = records.iter().flatten().map(|record| record.revision).collect();
                assert_eq!(revisions[0] + 1, revisions[1]);
            }
            Err(CommitError::Conflict { key, found }) => {
                assert_eq!(found.unwrap().key, key);
            }
            Err(error @ CommitError::Unwritable(_)) => panic!("{error}"),
        }
    }
    assert_eq!((done, store.revision(), listed(&store, &all()).len()), (10, 20, 20));
}

#[tokio::test]
async fn lists_are_in_key_order_and_paged() {
    let store = ephemeral();
    for (namespace, name) in [("b", "1"), ("a", "2"), ("b", "0"), ("a", "10"), ("c", "3"), ("aa", "1")] {
        set(&store, key(namespace, name), "v").await;
    }
    let names =
        |range: &Range, after: Option<(&str, &str)>, max: Option<usize>, keep: &dyn Fn(&Record) -> bool| {
            let listing = store.list(range, after, max, keep);
            assert_eq!(listing.revision, 6);
            let name = |record: &Arc<Record>| format!("{}/{}", record.key.namespace, record.key.name);
            listing.records.iter().map(name).collect::<Vec<_>>().join(" ")
        };
    let any = &|_: &Record| true;
    assert_eq!(names(&all(), None, None, any), "a/10 a/2 aa/1 b/0 b/1 c/3");
    assert_eq!(names(&all(), Some(("a", "2")), None, any), "aa/1 b/0 b/1 c/3");
    assert_eq!(names(&all(), Some(("a", "11")), Some(2), any), "a/2 aa/1");
    assert_eq!(names(&all(), Some(("ab", "")), Some(0), any), "");
    assert_eq!(names(&within("b"), None, None, any), "b/0 b/1");
    assert_eq!(names(&within("b"), Some(("b", "0")), Some(9), any), "b/1");
    assert_eq!(names(&within("b"), Some(("a", "zzz")), None, any), "b/0 b/1");
    assert_eq!(names(&within("b"), Some(("c", "")), None, any), "");
    assert_eq!(names(&within("none"), None, None, any), "");
    assert_eq!(names(&all(), None, Some(2), &|record| &*record.key.name != "2"), "a/10 aa/1");
    let elsewhere = Range { collection: "pods", namespace: None };
    assert_eq!(names(&elsewhere, None, None, any), "");
}

/// A page is filled from as many pieces as it takes, and is of one revision though others write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_selective_page_is_consistent_under_writers() {
    let store = ephemeral();
    for i in 0..2000 {
        set(&store, key("ns", &format!("{i:05}")), "0").await;
    }
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = tokio::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        async move {
            // The first and the last object always have the same value.
            for i in 1.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let put = |name: &str| {
                    let key = key("ns", name);
                    let expect = Expect::Revision(store.get(&key).unwrap().revision);
                    put(key, expect, &i.to_string())
                };
                store.commit(vec![put("00000"), put("01999")]).await.unwrap();
            }
        }
    });
    for _ in 0..50 {
        let ends = |record: &Record| matches!(&*record.key.name, "00000" | "01999");
        let listing = store.list(&all(), None, Some(10), &ends);
        let shown: Vec<_> = listing.records.iter().map(|record| show_read(record)).collect();
        let values: Vec<_> =
            shown.iter().map(|text| text.split(['=', '@']).nth(1).unwrap().to_owned()).collect();
        assert_eq!(values.len(), 2);
        assert_eq!(values[0], values[1]);
        assert!(listing.records.iter().all(|record| record.revision <= listing.revision));
        tokio::task::yield_now().await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.await.unwrap();
}

#[tokio::test]
async fn reached_waits_for_the_revision() {
    for (store, _directory) in stores() {
        let waiting = tokio::spawn({
            let store = store.clone();
            async move {
                store.reached(2).await;
                store.revision()
            }
        });
        set(&store, key("ns", "a"), "1").await;
        set(&store, key("ns", "a"), "2").await;
        assert!(soon(waiting).await.unwrap() >= 2);
    }
}

#[tokio::test]
async fn a_closed_store_takes_no_more_writes() {
    for (store, _directory) in stores() {
        set(&store, key("ns", "a"), "1").await;
        store.close();
        store.close();
        let error = store.commit(vec![create("b", "2")]).await.unwrap_err();
        assert_eq!(error.to_string(), "the store cannot write its log: the store is closed");
        assert_eq!(listed(&store, &all()), ["ns/a=1@1+1"]);
    }
}

#[test]
fn nothing_printed_tells_the_content() {
    let runtime = crate::clock::virtual_runtime().unwrap();
    let store = ephemeral();
    let record = runtime.block_on(set(&store, key("ns", "a"), "hush"));
    assert!(!format!("{record:?}").contains("hush"));
    assert!(!format!("{:?}", record.with_revision(7)).contains("hush"));
    let error = runtime.block_on(store.commit(vec![create("a", "hush")])).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hush"));
}

#[test]
fn with_revision_changes_the_revision_only() {
    let runtime = crate::clock::virtual_runtime().unwrap();
    let store = ephemeral();
    let record = runtime.block_on(set(&store, key("ns", "a"), "1"));
    for revision in [2, 9, 10, 12345] {
        assert_eq!(show(&record.with_revision(revision)), format!("ns/a=1@{revision}+1"));
        // Also for a copy of a copy.
        assert_eq!(show(&record.with_revision(77).with_revision(revision)), format!("ns/a=1@{revision}+1"));
    }
}
