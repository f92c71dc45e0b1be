//! What a guest sets of its TCP socket. WASI's values are not all the system's: some are rounded, some bounded.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;
use wasmtime_wasi::p2::bindings::sockets::network::ErrorCode;

#[cfg(test)]
mod tests;

/// The longest time between two probes of a silent connection, and the most of them, as Linux has it (tcp(7)).
const KEEP_ALIVE_SECONDS_MAX: u64 = 32_767;
const KEEP_ALIVE_COUNT_MAX: u32 = 127;

/// What a guest has set, for another socket in the place of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::runtime) struct Options {
    keep_alive: Option<bool>,
    keep_alive_idle: Option<Duration>,
    keep_alive_interval: Option<Duration>,
    keep_alive_count: Option<u32>,
    hop_limit: Option<u8>,
    receive_buffer: Option<usize>,
    send_buffer: Option<usize>,
}

/// One of them. Times are nanoseconds, buffers bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Set {
    KeepAlive(bool),
    KeepAliveIdle(u64),
    KeepAliveInterval(u64),
    KeepAliveCount(u32),
    HopLimit(u8),
    ReceiveBuffer(u64),
    SendBuffer(u64),
}

impl Options {
    /// Remembers it, and sets it at once where there is a `socket` already.
    ///
    /// # Errors
    /// `invalid-argument` for what can be no value; or as the system says.
    pub(super) fn set(&mut self, socket: impl AsFd, set: Set) -> Result<(), ErrorCode> {
        let mut one = Self::default();
        match set {
            Set::KeepAlive(is_on) => one.keep_alive = Some(is_on),
            Set::KeepAliveIdle(time) => one.keep_alive_idle = Some(seconds(time)?),
            Set::KeepAliveInterval(time) => one.keep_alive_interval = Some(seconds(time)?),
            Set::KeepAliveCount(0) | Set::HopLimit(0) => return Err(ErrorCode::InvalidArgument),
            Set::KeepAliveCount(count) => one.keep_alive_count = Some(count.min(KEEP_ALIVE_COUNT_MAX)),
            Set::HopLimit(limit) => one.hop_limit = Some(limit),
            Set::ReceiveBuffer(size) => one.receive_buffer = Some(bytes(size)?),
            Set::SendBuffer(size) => one.send_buffer = Some(bytes(size)?),
        }
        one.apply(socket)?;
        *self = Self {
            keep_alive: one.keep_alive.or(self.keep_alive),
            keep_alive_idle: one.keep_alive_idle.or(self.keep_alive_idle),
            keep_alive_interval: one.keep_alive_interval.or(self.keep_alive_interval),
            keep_alive_count: one.keep_alive_count.or(self.keep_alive_count),
            hop_limit: one.hop_limit.or(self.hop_limit),
            receive_buffer: one.receive_buffer.or(self.receive_buffer),
            send_buffer: one.send_buffer.or(self.send_buffer),
        };
        Ok(())
    }

    /// Sets all of them of `socket`.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub(in crate::runtime) fn apply(&self, socket: impl AsFd) -> rustix::io::Result<()> {
        let Self {
            keep_alive,
            keep_alive_idle,
            keep_alive_interval,
            keep_alive_count,
            hop_limit,
            receive_buffer,
            send_buffer,
        } = *self;
        let socket = socket.as_fd();
        keep_alive.map_or(Ok(()), |is_on| sockopt::set_socket_keepalive(socket, is_on))?;
        keep_alive_idle.map_or(Ok(()), |time| sockopt::set_tcp_keepidle(socket, time))?;
        keep_alive_interval.map_or(Ok(()), |time| sockopt::set_tcp_keepintvl(socket, time))?;
        keep_alive_count.map_or(Ok(()), |count| sockopt::set_tcp_keepcnt(socket, count))?;
        hop_limit.map_or(Ok(()), |limit| sockopt::set_ip_ttl(socket, limit.into()))?;
        receive_buffer.map_or(Ok(()), |size| sockopt::set_socket_recv_buffer_size(socket, size))?;
        send_buffer.map_or(Ok(()), |size| sockopt::set_socket_send_buffer_size(socket, size))
    }
}

/// Whole seconds, which are what the system counts; one at least.
fn seconds(nanoseconds: u64) -> Result<Duration, ErrorCode> {
    if nanoseconds == 0 {
        return Err(ErrorCode::InvalidArgument);
    }
    let seconds = nanoseconds.div_ceil(1_000_000_000);
    Ok(Duration::from_secs(seconds.min(KEEP_ALIVE_SECONDS_MAX)))
}

/// The system takes a size for a hint, but only one that is an `int`.
fn bytes(size: u64) -> Result<usize, ErrorCode> {
    if size == 0 {
        return Err(ErrorCode::InvalidArgument);
    }
    Ok(i32::try_from(size).unwrap_or(i32::MAX).try_into().unwrap_or(usize::MAX))
}

/// Half of what Linux tells: it doubles what it is given, for its own bookkeeping (socket(7)).
pub(super) fn told_bytes(size: usize) -> u64 {
    u64::try_from(size / 2).unwrap_or(u64::MAX)
}

/// A time as WASI tells it.
pub(super) fn told_time(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
