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

fn stage(threads: &tokio::runtime::Runtime) -> Stage {
    Stage {
        ticker: Arc::default(),
        clock: Clock::real(),
        shares: Shares::new(1),
        threads: Threads { waiting: threads.handle().clone(), computing: None },
    }
}

fn meter() -> Arc<Meter> {
    let clock = Clock::real();
    Arc::new(Meter::new(Budget::new(Limits::default(), clock, None), Fuel::Off))
}

/// 24 ms late was a neighbour of guests that write without end, while tokio ended their turns.
#[test]
fn only_ticks_end_a_turn() {
    let threads = tokio::runtime::Builder::new_current_thread().build().unwrap();
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
    stage(&threads).begin(Box::pin(run), meter(), Arc::default(), None);
    assert_eq!(threads.block_on(is_over), Ok(1));
}

#[test]
fn a_run_that_needs_one_turn_needs_no_task() {
    let threads = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (stage, here) = (stage(&threads), Arc::new(Mutex::new(Vec::new())));
    let run = |name: &'static str, waits: bool| {
        let here = Arc::clone(&here);
        Box::pin(async move {
            here.lock().unwrap().push((name, tokio::task::try_id()));
            if waits {
                tokio::task::yield_now().await;
                here.lock().unwrap().push((name, tokio::task::try_id()));
            }
            Exit::Code(0)
        })
    };
    let seen = || std::mem::take(&mut *here.lock().unwrap());
    threads.block_on(async {
        stage.begin_here(run("quick", false), meter(), Arc::default()).await;
        assert_eq!(seen(), [("quick", None)]);
        stage.begin_here(run("waits", true), meter(), Arc::default()).await;
        assert_eq!(seen(), [("waits", None)]);
        while here.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(seen()[..], [("waits", Some(_))]));
        // What was killed meanwhile does not go on.
        let switch = Arc::<Switch>::default();
        switch.kill();
        stage.begin_here(run("killed", true), meter(), switch).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(seen(), [("killed", None)]);
    });
}
