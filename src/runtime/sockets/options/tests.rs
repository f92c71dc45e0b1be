use rustix::net::{AddressFamily, SocketType, socket};

use super::*;

const SECOND: u64 = 1_000_000_000;

#[test]
fn what_is_set_holds_for_this_socket_and_the_one_in_its_place() {
    let first = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let second = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let mut options = Options::default();
    for set in [
        Set::KeepAlive(true),
        Set::KeepAliveIdle(90 * SECOND),
        Set::KeepAliveInterval(1),
        Set::KeepAliveCount(1_000),
        Set::HopLimit(7),
        Set::ReceiveBuffer(20_000),
        Set::SendBuffer(30_000),
    ] {
        options.set(&first, set).unwrap();
    }
    options.apply(&second).unwrap();
    for socket in [&first, &second] {
        assert!(sockopt::socket_keepalive(socket).unwrap());
        assert_eq!(told_time(sockopt::tcp_keepidle(socket).unwrap()), 90 * SECOND);
        assert_eq!(told_time(sockopt::tcp_keepintvl(socket).unwrap()), SECOND);
        assert_eq!(sockopt::tcp_keepcnt(socket).unwrap(), KEEP_ALIVE_COUNT_MAX);
        assert_eq!(sockopt::ip_ttl(socket).unwrap(), 7);
        assert_eq!(told_bytes(sockopt::socket_recv_buffer_size(socket).unwrap()), 20_000);
        assert_eq!(told_bytes(sockopt::socket_send_buffer_size(socket).unwrap()), 30_000);
    }
}

#[test]
fn nothing_is_no_value() {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let mut options = Options::default();
    for set in [
        Set::KeepAliveIdle(0),
        Set::KeepAliveInterval(0),
        Set::KeepAliveCount(0),
        Set::HopLimit(0),
        Set::ReceiveBuffer(0),
        Set::SendBuffer(0),
    ] {
        assert_eq!(options.set(&socket, set), Err(ErrorCode::InvalidArgument), "{set:?}");
    }
    // More than there can be is as much as there can be.
    for set in [Set::KeepAliveIdle(u64::MAX), Set::ReceiveBuffer(u64::MAX), Set::SendBuffer(u64::MAX)] {
        assert_eq!(options.set(&socket, set), Ok(()), "{set:?}");
    }
    assert_eq!(sockopt::tcp_keepidle(&socket).unwrap().as_secs(), KEEP_ALIVE_SECONDS_MAX);
}
