//! The commit thread of a durable store: many transactions, one flush.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::directory::Directory;
use super::format::{self, Contents};
use super::plan::Plan;
use super::record::Moment;
use super::segment::Segment;
use super::{CommitError, Event, Limits, Record, Revision, Shared, Write, closed, snapshot};

/// Transactions that may wait; who comes later waits for room.
const QUEUE_TRANSACTIONS: usize = 4096;

/// No flush covers more than this, or one transaction.
const BATCH_BYTES: usize = 8 << 20;

/// Events applied under one hold of the lock, or one transaction.
const APPLY_EVENTS: usize = 256;

type Answer = Result<Vec<Option<Arc<Record>>>, CommitError>;

enum Message {
    Commit(Commit),
    /// Only wakes the thread, which then finds out that it is to stop.
    Stop,
}

struct Commit {
    writes: Vec<Write>,
    now: Moment,
    reply: oneshot::Sender<Answer>,
}

/// The handle to the thread.
pub(super) struct Committer {
    queue: mpsc::Sender<Message>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) directory: Arc<Directory>,
    pub(super) segment: Segment,
    /// The revision that names the segment.
    pub(super) segment_base: Revision,
    pub(super) limits: Limits,
    pub(super) history_bytes: u64,
}

impl Committer {
    pub(super) fn start(parts: Parts) -> io::Result<Self> {
        let (queue, waiting) = mpsc::channel(QUEUE_TRANSACTIONS);
        let stop = Arc::new(AtomicBool::new(false));
        let thread =
            Thread { waiting, stop: stop.clone(), frames: Vec::new(), failed: None, snapshot: None, parts };
        let thread = std::thread::Builder::new().name("store-commit".into()).spawn(move || thread.run())?;
        Ok(Self { queue, stop, thread: Mutex::new(Some(thread)) })
    }

    /// The time is asked, on the caller's thread, where the transaction gets its place in the sequence:
    /// on no other thread is virtual time known.
    pub(super) async fn commit(&self, writes: Vec<Write>, now: impl Fn() -> Moment) -> Answer {
        let (reply, answer) = oneshot::channel();
        let place = self.queue.reserve().await.map_err(|_| closed())?;
        place.send(Message::Commit(Commit { writes, now: now(), reply }));
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Returns once what was accepted is flushed and the directory is released.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // If the queue is full the thread is awake, and if it is gone there is nothing to stop.
        drop(self.queue.try_send(Message::Stop));
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's commit thread has panicked");
        }
    }
}

struct Thread {
    waiting: mpsc::Receiver<Message>,
    stop: Arc<AtomicBool>,
    parts: Parts,
    /// What is being written; kept for its capacity.
    frames: Vec<u8>,
    failed: Option<Arc<io::Error>>,
    snapshot: Option<JoinHandle<()>>,
}

/// Transactions that are in one flush.
struct Batch {
    events: Vec<Event>,
    /// How long the transactions are, in events.
    lengths: Vec<usize>,
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
}

impl Thread {
    fn run(mut self) {
        let mut messages = Vec::new();
        while self.waiting.blocking_recv_many(&mut messages, QUEUE_TRANSACTIONS) > 0 {
            if self.stop.load(Ordering::Acquire) {
                // No more is accepted; what was, is still done.
                self.waiting.close();
            }
            let mut commits: VecDeque<_> = messages
                .drain(..)
                .filter_map(|message| match message {
                    Message::Commit(commit) => Some(commit),
                    Message::Stop => None,
                })
                .collect();
            while !commits.is_empty() {
                self.commit(&mut commits);
            }
        }
        self.end();
    }

    /// Commits what one flush takes.
    fn commit(&mut self, commits: &mut VecDeque<Commit>) {
        let batch = self.plan(commits);
        if self.failed.is_none()
            && !self.frames.is_empty()
            && let Err(error) = self.write(&batch.events)
        {
            self.fail(error);
        }
        if let Some(error) = &self.failed {
            for (reply, _) in batch.answers {
                answer(reply, Err(CommitError::Unwritable(error.clone())));
            }
            return;
        }
        self.apply(batch.events, &batch.lengths);
        for (reply, result) in batch.answers {
            answer(reply, result);
        }
        self.roll();
    }

    /// Makes what is planned durable. A batch that creates or deletes nothing that is sealed takes one
    /// flush, others one more for each of the two.
    fn write(&mut self, events: &[Event]) -> io::Result<()> {
        if let Some(vault) = self.parts.shared.vault() {
            vault.prepare(events)?;
        }
        self.parts.segment.append(&self.frames)?;
        if let Some(vault) = self.parts.shared.vault() {
            vault.settle(events)?;
        }
        Ok(())
    }

    /// Checks transactions one after the other, each as if those before it were done.
    fn plan(&mut self, commits: &mut VecDeque<Commit>) -> Batch {
        let flushed = self.parts.segment.end();
        let state = self.parts.shared.read();
        let mut plan = Plan::new(&state, self.parts.shared.vault(), true);
        let (mut lengths, mut answers) = (Vec::new(), Vec::with_capacity(commits.len()));
        self.frames.clear();
        while self.frames.len() < BATCH_BYTES
            && let Some(Commit { writes, now, reply }) = commits.pop_front()
        {
            let before = plan.events().len();
            answers.push((reply, plan.add(&state, writes, now)));
            let events = &plan.events()[before..];
            if !events.is_empty() {
                format::put_transaction(&mut self.frames, flushed, now, events);
                lengths.push(events.len());
            }
        }
        Batch { events: plan.into_events(), lengths, answers }
    }

    /// Makes flushed transactions visible, a few at a time, so that no reader waits long.
    fn apply(&self, events: Vec<Event>, lengths: &[usize]) {
        let mut events = events.into_iter();
        let mut lengths = lengths.iter().copied().peekable();
        while lengths.peek().is_some() {
            let mut count = 0;
            while count < APPLY_EVENTS
                && let Some(length) = lengths.next()
            {
                count += length;
            }
            let some = events.by_ref().take(count).collect();
            self.parts.shared.publish(self.parts.shared.write(), some);
        }
    }

    /// Starts a new segment, and a snapshot to go with it, once the newest is long enough.
    fn roll(&mut self) {
        let live_bytes = self.parts.shared.read().live_bytes();
        if self.parts.segment.end() < self.parts.limits.segment_bytes.max(live_bytes) {
            return;
        }
        match self.snapshot.take() {
            Some(snapshot) if !snapshot.is_finished() => self.snapshot = Some(snapshot),
            Some(_) | None => {
                if let Err(error) = self.start_segment() {
                    self.fail(error);
                }
            }
        }
    }

    fn start_segment(&mut self) -> io::Result<()> {
        let base = self.parts.shared.revision();
        let next = self.parts.directory.create_segment(base, self.parts.limits.step_bytes)?;
        let mut sealed = std::mem::replace(&mut self.parts.segment, next);
        self.parts.directory.note(Contents::Log, self.parts.segment_base, sealed.end());
        self.parts.segment_base = base;
        sealed.trim()?;
        self.parts.shared.write().start_saving();
        let (shared, directory) = (self.parts.shared.clone(), self.parts.directory.clone());
        let (stop, history_bytes) = (self.stop.clone(), self.parts.history_bytes);
        let work = move || {
            let result = snapshot::write(&shared, &directory, base, &stop)
                .and_then(|()| directory.trim(history_bytes));
            if let Err(error) = result
                && error.kind() != io::ErrorKind::Interrupted
            {
                // The log has everything; the next segment brings the next attempt.
                tracing::warn!(%error, "cannot write a snapshot of the store");
            }
        };
        match std::thread::Builder::new().name("store-snapshot".into()).spawn(work) {
            Ok(thread) => self.snapshot = Some(thread),
            Err(error) => {
                drop(self.parts.shared.write().end_saving());
                tracing::warn!(%error, "cannot start a snapshot of the store");
            }
        }
        Ok(())
    }

    fn fail(&mut self, error: io::Error) {
        tracing::error!(%error, "the store cannot write its log and takes no more writes");
        self.failed = Some(Arc::new(error));
    }

    fn end(mut self) {
        if let Some(snapshot) = self.snapshot.take()
            && snapshot.join().is_err()
        {
            tracing::error!("the store's snapshot thread has panicked");
        }
        if self.failed.is_none()
            && let Err(error) = self.parts.segment.close()
        {
            tracing::error!(%error, "cannot close the store's log");
        }
        self.parts.directory.release();
    }
}

fn answer(reply: oneshot::Sender<Answer>, answer: Answer) {
    // Who asked may have gone.
    drop(reply.send(answer));
}
