use super::*;

const SOME: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const WASM: &[u8] = b"\0asm\x0d\0\x01\0";

fn descriptor(media_type: &str) -> Descriptor {
    let annotations = std::collections::BTreeMap::new();
    Descriptor { media_type: media_type.into(), digest: SOME.into(), size: 8, annotations, platform: None }
}

fn manifest(config: &str, layers: &[&str]) -> Manifest {
    Manifest { config: descriptor(config), layers: layers.iter().map(|layer| descriptor(layer)).collect() }
}

#[test]
fn every_way_to_publish_webassembly_is_understood() {
    let tar = "application/vnd.oci.image.layer.v1.tar";
    let gzip = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    for (what, config, layers, has_config, form) in [
        ("artifact", "application/vnd.wasm.config.v0+json", &["application/wasm"][..], false, Form::Program),
        ("runwasi", OCI_CONFIG, &["application/vnd.wasm.content.layer.v1+wasm"], true, Form::Program),
        (
            "runwasi's component",
            OCI_CONFIG,
            &["application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"],
            true,
            Form::Program,
        ),
        (
            "spin, with its assets",
            "application/vnd.fermyon.spin.application.v1+config",
            &["application/vnd.wasm.content.layer.v1+wasm", "application/vnd.wasm.content.layer.v1+data"],
            false,
            Form::Program,
        ),
        ("container", OCI_CONFIG, &[tar], true, Form::Tree),
        ("docker's container", DOCKER_CONFIG, &[gzip, gzip], true, Form::Tree),
    ] {
        let plan = plan(&manifest(config, layers)).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((plan.config.is_some(), plan.form), (has_config, form), "{what}");
        assert_eq!(plan.layers.len(), if form == Form::Program { 1 } else { layers.len() }, "{what}");
    }
}

#[test]
fn others_are_refused_with_the_reason() {
    let wasm = "application/wasm";
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    for (manifest, why) in [
        (manifest("x", &[wasm, wasm]), "it has 2 layers of WebAssembly; a container runs one"),
        (manifest(OCI_CONFIG, &[]), "it has no layer of WebAssembly"),
        (manifest(OCI_CONFIG, &[zstd]), "a layer of type application/vnd.oci.image.layer.v1.tar+zstd cannot"),
        (manifest("x", &["application/vnd.oci.image.layer.v1.tar"]), "it has no layer of WebAssembly"),
        (
            manifest(OCI_CONFIG, &["application/vnd.oci.image.layer.v1.tar"; 128]),
            "it has more than 127 layers",
        ),
    ] {
        let error = plan(&manifest).unwrap_err().to_string();
        assert!(error.starts_with(why), "{error}");
    }
    let mut large = manifest("x", &[wasm]);
    large.layers[0].size = u64::MAX;
    assert!(matches!(plan(&large), Err(FormatError::TooLarge { what: "layers", .. })));
    let mut large = manifest(OCI_CONFIG, &[wasm]);
    large.config.size = CONFIG_BYTES_MAX + 1;
    assert!(matches!(plan(&large), Err(FormatError::TooLarge { what: "configuration", .. })));
}

#[test]
fn an_index_yields_its_webassembly() {
    let entry = |os: &str, architecture: &str| Descriptor {
        platform: Some(Platform { os: os.into(), architecture: architecture.into() }),
        ..descriptor(OCI_MANIFEST)
    };
    let chosen = |entries: &[Descriptor]| {
        let found = choose(entries).map_err(|error| error.to_string())?;
        Ok::<_, String>(
            found.platform.clone().map(|platform| format!("{}/{}", platform.os, platform.architecture)),
        )
    };
    let linux = [entry("linux", "amd64"), entry("linux", "arm64")];
    for (os, architecture) in [("wasi", "wasm"), ("wasip1", "wasm"), ("linux", "wasm32"), ("wasi", "amd64")] {
        let all = [&linux[..], &[entry(os, architecture)]].concat();
        assert_eq!(chosen(&all), Ok(Some(format!("{os}/{architecture}"))));
    }
    let attested = [entry("linux", "amd64"), entry("unknown", "unknown")];
    assert_eq!(chosen(&attested), Ok(Some("linux/amd64".into())), "the only one");
    assert_eq!(chosen(&[descriptor(OCI_MANIFEST)]), Ok(None));
    assert_eq!(
        chosen(&linux),
        Err("it is for linux/amd64, linux/arm64; only WebAssembly runs here (platform wasi/wasm)".into())
    );
    assert_eq!(chosen(&[]), Err("its index is empty".into()));
}

#[test]
fn documents_are_told_apart_and_digests_looked_at() {
    let layer = |digest: &str| {
        format!(r#"{{"mediaType": "application/wasm", "digest": "{digest}", "size": 1, "unknown": 1}}"#)
    };
    let good = layer(SOME);
    let parsed = |text: &str| parse(text.as_bytes());
    let manifest = format!(r#"{{"schemaVersion": 2, "config": {good}, "layers": [{good}]}}"#);
    assert!(matches!(parsed(&manifest), Ok(Document::Manifest(_))));
    let index = format!(r#"{{"schemaVersion": 2, "mediaType": "{OCI_INDEX}", "manifests": [{good}]}}"#);
    assert!(matches!(parsed(&index), Ok(Document::Index(_))));
    for text in [
        "{".to_owned(),
        r#"{"schemaVersion": 1}"#.to_owned(),
        r#"{"schemaVersion": 2}"#.to_owned(),
        format!(r#"{{"schemaVersion": 2, "mediaType": "{OCI_INDEX}", "config": {good}, "layers": []}}"#),
        format!(r#"{{"schemaVersion": 2, "config": {good}, "layers": [{}]}}"#, layer("sha256:../../x")),
        format!(r#"{{"schemaVersion": 2, "config": {good}, "layers": [{}]}}"#, layer("sha512:aa")),
        r#"{"schemaVersion": 2, "mediaType": "text/html", "layers": []}"#.to_owned(),
    ] {
        assert!(matches!(parsed(&text), Err(FormatError::Invalid("manifest", _))), "{text}");
    }
}

/// A layer: paths with their content; without content a symbolic link.
fn layer(files: &[(&str, Option<&[u8]>)]) -> Bytes {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        match content {
            Some(content) => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, *content).unwrap();
            }
            None => {
                header.set_size(0);
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, path, "/etc/passwd").unwrap();
            }
        }
    }
    builder.into_inner().unwrap().into()
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap().into()
}

fn from_tree(config: &str, layers: &[Bytes]) -> Result<(Bytes, ImageConfig), String> {
    let types = vec!["application/vnd.oci.image.layer.v1.tar"; layers.len()];
    let plan = plan(&manifest(OCI_CONFIG, &types)).unwrap();
    program(&plan, Some(config.as_bytes()), layers).map_err(|error| error.to_string())
}

#[test]
fn the_entry_point_is_found_where_overlays_would_have_it() {
    let other: &[u8] = b"\0asm\x0d\0\x01\0other";
    let config = r#"{"os": "wasi", "architecture": "wasm", "config": {"Entrypoint": ["/app/main.wasm", "-v"],
        "Cmd": ["x"], "Env": ["A=b=c", "nonsense", "=x"]}}"#;
    let base = layer(&[("app/main.wasm", Some(WASM)), ("etc/passwd", Some(b"x"))]);
    let (wasm, calls) = from_tree(config, std::slice::from_ref(&base)).unwrap();
    assert_eq!(&wasm[..], WASM);
    assert_eq!(calls.entrypoint, ["/app/main.wasm", "-v"]);
    assert_eq!((calls.cmd, calls.env), (vec!["x".to_owned()], vec![("A".into(), "b=c".into())]));
    let found = |upper: Bytes| from_tree(config, &[base.clone(), upper]).map(|(wasm, _)| wasm.len());
    let gone = Err("its entry point \"/app/main.wasm\" is in none of its layers".to_owned());
    assert_eq!(found(layer(&[("./app/main.wasm", Some(other))])), Ok(other.len()), "the upper layer");
    assert_eq!(found(layer(&[("app/other", Some(b"x"))])), Ok(WASM.len()));
    assert_eq!(found(layer(&[("app/.wh.main.wasm", Some(b""))])), gone);
    assert_eq!(found(layer(&[(".wh.app", Some(b""))])), gone);
    assert_eq!(found(layer(&[("app/.wh..wh..opq", Some(b""))])), gone);
    assert_eq!(found(layer(&[("other/.wh..wh..opq", Some(b""))])), Ok(WASM.len()));
    let both = layer(&[("app/.wh..wh..opq", Some(b"")), ("app/main.wasm", Some(other))]);
    assert_eq!(found(both), Ok(other.len()), "an opaque directory keeps what its own layer has");
    let link = found(layer(&[("app/main.wasm", None)])).unwrap_err();
    assert!(link.contains("is a link"), "{link}");
}

#[test]
fn entry_points_may_be_relative_and_must_be_webassembly() {
    let files = layer(&[("app/main.wasm", Some(WASM)), ("bin/sh", Some(b"\x7fELF"))]);
    let run = |config: &str| from_tree(config, std::slice::from_ref(&files)).map(|(wasm, _)| wasm.len());
    assert_eq!(run(r#"{"config": {"Entrypoint": ["main.wasm"], "WorkingDir": "/app"}}"#), Ok(WASM.len()));
    assert_eq!(run(r#"{"config": {"Cmd": ["./app/main.wasm"]}}"#), Ok(WASM.len()));
    let linux = run(r#"{"os": "linux", "architecture": "amd64", "config": {"Cmd": ["/bin/sh"]}}"#);
    let why = "its entry point \"/bin/sh\" is a program for linux/amd64, not WebAssembly";
    assert_eq!(linux, Err(why.to_owned()));
    assert_eq!(run("{}"), Err("its configuration names no entry point".to_owned()));
    assert!(run("[").unwrap_err().starts_with("its configuration is not valid"));
}

#[test]
fn compressed_layers_and_garbage() {
    let plan =
        plan(&manifest(DOCKER_CONFIG, &["application/vnd.docker.image.rootfs.diff.tar.gzip"])).unwrap();
    let config = br#"{"config": {"Entrypoint": ["/m"]}}"#;
    let packed = gzip(&layer(&[("m", Some(WASM))]));
    let (wasm, _) = program(&plan, Some(config), std::slice::from_ref(&packed)).unwrap();
    assert_eq!(&wasm[..], WASM);
    let cut = packed.slice(..packed.len() / 2);
    for bad in [cut, Bytes::from_static(b"no gzip"), gzip(&[7; 2000])] {
        let error = program(&plan, Some(config), &[bad]).unwrap_err();
        assert!(matches!(error, FormatError::Invalid("layer", _)), "{error}");
    }
}

#[test]
fn a_layer_that_is_no_webassembly_is_none() {
    let plan = plan(&manifest("x", &["application/wasm"])).unwrap();
    let error = program(&plan, None, &[Bytes::from_static(b"#!/bin/sh")]).unwrap_err().to_string();
    assert_eq!(error, "its layer of WebAssembly does not begin with \\0asm");
}
