//! With whom a pod has exchanged datagrams lately: what goes on between them belongs together, as in a
//! connection, and is not judged by policies again. So the answer to a question that was let out comes in, and
//! the answer to one that was let in goes out (conntrack's part in Kubernetes). Pure.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::time::Duration;

/// Conversations of one pod that are remembered; the one that has been silent the longest is forgotten.
const CONVERSATIONS_MAX: usize = 1024;
/// How long one goes on after the last datagram: if only one side has spoken, and if both have (conntrack's
/// `nf_conntrack_udp_timeout` and `nf_conntrack_udp_timeout_stream`).
const UNANSWERED: Duration = Duration::from_secs(30);
const ANSWERED: Duration = Duration::from_secs(120);

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    Pod,
    Peer,
}

#[derive(Default)]
pub(crate) struct Conversations(HashMap<(u16, SocketAddrV4), Conversation>);

struct Conversation {
    last: Duration,
    pod_spoke: bool,
    peer_spoke: bool,
}

impl Conversation {
    fn goes_on(&self, now: Duration) -> bool {
        let silence_max = if self.pod_spoke && self.peer_spoke { ANSWERED } else { UNANSWERED };
        now.saturating_sub(self.last) < silence_max
    }
}

impl Conversations {
    /// Whether a datagram between the pod's `port` and `peer` belongs to a conversation, and notes it if so.
    pub(crate) fn goes_on(&mut self, port: u16, peer: SocketAddrV4, speaker: Speaker, now: Duration) -> bool {
        let goes_on = self.0.get(&(port, peer)).is_some_and(|conversation| conversation.goes_on(now));
        if goes_on {
            self.note(port, peer, speaker, now);
        }
        goes_on
    }

    /// Notes a datagram that was let through.
    pub(crate) fn note(&mut self, port: u16, peer: SocketAddrV4, speaker: Speaker, now: Duration) {
        let key = (port, peer);
        if self.0.get(&key).is_some_and(|conversation| !conversation.goes_on(now)) {
            self.0.remove(&key);
        }
        if self.0.len() >= CONVERSATIONS_MAX && !self.0.contains_key(&key) {
            let silent = self.0.iter().min_by_key(|(_, conversation)| conversation.last).map(|(key, _)| *key);
            silent.map(|silent| self.0.remove(&silent));
        }
        let new = || Conversation { last: now, pod_spoke: false, peer_spoke: false };
        let conversation = self.0.entry(key).or_insert_with(new);
        conversation.last = now;
        match speaker {
            Speaker::Pod => conversation.pod_spoke = true,
            Speaker::Peer => conversation.peer_spoke = true,
        }
    }
}

#[cfg(test)]
mod tests;
