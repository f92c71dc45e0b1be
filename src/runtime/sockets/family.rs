//! Sockets that a guest takes for sockets of IPv6, of which pods have none: they are sockets of IPv4, and what
//! the guest is told of addresses is written as IPv6's (`::ffff:127.128.0.7`). Many programs listen on `[::]`
//! unless they are told otherwise. Pure.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};

use crate::runtime::network::as_ipv4;

/// What a guest means by `asked` at a socket of that family.
///
/// # Errors
/// `nowhere` for an address of IPv6 proper; `invalid-argument` for one of the other family.
pub(super) fn meant(
    family: IpAddressFamily,
    asked: IpSocketAddress,
    nowhere: ErrorCode,
) -> Result<SocketAddrV4, ErrorCode> {
    match (family, SocketAddr::from(asked)) {
        (IpAddressFamily::Ipv4, SocketAddr::V4(asked)) => Ok(asked),
        (IpAddressFamily::Ipv6, SocketAddr::V6(asked)) => {
            let ip = as_ipv4((*asked.ip()).into()).ok_or(nowhere)?;
            Ok(SocketAddrV4::new(ip, asked.port()))
        }
        (IpAddressFamily::Ipv4, SocketAddr::V6(_)) | (IpAddressFamily::Ipv6, SocketAddr::V4(_)) => {
            Err(ErrorCode::InvalidArgument)
        }
    }
}

/// How `address` is told to a guest that takes the socket for one of that family.
pub(super) fn told(family: IpAddressFamily, address: impl Into<SocketAddr>) -> IpSocketAddress {
    match (family, address.into()) {
        (IpAddressFamily::Ipv6, SocketAddr::V4(address)) => {
            let ip = address.ip().to_ipv6_mapped();
            SocketAddr::V6(SocketAddrV6::new(ip, address.port(), 0, 0)).into()
        }
        (IpAddressFamily::Ipv4 | IpAddressFamily::Ipv6, address) => address.into(),
    }
}
