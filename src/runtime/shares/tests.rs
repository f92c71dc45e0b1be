use std::time::Duration;

use futures_util::FutureExt;

use super::super::budget::Limits;
use super::*;
use crate::clock::Clock;

fn budget(millicores: u64) -> Arc<Budget> {
    Budget::new(Limits { cpu_request: Some(millicores), ..Limits::default() }, Clock::real(), None)
}

/// Nanoseconds that each of these has computed after so many rounds of all turns at once.
fn compute(cores: usize, budgets: &[Arc<Budget>], rounds: usize) -> Vec<u64> {
    let shares = Shares::new(cores);
    let tickets: Vec<Ticket> = budgets.iter().map(|budget| shares.ticket(budget)).collect();
    let before: Vec<Duration> = budgets.iter().map(|budget| budget.used()).collect();
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..rounds {
        let mut taken = Vec::new();
        for ticket in &tickets {
            if let Poll::Ready(turn) = ticket.poll_turn(&mut context) {
                ticket.budget.spend(5_000_000);
                taken.push(turn);
            }
        }
        assert_eq!(taken.len(), cores.min(tickets.len()), "no core is idle while somebody waits");
        taken.into_iter().for_each(Taken::again);
    }
    let used = budgets.iter().zip(before).map(|(budget, before)| budget.used() - before);
    used.map(|used| u64::try_from(used.as_nanos()).unwrap()).collect()
}

#[test]
fn those_that_compute_share_by_their_requests() {
    // Cores, requests in milli-cores, and shares of a thousand.
    let cases: [(usize, &[u64], &[u64]); 7] = [
        (1, &[100, 300, 600], &[100, 300, 600]),
        (2, &[100, 100, 300, 300, 600, 600], &[50, 50, 150, 150, 300, 300]),
        (1, &[0, 0, 0, 0], &[250, 250, 250, 250]),
        // None can have more than one core; the rest goes to the others.
        (2, &[100, 300, 600], &[125, 375, 500]),
        (2, &[100, 600], &[500, 500]),
        (4, &[100, 600], &[500, 500]),
        // Without a request it is the kernel's 2 shares against 1,024.
        (1, &[0, 1000], &[2, 998]),
    ];
    for (cores, requests, expected) in cases {
        let budgets: Vec<_> = requests.iter().map(|request| budget(*request)).collect();
        let used = compute(cores, &budgets, 4_000);
        let all: u64 = used.iter().sum();
        let shares: Vec<u64> = used.iter().map(|used| used * 1_000 / all).collect();
        for (share, expected) in shares.iter().zip(expected) {
            assert!(share.abs_diff(*expected) <= 1 + expected / 20, "{cores} {requests:?}: {shares:?}");
        }
    }
}

#[test]
fn runs_of_one_container_share_what_it_has() {
    let (one, other) = (budget(500), budget(500));
    let shares = compute(1, &[one.clone(), one.clone(), one, other], 1_000);
    // The first three are the same account, read three times.
    assert!(shares[0].abs_diff(shares[3]) < 100_000_000, "{shares:?}");
}

#[test]
fn time_that_was_not_wanted_is_no_claim_later() {
    let (early, late) = (budget(500), budget(500));
    compute(1, std::slice::from_ref(&early), 1_000);
    // The same line: a newcomer begins where those are that compute.
    let shares = Shares::new(1);
    let mut context = Context::from_waker(Waker::noop());
    let first = shares.ticket(&early);
    let Poll::Ready(turn) = first.poll_turn(&mut context) else { panic!("nobody else is there") };
    turn.again();
    let second = shares.ticket(&late);
    let mut had = [0, 0];
    for _ in 0..100 {
        for (number, ticket) in [&first, &second].into_iter().enumerate() {
            if let Poll::Ready(turn) = ticket.poll_turn(&mut context) {
                ticket.budget.spend(5_000_000);
                had[number] += 1;
                turn.again();
            }
        }
    }
    assert!(had[0] > 45 && had[1] > 45, "{had:?}");
}

#[test]
fn whoever_goes_is_not_waited_for() {
    let shares = Shares::new(1);
    let mut context = Context::from_waker(Waker::noop());
    let [first, waits, called, last] = [(); 4].map(|()| shares.ticket(&budget(100)));
    let Poll::Ready(turn) = first.poll_turn(&mut context) else { panic!("it is free") };
    for ticket in [&waits, &called, &last] {
        assert!(ticket.poll_turn(&mut context).is_pending());
    }
    // One that waits is killed; then one whose turn has come but that has not heard of it yet.
    drop(waits);
    drop(turn);
    drop(called);
    let told = std::future::poll_fn(|context| last.poll_turn(context).map(|_| ())).now_or_never();
    assert_eq!(told, Some(()));
    // A guest that fails in its turn leaves it, too.
    let turn = first.poll_turn(&mut context);
    assert!(turn.is_ready());
    drop(turn);
    assert_eq!(shares.state().line.free, 1);
    assert!(shares.state().asked.is_empty());
}
