//! Clients that ask all the time, and that count what they are not answered.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::harness::DEADLINE;

/// What an HTTP server said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// It says that there will be no other on this connection.
    pub(crate) last: bool,
}

pub(crate) fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Reads one answer that says its length.
pub(crate) fn read(from: &mut impl BufRead) -> std::io::Result<Answer> {
    let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head)? == 0 {
            return Err(cut());
        }
    }
    let lower = head.to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(cut)?;
    let field = |name: &str| lower.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let mut body = Vec::new();
    if let Some(length) = field("content-length:") {
        body.resize(length.parse().map_err(std::io::Error::other)?, 0);
        from.read_exact(&mut body)?;
    } else if field("transfer-encoding:") == Some("chunked") {
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(|_| cut())?;
            let mut chunk = vec![0; size + 2];
            from.read_exact(&mut chunk)?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Answer { status, body, last: field("connection:") == Some("close") })
}

/// One request on one connection.
pub(crate) fn get(to: SocketAddr, path: &str) -> std::io::Result<Answer> {
    let mut stream = connect(to)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    read(&mut BufReader::new(stream))
}

/// Asks until somebody answers with 200.
#[track_caller]
pub(crate) fn answered(to: SocketAddr, path: &str) -> String {
    let clock = coracle::clock::Clock::real();
    let begun = clock.monotonic();
    loop {
        let said = get(to, path);
        if let Ok(Answer { status: 200, body, .. }) = said {
            return body;
        }
        assert!(clock.monotonic().saturating_sub(begun) < DEADLINE, "{to}{path}: {said:?}");
        std::thread::yield_now();
    }
}

/// What a client has been told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) answers: usize,
    /// The distinct bodies.
    pub(crate) bodies: BTreeSet<String>,
    /// Requests that were not answered with 200, and how.
    pub(crate) lost: Vec<String>,
}

impl Told {
    fn note(&mut self, said: std::io::Result<Answer>) {
        match said {
            Ok(answer) if answer.status == 200 => {
                self.answers += 1;
                self.bodies.insert(answer.body);
            }
            other => self.lost.push(format!("after {}: {other:?}", self.answers)),
        }
    }
}

/// Clients that ask until they are told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Told>>,
}

impl Load {
    /// So many clients with a new connection for each request, and so many that keep theirs.
    pub(crate) fn start(to: SocketAddr, path: &'static str, anew: usize, kept: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |ask: fn(SocketAddr, &str, &AtomicBool) -> Told| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || ask(to, path, &stop))
        };
        let new = (0..anew).map(|_| client(ask_anew));
        let clients = new.chain((0..kept).map(|_| client(ask_kept))).collect();
        Self { stop, clients }
    }

    /// What each was told.
    pub(crate) fn stop(self) -> Vec<Told> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().map(|client| client.join().unwrap()).collect()
    }
}

fn ask_anew(to: SocketAddr, path: &str, stop: &AtomicBool) -> Told {
    let mut told = Told::default();
    while !stop.load(Ordering::Relaxed) {
        told.note(get(to, path));
    }
    told
}

/// Goes to another connection only where an answer says that it is the last.
fn ask_kept(to: SocketAddr, path: &str, stop: &AtomicBool) -> Told {
    let mut told = Told::default();
    let mut open: Option<BufReader<TcpStream>> = None;
    while !stop.load(Ordering::Relaxed) {
        let mut stream = match open.take().map_or_else(|| connect(to).map(BufReader::new), Ok) {
            Ok(stream) => stream,
            Err(error) => {
                told.note(Err(error));
                continue;
            }
        };
        let asked = write!(stream.get_mut(), "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        let said = asked.and_then(|()| read(&mut stream));
        if said.as_ref().is_ok_and(|answer| !answer.last) {
            open = Some(stream);
        }
        told.note(said);
    }
    told
}
