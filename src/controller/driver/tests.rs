//! The driver over a real API in memory.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use serde_json::json;

use super::*;
use crate::apiserver::authn::User;
use crate::apiserver::request::{LogOptions, LogStream};
use crate::apiserver::token::SigningKey;
use crate::apiserver::{Api, Error, NodeAccess, Parts};
use crate::client::DeleteOptions;
use crate::controller::{Action, Decision};
use crate::random::Random;
use crate::store::Store;

struct NoNodes;

#[async_trait]
impl NodeAccess for NoNodes {
    async fn logs(&self, _: &Pod, _: &str, _: &LogOptions) -> std::result::Result<LogStream, Error> {
        Err(Error::bad_request("there are no nodes"))
    }
}

/// Wants `count` ConfigMaps with generated names in the namespace of each key.
struct Maps {
    count: usize,
}

impl Controller for Maps {
    fn name(&self) -> &'static str {
        "maps"
    }

    fn start(&self) -> Vec<Key> {
        vec![Key::new(KindRef::of::<ConfigMap>(), "n", "all")]
    }

    fn wakes(&self, _: &Snapshot, change: &Change<'_>, wake: &mut dyn FnMut(Key)) {
        if change.kind == KindRef::of::<ConfigMap>() {
            wake(Key::new(change.kind, "n", "all"));
        }
    }

    fn reconcile(&self, seen: &Snapshot, key: &Key, _: Moment) -> Decision {
        let have: Vec<_> = seen.in_namespace(key.kind, "n").collect();
        let create = |_| {
            let map = json!({"metadata": {"namespace": "n", "generateName": "m-"}});
            Action::Create(key.kind, Box::new(serde_json::from_value::<ConfigMap>(map).unwrap()))
        };
        let delete = |object: &&Arc<dyn Object>| Action::Delete {
            key: Key::to(key.kind, &***object),
            uid: snapshot::uid(&***object).to_owned(),
            grace_period_seconds: None,
            propagation_policy: None,
        };
        // Three at a time, so that the last of several decisions has less to do.
        let missing = self.count.saturating_sub(have.len()).min(3);
        let mut actions: Vec<Action> = (0..missing).map(create).collect();
        actions.extend(have.iter().skip(self.count).map(delete));
        Decision::act(vec![Action::Together(actions)])
    }
}

fn client(clock: Clock) -> Client {
    let parts = Parts {
        store: Store::ephemeral(clock),
        clock,
        random: Random::from_seed(1),
        nodes: Arc::new(NoNodes),
        tokens: Arc::new(SigningKey::generate().unwrap()),
        plan: crate::kind::address_plan::AddressPlan::default(),
    };
    Client::new(Api::new(parts), User::admin())
}

/// Runs `controller` until the names of the ConfigMaps fit, and then for an hour, in which nothing may
/// change; what was written is what the store's revision moved by.
async fn settled(client: &Client, clock: Clock, controller: Maps) -> usize {
    let count = controller.count;
    let stop = CancellationToken::new();
    let recorder = Recorder::start(client.clone(), clock, "test", None);
    let controllers: Vec<Box<dyn Controller>> = vec![Box::new(controller)];
    let running = tokio::spawn(run(client.clone(), recorder, clock, controllers, None, stop.clone()));
    let all = Select::default();
    let reached = async {
        let mut watcher = client.watch::<ConfigMap>(all.clone());
        while client.list::<ConfigMap>(&all).await.unwrap().items.len() != count {
            watcher.next_batch().await.unwrap();
        }
    };
    clock.timeout(Duration::from_secs(60), reached).await.expect("within a minute");
    clock.sleep(Duration::from_secs(3600)).await;
    stop.cancel();
    running.await.unwrap();
    client.list::<ConfigMap>(&all).await.unwrap().items.len()
}

#[test]
fn what_a_decision_wrote_is_seen_by_the_next() {
    crate::clock::virtual_runtime().unwrap().block_on(async {
        let clock = Clock::starting_at(jiff::Timestamp::UNIX_EPOCH);
        let client = client(clock);
        let namespace = json!({"metadata": {"name": "n"}});
        client.create(serde_json::from_value::<Namespace>(namespace).unwrap()).await.unwrap();
        let before = client.list::<ConfigMap>(&Select::default()).await.unwrap().revision;
        assert_eq!(settled(&client, clock, Maps { count: 10 }).await, 10);
        let after = client.list::<ConfigMap>(&Select::default()).await.unwrap().revision;
        assert_eq!(after - before, 10, "one write for each map, none too many and none undone");
        // Deletions at once tell no object, but hold the key just so.
        assert_eq!(settled(&client, clock, Maps { count: 4 }).await, 4);
        let revision = client.list::<ConfigMap>(&Select::default()).await.unwrap().revision;
        assert_eq!(revision - after, 6);
    });
}

#[test]
fn a_key_is_not_held_for_ever_by_what_was_undone_at_once() {
    crate::clock::virtual_runtime().unwrap().block_on(async {
        let clock = Clock::starting_at(jiff::Timestamp::UNIX_EPOCH);
        let client = client(clock);
        let namespace = json!({"metadata": {"name": "n"}});
        client.create(serde_json::from_value::<Namespace>(namespace).unwrap()).await.unwrap();
        let eraser = tokio::spawn({
            let client = client.clone();
            async move {
                let mut watcher = client.watch::<ConfigMap>(Select::default());
                let mut erased = 0;
                while erased < 20 {
                    for event in watcher.next_batch().await.unwrap() {
                        let Event::Applied(map) = event else { continue };
                        let name = map.metadata.name.clone().unwrap_or_default();
                        client.delete::<ConfigMap>("n", &name, DeleteOptions::default()).await.unwrap();
                        erased += 1;
                    }
                }
            }
        });
        assert_eq!(settled(&client, clock, Maps { count: 2 }).await, 2);
        eraser.await.unwrap();
    });
}
