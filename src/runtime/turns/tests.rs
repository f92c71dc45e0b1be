use super::super::Fuel;
use super::super::budget::{Budget, Limits};
use super::*;

#[test]
fn whoever_uses_up_turns_in_a_row_moves_and_whoever_waits_comes_back() {
    for (place, polls, stays) in [
        // One long poll is no computing yet.
        (Place::Waiting, &[true][..], true),
        (Place::Waiting, &[true, false, true], true),
        (Place::Waiting, &[false, true, true], false),
        (Place::Computing, &[true, true, true], true),
        (Place::Computing, &[true, false], false),
        (Place::Computing, &[false], false),
    ] {
        let mut turns = Turns::new(place);
        let last = polls.iter().map(|used_up| turns.stays(*used_up)).last();
        assert_eq!(last, Some(stays), "{place:?} {polls:?}");
    }
}

/// 24 ms late was a neighbour of guests that write without end, while tokio ended their turns.
#[test]
fn only_ticks_end_a_turn() {
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let clock = Clock::real();
    let stage = Stage {
        ticker: Arc::default(),
        clock,
        shares: Shares::new(1),
        threads: Threads { waiting: threads.handle().clone(), computing: None },
    };
    let budget = Budget::new(Limits::default(), clock, None);
    let (ended, is_over) = tokio::sync::oneshot::channel();
    let mut polls = 0;
    let mut calls = Box::pin(async {
        for _ in 0..10_000 {
            tokio::task::coop::consume_budget().await;
        }
    });
    let mut ended = Some(ended);
    let run = poll_fn(move |context| {
        polls += 1;
        ready!(calls.as_mut().poll(context));
        ended.take().unwrap().send(polls).unwrap();
        Poll::Ready(Exit::Code(0))
    });
    stage.begin(Box::pin(run), Arc::new(Meter::new(budget, Fuel::Off)), Arc::default(), None);
    assert_eq!(threads.block_on(is_over), Ok(1));
}
