use super::*;

const WASM: &[u8] = b"\0asm\x0d\0\x01\0";

/// A layout of one image, imported and so written by a store.
fn layout() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    ImageStore::on_disk(dir.path().to_owned())
        .import("ghcr.io/me/hello:v1", &Bytes::from_static(WASM))
        .unwrap();
    dir
}

fn tar_of(dir: &Path) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", dir).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn a_directory_and_a_tar_of_it_are_the_same() {
    let dir = layout();
    let files = tempfile::tempdir().unwrap();
    let (tar, packed) = (files.path().join("a.tar"), files.path().join("a.tar.gz"));
    std::fs::write(&tar, tar_of(dir.path())).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, &tar_of(dir.path())).unwrap();
    std::fs::write(&packed, encoder.finish().unwrap()).unwrap();
    for path in [dir.path(), &tar, &packed] {
        let store = ImageStore::in_memory();
        let images = store.import_layout(path, None).unwrap();
        assert_eq!(images[0].name, "ghcr.io/me/hello:v1");
        assert_eq!(store.read(&images[0].digest).unwrap(), WASM);
        let renamed = store.import_layout(path, Some("other")).unwrap();
        assert_eq!(renamed[0].name, "docker.io/library/other:latest");
    }
}

#[test]
fn names_that_are_tags_alone_need_one() {
    let dir = layout();
    let index = dir.path().join("index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, text.replace("ghcr.io/me/hello:v1", "v1")).unwrap();
    let store = ImageStore::in_memory();
    assert!(matches!(store.import_layout(dir.path(), None), Err(LayoutError::Nameless)));
    assert!(store.import_layout(dir.path(), Some("hello:v1")).is_ok());
}

#[test]
fn what_is_no_layout_or_damaged_is_said() {
    let store = ImageStore::in_memory();
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(store.import_layout(dir.path(), None), Err(LayoutError::NotALayout(_))));
    assert!(matches!(store.import_layout(&dir.path().join("x"), None), Err(LayoutError::Io { .. })));
    let dir = layout();
    ImageStore::on_disk(dir.path().to_owned()).import("second", &Bytes::from_static(WASM)).unwrap();
    assert!(matches!(store.import_layout(dir.path(), Some("a")), Err(LayoutError::Several(2))));
    let dir = layout();
    let hex = manifest::digest_of(WASM)["sha256:".len()..].to_owned();
    std::fs::write(dir.path().join("blobs/sha256").join(hex), b"\0asm\x0d\0\x01\x01").unwrap();
    let error = store.import_layout(dir.path(), None).unwrap_err().to_string();
    assert!(error.ends_with("has another content"), "{error}");
}
