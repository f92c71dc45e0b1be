use super::*;

fn wasm(text: &str) -> Bytes {
    [b"\0asm\x0d\0\x01\0", text.as_bytes()].concat().into()
}

fn names(store: &ImageStore) -> Vec<String> {
    store.list().unwrap().into_iter().map(|image| name::familiar(&image.name).to_owned()).collect()
}

fn stores() -> (tempfile::TempDir, [ImageStore; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let disk = ImageStore::on_disk(dir.path().join("images"));
    (dir, [disk, ImageStore::in_memory()])
}

#[test]
fn what_is_imported_is_found_under_every_spelling() {
    let (_dir, stores) = stores();
    for store in stores {
        assert_eq!(names(&store), [""; 0]);
        let info = store.import("hello", &wasm("a")).unwrap();
        assert_eq!(info.name, "docker.io/library/hello:latest");
        for spelling in ["hello", "hello:latest", "docker.io/library/hello", "docker.io/hello:latest"] {
            let full = name::normalize(spelling).unwrap();
            assert_eq!(store.resolve(&full).unwrap(), Some(info.digest.clone()), "{spelling}");
        }
        let by_digest = name::normalize(&format!("hello@{}", info.digest)).unwrap();
        assert_eq!(store.resolve(&by_digest).unwrap(), Some(info.digest.clone()));
        assert_eq!(store.read(&info.digest).unwrap(), wasm("a"));
        assert_eq!(store.resolve("docker.io/library/hello:v2").unwrap(), None);
    }
}

#[test]
fn a_name_moves_and_unused_programs_go() {
    let (dir, stores) = stores();
    for store in &stores {
        let old = store.import("hello:v1", &wasm("old")).unwrap();
        store.import("other", &wasm("old")).unwrap();
        let new = store.import("hello:v1", &wasm("new")).unwrap();
        assert_eq!(names(store), ["hello:v1", "other:latest"]);
        assert_eq!(store.resolve(&new.name).unwrap(), Some(new.digest.clone()));
        assert_eq!(store.read(&old.digest).unwrap(), wasm("old"));
        store.remove("other").unwrap();
        assert!(store.read(&old.digest).is_err());
        assert!(
            matches!(store.remove("other"), Err(StoreError::NoSuchImage(name)) if name == "other:latest")
        );
    }
    let blobs = fs::read_dir(dir.path().join("images/blobs/sha256")).unwrap().count();
    assert_eq!(blobs, 3, "manifest, configuration and program");
}

#[test]
fn the_directory_is_an_oci_layout_with_a_wasm_artifact() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::on_disk(dir.path().to_owned());
    let info = store.import("hello:v1", &wasm("a")).unwrap();
    let json =
        |path: &Path| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    assert_eq!(json(&dir.path().join("oci-layout"))["imageLayoutVersion"], "1.0.0");
    let index = json(&dir.path().join("index.json"));
    let entry = &index["manifests"][0];
    assert_eq!(entry["annotations"][NAME_ANNOTATION], "docker.io/library/hello:v1");
    let manifest = json(&blob_path(dir.path(), entry["digest"].as_str().unwrap()));
    assert_eq!(manifest["config"]["mediaType"], CONFIG_TYPE);
    assert_eq!(manifest["layers"][0]["mediaType"], LAYER_TYPE);
    assert_eq!(manifest["layers"][0]["digest"], info.digest);
    let config = json(&blob_path(dir.path(), manifest["config"]["digest"].as_str().unwrap()));
    assert_eq!((&config["os"], &config["layerDigests"][0]), (&"wasip2".into(), &info.digest.into()));
}

#[test]
fn another_store_on_the_same_directory_sees_an_import_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let reader = ImageStore::on_disk(dir.path().to_owned());
    let writer = ImageStore::on_disk(dir.path().to_owned());
    let full = name::normalize("hello").unwrap();
    assert_eq!(reader.resolve(&full).unwrap(), None);
    let first = writer.import("hello", &wasm("a")).unwrap();
    assert_eq!(reader.resolve(&full).unwrap(), Some(first.digest));
    let second = writer.import("hello", &wasm("b")).unwrap();
    assert_eq!(reader.resolve(&full).unwrap(), Some(second.digest));
    writer.remove("hello").unwrap();
    assert_eq!(reader.resolve(&full).unwrap(), None);
}

#[test]
fn concurrent_imports_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for i in 0..4 {
            let path = dir.path().to_owned();
            scope.spawn(move || {
                let store = ImageStore::on_disk(path);
                for j in 0..5 {
                    store.import(&format!("image-{i}:{j}"), &wasm(&format!("{i} {j}"))).unwrap();
                }
            });
        }
    });
    let store = ImageStore::on_disk(dir.path().to_owned());
    let images = store.list().unwrap();
    assert_eq!(images.len(), 20);
    for image in images {
        store.read(&image.digest).unwrap();
    }
}

#[test]
fn built_in_images_yield_to_imported_ones_and_stay() {
    static HELLO: &[u8] = b"\0asm\x0d\0\x01\0built in";
    let store = ImageStore::in_memory().with_built_in(&[("hello", HELLO)]);
    assert!(store.list().unwrap()[0].built_in);
    let full = name::normalize("hello").unwrap();
    let digest = store.resolve(&full).unwrap().unwrap();
    assert_eq!(store.read(&digest).unwrap(), HELLO);
    assert!(matches!(store.remove("hello"), Err(StoreError::BuiltIn(_))));
    let mine = store.import("hello", &wasm("mine")).unwrap();
    assert_eq!(store.resolve(&full).unwrap(), Some(mine.digest));
    store.remove("hello").unwrap();
    assert_eq!(store.resolve(&full).unwrap(), Some(digest));
}

#[test]
fn damage_and_other_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::on_disk(dir.path().to_owned());
    assert!(matches!(store.import("hello", &Bytes::from_static(b"#!/bin/sh")), Err(StoreError::NotWasm)));
    assert!(matches!(store.import("Hello", &wasm("a")), Err(StoreError::Name(_))));
    let info = store.import("hello", &wasm("a")).unwrap();
    fs::write(blob_path(dir.path(), &info.digest), "other").unwrap();
    assert!(matches!(store.read(&info.digest), Err(StoreError::Damaged { .. })));
    fs::write(dir.path().join("index.json"), "{").unwrap();
    assert!(matches!(store.list(), Err(StoreError::Damaged { .. })));
}

fn pulled(store: &ImageStore, name: &str, size: usize, access: Access) {
    let program = wasm(&"x".repeat(size - 8));
    let layer = descriptor("application/wasm", &digest_of(&program), program.len());
    let config = descriptor(CONFIG_TYPE, &digest_of(b"{}"), 2);
    let manifest =
        Manifest { schema_version: 2, media_type: Some(MANIFEST_TYPE.into()), config, layers: vec![layer] };
    let manifest = Bytes::from(serde_json::to_vec(&manifest).unwrap());
    let digest = digest_of(&manifest);
    let content = Content {
        manifest,
        media_type: MANIFEST_TYPE.into(),
        blobs: vec![(digest_of(b"{}"), Bytes::from_static(b"{}")), (digest_of(&program), program.clone())],
        program,
        config: ImageConfig::default(),
    };
    store.add(&name::normalize(name).unwrap(), content, &Origin::Pulled { digest, access }).unwrap();
}

#[test]
fn pulled_images_are_bounded_and_imported_ones_stay() {
    let (_dir, stores) = stores();
    for store in stores {
        let store = ImageStore { bytes_max: 40_000, ..store };
        store.import("mine", &wasm(&"y".repeat(10_000))).unwrap();
        for name in ["a", "b", "a", "c"] {
            let size = 9_000 + usize::from(name.as_bytes()[0]);
            pulled(&store, name, size, Access::All);
        }
        assert_eq!(names(&store), ["a:latest", "b:latest", "c:latest", "mine:latest"]);
        pulled(&store, "d", 9_500, Access::All);
        assert_eq!(names(&store), ["a:latest", "c:latest", "d:latest", "mine:latest"], "b was pulled first");
        pulled(&store, "large", 60_000, Access::All);
        assert_eq!(names(&store), ["large:latest", "mine:latest"], "the newest stays");
    }
}

#[test]
fn who_may_use_a_pulled_image_is_kept_and_widened() {
    let (dir, stores) = stores();
    let secrets = |uids: &[&str]| Access::Secrets(uids.iter().map(|uid| (*uid).to_owned()).collect());
    for store in &stores {
        pulled(store, "reg.example/a:v1", 100, secrets(&["u1"]));
        let access = || match store.find("reg.example/a:v1").unwrap().unwrap().origin {
            Origin::Pulled { access, .. } => access,
            Origin::Imported => panic!("it was pulled"),
        };
        assert_eq!(access(), secrets(&["u1"]));
        store.allow("reg.example/a:v1", &secrets(&["u2"])).unwrap();
        assert_eq!(access(), secrets(&["u1", "u2"]));
        if store.dir().is_some() {
            let again = ImageStore::on_disk(dir.path().join("images"));
            assert_eq!(again.find("reg.example/a:v1").unwrap(), store.find("reg.example/a:v1").unwrap());
        }
        store.allow("reg.example/a:v1", &Access::All).unwrap();
        assert_eq!(access(), Access::All);
        store.allow("reg.example/a:v1", &secrets(&["u3"])).unwrap();
        assert_eq!(access(), Access::All, "what all may, all may");
    }
}
