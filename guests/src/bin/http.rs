//! Serves HTTP on a port: something to probe, to forward a port to, and to look at.
//!
//! `http [PORT]` (8080 unless given), one connection after the other:
//! - `GET /` greets, with the pod's name (`HOSTNAME`).
//! - `POST /echo` answers what it was sent.
//! - `GET /status/CODE` answers with that status.
//! - `GET /health` answers 200, or 500 between `POST /fail` and `POST /recover`.
//! - `POST /exit/CODE` ends the program.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

/// The longest body that is echoed, in bytes.
const BODY_MAX: usize = 64 << 20;

struct Answer {
    status: u16,
    body: Vec<u8>,
    exit: Option<i32>,
}

fn main() {
    let port: u16 = std::env::args().nth(1).map_or(8080, |text| text.parse().expect("PORT is a number"));
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
    println!("listening on {}", listener.local_addr().expect("it is bound"));
    let mut healthy = true;
    for stream in listener.incoming() {
        let served = stream.and_then(|stream| serve(stream, &mut healthy));
        match served {
            Ok(Some(code)) => std::process::exit(code),
            Ok(None) => {}
            // A client that went away is no reason to stop.
            Err(error) => eprintln!("{error}"),
        }
    }
}

fn serve(stream: TcpStream, healthy: &mut bool) -> std::io::Result<Option<i32>> {
    let mut reader = BufReader::new(&stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" || line == "\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length.min(BODY_MAX)];
    reader.read_exact(&mut body)?;
    let mut words = request.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let answer = answer(method, path, body, healthy);
    let mut stream = &stream;
    write!(
        stream,
        "HTTP/1.1 {} -\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.status,
        answer.body.len()
    )?;
    if method != "HEAD" {
        stream.write_all(&answer.body)?;
    }
    stream.flush()?;
    Ok(answer.exit)
}

fn answer(method: &str, path: &str, body: Vec<u8>, healthy: &mut bool) -> Answer {
    let text = |status, text: String| Answer { status, body: text.into_bytes(), exit: None };
    match (method, path) {
        ("GET" | "HEAD", "/") => {
            let name = std::env::var("HOSTNAME").unwrap_or_else(|_| "nobody".to_owned());
            text(200, format!("hello from {name}\n"))
        }
        ("POST", "/echo") => Answer { status: 200, body, exit: None },
        ("GET", "/health") if *healthy => text(200, "ok\n".to_owned()),
        ("GET", "/health") => text(500, "failing\n".to_owned()),
        ("POST", "/fail" | "/recover") => {
            *healthy = path == "/recover";
            text(200, String::new())
        }
        _ => match path.rsplit_once('/').map(|(word, code)| (method, word, code.parse::<u16>())) {
            Some(("GET", "/status", Ok(status @ 100..600))) => text(status, format!("{status}\n")),
            Some(("POST", "/exit", Ok(code @ 0..256))) => {
                Answer { status: 200, body: Vec::new(), exit: Some(i32::from(code)) }
            }
            _ => text(404, format!("{method} {path} is not served\n")),
        },
    }
}
