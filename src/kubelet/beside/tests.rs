use super::*;
use crate::clock::Clock;
use crate::random::Random;
use crate::runtime::budget::{Budget, Limits};
use crate::runtime::log::Log;
use crate::runtime::wasm::{Options, WasmRuntime};
use crate::runtime::{ContainerSpec, Runtime};

#[test]
fn the_first_word_says_which_program() {
    let tool = |name| Some(Program::Tool(name));
    for (own, word, expected) in [
        ("hello", "hello", Some(Program::Own)),
        ("hello", "self", Some(Program::Own)),
        ("/app/server.wasm", "/app/server.wasm", Some(Program::Own)),
        ("/app/server.wasm", "server.wasm", Some(Program::Own)),
        ("/app/server.wasm", "/other/server.wasm", None),
        // The container's own program comes before a tool of its name.
        ("cat", "cat", Some(Program::Own)),
        ("hello", "cat", tool("cat")),
        ("hello", "/bin/sh", tool("sh")),
        ("hello", "/usr/bin/env", tool("env")),
        ("hello", "/data/cat", None),
        ("hello", "bash", None),
        ("hello", "", None),
        ("", "", None),
    ] {
        assert_eq!(program(own, word), expected, "{word:?} in a container of {own:?}");
    }
}

#[test]
fn the_tools_are_those_of_the_toolbox() {
    assert!(TOOLS.is_sorted());
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let threads = threads.enable_all().build().unwrap();
    let said = threads.block_on(async {
        let (clock, random) = (Clock::real(), Random::from_seed(1));
        let options = Options {
            clock,
            random,
            guests: threads.handle().clone(),
            computing: None,
            cache_dir: None,
            roots: Vec::new(),
        };
        let runtime = WasmRuntime::new(options).unwrap();
        let wasm = crate::guests::fixture("toolbox.p1").unwrap();
        let log = Arc::new(Log::new(clock, 10_000));
        let spec = ContainerSpec {
            label: "n/p/c".to_owned(),
            image: runtime.prepare(wasm.into()).await.unwrap(),
            args: vec!["toolbox".to_owned(), "nothing".to_owned()],
            env: Vec::new(),
            working_dir: None,
            mounts: Vec::new(),
            config: None,
            queue: None,
            network: None,
            http: None,
            budget: Budget::new(Limits::default(), clock, None),
            fuel: crate::runtime::Fuel::Off,
            stdio: Stdio::log(&log),
            annotations: std::collections::BTreeMap::new(),
        };
        assert_eq!(runtime.start(spec).await.exited().await, Exit::Code(NOT_FOUND));
        log.tail(1, 10_000)
    });
    assert_eq!(said, format!("toolbox: there are {}\n", TOOLS.join(" ")));
}
