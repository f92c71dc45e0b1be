//! Fixture: tries the network, and says what came of it.
//!
//! `connect`: tries everything that nobody granted. `connect WHAT ADDRESS…` does one thing after the other:
//! `bind ADDRESS`, `dial ADDRESS` (sends a line, prints the answer's first), `udp-bind ADDRESS`,
//! `get ADDRESS` (asks by HTTP, prints the status line), `peer ADDRESS` (prints whom it is connected with),
//! `udp-echo ADDRESS` (to itself), `tcp-echo ADDRESS` (to itself), `udp-ask ADDRESS` (prints the answer),
//! `udp-serve ADDRESS` and `tcp-serve ADDRESS` (answer until they are told `end`), `lookup NAME` (its addresses). An address may have a name
//! for its host. For ever: `udp-tell ADDRESS` answers each datagram with the pod's name and whom it came from,
//! `udp-follow ADDRESS` asks one after the other and tells who answers, and as whom, whenever that changes.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.is_empty() {
        println!("connect {}", TcpStream::connect("127.0.0.1:1").is_ok());
        println!("listen {}", TcpListener::bind("127.0.0.1:0").is_ok());
        println!("udp {}", UdpSocket::bind("127.0.0.1:0").is_ok());
        println!("lookup {}", "localhost:80".to_socket_addrs().is_ok());
        return;
    }
    for pair in args.chunks(2) {
        let (what, address) = (pair[0].as_str(), pair[1].as_str());
        let done = match what {
            "bind" => TcpListener::bind(address).and_then(|listener| listener.local_addr()).map(shown),
            "udp-bind" => UdpSocket::bind(address).and_then(|socket| socket.local_addr()).map(shown),
            "dial" => dial(address),
            "get" => get(address),
            "peer" => TcpStream::connect(address).and_then(|stream| stream.peer_addr()).map(shown),
            "udp-ask" => udp_ask(address),
            "udp-serve" => udp_serve(address),
            "tcp-serve" => tcp_serve(address),
            "tcp-echo" => tcp_echo(address),
            "udp-echo" => udp_echo(address),
            "lookup" => lookup(address),
            "udp-tell" => udp_tell(address),
            "udp-follow" => udp_follow(address),
            other => panic!("{other}?"),
        };
        match done {
            Ok(text) => println!("{what} {address}: {text}"),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => println!("{what} {address}: denied"),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                println!("{what} {address}: refused");
            }
            Err(error) if what == "lookup" => println!("{what} {address}: {}", unresolved(&error)),
            Err(error) => println!("{what} {address}: {error}"),
        }
    }
}

fn shown(address: SocketAddr) -> String {
    address.to_string()
}

fn dial(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    writeln!(stream, "from {}", stream.local_addr()?.ip())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn lookup(name: &str) -> std::io::Result<String> {
    let found: Vec<String> = (name, 0).to_socket_addrs()?.map(|address| address.ip().to_string()).collect();
    Ok(found.join(" "))
}

/// Why a name has no address: libc's words are all that is left of the reason.
fn unresolved(error: &std::io::Error) -> String {
    let text = error.to_string();
    if text.contains("Try again") { "later".to_owned() } else { "unknown".to_owned() }
}

fn get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// The pod's own address, as the containers of a pod reach each other, in the family of `address`.
fn own(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = if address.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    (ip, address.port()).into()
}

/// Listens on `address` and dials the pod.
fn tcp_echo(address: &str) -> std::io::Result<String> {
    let listener = TcpListener::bind(address)?;
    let mut near = TcpStream::connect(own(listener.local_addr()?))?;
    let (mut far, from) = listener.accept()?;
    near.write_all(b"ping")?;
    let mut bytes = [0; 4];
    far.read_exact(&mut bytes)?;
    Ok(format!("{} from {}", String::from_utf8_lossy(&bytes), from.ip()))
}

fn udp_echo(address: &str) -> std::io::Result<String> {
    let socket = UdpSocket::bind(address)?;
    socket.send_to(b"ping", own(socket.local_addr()?))?;
    let mut bytes = [0; 16];
    let (length, from) = socket.recv_from(&mut bytes)?;
    Ok(format!("{} from {}", String::from_utf8_lossy(&bytes[..length]), from.ip()))
}

fn udp_tell(address: &str) -> std::io::Result<String> {
    let socket = UdpSocket::bind(address)?;
    println!("serving");
    let name = std::env::var("HOSTNAME").unwrap_or_default();
    let mut bytes = [0; 2048];
    loop {
        let (_, from) = socket.recv_from(&mut bytes)?;
        socket.send_to(format!("{name} to {}", from.ip()).as_bytes(), from)?;
    }
}

fn udp_follow(address: &str) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_nonblocking(true)?;
    let mut last = String::new();
    loop {
        let said = ask_by_udp(&socket, address).unwrap_or_else(|error| format!("nobody: {error}"));
        if said != last {
            println!("{said}");
            last = said;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One question, which is lost if nobody answers within a second.
fn ask_by_udp(socket: &UdpSocket, address: &str) -> std::io::Result<String> {
    socket.send_to(b"who?", address)?;
    let mut bytes = [0; 2048];
    for _ in 0..500 {
        match socket.recv_from(&mut bytes) {
            Ok((length, from)) => {
                return Ok(format!("{} at {from}", String::from_utf8_lossy(&bytes[..length])));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::TimedOut.into())
}

fn udp_ask(address: &str) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.send_to(b"ping", address)?;
    let mut bytes = [0; 16];
    let (length, from) = socket.recv_from(&mut bytes)?;
    Ok(format!("{} from {from}", String::from_utf8_lossy(&bytes[..length])))
}

/// Tells each client whom it takes the two of them for; how many there were.
fn tcp_serve(address: &str) -> std::io::Result<String> {
    let listener = TcpListener::bind(address)?;
    println!("serving on {}", listener.local_addr()?);
    let mut count = 0;
    loop {
        let (mut stream, from) = listener.accept()?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        if line == "end\n" {
            return Ok(count.to_string());
        }
        write!(stream, "{} hears {} from {from}", stream.local_addr()?, line.trim_end())?;
        count += 1;
    }
}

/// What it was sent, as far as the network lets it hear.
fn udp_serve(address: &str) -> std::io::Result<String> {
    let socket = UdpSocket::bind(address)?;
    println!("serving on {}", socket.local_addr()?);
    let mut heard = Vec::new();
    loop {
        let mut bytes = [0; 16];
        let (length, from) = socket.recv_from(&mut bytes)?;
        socket.send_to(&bytes[..length], from)?;
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if text == "end" {
            return Ok(heard.join(" "));
        }
        heard.push(text);
    }
}
