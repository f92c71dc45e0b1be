use futures_util::FutureExt;

use super::super::budget::Limits;
use super::*;
use crate::clock::virtual_runtime;

fn in_virtual_time<F: Future<Output = ()>>(test: impl FnOnce(Clock) -> F) {
    virtual_runtime().unwrap().block_on(test(Clock::starting_at(jiff::Timestamp::UNIX_EPOCH)));
}

fn taps(clock: Clock) -> Arc<Taps> {
    Taps::new(clock, Budget::new(Limits::default(), clock, None))
}

#[test]
fn those_attached_see_what_is_written_from_then_on() {
    in_virtual_time(|clock| async move {
        let log = Arc::new(Log::new(clock, 1_000));
        let taps = taps(clock);
        let output = Output::Log { log: log.clone(), taps: Some(taps.clone()) };
        output.put(b"before ");
        clock.sleep(EARLY_MAX * 2).await;
        let mut first = taps.attach().unwrap();
        let second = taps.attach().unwrap();
        output.put(b"after");
        drop(second);
        output.put(b"wards");
        assert_eq!(first.read().await.unwrap(), "afterwards");
        output.close();
        assert_eq!(first.read().await, None);
        assert_eq!(taps.attach().unwrap().read().await, None, "attached after the end");
        assert_eq!(log.tail(9, 99), "before afterwards");
    });
}

#[test]
fn who_attaches_early_has_missed_nothing() {
    in_virtual_time(|clock| async move {
        let (quick, slow, chatty) = (taps(clock), taps(clock), taps(clock));
        quick.put(b"all ");
        quick.put(b"said");
        quick.end();
        assert_eq!(quick.attach().unwrap().read().await.unwrap(), "all said");
        assert_eq!(quick.attach().unwrap().read().await, None, "it was shown already");

        slow.put(b"one ");
        let mut first = slow.attach().unwrap();
        let mut second = slow.attach().unwrap();
        slow.put(b"two");
        assert_eq!(first.read().await.unwrap(), "one two");
        assert_eq!(second.read().await.unwrap(), "two");

        chatty.put(&vec![b'a'; EARLY_BYTES - 1]);
        chatty.put(b"bcd");
        let kept = chatty.attach().unwrap().read().await.unwrap();
        assert_eq!((kept.len(), &kept[EARLY_BYTES - 4..]), (EARLY_BYTES, &b"abcd"[..]));
        chatty.put(&vec![b'e'; 2 * EARLY_BYTES]);
        assert_eq!(chatty.attach().unwrap().read().await.unwrap().len(), EARLY_BYTES);

        // Later nothing is kept any more.
        quick.put(b"x");
        clock.sleep(EARLY_MAX * 2).await;
        quick.put(b"y");
        assert!(quick.state().early.is_empty());
    });
}

#[test]
fn who_does_not_read_holds_the_guest_up_for_a_while() {
    in_virtual_time(|clock| async move {
        let log = Arc::new(Log::new(clock, 1_000));
        let taps = taps(clock);
        let output = Output::Log { log, taps: Some(taps.clone()) };
        let mut idle = taps.attach().unwrap();
        let mut reader = taps.attach().unwrap();
        output.put(&vec![b'x'; TAP_BYTES]);
        assert_eq!(output.room(), Some(0));
        assert_eq!(reader.read().await.unwrap().len(), TAP_BYTES);
        assert!(output.writable().now_or_never().is_none());
        let began = clock.monotonic();
        output.writable().await;
        // Up to the grain of the clock.
        assert!((clock.monotonic() - began).abs_diff(STALL_MAX) < Duration::from_millis(2));
        output.put(b"more");
        assert_eq!(reader.read().await.unwrap(), "more");
        // What it was behind is still there, and then it is let go of.
        assert_eq!(idle.read().await.unwrap().len(), TAP_BYTES);
        assert_eq!(idle.read().await, None);
    });
}

#[test]
fn too_many_are_not_attached() {
    in_virtual_time(|clock| async move {
        let taps = taps(clock);
        let mut all: Vec<Receiver> = (0..TAPS_MAX).map(|_| taps.attach().unwrap()).collect();
        assert!(taps.attach().is_none());
        all.pop();
        assert!(taps.attach().is_some());
    });
}

#[test]
fn what_those_attached_may_be_behind_is_the_containers() {
    in_virtual_time(|clock| async move {
        let bytes = u64::try_from(TAP_BYTES).unwrap();
        let budget = Budget::new(Limits { memory: Some(bytes), ..Limits::default() }, clock, None);
        let taps = Taps::new(clock, budget.clone());
        let first = taps.attach().unwrap();
        assert_eq!(budget.memory(), bytes);
        assert!(taps.attach().is_none());
        drop(first);
        let _second = taps.attach().unwrap();
        taps.end();
        assert_eq!(budget.memory(), 0);
    });
}
