//! Connections that somebody else in this process has accepted for a container's port, as the listener of a
//! Service does: handed over, they need no second connection and no copying between the two.

use std::any::Any;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;
use tokio::runtime::{Handle, Id};
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
pub type Held = Box<dyn Any + Send + Sync>;

/// A connection on its way.
pub struct Caller {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub held: Held,
}

/// One that nobody has taken yet.
pub struct Waiting {
    caller: Caller,
    /// The runtime that its stream belongs to.
    runtime: Id,
}

/// Where those come back to that nobody has taken when their door closes, and which door that was.
pub type Back = mpsc::UnboundedSender<(SocketAddrV4, Waiting)>;

type Arrival = (Waiting, Back);

impl Waiting {
    /// Takes it, to be used in the tokio runtime that this is called in.
    ///
    /// # Errors
    /// If the system does not let it be used here.
    pub fn into_caller(self) -> io::Result<Caller> {
        let Self { caller, runtime } = self;
        if Handle::current().id() == runtime {
            return Ok(caller);
        }
        let Caller { stream, peer, held } = caller;
        Ok(Caller { stream: TcpStream::from_std(stream.into_std()?)?, peer, held })
    }
}

impl Doors {
    /// Opens the door to `at`; the one there before, if any, leads nowhere any more.
    #[must_use]
    pub fn open(&self, at: SocketAddrV4) -> Door {
        let (sender, arrivals) = mpsc::channel(WAITING_MAX);
        self.all().insert(at, sender.clone());
        Door { doors: self.clone(), at, sender: sender.downgrade(), arrivals }
    }

    /// Hands a connection of the current tokio runtime over to whoever serves `at`. If they end before they have taken
    /// it, it comes `back`.
    ///
    /// # Errors
    /// The connection, if nobody in this process does or too many wait: connect to `at` instead.
    pub fn enter(&self, at: SocketAddrV4, caller: Caller, back: &Back) -> Result<(), Caller> {
        // Held until it is in: a door that closes then sees it.
        let all = self.all();
        let Some(place) = all.get(&at).and_then(|sender| sender.try_reserve().ok()) else {
            return Err(caller);
        };
        place.send((Waiting { caller, runtime: Handle::current().id() }, back.clone()));
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
    pub async fn arrival(&mut self) -> io::Result<Caller> {
        poll_fn(|context| self.poll_arrival(context)).await
    }

    /// As [`Door::arrival`].
    ///
    /// # Errors
    /// As there.
    pub fn poll_arrival(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Caller>> {
        match ready!(self.arrivals.poll_recv(context)) {
            Some((waiting, _)) => Poll::Ready(waiting.into_caller()),
            None => Poll::Pending,
        }
    }

    /// Closes it; those who are in already.
    #[must_use]
    pub fn close(mut self) -> Vec<Caller> {
        self.leave();
        std::iter::from_fn(|| self.arrivals.try_recv().ok())
            .filter_map(|(waiting, _)| waiting.into_caller().ok())
            .collect()
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
        while let Ok((waiting, back)) = self.arrivals.try_recv() {
            // Whoever accepted it may be gone too.
            back.send((self.at, waiting)).ok();
        }
    }
}
