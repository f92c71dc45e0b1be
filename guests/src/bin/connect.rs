//! Fixture: tries the network, which nobody granted.

use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

fn main() {
    println!("connect {}", TcpStream::connect("127.0.0.1:1").is_ok());
    println!("listen {}", TcpListener::bind("127.0.0.1:0").is_ok());
    println!("udp {}", UdpSocket::bind("127.0.0.1:0").is_ok());
    println!("lookup {}", "localhost:80".to_socket_addrs().is_ok());
}
