//! Tokens of a pod's account, for its projected volumes (BEHAVIOURS 10.15).
//!
//! A token is asked for when a guest first looks at its file, and anew on a later look once most of its
//! life is over, as upstream's token manager has it. A guest that never looks costs nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, ServiceAccountTokenProjection};

use super::api::{ApiError, NodeApi};
use super::volume::MountError;
use crate::clock::Clock;
use crate::runtime::fs;

/// No token is used for longer than this, whatever its life.
const USE_MAX: SignedDuration = SignedDuration::from_hours(24);
/// What the API gives when a projection does not say.
const LIFE_SECONDS_DEFAULT: i64 = 3600;

/// The tokens of one pod.
pub(crate) struct Tokens {
    whose: Arc<Whose>,
    /// By audience and life, so that every look at the same is at the same token.
    made: Mutex<BTreeMap<(String, i64), fs::Late>>,
}

/// What it takes to ask for them. The pod itself would keep its first content in memory.
struct Whose {
    api: Arc<dyn NodeApi>,
    clock: Clock,
    namespace: String,
    pod: String,
    uid: String,
    account: String,
}

impl Tokens {
    pub(crate) fn new(api: Arc<dyn NodeApi>, clock: Clock, pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let whose = Whose {
            api,
            clock,
            namespace: meta.namespace.clone().unwrap_or_default(),
            pod: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            account: account(pod).to_owned(),
        };
        Self { whose: Arc::new(whose), made: Mutex::default() }
    }

    /// The content of a token's file in `volume`.
    pub(crate) fn file(&self, volume: &str, projection: &ServiceAccountTokenProjection) -> fs::Late {
        let audience = projection.audience.clone().unwrap_or_default();
        let life_seconds = projection.expiration_seconds.unwrap_or(LIFE_SECONDS_DEFAULT);
        let mut made = self.made.lock().expect("no holder panics");
        let late = made
            .entry((audience.clone(), life_seconds))
            .or_insert_with(|| fs::Late::new(Arc::new(self.token(volume, audience, life_seconds))));
        late.clone()
    }

    fn token(&self, volume: &str, audience: String, life_seconds: i64) -> Token {
        let whose = Arc::clone(&self.whose);
        Token {
            whose,
            audience,
            life_seconds,
            volume: volume.to_owned(),
            held: tokio::sync::Mutex::default(),
        }
    }
}

/// The name of the account that a pod acts as.
pub(crate) fn account(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or_default()
}

/// One token, when it has been asked for.
struct Token {
    whose: Arc<Whose>,
    /// Empty for the API's own.
    audience: String,
    life_seconds: i64,
    volume: String,
    /// Locked while one is being asked for, so that many looks ask once.
    held: tokio::sync::Mutex<Held>,
}

#[derive(Default)]
struct Held {
    token: Option<(Bytes, Timestamp)>,
    /// The failure that was told last, so that a guest that looks again and again tells it once.
    told: String,
}

impl Token {
    fn request(&self) -> TokenRequest {
        let audience = Some(self.audience.clone()).filter(|audience| !audience.is_empty());
        let spec = TokenRequestSpec {
            audiences: audience.into_iter().collect(),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(self.whose.pod.clone()),
                uid: Some(self.whose.uid.clone()),
            }),
            expiration_seconds: Some(self.life_seconds),
        };
        TokenRequest { spec, ..TokenRequest::default() }
    }

    /// Tells the pod's owner why there is no token, unless that was the last that was told.
    fn tell(&self, held: &mut Held, error: &ApiError) {
        let cause = format!("failed to fetch token: {error}");
        let error = MountError { volume: self.volume.clone(), cause }.to_string();
        if held.told == error {
            return;
        }
        held.told.clone_from(&error);
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(self.whose.namespace.clone()),
            name: Some(self.whose.pod.clone()),
            uid: Some(self.whose.uid.clone()),
            ..ObjectReference::default()
        };
        self.whose.api.record(&about, true, "FailedMount", error);
    }
}

#[async_trait]
impl fs::Source for Token {
    async fn content(&self) -> Option<Bytes> {
        let Whose { api, clock, namespace, account, .. } = &*self.whose;
        let mut held = self.held.lock().await;
        let life = SignedDuration::from_secs(self.life_seconds);
        if let Some((token, expires)) = &held.token
            && !is_due(*expires, life, clock.now())
        {
            return Some(token.clone());
        }
        match api.token(namespace, account, self.request()).await {
            Ok((token, expires)) => {
                let token = Bytes::from(token);
                held.token = Some((token.clone(), expires));
                held.told.clear();
                Some(token)
            }
            Err(error) => {
                self.tell(&mut held, &error);
                let valid = held.token.as_ref().filter(|(_, expires)| clock.now() < *expires);
                valid.map(|(token, _)| token.clone())
            }
        }
    }
}

/// Whether a token that lives for `life` is to be replaced: four fifths of that, or a day, are over.
///
/// Kubernetes' rule (`pkg/kubelet/token/token_manager.go`) without its jitter, since looks come when they
/// come.
fn is_due(expires: Timestamp, life: SignedDuration, now: Timestamp) -> bool {
    let left = expires.duration_since(now);
    left < life / 5 || life - left > USE_MAX
}

#[cfg(test)]
pub(super) mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, ServiceAccount};
    use serde_json::json;

    use super::*;
    use crate::clock;

    /// An API that gives tokens, unless it is told not to, and hears events.
    #[derive(Default)]
    pub(in crate::kubelet) struct FakeApi {
        clock: Option<Clock>,
        asked: Mutex<Vec<TokenRequest>>,
        fails: Mutex<Option<&'static str>>,
        events: Mutex<Vec<String>>,
    }

    const WHY: &str = "tokens ask for nothing else";

    #[async_trait]
    impl NodeApi for FakeApi {
        async fn queue(
            &self,
            _namespace: &str,
            _job: &str,
            _ask: Option<serde_json::Value>,
        ) -> Result<serde_json::Value, ApiError> {
            unreachable!("no test here has a queue")
        }

        fn queue_changes(&self, _namespace: &str, _job: &str) -> Box<dyn crate::kubelet::api::QueueChanges> {
            unreachable!("no test here has a queue")
        }

        async fn pod(&self, _: &str, _: &str) -> Result<Arc<Pod>, ApiError> {
            unreachable!("{WHY}")
        }

        async fn write_status(&self, _: Pod) -> Result<Arc<Pod>, ApiError> {
            unreachable!("{WHY}")
        }

        async fn delete_pod(&self, _: &Pod) -> Result<(), ApiError> {
            unreachable!("{WHY}")
        }

        async fn node(&self) -> Result<Arc<Node>, ApiError> {
            unreachable!("{WHY}")
        }

        async fn config_map(&self, _: &str, _: &str) -> Result<Arc<ConfigMap>, ApiError> {
            unreachable!("{WHY}")
        }

        async fn secret(&self, _: &str, _: &str) -> Result<Arc<Secret>, ApiError> {
            unreachable!("{WHY}")
        }

        async fn account(&self, _: &str, _: &str) -> Result<Arc<ServiceAccount>, ApiError> {
            unreachable!("{WHY}")
        }

        async fn token(
            &self,
            namespace: &str,
            account: &str,
            request: TokenRequest,
        ) -> Result<(String, Timestamp), ApiError> {
            assert_eq!((namespace, account), ("n", "a"));
            tokio::task::yield_now().await;
            if let Some(why) = *self.fails.lock().unwrap() {
                return Err(ApiError::Other(why.into()));
            }
            let life = SignedDuration::from_secs(request.spec.expiration_seconds.unwrap());
            let mut asked = self.asked.lock().unwrap();
            asked.push(request);
            Ok((format!("token {}", asked.len()), self.clock.unwrap().now() + life))
        }

        fn record(&self, about: &ObjectReference, warning: bool, reason: &str, message: String) {
            assert!(warning && about.name.as_deref() == Some("p"));
            self.events.lock().unwrap().push(format!("{reason}: {message}"));
        }
    }

    #[test]
    fn a_token_is_asked_for_when_looked_at_and_kept_while_it_lasts() {
        // BEHAVIOURS 10.15.
        clock::virtual_runtime().unwrap().block_on(async {
            let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
            let api = Arc::new(FakeApi { clock: Some(clock), ..FakeApi::default() });
            let pod = json!({
                "metadata": {"name": "p", "namespace": "n", "uid": "u"},
                "spec": {"containers": [], "serviceAccountName": "a"},
            });
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let tokens = Tokens::new(api.clone(), clock, &pod);
            let projection = ServiceAccountTokenProjection {
                expiration_seconds: Some(3607),
                ..ServiceAccountTokenProjection::default()
            };
            assert_eq!(tokens.file("v", &projection), tokens.file("v", &projection));
            assert_eq!(api.asked.lock().unwrap().len(), 0, "nobody has looked");
            let token = tokens.token("v", String::new(), 3607);
            let look = || async {
                let content = fs::Source::content(&token).await;
                content.map(|token| String::from_utf8(token.to_vec()).unwrap())
            };
            // Many looks at once ask once.
            let (one, two) = tokio::join!(look(), look());
            assert_eq!((one.as_deref(), two.as_deref()), (Some("token 1"), Some("token 1")));
            let spec = serde_json::to_value(&api.asked.lock().unwrap()[0].spec).unwrap();
            let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"});
            assert_eq!(spec, json!({"audiences": [], "boundObjectRef": bound, "expirationSeconds": 3607}));
            let pass = |seconds| clock.sleep(std::time::Duration::from_secs(seconds));
            pass(2880).await;
            assert_eq!(look().await.as_deref(), Some("token 1"));
            pass(10).await;
            assert_eq!(look().await.as_deref(), Some("token 2"));
            // While no other can be had it is kept, as long as it is valid; that is told once.
            *api.fails.lock().unwrap() = Some("the API is away");
            pass(3000).await;
            assert_eq!(look().await.as_deref(), Some("token 2"));
            assert_eq!(look().await.as_deref(), Some("token 2"));
            pass(607).await;
            assert_eq!(look().await, None);
            assert_eq!(
                *api.events.lock().unwrap(),
                [r#"FailedMount: MountVolume.SetUp failed for volume "v" : failed to fetch token: the API is away"#]
            );
            *api.fails.lock().unwrap() = None;
            assert_eq!(look().await.as_deref(), Some("token 3"));
        });
    }

    #[test]
    fn a_token_is_due_after_four_fifths_of_its_life_or_a_day() {
        // BEHAVIOURS 10.15.
        let hour = SignedDuration::from_hours(1);
        for (life, age, expected) in [
            (hour, SignedDuration::ZERO, false),
            (hour, SignedDuration::from_mins(48), false),
            (hour, SignedDuration::from_mins(48) + SignedDuration::from_secs(1), true),
            (hour, SignedDuration::from_hours(2), true),
            (hour * 24 * 30, hour * 24, false),
            (hour * 24 * 30, hour * 24 + SignedDuration::from_secs(1), true),
        ] {
            let expires = Timestamp::UNIX_EPOCH + life;
            assert_eq!(is_due(expires, life, Timestamp::UNIX_EPOCH + age), expected, "{life:?} {age:?}");
        }
    }
}
