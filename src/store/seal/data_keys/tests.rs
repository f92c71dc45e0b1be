use super::*;

fn keys(count: usize) -> Vec<Arc<DataKey>> {
    (0..count).map(|_| Arc::new(DataKey::generate())).collect()
}

fn file() -> (tempfile::TempDir, PathBuf, ClusterKey) {
    let directory = tempfile::tempdir().unwrap();
    let path = path(directory.path());
    (directory, path, ClusterKey::generate())
}

/// Which of `keys` can be got, by their bytes.
fn there(file: &DataKeys, keys: &[Arc<DataKey>]) -> Vec<bool> {
    keys.iter().map(|key| file.get(key.id).is_some_and(|found| found.bytes() == key.bytes())).collect()
}

fn length(path: &Path) -> usize {
    usize::try_from(path.metadata().unwrap().len()).unwrap()
}

#[test]
fn keys_come_back_until_they_are_destroyed() {
    let (_directory, path, cluster_key) = file();
    let file = DataKeys::create(&path, cluster_key.clone()).unwrap();
    assert_eq!(wrapped_with(&path).unwrap(), Some(cluster_key.id));
    let keys = keys(3);
    file.add(&keys).unwrap();
    assert_eq!(there(&file, &keys), [true; 3]);
    let raw = std::fs::read(&path).unwrap();
    for key in &keys {
        assert!(!raw.windows(8).any(|window| window == &key.bytes()[..8]), "a key in the open");
    }
    file.destroy(&[keys[1].id]).unwrap();
    file.destroy(&[keys[1].id]).unwrap();
    assert_eq!(there(&file, &keys), [true, false, true]);
    let after = std::fs::read(&path).unwrap();
    assert_eq!(after.len(), raw.len());
    assert!(!after.windows(16).any(|window| window == keys[1].id.0), "its slot is still there");
    drop(file);
    let file = DataKeys::open(&path, cluster_key).unwrap();
    assert_eq!(there(&file, &keys), [true, false, true]);
}

#[test]
fn places_are_used_again() {
    let (_directory, path, cluster_key) = file();
    let file = DataKeys::create(&path, cluster_key.clone()).unwrap();
    let first = keys(STEP_SLOTS);
    file.add(&first).unwrap();
    assert_eq!(length(&path), (STEP_SLOTS + 1) * SLOT_BYTES);
    file.destroy(&first.iter().map(|key| key.id).collect::<Vec<_>>()).unwrap();
    for round in 0..3 {
        // After a restart too.
        let file = DataKeys::open(&path, cluster_key.clone()).unwrap();
        let some = keys(STEP_SLOTS);
        file.add(&some).unwrap();
        assert_eq!(there(&file, &some), [true; STEP_SLOTS], "round {round}");
        assert_eq!(length(&path), (STEP_SLOTS + 1) * SLOT_BYTES);
        file.retain(&HashSet::new()).unwrap();
    }
    file.add(&keys(2 * STEP_SLOTS + 1)).unwrap();
    assert_eq!(length(&path), (3 * STEP_SLOTS + 1) * SLOT_BYTES);
}

#[test]
fn what_no_object_names_is_destroyed() {
    let (_directory, path, cluster_key) = file();
    let file = DataKeys::create(&path, cluster_key.clone()).unwrap();
    let keys = keys(4);
    file.add(&keys).unwrap();
    // As a crash in the middle of writing a slot, and one while the file grew, leave it.
    let raw = OpenOptions::new().write(true).open(&path).unwrap();
    let (place, _) = file.slots().known[&keys[3].id];
    raw.write_all_at(&[7; 9], offset_of(place) + 20).unwrap();
    raw.write_all_at(&[1; 5], offset_of(STEP_SLOTS)).unwrap();
    let file = DataKeys::open(&path, cluster_key.clone()).unwrap();
    assert_eq!((there(&file, &keys), file.is_damaged()), (vec![true, true, true, false], true));
    assert_eq!(file.retain(&[keys[0].id].into()).unwrap(), 3);
    assert_eq!((there(&file, &keys), file.is_damaged()), (vec![true, false, false, false], false));
    let file = DataKeys::open(&path, cluster_key).unwrap();
    assert_eq!((there(&file, &keys), file.is_damaged()), (vec![true, false, false, false], false));
    assert_eq!(file.retain(&[keys[0].id].into()).unwrap(), 0);
}

#[test]
fn another_key_opens_nothing() {
    let (_directory, path, cluster_key) = file();
    let file = DataKeys::create(&path, cluster_key.clone()).unwrap();
    let keys = keys(2);
    file.add(&keys).unwrap();
    let other = DataKeys::open(&path, ClusterKey::generate()).unwrap();
    assert_eq!((there(&other, &keys), other.is_damaged()), (vec![false; 2], true));
    // A slot is of one data key.
    let mut raw = std::fs::read(&path).unwrap();
    let first: Slot = raw[SLOT_BYTES..2 * SLOT_BYTES].try_into().unwrap();
    raw[SLOT_BYTES] ^= 1;
    let crc = crc32fast::hash(&raw[SLOT_BYTES..2 * SLOT_BYTES - 4]);
    raw[2 * SLOT_BYTES - 4..2 * SLOT_BYTES].copy_from_slice(&crc.to_le_bytes());
    let renamed: Slot = raw[SLOT_BYTES..2 * SLOT_BYTES].try_into().unwrap();
    assert!(unwrap(&cluster_key, &first).is_some());
    assert!(unwrap(&cluster_key, &renamed).is_none());
}

#[test]
fn a_damaged_header_is_told() {
    let (_directory, path, cluster_key) = file();
    assert_eq!(wrapped_with(&path).unwrap(), None);
    drop(DataKeys::create(&path, cluster_key).unwrap());
    let whole = std::fs::read(&path).unwrap();
    let check = |bytes: &[u8], expected: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = wrapped_with(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(path.to_str().unwrap()), "{error}");
    };
    check(&whole[..100], "the header is cut short");
    let mut bad = whole.clone();
    bad[30] ^= 1;
    check(&bad, "the header is not one of Coracle's");
    check(&slot(&[MAGIC, &2_u32.to_le_bytes()]), "written by a newer Coracle (format 2, this one reads 1)");
    check(&slot(&[b"something else"]), "the header is not one of Coracle's");
}

#[test]
fn rewrapped_keys_are_the_same_keys() {
    let (_directory, path, cluster_key) = file();
    let file = DataKeys::create(&path, cluster_key.clone()).unwrap();
    let keys = keys(5);
    file.add(&keys).unwrap();
    file.destroy(&[keys[2].id]).unwrap();
    let new = ClusterKey::generate();
    std::fs::write(&path, file.rewrapped(&new)).unwrap();
    assert_eq!(wrapped_with(&path).unwrap(), Some(new.id));
    let file = DataKeys::open(&path, new).unwrap();
    assert_eq!(there(&file, &keys), [true, true, false, true, true]);
    let old = DataKeys::open(&path, cluster_key).unwrap();
    assert_eq!(there(&old, &keys), [false; 5]);
}
