use super::*;

fn cache(bytes_max: u64) -> (tempfile::TempDir, Cache) {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache { bytes_max, ..Cache::open(directory.path().join("code")).unwrap() };
    (directory, cache)
}

#[test]
fn what_was_stored_is_loaded_under_its_key_only() {
    let (_directory, cache) = cache(BYTES_MAX);
    cache.store("sha256:a", "f", b"code").unwrap();
    assert_eq!(cache.load("sha256:a", "f").unwrap(), b"code");
    assert_eq!(cache.load("sha256:b", "f"), None);
    assert_eq!(cache.load("sha256:a", "g"), None);
    // Not even when somebody renames it.
    fs::rename(cache.path("sha256:a", "f"), cache.path("sha256:b", "f")).unwrap();
    assert_eq!(cache.load("sha256:b", "f"), None);
}

#[test]
fn an_entry_that_is_not_ours_or_not_whole_does_not_count() {
    let (_directory, cache) = cache(BYTES_MAX);
    let path = cache.path("sha256:a", "f");
    let damages: [fn(&mut Vec<u8>); 4] =
        [|bytes| bytes[60] ^= 1, |bytes| bytes[0] ^= 1, |bytes| bytes.truncate(50), Vec::clear];
    for damage in damages {
        cache.store("sha256:a", "f", &[7; 100]).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        assert_eq!(cache.load("sha256:a", "f"), None);
    }
    cache.store("sha256:a", "f", &[7; 100]).unwrap();
    assert!(cache.load("sha256:a", "f").is_some());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
    assert_eq!(cache.load("sha256:a", "f"), None);
}

#[test]
fn code_of_another_machine_does_not_count() {
    let ((_one, here), (_other, there)) = (cache(BYTES_MAX), cache(BYTES_MAX));
    there.store("sha256:a", "f", b"code").unwrap();
    fs::copy(there.path("sha256:a", "f"), here.path("sha256:a", "f")).unwrap();
    assert_eq!(here.load("sha256:a", "f"), None);
    here.store("sha256:a", "f", b"mine").unwrap();
    assert_eq!(here.load("sha256:a", "f").unwrap(), b"mine");
}

#[test]
fn the_key_stays_and_is_its_owners_alone() {
    let (directory, cache) = cache(BYTES_MAX);
    cache.store("sha256:a", "f", b"code").unwrap();
    let again = || Cache::open(directory.path().join("code")).unwrap().load("sha256:a", "f");
    assert!(again().is_some());
    let path = directory.path().join("code.key");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let key = fs::read(&path).unwrap();
    // One that others could have read is replaced, and with it all that it vouches for.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(again(), None);
    assert_ne!(fs::read(&path).unwrap(), key);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn what_is_used_outlives_what_is_not() {
    let (_directory, cache) = cache(500);
    let old = |name: &str| {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000);
        fs::File::open(cache.path(name, "f")).unwrap().set_modified(time).unwrap();
    };
    for name in ["sha256:a", "sha256:b"] {
        cache.store(name, "f", &[0; 100]).unwrap();
        old(name);
    }
    assert!(cache.load("sha256:a", "f").is_some());
    for name in ["sha256:c", "sha256:d"] {
        cache.store(name, "f", &[0; 100]).unwrap();
    }
    assert!(cache.load("sha256:a", "f").is_some());
    assert_eq!(cache.load("sha256:b", "f"), None);
}

#[test]
fn the_directory_is_bounded() {
    let (_directory, cache) = cache(1_000);
    for n in 0..20 {
        cache.store(&format!("sha256:{n}"), "f", &[0; 100]).unwrap();
    }
    assert_eq!(fs::read_dir(&cache.directory).unwrap().count(), 7);
}
