use super::*;
use tree::NodeType;

fn now(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, File> {
    let file = |text: &str| File { content: Bytes::copy_from_slice(text.as_bytes()), mode: 0o644 };
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
fn open_files_and_directories_keep_what_they_had() {
    let clock = Clock::real();
    let volume = Volume::projected(files(&[("d/a", "old")]));
    let mount = |sub_path: &str| {
        let sub_path = Some(sub_path.to_owned());
        let mount = Mount { path: "/m".to_owned(), volume: Arc::clone(&volume), sub_path, read_only: false };
        mount.open(clock).unwrap()
    };
    let (file, directory) = (mount("d/a"), mount("d"));
    volume.replace(files(&[("d/a", "new")]));
    assert_eq!(volume.read("d/a").unwrap(), "new");
    let read = |open: &Open, path: &str| {
        let state = open.volume.state();
        let ino = if path.is_empty() {
            open.ino
        } else {
            path::walk(&state.tree, open.ino, path, true).unwrap().node.unwrap()
        };
        state.tree.read(ino, 0, 100).unwrap()
    };
    assert_eq!(read(&file, ""), "old");
    assert_eq!(read(&directory, "a"), "old");
    assert_eq!(volume.used(), 6);
    drop(directory);
    assert_eq!(read(&file, ""), "old");
    drop(file);
    assert_eq!(volume.used(), 3);
    // What is not there becomes an empty directory, in an emptyDir for good.
    assert!(mount("none").volume.state().tree.entries(ROOT).unwrap().is_empty());
    let scratch = Volume::empty_dir(100);
    let sub_path = Some("x/y".to_owned());
    let open = Mount { path: "/s".to_owned(), volume: Arc::clone(&scratch), sub_path, read_only: false }
        .open(clock)
        .unwrap();
    let found = path::walk(&scratch.state().tree, ROOT, "x/y", true).unwrap().node;
    assert_eq!(found, Some(open.ino));
}

#[test]
fn a_volume_has_the_time_of_its_mount() {
    crate::clock::virtual_runtime().unwrap().block_on(async {
        let clock = Clock::starting_at("2026-01-02T03:04:05Z".parse().unwrap());
        let volume = Volume::projected(files(&[("a", "")]));
        let mount = Mount { path: "/m".to_owned(), volume, sub_path: None, read_only: false };
        let open = mount.open(clock).unwrap();
        let state = open.volume.state();
        assert!(state.tree.entries(ROOT).unwrap().contains_key("..2026_01_02_03_04_05.000000000"));
        assert_eq!(state.tree.stat(ROOT).modified, clock.now());
    });
}
