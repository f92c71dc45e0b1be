//! kill -9 in a storm of writes: everything acknowledged is there afterwards, and no transaction by half.
#![allow(clippy::unwrap_used, reason = "the helpers of a test are test code")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use coracle::clock::Clock;
use coracle::kind::Object;
use coracle::random::Random;
use coracle::store::{Change, Expect, Key, Limits, Options, Range, Revision, Sealing, Store, Write};
use k8s_openapi::api::core::v1::ConfigMap;

const KILLS: u64 = 25;
const WRITERS: usize = 8;

/// Names the directory to the process that writes; without it the writer is just a test that passes.
const DIRECTORY: &str = "CORACLE_CRASH_DIRECTORY";

/// So small that segments, snapshots and the dropping of history are under way at many of the kills.
const LIMITS: Limits =
    Limits { window_events: 64, window_bytes: 1 << 20, segment_bytes: 32 << 10, step_bytes: 16 << 10 };

fn open(directory: &Path) -> Store {
    let sealing = Sealing { collections: vec![SEALED], key_file: directory.with_extension("key") };
    let options = Options {
        directory: directory.to_owned(),
        clock: Clock::real(),
        history_bytes: 256 << 10,
        sealing: Some(sealing),
    };
    Store::open_with(&options, &LIMITS).unwrap_or_else(|error| panic!("{error}"))
}

/// The collection that is encrypted: `odd` is created and deleted in turn, each time with another key.
const SEALED: &str = "secrets";

fn key(writer: usize, part: &str) -> Key {
    let collection = if part == "odd" { SEALED } else { "configmaps" };
    Key { collection, namespace: format!("writer{writer}").into(), name: part.into() }
}

fn change(key: &Key, round: u64) -> Change {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(key.name.to_string());
    map.metadata.namespace = Some(key.namespace.to_string());
    // Of many lengths, some longer than a page.
    let padding = usize::try_from(round * 7919 % 6000).unwrap();
    map.data =
        Some([("round".to_owned(), round.to_string()), ("padding".to_owned(), "x".repeat(padding))].into());
    Change::Put { encoded: map.encode(), object: Box::new(map) }
}

/// One transaction: `left` and `right` are of this round, `odd` exists in odd rounds only.
fn transaction(store: &Store, writer: usize, round: u64) -> Vec<Write> {
    let expect = |key: &Key| store.get(key).map_or(Expect::Absent, |there| Expect::Revision(there.revision));
    let put = |part| {
        let key = key(writer, part);
        Write { expect: expect(&key), change: change(&key, round), key }
    };
    let odd = key(writer, "odd");
    let odd = match expect(&odd) {
        Expect::Absent if round % 2 == 1 => put("odd"),
        expect => {
            let change = if round % 2 == 1 { change(&odd, round) } else { Change::Delete };
            Write { key: odd, expect, change }
        }
    };
    vec![put("left"), odd, put("right")]
}

/// Writes until it is killed, telling of each acknowledged transaction: writer, round, last revision.
/// Runs in a process of its own, as [`kills`] starts it.
#[test]
fn writer() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(Path::new(&directory));
        // Before any of them writes: what is encrypted and what is not are listed one after the other.
        let start = rounds(&store);
        let writers = (0..WRITERS).map(|writer| {
            tokio::spawn(storm(store.clone(), writer, start.get(&writer).copied().unwrap_or(0)))
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    });
}

async fn storm(store: Store, writer: usize, start: u64) {
    for round in start + 1.. {
        let writes = transaction(&store, writer, round);
        let records = store.commit(writes).await.unwrap();
        let last = records.iter().flatten().map(|record| record.revision).max().unwrap();
        // One write, so that a kill leaves no half line; the parent reads from the pipe.
        let line = format!("ack {writer} {round} {last}\n");
        if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}

/// The round that each writer's objects are of, after checking that they are of the same one.
fn rounds(store: &Store) -> BTreeMap<usize, u64> {
    let mut rounds = BTreeMap::new();
    for writer in 0..WRITERS {
        let mut parts: BTreeMap<String, (u64, Revision)> = BTreeMap::new();
        let list = |collection| {
            let range = Range { collection, namespace: Some(format!("writer{writer}").into()) };
            store.list(&range, None, None, &|_| true).records
        };
        for record in list("configmaps").into_iter().chain(list(SEALED)) {
            let map: ConfigMap = serde_json::from_slice(&record.json).unwrap();
            assert_eq!(map.metadata.resource_version, Some(record.revision.to_string()));
            let round = map.data.unwrap()["round"].parse().unwrap();
            parts.insert(record.key.name.to_string(), (round, record.revision));
        }
        let Some((round, _)) = parts.get("left").copied() else {
            assert!(parts.is_empty(), "half a transaction of writer {writer}: {parts:?}");
            continue;
        };
        let names: Vec<_> = parts.keys().map(String::as_str).collect();
        let expected: &[_] = if round % 2 == 1 { &["left", "odd", "right"] } else { &["left", "right"] };
        assert_eq!(names, expected, "writer {writer} in round {round}");
        assert!(parts.values().all(|(other, _)| *other == round), "half a transaction: {parts:?}");
        rounds.insert(writer, round);
    }
    rounds
}

/// The slots of the file of data keys that are not empty.
fn data_keys(directory: &Path) -> usize {
    let bytes = std::fs::read(directory.join("datakeys")).unwrap();
    bytes.chunks(128).skip(1).filter(|slot| slot.iter().any(|byte| *byte != 0)).count()
}

struct Writer(Child);

impl Writer {
    fn start(directory: &Path) -> Self {
        let arguments = ["crash::writer", "--exact", "--nocapture", "--test-threads=1"];
        let child = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .env(DIRECTORY, directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // If it is gone already, so much the better.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What was acknowledged: the last round of each writer, and the newest revision.
#[derive(Default)]
struct Acknowledged {
    rounds: BTreeMap<usize, u64>,
    newest: Revision,
}

impl Acknowledged {
    /// Takes one line; says whether it was an acknowledgement. `before`: revisions up to there belong to
    /// processes before this one.
    fn note(&mut self, line: &str, before: Revision) -> bool {
        // The test harness that the writer runs under also prints.
        let Some(fields) = line.find("ack ").map(|at| &line[at + 4..]) else { return false };
        let fields: Vec<u64> = fields.split(' ').map(|field| field.parse().unwrap()).collect();
        let [writer, round, last] = fields[..] else { panic!("{line}") };
        assert!(last > before, "revision {last} was used before");
        self.newest = self.newest.max(last);
        self.rounds.insert(usize::try_from(writer).unwrap(), round);
        true
    }
}

#[test]
fn kills() {
    let seed = std::env::var("CORACLE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| Random::from_os().below(u64::MAX));
    // Shown if the test fails.
    println!("CORACLE_SEED={seed}");
    let random = Random::from_seed(seed);
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut acknowledged = Acknowledged::default();
    for kill in 1..=KILLS {
        let before = acknowledged.newest;
        let mut writer = Writer::start(&data);
        let mut lines = BufReader::new(writer.0.stdout.take().unwrap()).lines();
        let mut left = random.below(400);
        while left > 0 {
            let line = lines.next().expect("the writer writes until it is killed").unwrap();
            left -= u64::from(acknowledged.note(&line, before));
        }
        // At no particular point between two acknowledgements.
        for _ in 0..random.below(20_000) {
            std::hint::spin_loop();
        }
        writer.0.kill().unwrap();
        // What it said before it died counts.
        for line in lines {
            acknowledged.note(&line.unwrap(), before);
        }
        writer.0.wait().unwrap();
        let store = open(&data);
        assert!(store.revision() >= acknowledged.newest, "kill {kill}");
        let found = rounds(&store);
        let odd = found.values().filter(|round| *round % 2 == 1).count();
        assert_eq!(data_keys(&data), odd, "kill {kill}: each encrypted object has a key, and nothing else");
        for (writer, round) in &acknowledged.rounds {
            let found = found.get(writer).copied().unwrap_or(0);
            // At most one transaction of each writer was under way.
            assert!(
                (*round..=round + 1).contains(&found),
                "writer {writer}: {found} after {round}, kill {kill}"
            );
        }
        // What recovery found counts from now on.
        acknowledged.newest = store.revision();
        acknowledged.rounds = found;
        if kill % 2 == 0 {
            store.close();
        }
    }
    assert!(acknowledged.newest > 100, "{} revisions", acknowledged.newest);
}
