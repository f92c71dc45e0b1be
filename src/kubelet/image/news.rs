//! News of imported images, for pods that wait for one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

/// Tells listeners when images may have come. The directory is watched only while somebody listens.
pub(crate) struct News {
    dir: Option<PathBuf>,
    sender: watch::Sender<u64>,
    watching: Arc<Mutex<bool>>,
}

impl News {
    pub(crate) fn new(dir: Option<&Path>) -> Self {
        Self { dir: dir.map(Path::to_owned), sender: watch::Sender::new(0), watching: Arc::default() }
    }

    pub(crate) fn tell(&self) {
        self.sender.send_modify(|news| *news += 1);
    }

    /// Hears of everything from now on.
    pub(crate) fn listen(&self) -> watch::Receiver<u64> {
        let mut watching = self.watching.lock().expect("no holder panics");
        if let Some(dir) = &self.dir
            && !*watching
        {
            *watching = follow(dir, self.sender.clone(), self.watching.clone());
        }
        self.sender.subscribe()
    }
}

/// Starts to watch the directory for new versions of the index; whether that works here. Where it
/// does not, waiting pods look again after their back-off.
#[cfg(target_os = "linux")]
fn follow(dir: &Path, sender: watch::Sender<u64>, watching: Arc<Mutex<bool>>) -> bool {
    use rustix::fs::inotify;
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// Room for some events; their content does not matter.
    const BUFFER: usize = 4096;

    let open = || -> std::io::Result<AsyncFd<std::os::fd::OwnedFd>> {
        // Before the first import there is no directory.
        std::fs::create_dir_all(dir)?;
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&fd, dir, inotify::WatchFlags::MOVED_TO)?;
        #[allow(deprecated, reason = "its successor is unsafe; an owned descriptor meets what that asks")]
        AsyncFd::with_interest(fd, Interest::READABLE)
    };
    let Ok(fd) = open() else { return false };
    tokio::spawn(async move {
        let mut buffer = [std::mem::MaybeUninit::uninit(); BUFFER];
        loop {
            let ready = tokio::select! {
                biased;
                ready = fd.readable() => ready,
                () = sender.closed() => {
                    let mut watching = watching.lock().expect("no holder panics");
                    if sender.receiver_count() > 0 {
                        continue;
                    }
                    *watching = false;
                    return;
                }
            };
            let Ok(mut guard) = ready else { return };
            let read = guard.try_io(|fd| {
                let mut reader = inotify::Reader::new(fd.get_ref(), &mut buffer);
                let mut any = reader.next().map(|_| ());
                while !reader.is_buffer_empty() {
                    any = reader.next().map(|_| ());
                }
                any.map_err(std::io::Error::from)
            });
            match read {
                Ok(Ok(())) => sender.send_modify(|news| *news += 1),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot watch the image store; waiting pods look again after a while");
                    return;
                }
                Err(_would_block) => {}
            }
        }
    });
    true
}

#[cfg(not(target_os = "linux"))]
fn follow(_dir: &Path, _sender: watch::Sender<u64>, _watching: Arc<Mutex<bool>>) -> bool {
    false
}
