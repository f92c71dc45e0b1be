//! Whole clusters in virtual time: simulated nodes, real controllers.

mod apps;
mod job;

use std::fmt::Debug;
use std::time::Duration;

use super::*;

/// Within which a cluster comes to its end, in virtual time.
const DEADLINE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Runs `test` with a cluster of `nodes` simulated nodes in virtual time.
pub(super) fn in_virtual_time<T>(nodes: u32, test: impl AsyncFnOnce(&mut Cluster) -> T) -> T {
    crate::clock::virtual_runtime().expect("a runtime").block_on(async {
        let start = "2026-01-01T00:00:00Z".parse().expect("a time");
        let config =
            Config { nodes: 0, sim_nodes: nodes, virtual_time: Some((start, 1)), ..Config::default() };
        let mut cluster = Cluster::start(config).await.expect("a cluster");
        cluster.ready().await.expect("nodes");
        let result = test(&mut cluster).await;
        cluster.shutdown().await;
        result
    })
}

/// What `end` gives, once it gives something; asked every virtual second.
pub(super) async fn eventually<T>(
    client: &Client,
    clock: Clock,
    end: &impl AsyncFn(&Client) -> Option<T>,
) -> T {
    let reached = clock.timeout(DEADLINE, async {
        loop {
            if let Some(end) = end(client).await {
                return end;
            }
            clock.sleep(Duration::from_secs(1)).await;
        }
    });
    reached.await.unwrap_or_else(|_| panic!("no end within {DEADLINE:?} of virtual time"))
}

/// Lives a life again and again: `begin` makes objects, and `end` says what has become of them, once that
/// will not change any more. In each life the controllers are killed before another write of those named,
/// and started again on what is stored; the end must be the one of the life that nothing disturbed.
#[track_caller]
pub(super) fn survives_every_crash<T: PartialEq + Debug>(
    controllers: &[&'static str],
    begin: impl AsyncFn(&Client),
    end: impl AsyncFn(&Client) -> Option<T>,
) {
    let live = |before: usize| {
        in_virtual_time(2, async |cluster| {
            let fault = Fault::before(before, controllers);
            cluster.restart_controllers(Some(fault.clone())).await;
            let (client, clock) = (cluster.client(), cluster.clock());
            begin(&client).await;
            let undisturbed = tokio::select! {
                () = fault.killed() => None,
                result = eventually(&client, clock, &end) => Some(result),
            };
            let result = match undisturbed {
                Some(result) => result,
                None => {
                    cluster.restart_controllers(None).await;
                    eventually(&client, clock, &end).await
                }
            };
            (result, fault.writes())
        })
    };
    let (expected, writes) = live(0);
    assert!(writes > 0, "nothing was written by {controllers:?}");
    for before in 1..=writes {
        let (found, _) = live(before);
        assert_eq!(found, expected, "killed before write {before} of {writes}");
    }
}
