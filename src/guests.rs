//! The programs in `guests/`: images built into the binary, and fixtures for tests.

use std::io;
use std::path::Path;

/// Images that every cluster has, by name.
///
/// - `coracle.dev/hello:v1` greets: `hello [NAME]`, `GREETING` and `SECRET_FILE` in the environment.
/// - `coracle.dev/worker:v1` works for a while: `worker [SECONDS [CODE]]`.
/// - `coracle.dev/logger:v1` prints a file whenever it changes: `logger FILE`.
/// - `coracle.dev/queue:v1` works on its Job's queue until all is done: `queue [LEASE_SECONDS]`.
/// - `coracle.dev/toolbox:v1` is `ls`, `cat`, `sh` and more, for `kubectl exec` and `kubectl cp`: `toolbox TOOL [ARG…]`.
/// - `coracle.dev/http:v1` serves HTTP on a port: `http [PORT]`.
/// - `coracle.dev/hello-http:v1` is a handler of HTTP requests: `GET /` greets, `POST /echo`, `GET /fetch/URL`.
/// - `coracle.dev/load:v1` computes, holds memory, or says how late it wakes: `load cpu|memory|late …`.
/// - `coracle.dev/finish:v1` works piece by piece and ends well when it is asked to stop:
///   `finish [PIECE_SECONDS [ignore|spin]]`.
/// - `coracle.dev/reload:v1` prints files and settings when it is told of a change: `reload FILE|SETTING…`.
#[must_use]
pub fn builtin() -> &'static [(&'static str, &'static [u8])] {
    static IMAGES: [(&str, &[u8]); 10] = [
        ("coracle.dev/hello:v1", include_bytes!(concat!(env!("CORACLE_GUESTS"), "/hello.wasm"))),
        // For WASI 0.1, which keeps its exit code.
        ("coracle.dev/worker:v1", include_bytes!(concat!(env!("CORACLE_GUESTS"), "/worker.p1.wasm"))),
        ("coracle.dev/logger:v1", include_bytes!(concat!(env!("CORACLE_GUESTS"), "/logger.wasm"))),
        ("coracle.dev/queue:v1", include_bytes!(concat!(env!("CORACLE_GUESTS"), "/queue.wasm"))),
        // For WASI 0.1, which keeps its exit code.
        ("coracle.dev/toolbox:v1", include_bytes!(concat!(env!("CORACLE_GUESTS"), "/toolbox.p1.wasm"))),
        ("coracle.dev/http:v1", include_bytes!(concat!(env!("CORACLE_GUESTS"), "/http.wasm"))),
        ("coracle.dev/hello-http:v1", include_bytes!(concat!(env!("CORACLE_GUESTS"), "/hello-http.wasm"))),
        ("coracle.dev/load:v1", include_bytes!(concat!(env!("CORACLE_GUESTS"), "/load.wasm"))),
        ("coracle.dev/finish:v1", include_bytes!(concat!(env!("CORACLE_GUESTS"), "/finish.wasm"))),
        ("coracle.dev/reload:v1", include_bytes!(concat!(env!("CORACLE_GUESTS"), "/reload.wasm"))),
    ];
    &IMAGES
}

/// The program `name` of `guests/` as it was built, for tests and benchmarks: `spin` for WASI 0.2,
/// `exit.p1` for WASI 0.1.
pub fn fixture(name: &str) -> io::Result<Vec<u8>> {
    std::fs::read(Path::new(env!("CORACLE_GUESTS")).join(format!("{name}.wasm")))
}
