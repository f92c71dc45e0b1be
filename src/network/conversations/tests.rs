use super::Speaker::{Peer, Pod};
use super::*;

const PORT: u16 = 4_000;

fn peer(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

#[test]
fn answers_belong_to_questions_for_a_while() {
    let (server, other) = (peer("192.0.2.1:53"), peer("192.0.2.1:54"));
    // What was let through, and what is asked for then: port, peer, at which second.
    for (noted, asked, expected) in [
        (&[][..], (PORT, server, 0), false),
        (&[(Pod, 0)], (PORT, server, 29), true),
        (&[(Pod, 0)], (PORT, server, 30), false),
        (&[(Pod, 0), (Pod, 20)], (PORT, server, 49), true),
        (&[(Pod, 0)], (PORT + 1, server, 1), false),
        (&[(Pod, 0)], (PORT, other, 1), false),
        (&[(Peer, 0)], (PORT, server, 29), true),
        (&[(Peer, 0)], (PORT, server, 30), false),
        (&[(Pod, 0), (Peer, 1)], (PORT, server, 120), true),
        (&[(Peer, 0), (Pod, 1)], (PORT, server, 121), false),
        // What was over does not make the next one older than it is.
        (&[(Pod, 0), (Peer, 100)], (PORT, server, 130), false),
    ] {
        let mut conversations = Conversations::default();
        for (speaker, second) in noted {
            conversations.note(PORT, server, *speaker, Duration::from_secs(*second));
        }
        let (port, from, second) = asked;
        let goes_on = conversations.goes_on(port, from, Peer, Duration::from_secs(second));
        assert_eq!(goes_on, expected, "{noted:?} {asked:?}");
    }
}

#[test]
fn what_goes_on_goes_on() {
    let (mut conversations, server) = (Conversations::default(), peer("192.0.2.1:53"));
    conversations.note(PORT, server, Pod, Duration::ZERO);
    for second in [25, 140, 259] {
        assert!(conversations.goes_on(PORT, server, Peer, Duration::from_secs(second)), "{second}");
    }
    assert!(!conversations.goes_on(PORT, server, Peer, Duration::from_secs(379)));
    // Asking is no word.
    assert!(!conversations.goes_on(PORT, server, Peer, Duration::from_secs(380)));
}

#[test]
fn they_are_bounded() {
    let mut conversations = Conversations::default();
    for i in 0..3_000_u16 {
        let from = SocketAddrV4::new([192, 0, 2, 1].into(), i + 1);
        conversations.note(PORT, from, Peer, Duration::from_millis(i.into()));
        assert!(conversations.0.len() <= CONVERSATIONS_MAX);
    }
    let now = Duration::from_secs(4);
    let mut known =
        |port| conversations.goes_on(PORT, SocketAddrV4::new([192, 0, 2, 1].into(), port), Pod, now);
    assert_eq!([known(3_000), known(1_977), known(1_976), known(1)], [true, true, false, false]);
}
