use super::handle::{Files, Handle};
use super::*;
use tree::NodeType;
use wasmtime_wasi::p2::bindings::filesystem::types::{DescriptorFlags, OpenFlags};

fn now(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, File> {
    let file = |text: &str| File::new(Bytes::copy_from_slice(text.as_bytes()), 0o644);
    pairs.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
}

/// A tree with `dir/file`, and links to it from many places.
fn tree() -> Tree {
    let mut tree = Tree::new(100, now(0));
    let dir = tree.make_directories("dir/sub", now(0)).unwrap();
    assert!(tree.is_directory(dir));
    let place = path::walk(&tree, ROOT, "dir/file", false).unwrap();
    let file = tree.create_file(&place, now(0)).unwrap();
    tree.write(file, None, b"content", now(1)).unwrap();
    for (name, target) in [
        ("to-file", "dir/file"),
        ("to-dir", "dir"),
        ("to-link", "to-dir/./../to-file"),
        ("dangling", "nowhere"),
        ("loop", "loop"),
        ("out", "../x"),
        ("dir/up", "../to-file"),
        ("dir-slash", "dir/"),
    ] {
        let place = path::walk(&tree, ROOT, name, false).unwrap();
        tree.create_link(&place, target, now(0)).unwrap();
    }
    tree
}

#[test]
fn walking() {
    use NodeType::{Directory, File, Link};
    /// Path, whether links at its end are followed, and what is there.
    type Case = (&'static str, bool, Result<Option<NodeType>, ErrorCode>);
    let cases: [Case; 27] = [
        ("dir/file", false, Ok(Some(File))),
        ("./dir//file", false, Ok(Some(File))),
        ("dir/../dir/file", false, Ok(Some(File))),
        (".", false, Ok(Some(Directory))),
        ("dir/..", false, Ok(Some(Directory))),
        ("dir/", false, Ok(Some(Directory))),
        ("dir/new", false, Ok(None)),
        ("to-file", false, Ok(Some(Link))),
        ("to-file", true, Ok(Some(File))),
        ("to-dir/file", false, Ok(Some(File))),
        ("to-dir/", false, Ok(Some(Directory))),
        ("to-link", true, Ok(Some(File))),
        ("dir/up", true, Ok(Some(File))),
        ("dir-slash", true, Ok(Some(Directory))),
        ("dangling", false, Ok(Some(Link))),
        ("dangling", true, Ok(None)),
        ("loop", true, Err(ErrorCode::Loop)),
        ("out", true, Err(ErrorCode::NotPermitted)),
        ("..", false, Err(ErrorCode::NotPermitted)),
        ("dir/../../dir", false, Err(ErrorCode::NotPermitted)),
        ("/dir", false, Err(ErrorCode::NotPermitted)),
        ("", false, Err(ErrorCode::NoEntry)),
        ("none/file", false, Err(ErrorCode::NoEntry)),
        ("dir/file/x", false, Err(ErrorCode::NotDirectory)),
        ("dir/file/", false, Err(ErrorCode::NotDirectory)),
        ("dir/file/.", false, Err(ErrorCode::NotDirectory)),
        ("dir/file/..", false, Err(ErrorCode::NotDirectory)),
    ];
    let tree = tree();
    for (path, follow, expected) in cases {
        let found = path::walk(&tree, ROOT, path, follow);
        let found = found.map(|place| place.node.map(|ino| tree.node_type(ino)));
        assert_eq!(found.map_err(|error| error.name()), expected.map_err(|error| error.name()), "{path}");
    }
    let long = "x".repeat(256);
    assert!(matches!(path::walk(&tree, ROOT, &long, false), Err(ErrorCode::NameTooLong)));
    let long = "x/".repeat(3000);
    assert!(matches!(path::walk(&tree, ROOT, &long, false), Err(ErrorCode::NameTooLong)));
    // A directory is a world of its own.
    let dir = path::walk(&tree, ROOT, "dir", false).unwrap().node.unwrap();
    assert!(matches!(path::walk(&tree, dir, "up", true), Err(ErrorCode::NotPermitted)));
}

#[test]
fn renaming() {
    let cases: [(&str, &str, Result<(), ErrorCode>); 13] = [
        ("dir/file", "file", Ok(())),
        ("dir/file", "to-file", Ok(())),
        ("dir/file", "dir/file", Ok(())),
        ("dir", "other/", Ok(())),
        ("dir/sub", "sub", Ok(())),
        ("dir", "dir/sub/deeper", Err(ErrorCode::Invalid)),
        ("dir/sub", "dir", Err(ErrorCode::NotEmpty)),
        ("dir/file", "dir/sub", Err(ErrorCode::IsDirectory)),
        ("dir/sub", "dir/file", Err(ErrorCode::NotDirectory)),
        ("dir/file", "file/", Err(ErrorCode::NotDirectory)),
        ("none", "file", Err(ErrorCode::NoEntry)),
        (".", "file", Err(ErrorCode::Busy)),
        ("dir", ".", Err(ErrorCode::Busy)),
    ];
    for (from, to, expected) in cases {
        let mut tree = tree();
        let from_place = path::walk(&tree, ROOT, from, false).unwrap();
        let to_place = path::walk(&tree, ROOT, to, false).unwrap();
        let moved = from_place.node;
        let result = tree.rename(&from_place, &to_place, now(5));
        assert_eq!(
            result.as_ref().map_err(|error| error.name()),
            expected.as_ref().map_err(|error| error.name()),
            "{from} to {to}"
        );
        if result.is_ok() {
            assert_eq!(path::walk(&tree, ROOT, to, false).unwrap().node, moved, "{from} to {to}");
            assert_eq!(tree.used(), 7);
            assert_eq!(tree.stat(moved.unwrap()).links, 1);
        }
    }
}

#[test]
fn the_quota_counts_what_files_hold() {
    let mut tree = Tree::new(10, now(0));
    let create = |tree: &mut Tree, name: &str| {
        let place = path::walk(tree, ROOT, name, false).unwrap();
        tree.create_file(&place, now(0)).unwrap()
    };
    let a = create(&mut tree, "a");
    assert_eq!(tree.write(a, Some(4), b"56789", now(0)).unwrap(), 9);
    assert_eq!(&tree.read(a, 0, 100).unwrap()[..], b"\0\0\0\x0056789");
    assert!(matches!(tree.write(a, None, b"xy", now(0)), Err(ErrorCode::InsufficientSpace)));
    assert!(matches!(tree.write(a, Some(u64::MAX), b"xy", now(0)), Err(ErrorCode::FileTooLarge)));
    assert!(matches!(tree.resize(a, u64::MAX, now(0)), Err(ErrorCode::FileTooLarge)));
    tree.resize(a, 2, now(0)).unwrap();
    let b = create(&mut tree, "b");
    tree.write(b, None, b"12345678", now(0)).unwrap();
    assert_eq!(tree.used(), 10);
    // A removed file counts until it is closed.
    tree.acquire(b);
    let place = path::walk(&tree, ROOT, "b", false).unwrap();
    tree.unlink(&place, now(0)).unwrap();
    assert_eq!((tree.used(), tree.stat(b).links), (10, 0));
    tree.release(b);
    assert_eq!(tree.used(), 2);
}

#[test]
fn a_projected_volume_has_the_layout_of_kubernetes() {
    let mut tree = Tree::new(u64::MAX, now(0));
    tree.project(&files(&[("a", "1"), ("d/b", "2"), ("d/e/c", "3")]), now(0));
    let names = |tree: &Tree, path: &str| -> Vec<String> {
        let ino = path::walk(tree, ROOT, path, true).unwrap().node.unwrap();
        tree.entries(ino).unwrap().keys().cloned().collect()
    };
    assert_eq!(names(&tree, "."), ["..1970_01_01_00_00_00.000000000", "..data", "a", "d"]);
    assert_eq!(names(&tree, "..data"), ["a", "d"]);
    assert_eq!(names(&tree, "d"), ["b", "e"]);
    let a = path::walk(&tree, ROOT, "a", false).unwrap().node.unwrap();
    assert_eq!(tree.link_target(a), Some("..data/a"));
    tree.project(&files(&[("a", "4"), ("f", "")]), now(0));
    assert_eq!(names(&tree, "."), ["..1970_01_01_00_00_00.000000001", "..data", "a", "f"]);
    // A link that stays is the same link.
    assert_eq!(path::walk(&tree, ROOT, "a", false).unwrap().node, Some(a));
    assert_eq!(tree.used(), 1);
}

/// A mount of `volume`, or of the part `path` of it.
fn mount(volume: &Arc<Volume>, path: Option<&str>, frozen: bool) -> Handle {
    let sub_path = path.map(|path| SubPath { path: path.to_owned(), frozen });
    let mount = Mount { path: "/m".to_owned(), volume: Arc::clone(volume), sub_path, read_only: false };
    Files::mount(&[mount], None, Clock::real()).unwrap().mounts.remove(0).1
}

/// Opens `path` for reading; a mounted file is `.`.
fn open(mount: &Handle, path: &str) -> Result<Handle, String> {
    let opened = mount.open_at(path, true, OpenFlags::empty(), DescriptorFlags::READ);
    opened.map_err(|error| error.downcast().unwrap().name().to_owned())
}

fn read(file: &Handle) -> String {
    let bytes = file.look(|state| state.tree.read(file.node(state)?, 0, 100)).unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What is read through a mount, opened anew.
fn look(mount: &Handle, path: &str) -> Result<String, String> {
    open(mount, path).map(|file| read(&file))
}

#[test]
fn content_that_has_not_changed_is_not_written_again() {
    // BEHAVIOURS 10.6.
    let volume = Volume::projected(files(&[("a", "1"), ("d/b", "2")]));
    let entries = || volume.state().tree.entries(ROOT).unwrap().clone();
    let before = entries();
    volume.replace(files(&[("a", "1"), ("d/b", "2")]));
    assert_eq!(entries(), before);
    volume.replace(files(&[("a", "1"), ("d/b", "3")]));
    let after = entries();
    assert_eq!((before["a"], before["d"]), (after["a"], after["d"]));
    assert_ne!(before["..data"], after["..data"]);
}

#[test]
fn a_projected_volume_is_as_large_as_its_sources() {
    // More than a guest may make; twice, for while it is replaced both contents are there.
    let keys: Vec<String> = (0..50_001).map(|i| format!("k{i}")).collect();
    let of = |text| files(&keys.iter().map(|key| (key.as_str(), text)).collect::<Vec<_>>());
    let volume = Volume::projected(of("1"));
    volume.replace(of("2"));
    assert_eq!(volume.read("k50000").unwrap(), "2");
}

#[test]
fn a_part_of_a_volume_follows_its_changes_unless_frozen() {
    let volume = Volume::projected(files(&[("d/a", "old")]));
    let whole = mount(&volume, None, false);
    let (file, directory) = (mount(&volume, Some("d/a"), false), mount(&volume, Some("d"), false));
    let (frozen_file, frozen_directory) =
        (mount(&volume, Some("d/a"), true), mount(&volume, Some("d"), true));
    let (late, never) = (mount(&volume, Some("d/b"), false), mount(&volume, Some("d/b"), true));
    let gone = Err("no-entry".to_owned());
    let said = |text: &str| Ok(text.to_owned());
    assert_eq!((look(&file, "."), look(&directory, "a")), (said("old"), said("old")));
    assert_eq!(look(&late, "."), gone);
    assert_eq!(look(&file, "a"), Err("not-directory".to_owned()));
    // What is open keeps what it had, whichever way it was opened.
    let held = [open(&file, ".").unwrap(), open(&directory, "a").unwrap(), open(&whole, "d/a").unwrap()];
    let (held_directory, held_data) = (open(&directory, ".").unwrap(), open(&whole, "..data").unwrap());

    volume.replace(files(&[("d/a", "new"), ("d/b", "late")]));
    assert_eq!((look(&file, "."), look(&directory, "a")), (said("new"), said("new")));
    assert_eq!((look(&whole, "d/a"), look(&late, ".")), (said("new"), said("late")));
    assert_eq!(held.each_ref().map(read), ["old"; 3]);
    assert_eq!((look(&held_directory, "a"), look(&held_directory, "b")), (said("old"), gone.clone()));
    assert_eq!(look(&held_data, "d/a"), said("old"));
    assert_eq!((look(&frozen_file, "."), look(&frozen_directory, "a")), (said("old"), said("old")));
    assert_eq!(look(&frozen_directory, "b"), gone);

    volume.replace(files(&[]));
    assert_eq!(
        (look(&file, "."), look(&directory, "a"), look(&directory, ".")),
        (gone.clone(), gone.clone(), gone.clone())
    );
    assert_eq!(read(&held[0]), "old");
    volume.replace(files(&[("d/a", "back")]));
    assert_eq!(
        (look(&file, "."), look(&directory, "a"), look(&late, ".")),
        (said("back"), said("back"), gone.clone())
    );
    // Never there when it was mounted: an empty directory, for good.
    let empty = never.look(|state| Ok(state.tree.entries(never.node(state)?)?.is_empty()));
    assert!(empty.unwrap());

    // All that nobody holds any more is freed.
    drop((held, held_directory, held_data, frozen_file, frozen_directory));
    assert_eq!(volume.used(), 4);
}

#[test]
fn one_directory_handle_shows_one_revision() {
    // Two files of one ConfigMap, read through one `..data`, are of one revision: always.
    let volume = Volume::projected(files(&[("a", "0"), ("b", "0")]));
    let mount = mount(&volume, None, false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 1..=2_000 {
                let round = round.to_string();
                volume.replace(files(&[("a", &round), ("b", &round)]));
            }
        });
        let mut seen = 0;
        while !writer.is_finished() {
            let data = open(&mount, "..data").unwrap();
            let (a, b) = (look(&data, "a"), look(&data, "b"));
            assert_eq!(a, b);
            let now: u32 = a.unwrap().parse().unwrap();
            assert!(now >= seen, "{now} after {seen}");
            seen = now;
        }
    });
    assert_eq!(look(&mount, "a"), Ok("2000".to_owned()));
}

#[test]
fn a_part_of_a_writable_volume_is_made_and_stays() {
    let scratch = Volume::empty_dir(100);
    let part = mount(&scratch, Some("x/y"), false);
    let found = path::walk(&scratch.state().tree, ROOT, "x/y", true).unwrap().node.unwrap();
    assert_eq!(part.look(|state| part.node(state)).unwrap(), found);
}

#[test]
fn a_volume_has_the_time_of_its_mount() {
    crate::clock::virtual_runtime().unwrap().block_on(async {
        let clock = Clock::starting_at("2026-01-02T03:04:05Z".parse().unwrap());
        let volume = Volume::projected(files(&[("a", "")]));
        let mount = Mount { path: "/m".to_owned(), volume, sub_path: None, read_only: false };
        let (open, _) = mount.open(clock).unwrap();
        let state = open.volume.state();
        assert!(state.tree.entries(ROOT).unwrap().contains_key("..2026_01_02_03_04_05.000000000"));
        assert_eq!(state.tree.stat(ROOT).modified, clock.now());
    });
}

/// Late content that counts how often it is asked for, and fails when it is told to.
#[derive(Default)]
struct Counter {
    asked: std::sync::atomic::AtomicU32,
    fails: std::sync::atomic::AtomicBool,
}

#[async_trait::async_trait]
impl Source for Counter {
    async fn content(&self) -> Option<Bytes> {
        use std::sync::atomic::Ordering::Relaxed;
        // A generation holds for two looks.
        let asked = self.asked.fetch_add(1, Relaxed);
        (!self.fails.load(Relaxed)).then(|| format!("token {}", asked / 2).into())
    }
}

#[test]
fn late_content_arrives_when_it_is_looked_for() {
    use std::sync::atomic::Ordering::Relaxed;
    let source = Arc::new(Counter::default());
    let late = Late::new(source.clone());
    let mut given = files(&[("ca.crt", "ca"), ("dir/token", "")]);
    given.get_mut("dir/token").unwrap().late = Some(late);
    let volume = Volume::projected(given.clone());
    let mount = Mount { path: "/m".to_owned(), volume: volume.clone(), sub_path: None, read_only: true };
    let files = handle::Files::mount(&[mount], None, Clock::real()).unwrap();
    let root = &files.mounts[0].1;
    let block_on = |awaited: late::Awaited| futures_util::future::FutureExt::now_or_never(awaited.arrive());
    let look = |path: &str| match root.awaited(path, true) {
        None => "at once".to_owned(),
        Some(awaited) => match block_on(awaited).unwrap() {
            Ok(()) => String::from_utf8(volume.read("dir/token").unwrap().to_vec()).unwrap(),
            Err(error) => error.name().to_owned(),
        },
    };
    assert_eq!(
        (look("ca.crt"), look("dir"), look("none")),
        ("at once".into(), "at once".into(), "at once".into())
    );
    assert_eq!(source.asked.load(Relaxed), 0);
    let data = |volume: &Volume| volume.state().tree.entries(ROOT).unwrap().keys().next().unwrap().clone();
    let (before, empty) = (data(&volume), volume.used());
    // The first content takes the place of none, whatever was opened on the way.
    let awaited = root.awaited("dir/token", true).unwrap();
    let ino = path::walk(&volume.state().tree, ROOT, "dir/token", true).unwrap().node.unwrap();
    let open = Open::new(&volume, &mut volume.write().tree, ino);
    block_on(awaited).unwrap().unwrap();
    assert_eq!(volume.state().tree.read(open.ino, 0, 100).unwrap(), "token 0");
    assert_eq!((look("..data/dir/token").as_str(), data(&volume)), ("token 0", before.clone()));
    assert_eq!(volume.used(), empty + 7);
    // Another change of the volume keeps it.
    given.get_mut("ca.crt").unwrap().content = "CA".into();
    volume.replace(given.clone());
    assert_eq!(volume.read("dir/token").unwrap(), "token 0");
    let replaced = data(&volume);
    assert_ne!(replaced, before);
    // A newer one is a change like every other: what is open keeps what it had.
    assert_eq!(look("dir/token"), "token 1");
    assert_ne!(data(&volume), replaced);
    assert_eq!(volume.state().tree.read(open.ino, 0, 100).unwrap(), "token 0");
    source.fails.store(true, Relaxed);
    assert_eq!(look("dir/token"), "io");
    assert_eq!(volume.read("dir/token").unwrap(), "token 1");
    assert!(!format!("{given:?}").contains("token 1"));
}
