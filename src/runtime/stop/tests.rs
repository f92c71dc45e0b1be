use jiff::Timestamp;

use super::stop::Host;
use super::*;

#[test]
fn a_request_is_heard_by_all_and_only_brought_forward() {
    crate::clock::virtual_runtime().unwrap().block_on(async {
        let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
        let request = Stop::new(clock);
        let mut table = ResourceTable::new();
        let mut left = || {
            let mut view = StopView { stop: &request, table: &mut table };
            view.requested().unwrap().map(|request| (request.deadline / 1_000_000, request.left / 1_000_000))
        };
        assert_eq!(left(), None);
        let mut early = Requested(request.deadline.subscribe());
        let unasked = clock.timeout(Duration::from_secs(3600), early.ready()).await;
        assert!(unasked.is_err(), "not ready before it is asked");
        request.ask(Duration::from_secs(30));
        early.ready().await;
        Requested(request.deadline.subscribe()).ready().await;
        let (deadline, grace) = left().unwrap();
        assert_eq!(grace, 30_000);
        for (ask, expected) in [(60, deadline), (10, deadline - 20_000), (20, deadline - 20_000)] {
            request.ask(Duration::from_secs(ask));
            assert_eq!(left().unwrap().0, expected, "asked for {ask} s");
        }
        clock.sleep(Duration::from_secs(11)).await;
        assert_eq!(left(), Some((deadline - 20_000, 0)), "over, and still asked");
        early.ready().await;
    });
}
