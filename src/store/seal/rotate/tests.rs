use std::fs;
use std::sync::Arc;

use super::*;
use crate::store::Sealing;
use crate::store::seal::{DataKey, Vault};

struct World {
    directory: tempfile::TempDir,
    keys: Vec<Arc<DataKey>>,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let world = Self { directory, keys: (0..3).map(|_| Arc::new(DataKey::generate())).collect() };
        fs::create_dir(world.store()).unwrap();
        let vault = Vault::create(&world.store(), &world.sealing()).unwrap();
        vault.keep(&world.keys).unwrap();
        world
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn key_file(&self) -> PathBuf {
        self.directory.path().join("key")
    }

    fn sealing(&self) -> Sealing {
        Sealing { collections: vec!["secrets"], key_file: self.key_file() }
    }

    /// Whether the store opens with every data key.
    #[track_caller]
    fn is_whole(&self, context: &str) {
        let vault = Vault::open(&self.store(), Some(&self.sealing())).unwrap().expect("it is sealed");
        for key in &self.keys {
            assert!(vault.get(key.id).is_some_and(|found| found.bytes() == key.bytes()), "{context}");
        }
        assert!(!vault.is_damaged(), "{context}");
    }

    fn files(&self, of: &Path) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(of).unwrap().map(|entry| entry.unwrap());
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
        files
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
            .collect()
    }
}

#[test]
fn another_key_opens_the_same_data() {
    let world = World::new();
    let old_key_file = fs::read(world.key_file()).unwrap();
    let before = keys(&world.store(), &world.key_file()).unwrap();
    let rotation = rotate(&world.store(), &world.key_file()).unwrap();
    assert_eq!((Some(rotation.old), rotation.data_keys), (before.used, 3));
    let after = keys(&world.store(), &world.key_file()).unwrap();
    assert_eq!((after.used, after.held), (Some(rotation.new), vec![rotation.new]));
    world.is_whole("rotated");
    // The old key opens nothing any more.
    fs::write(world.key_file(), old_key_file).unwrap();
    let error = Vault::open(&world.store(), Some(&world.sealing())).unwrap_err().to_string();
    let (store, file) = (world.store(), world.key_file().canonicalize().unwrap());
    let expected = format!(
        "the data directory {} is encrypted with key {}, but the key file {} holds {}; name the right one \
         with --key-file",
        store.display(),
        rotation.new,
        file.display(),
        rotation.old
    );
    assert_eq!(error, expected);
    assert_eq!(rotate(&world.store(), &world.key_file()).unwrap_err().to_string(), expected);
}

/// Whatever is on the disk at any step opens, and rotating again leaves one key.
#[test]
fn a_crash_at_any_step_loses_nothing() {
    for at in [Step::BothKeysHeld, Step::Rewrapped, Step::OldKeyDropped] {
        let world = World::new();
        let mut crashed = None;
        run(&world.store(), &world.key_file(), &mut |step| {
            if step == at {
                crashed = Some((world.files(&world.store()), world.files(world.directory.path())));
            }
        })
        .unwrap();
        let (store, beside) = crashed.unwrap();
        for (folder, files) in [(world.store(), store), (world.directory.path().to_owned(), beside)] {
            for (name, content) in files {
                fs::write(folder.join(name), content).unwrap();
            }
        }
        world.is_whole(&format!("{at:?}"));
        let held = keys(&world.store(), &world.key_file()).unwrap();
        assert_eq!(held.held.len(), if at == Step::OldKeyDropped { 1 } else { 2 }, "{at:?}");
        rotate(&world.store(), &world.key_file()).unwrap();
        assert_eq!(keys(&world.store(), &world.key_file()).unwrap().held.len(), 1, "{at:?}");
        world.is_whole(&format!("{at:?}, rotated again"));
    }
}

#[test]
fn what_cannot_be_rotated_is_told() {
    let world = World::new();
    let held = Directory::hold(&world.store()).unwrap();
    assert!(matches!(rotate(&world.store(), &world.key_file()), Err(OpenError::Held(_))));
    // Looking is always possible.
    assert!(keys(&world.store(), &world.key_file()).is_ok());
    held.release();
    fs::rename(world.key_file(), world.directory.path().join("elsewhere")).unwrap();
    for error in [
        rotate(&world.store(), &world.key_file()).unwrap_err(),
        keys(&world.store(), &world.key_file()).unwrap_err(),
        Vault::open(&world.store(), Some(&world.sealing())).unwrap_err(),
    ] {
        assert!(matches!(error, OpenError::KeyFileMissing { .. }), "{error}");
    }
    assert!(!world.key_file().exists(), "no key was made in place of the one that is missing");
    assert!(matches!(Vault::open(&world.store(), None), Err(OpenError::Sealed(_))));
    let nowhere = world.directory.path().join("nowhere");
    assert!(matches!(rotate(&nowhere, &world.key_file()), Err(OpenError::NothingSealed(_))));
    assert!(!nowhere.exists());
    let nothing = keys(&nowhere, &world.key_file()).unwrap();
    assert_eq!((nothing.used, nothing.held), (None, vec![]));
}
