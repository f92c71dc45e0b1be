//! Commits a second of 1 KiB objects, and what the medium under them can do.
//!
//! `commit`: one object a transaction, by 1 and by 64 writers, in memory and durable. Every writer
//! updates objects of its own, each expecting the revision it wrote last. `sealed`: objects that are
//! encrypted.
//!
//! `life`: a creation and the deletion after it, of objects as they are and of sealed ones, whose keys are
//! made and destroyed.
//!
//! `append`: one flush a batch of 1, 64 and 1,024 records of 1 KiB, to a file that grows, to one whose
//! space was taken beforehand, and to one that was filled with zeros beforehand.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use coracle::clock::Clock;
use coracle::kind::Object;
use coracle::store::{Change, Expect, Key, Options, Sealing, Store, Write};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use k8s_openapi::api::core::v1::ConfigMap;

const OBJECT_BYTES: usize = 1024;

/// The collection that is encrypted, and one that is not.
const SEALED: &str = "secrets";
const OPEN: &str = "configmaps";

/// Objects of each writer, written in turn.
const OBJECTS: u64 = 100;

fn object(key: &Key) -> Box<ConfigMap> {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(key.name.to_string());
    map.metadata.namespace = Some(key.namespace.to_string());
    map.data = Some([("data".to_owned(), String::new())].into());
    let padding = "x".repeat(OBJECT_BYTES.saturating_sub(map.encode().with_revision(1_000_000).len()));
    map.data = Some([("data".to_owned(), padding)].into());
    Box::new(map)
}

/// Commits `count` times, one after the other.
async fn write(store: Store, collection: &'static str, writer: usize, count: u64) {
    let key = |i: u64| Key {
        collection,
        namespace: "bench".into(),
        name: format!("writer{writer}-{}", i % OBJECTS).into(),
    };
    for i in 0..count {
        let key = key(i);
        let expect = store.get(&key).map_or(Expect::Absent, |there| Expect::Revision(there.revision));
        let object = object(&key);
        let change = Change::Put { encoded: object.encode(), object };
        store.commit(vec![Write { key, expect, change }]).await.expect("nobody else writes this key");
    }
}

/// Creates and deletes `count` times, one after the other.
async fn live(store: Store, collection: &'static str, writer: usize, count: u64) {
    for _ in 0..count {
        let key = Key { collection, namespace: "bench".into(), name: format!("life{writer}").into() };
        let object = object(&key);
        let change = Change::Put { encoded: object.encode(), object };
        let create = Write { key: key.clone(), expect: Expect::Absent, change };
        let created = store.commit(vec![create]).await.expect("nobody else writes this key");
        let revision = created[0].as_ref().expect("it was created").revision;
        let delete = Write { key, expect: Expect::Revision(revision), change: Change::Delete };
        store.commit(vec![delete]).await.expect("nobody else writes this key");
    }
}

/// How long `count` of what `work` does take, shared by the writers.
async fn shared_by<F: Future<Output = ()> + Send + 'static>(
    writers: usize,
    count: u64,
    work: impl Fn(usize, u64) -> F,
) -> Duration {
    let clock = Clock::real();
    let start = clock.monotonic();
    let share = count.div_ceil(u64::try_from(writers).expect("few"));
    let writers: Vec<_> = (0..writers).map(|writer| tokio::spawn(work(writer, share))).collect();
    for writer in writers {
        writer.await.expect("a writer does not panic");
    }
    clock.monotonic() - start
}

fn commit(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let directory = tempfile::tempdir_in(".").expect("a directory on the disk in question");
    let clock = Clock::real();
    let sealing = Sealing { collections: vec![SEALED], key_file: directory.path().join("key") };
    let store = directory.path().join("store");
    let options = Options { directory: store, clock, history_bytes: 256 << 20, sealing: Some(sealing) };
    let durable = Store::open(&options).expect("an empty directory opens");
    let mut group = criterion.benchmark_group("commit");
    group.throughput(Throughput::Elements(1));
    let ephemeral = Store::ephemeral(clock);
    let forms = [("ephemeral", &ephemeral, OPEN), ("durable", &durable, OPEN), ("sealed", &durable, SEALED)];
    for (form, store, collection) in forms {
        for writers in [1, 64] {
            group.bench_with_input(BenchmarkId::new(form, writers), &writers, |bench, writers| {
                let work = |writer, count| write(store.clone(), collection, writer, count);
                bench.to_async(&runtime).iter_custom(|count| shared_by(*writers, count, work));
            });
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("life");
    group.throughput(Throughput::Elements(1));
    for (form, collection) in [("durable", OPEN), ("sealed", SEALED)] {
        for writers in [1, 64] {
            group.bench_with_input(BenchmarkId::new(form, writers), &writers, |bench, writers| {
                let work = |writer, count| live(durable.clone(), collection, writer, count);
                bench.to_async(&runtime).iter_custom(|count| shared_by(*writers, count, work));
            });
        }
    }
    group.finish();
    durable.close();
}

#[derive(Clone, Copy)]
enum Space {
    Growing,
    Taken,
    Zeroed,
}

/// A file that starts over once it is full, so that it has its space in advance if it is to.
struct Medium {
    file: File,
    space: Space,
    end: u64,
}

impl Medium {
    const BYTES: u64 = 64 << 20;

    fn new(path: &Path, space: Space) -> Self {
        let file = File::create(path).expect("a file can be made");
        let mut medium = Self { file, space, end: 0 };
        medium.start_over();
        medium
    }

    fn start_over(&mut self) {
        self.file.set_len(0).expect("a file can be cut");
        match self.space {
            Space::Growing => {}
            Space::Taken => {
                let flags = rustix::fs::FallocateFlags::empty();
                rustix::fs::fallocate(&self.file, flags, 0, Self::BYTES).expect("there is space");
            }
            Space::Zeroed => {
                let zeros = vec![0; 1 << 20];
                for at in (0..Self::BYTES).step_by(zeros.len()) {
                    self.file.write_all_at(&zeros, at).expect("there is space");
                }
            }
        }
        self.file.sync_all().expect("a file can be flushed");
        self.end = 0;
    }

    /// How long writing and flushing takes; making room is not counted.
    fn append(&mut self, batch: &[u8]) -> Duration {
        let length = u64::try_from(batch.len()).expect("a length fits 64 bits");
        if self.end + length > Self::BYTES {
            self.start_over();
        }
        let clock = Clock::real();
        let start = clock.monotonic();
        self.file.write_all_at(batch, self.end).expect("there is space");
        self.file.sync_data().expect("a file can be flushed");
        self.end += length;
        clock.monotonic() - start
    }
}

fn append(criterion: &mut Criterion) {
    let directory = tempfile::tempdir_in(".").expect("a directory on the disk in question");
    let mut group = criterion.benchmark_group("append");
    for (name, space) in [("growing", Space::Growing), ("taken", Space::Taken), ("zeroed", Space::Zeroed)] {
        let mut medium = Medium::new(&directory.path().join(name), space);
        for records in [1_usize, 64, 1024] {
            let batch = vec![b'x'; records * OBJECT_BYTES];
            group.throughput(Throughput::Elements(u64::try_from(records).expect("few")));
            group.bench_function(BenchmarkId::new(name, records), |bench| {
                bench.iter_custom(|count| (0..count).map(|_| medium.append(&batch)).sum());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, commit, append);
criterion_main!(benches);
