//! A handler of HTTP requests that does what tests want: badly, slowly, greedily.
//!
//! - `GET /` says how many requests this instance has had.
//! - `POST /echo` answers what it was sent, as it comes, trailers too; `GET /trailers` has trailers of its own.
//! - `GET /big/BYTES` answers so many bytes; `GET /count/N/MILLIS` N lines, so far apart.
//! - `GET /wait/MILLIS` answers late; `GET /spin/MILLIS` computes meanwhile.
//! - `GET /status/CODE`, `GET /env/NAME`, `GET /args`, `GET /file/PATH`, `GET /memory/MIB`.
//! - `POST /print` writes its body to stdout.
//! - `GET /trap`, `/half` (after half an answer), `/silent` (no answer), `/exit`, `/leak` (an answer without end).
//! - `GET /fetch/SCHEME/URL` answers the status and the body of another server, or the error.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, RequestOptions,
    ResponseOutparam, Scheme,
};
use wasip2::io::streams::StreamError;

struct Handler;

wasip2::http::proxy::export!(Handler);

static REQUESTS: AtomicU64 = AtomicU64::new(0);

impl wasip2::exports::http::incoming_handler::Guest for Handler {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let count = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
        let path = request.path_with_query().unwrap_or_default();
        let words: Vec<&str> = path.trim_start_matches('/').splitn(3, '/').collect();
        let number = |word: Option<&&str>| word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        let (first, second) = (number(words.get(1)), number(words.get(2)));
        match words[0] {
            "" => text(answer, 200, &format!("request {count} of this instance\n")),
            "echo" => echo(answer, request.consume().unwrap()),
            "trailers" => {
                let out = Out::begin(answer, 200, &[]);
                out.write(b"with trailers\n");
                out.end(Some(&[("x-checked", "yes")]));
            }
            "big" => {
                let out = Out::begin(answer, 200, &[]);
                let piece = vec![b'x'; 64 << 10];
                let mut left = usize::try_from(first).unwrap();
                while left > 0 && out.write(&piece[..left.min(piece.len())]) {
                    left -= left.min(piece.len());
                }
                out.end(None);
            }
            "count" => {
                let out = Out::begin(answer, 200, &[]);
                for line in 0..first {
                    if line > 0 {
                        std::thread::sleep(Duration::from_millis(second));
                    }
                    if !out.write(format!("line {line}\n").as_bytes()) {
                        break;
                    }
                }
                out.end(None);
            }
            "wait" => {
                std::thread::sleep(Duration::from_millis(first));
                text(answer, 200, "waited\n");
            }
            "spin" => {
                let start = Instant::now();
                while start.elapsed() < Duration::from_millis(first) {}
                text(answer, 200, "spun\n");
            }
            "status" => text(answer, u16::try_from(first).unwrap(), "as asked\n"),
            "env" => text(answer, 200, &std::env::var(words[1]).unwrap_or_else(|_| "unset".to_owned())),
            "args" => text(answer, 200, &std::env::args().collect::<Vec<_>>().join(" ")),
            "file" => match std::fs::read_to_string(&path["/file".len()..]) {
                Ok(content) => text(answer, 200, &content),
                Err(error) => text(answer, 404, &error.to_string()),
            },
            "memory" => {
                let held = vec![1_u8; usize::try_from(first).unwrap() << 20];
                text(answer, 200, &format!("{} bytes\n", std::hint::black_box(&held).len()));
            }
            "print" => {
                let body = request.consume().unwrap();
                let input = body.stream().unwrap();
                let mut bytes = Vec::new();
                while let Ok(more) = input.blocking_read(64 << 10) {
                    bytes.extend(more);
                }
                println!("{}", String::from_utf8_lossy(&bytes));
                text(answer, 200, "printed\n");
            }
            "trap" => panic!("as asked"),
            "half" => {
                let out = Out::begin(answer, 200, &[("content-type", "text/plain")]);
                out.write(b"the first half\n");
                panic!("as asked");
            }
            "silent" => {}
            "exit" => std::process::exit(1),
            "leak" => {
                let out = Out::begin(answer, 200, &[]);
                out.write(b"no end\n");
                std::mem::forget(out);
            }
            "fetch" => match fetch(words[1], words[2]) {
                Ok((status, body)) => {
                    text(answer, 200, &format!("{status} {}", String::from_utf8_lossy(&body)))
                }
                Err(why) => text(answer, 502, &why),
            },
            _ => text(answer, 404, &format!("{path} is not served\n")),
        }
    }
}

/// An answer being written.
struct Out {
    stream: wasip2::io::streams::OutputStream,
    body: OutgoingBody,
}

impl Out {
    fn begin(answer: ResponseOutparam, status: u16, headers: &[(&str, &str)]) -> Self {
        let response = OutgoingResponse::new(fields(headers));
        response.set_status_code(status).unwrap();
        let body = response.body().unwrap();
        ResponseOutparam::set(answer, Ok(response));
        Self { stream: body.write().unwrap(), body }
    }

    /// Whether somebody takes it.
    fn write(&self, bytes: &[u8]) -> bool {
        bytes.chunks(4096).all(|chunk| self.stream.blocking_write_and_flush(chunk).is_ok())
    }

    fn end(self, trailers: Option<&[(&str, &str)]>) {
        drop(self.stream);
        OutgoingBody::finish(self.body, trailers.map(fields)).ok();
    }
}

fn fields(list: &[(&str, &str)]) -> Fields {
    let list: Vec<_> =
        list.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    Fields::from_list(&list).unwrap()
}

fn text(answer: ResponseOutparam, status: u16, text: &str) {
    let out = Out::begin(answer, status, &[("content-length", &text.len().to_string())]);
    out.write(text.as_bytes());
    out.end(None);
}

fn echo(answer: ResponseOutparam, from: IncomingBody) {
    let Out { stream, body } = Out::begin(answer, 200, &[]);
    let input = from.stream().unwrap();
    loop {
        match stream.blocking_splice(&input, 64 << 10) {
            Ok(_) => {}
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                eprintln!("the body ended early: {}", error.to_debug_string());
                panic!("as it came");
            }
        }
    }
    stream.blocking_flush().ok();
    drop((input, stream));
    let trailers = IncomingBody::finish(from);
    trailers.subscribe().block();
    let trailers = trailers.get().and_then(Result::ok).and_then(Result::ok).flatten();
    OutgoingBody::finish(body, trailers.map(|trailers| trailers.clone())).ok();
}

fn fetch(scheme: &str, url: &str) -> Result<(u16, Vec<u8>), String> {
    let (host, path) = url.split_once('/').unwrap_or((url, ""));
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let request = OutgoingRequest::new(fields(&[("x-from", "handler")]));
    request.set_scheme(Some(&scheme)).unwrap();
    request.set_authority(Some(host)).unwrap();
    request.set_path_with_query(Some(&format!("/{path}"))).unwrap();
    let options = RequestOptions::new();
    options.set_first_byte_timeout(Some(2_000_000_000)).unwrap();
    let response = outgoing_handler::handle(request, Some(options)).map_err(|error| format!("{error:?}"))?;
    response.subscribe().block();
    let response = response.get().unwrap().unwrap().map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let body = response.consume().unwrap();
    let input = body.stream().unwrap();
    let mut bytes = Vec::new();
    loop {
        match input.blocking_read(64 << 10) {
            Ok(more) => bytes.extend(more),
            Err(StreamError::Closed) => return Ok((status, bytes)),
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
}
