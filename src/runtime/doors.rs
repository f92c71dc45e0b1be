//! Connections that somebody else in this process has accepted for a container's port, as the listener of a
//! Service does: handed over, they need no second connection and no copying between the two.

use std::any::Any;
use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV4, TcpStream as StdStream};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::TcpStream;
use tokio::sync::mpsc;

#[cfg(test)]
mod tests;

/// Connections that wait at one door; the next goes the long way.
const WAITING_MAX: usize = 128;

type BySocket = HashMap<SocketAddrV4, mpsc::Sender<Arrival>>;

/// The open doors, by where they lead. Cheap to clone.
#[derive(Clone, Default)]
pub struct Doors(Arc<Mutex<BySocket>>);

/// What whoever accepted a connection counts it by, until it ends.
pub type Held = Box<dyn Any + Send>;

/// A connection, and whose.
type Arrival = (StdStream, SocketAddr, Held);

impl Doors {
    /// Opens the door to `at`; the one there before, if any, leads nowhere any more.
    #[must_use]
    pub fn open(&self, at: SocketAddrV4) -> Door {
        let (sender, arrivals) = mpsc::channel(WAITING_MAX);
        self.all().insert(at, sender.clone());
        Door { doors: self.clone(), at, sender: sender.downgrade(), arrivals }
    }

    /// Hands `peer`'s connection over to whoever serves `at`.
    ///
    /// # Errors
    /// The connection, if nobody in this process does or too many wait: connect to `at` instead.
    pub fn enter(
        &self,
        at: SocketAddrV4,
        stream: TcpStream,
        peer: SocketAddr,
        held: Held,
    ) -> Result<(), (TcpStream, Held)> {
        let Some(sender) = self.all().get(&at).cloned() else { return Err((stream, held)) };
        let Ok(place) = sender.try_reserve() else { return Err((stream, held)) };
        match stream.into_std() {
            Ok(stream) => place.send((stream, peer, held)),
            Err(error) => tracing::debug!(%error, %at, "a connection was lost on its way"),
        }
        Ok(())
    }

    fn all(&self) -> MutexGuard<'_, BySocket> {
        self.0.lock().expect("no holder panics")
    }
}

/// Where connections arrive, until it is closed or dropped.
pub struct Door {
    doors: Doors,
    at: SocketAddrV4,
    sender: mpsc::WeakSender<Arrival>,
    arrivals: mpsc::Receiver<Arrival>,
}

impl Door {
    /// The next connection; for ever none if the door leads nowhere any more.
    ///
    /// # Errors
    /// If the system does not let it be used here.
    pub async fn arrival(&mut self) -> std::io::Result<(TcpStream, SocketAddr, Held)> {
        match self.arrivals.recv().await {
            Some((stream, peer, held)) => TcpStream::from_std(stream).map(|stream| (stream, peer, held)),
            None => std::future::pending().await,
        }
    }

    /// Closes it; those who are in already.
    pub async fn close(mut self) -> Vec<(TcpStream, SocketAddr, Held)> {
        self.leave();
        self.arrivals.close();
        let mut all = Vec::new();
        while let Some((stream, peer, held)) = self.arrivals.recv().await {
            all.extend(TcpStream::from_std(stream).ok().map(|stream| (stream, peer, held)));
        }
        all
    }

    fn leave(&self) {
        let mut all = self.doors.all();
        let own = self.sender.upgrade();
        if all.get(&self.at).zip(own).is_some_and(|(now, own)| now.same_channel(&own)) {
            all.remove(&self.at);
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.leave();
    }
}
