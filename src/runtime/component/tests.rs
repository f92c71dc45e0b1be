use super::super::engine::Lanes;
use super::*;
use crate::guests::fixture;

/// A component that imports what is given and exports a `wasi:cli/run` that does nothing.
fn command(imports: &str) -> Vec<u8> {
    let text = format!(
        r#"(component {imports}
            (core module $m (func (export "run") (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $run (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $run)))"#
    );
    wat::parse_str(text).unwrap()
}

#[track_caller]
fn check(wasm: &[u8], expected: &str) {
    let told = match componentize(wasm) {
        Ok(None) => "as it is".to_owned(),
        Ok(Some(_)) => "converted".to_owned(),
        Err(error) => error.to_string(),
    };
    assert_eq!(told, expected);
}

#[test]
fn what_is_no_command_is_refused_with_the_reason() {
    const NOT_WASM: &str = "not a WebAssembly module or component: ";
    check(b"", &format!("{NOT_WASM}the file is empty"));
    check(b"#!/bin/sh\n", &format!("{NOT_WASM}it does not start with the WebAssembly header"));
    check(
        b" (module)",
        &format!("{NOT_WASM}it is the text format; turn it into a binary with `wasm-tools parse`"),
    );
    check(
        &wat::parse_str("(component)").unwrap(),
        "not a command: it exports neither `wasi:cli/run` nor `wasi:http/incoming-handler`, in a version 0.2",
    );
    check(&wat::parse_str("(module)").unwrap(), "not a command: it exports no `_start`");
    let module = wat::parse_str(r#"(module (func (export "_start")))"#).unwrap();
    check(&module, "not a command: it exports no `memory`");
    let damaged = &command("")[..60];
    assert!(matches!(componentize(damaged), Err(ImageError::Garbage(_))));
}

#[test]
fn every_missing_import_is_named() {
    check(&command(""), "as it is");
    check(&command(r#"(import "wasi:cli/environment@0.2.99" (instance))"#), "as it is");
    check(
        &command(
            r#"(import "wasi:http/frob@0.2.0" (instance)) (import "wasi:cli/stdin@0.2.1" (instance))
               (import "wasi:cli/stdin@0.3.0" (instance)) (import "frob" (func))"#,
        ),
        "imports that the host lacks: wasi:http/frob@0.2.0, wasi:cli/stdin@0.3.0, frob",
    );
    let module = r#"(module (import "env" "foo" (func)) (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
        (import "wasi_snapshot_preview1" "sock_open" (func)) (import "env" "memory" (memory 1)) (func (export "_start")))"#;
    check(
        &wat::parse_str(module).unwrap(),
        "imports that the host lacks: env.foo, wasi_snapshot_preview1.sock_open, env.memory",
    );
}

#[test]
fn modules_become_components() {
    check(&fixture("exit.p1").unwrap(), "converted");
    check(&fixture("exit").unwrap(), "as it is");
    check(
        &wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start")))"#).unwrap(),
        "converted",
    );
}

#[test]
fn the_linker_has_every_interface_that_is_offered() {
    let lanes = Lanes::default();
    let lane = lanes.spare(|_| ()).unwrap();
    let interfaces = INTERFACES.iter().map(|interface| format!("{interface}@0.2.0"));
    for interface in interfaces.chain(OTHER_INTERFACES.iter().map(|&interface| interface.to_owned())) {
        let component = command(&format!(r#"(import "{interface}" (instance))"#));
        let component = wasmtime::component::Component::new(&lane.engine, component).unwrap();
        if let Err(error) = lane.linker.instantiate_pre(&component) {
            panic!("{error:#}");
        }
    }
}
