use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn text(keys: &[ClusterKey]) -> String {
    String::from_utf8(render(keys).to_vec()).unwrap()
}

#[test]
fn keys_come_back() {
    let keys = [ClusterKey::generate(), ClusterKey::generate()];
    let text = text(&keys);
    let read = parse(&text).unwrap();
    let ids = |keys: &[ClusterKey]| keys.iter().map(|key| (key.id, *key.bytes)).collect::<Vec<_>>();
    assert_eq!(ids(&read), ids(&keys));
    // As an editor may leave it.
    let edited = format!("{}\r\n\n  # mine\n", text.trim_end().replace('\n', "\r\n"));
    assert_eq!(ids(&parse(&edited).unwrap()), ids(&keys));
    assert!(!format!("{:?}", keys).contains(&STANDARD.encode(keys[0].bytes.as_slice())));
}

#[test]
fn a_damaged_file_says_what_is_wrong() {
    let key = ClusterKey::generate();
    let other = ClusterKey::generate();
    let good = text(std::slice::from_ref(&key));
    let secret = STANDARD.encode(key.bytes.as_slice());
    let check = |text: &str, expected: &str| {
        let what = parse(text).unwrap_err();
        assert_eq!(what, expected);
        assert!(!what.contains(&secret[..8]), "{what}");
    };
    check("", "its first line is not that of a key file");
    check("hunter2", "its first line is not that of a key file");
    check(&good.replace("format 1", "format x"), "its first line is not that of a key file");
    check(&good.replace("format 1", "format 2"), "it is of format 2, and this version knows format 1");
    check(good.split("key ").next().unwrap(), "its first line is not that of a key file");
    check("coracle key file, format 1\n# only this\n", "it holds no key");
    check(&good.replace("\nkey ", "\nkeys "), "line 4: it is not `key`, the key's name and the key");
    check(&good.replace(&secret, ""), "line 4: it is not `key`, the key's name and the key");
    check(&good.replace(&secret, &secret[4..]), "line 4: the key does not have 32 bytes");
    check(&good.replace(&secret, "?"), "line 4: the key is not base64");
    let swapped = good.replace(&secret, &STANDARD.encode(other.bytes.as_slice()));
    check(&swapped, "line 4: the key does not belong to its name");
}

#[test]
fn only_its_owner_may_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    assert!(KeyFile::load(&path).unwrap().is_none());
    let created = KeyFile::create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(KeyFile::load(&path).unwrap().unwrap().newest().id, created.newest().id);
    assert!(matches!(KeyFile::create(&path), Err(OpenError::KeyFileUnwritable { .. })));
    for (mode, fine) in [(0o400, true), (0o640, false), (0o604, false), (0o610, false), (0o602, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        match KeyFile::load(&path) {
            Ok(_) => assert!(fine, "{mode:o}"),
            Err(error) => {
                let path = path.canonicalize().unwrap();
                let expected = format!(
                    "the key file {} can be read by others than its owner (mode {mode:04o}): whoever did so \
                     has the key; if nobody did, run `chmod 600 {0}`",
                    path.display()
                );
                assert!(!fine);
                assert_eq!(error.to_string(), expected);
            }
        }
    }
    let error = KeyFile::load(directory.path()).unwrap_err().to_string();
    assert!(error.contains("it is not a file"), "{error}");
}

#[test]
fn replacing_goes_through_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let (path, link) = (directory.path().join("key"), directory.path().join("link"));
    KeyFile::create(&path).unwrap();
    symlink(&path, &link).unwrap();
    let mut file = KeyFile::load(&link).unwrap().unwrap();
    let key = ClusterKey::generate();
    file.replace(vec![key.clone()]).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let read = KeyFile::load(&path).unwrap().unwrap();
    assert_eq!(read.keys().iter().map(|key| key.id).collect::<Vec<_>>(), [key.id]);
    assert!(read.key_for(&path, key.id).is_ok());
}

#[test]
fn its_place_is_beside_the_directory_however_that_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("data/inner")).unwrap();
    symlink(root.join("data"), root.join("link")).unwrap();
    let expected = root.join("data.key");
    for name in ["data", "data/", "data/.", "data/inner/..", "link", "link/"] {
        assert_eq!(locate(&root.join(name), None).unwrap(), expected, "{name}");
    }
    // Not there yet.
    assert_eq!(locate(&root.join("a/b/"), None).unwrap(), root.join("a/b.key"));
    let here = std::env::current_dir().unwrap().canonicalize().unwrap();
    assert_eq!(locate(Path::new("not-there"), None).unwrap(), here.join("not-there.key"));
    let mut beside = here.clone().into_os_string();
    beside.push(".key");
    assert_eq!(locate(Path::new("."), None).unwrap(), PathBuf::from(beside));
    // Chosen.
    let elsewhere = root.join("elsewhere");
    assert_eq!(locate(&root.join("data"), Some(&elsewhere)).unwrap(), elsewhere);
    for inside in ["data/key", "data/store/key", "link/key", "data/inner/../key"] {
        let error = locate(&root.join("link"), Some(&root.join(inside))).unwrap_err();
        assert!(matches!(error, OpenError::KeyFileInside { .. }), "{inside}: {error}");
    }
    let error = locate(Path::new("/"), None).unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no place for a key file beside the data directory /; name one with --key-file"
    );
}
