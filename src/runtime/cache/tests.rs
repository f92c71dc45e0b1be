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
fn the_directory_is_bounded() {
    let (_directory, cache) = cache(1_000);
    for n in 0..20 {
        cache.store(&format!("sha256:{n}"), "f", &[0; 100]).unwrap();
    }
    assert_eq!(fs::read_dir(&cache.directory).unwrap().count(), 7);
}
