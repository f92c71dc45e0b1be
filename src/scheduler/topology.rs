//! Where other pods are: inter-pod affinity and anti-affinity, and topology spread constraints
//! (kube-scheduler plugins InterPodAffinity and PodTopologySpread).
//!
//! Each question "how many pods like these are on each node" is kept as a counter from the first
//! time it is asked, so a placement does not look at pods. Left out: the wishes (preferred terms) of
//! pods that run already.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::api::core::v1::{Node, Pod, PodAffinityTerm, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde::Serialize;

use super::cache::{Cache, NodeId, Pending};
use super::filter::{self, Blocker, Refusal, Verdict};

type Labels = BTreeMap<String, String>;

/// Counters kept; the longest unused goes first. Each is told of every pod that comes or goes.
const COUNTERS_MAX: usize = 128;

/// Pods in some namespaces with some labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Like {
    /// `None` is all.
    namespaces: Option<BTreeSet<String>>,
    /// A label selector as JSON, so that questions can be compared; `None` selects nothing.
    selector: Option<String>,
}

/// Pods that are like all of these.
type Question = Vec<Like>;

struct Counter {
    selectors: Vec<Option<LabelSelector>>,
    by_node: HashMap<NodeId, u32>,
    used: u64,
}

/// A required anti-affinity term of pods that are placed.
struct Guard {
    term: PodAffinityTerm,
    /// Of the pods that have the term.
    namespace: String,
    by_node: HashMap<NodeId, u32>,
}

#[derive(Default)]
pub struct Topology {
    counters: BTreeMap<Question, Counter>,
    guards: BTreeMap<String, Guard>,
    namespaces: BTreeMap<String, Labels>,
    asked: u64,
}

impl Topology {
    /// Whether placed pods keep others away.
    #[must_use]
    pub fn guards(&self) -> bool {
        !self.guards.is_empty()
    }

    /// Forgets all namespaces, before they are told again.
    pub fn clear_namespaces(&mut self) {
        self.namespaces.clear();
    }

    /// Takes a namespace's labels; `None` if it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
    }

    pub fn pod_added(&mut self, pod: &Pod, node: NodeId) {
        self.count(pod, node, |count| *count += 1);
        for (key, namespace, term) in anti_terms(pod) {
            let guard = self.guards.entry(key).or_insert_with(|| Guard {
                term: term.clone(),
                namespace: namespace.to_owned(),
                by_node: HashMap::new(),
            });
            *guard.by_node.entry(node).or_default() += 1;
        }
    }

    pub fn pod_removed(&mut self, pod: &Pod, node: NodeId) {
        self.count(pod, node, |count| *count -= 1);
        for (key, ..) in anti_terms(pod) {
            let Some(guard) = self.guards.get_mut(&key) else { continue };
            change(&mut guard.by_node, node, |count| *count -= 1);
            if guard.by_node.is_empty() {
                self.guards.remove(&key);
            }
        }
    }

    fn count(&mut self, pod: &Pod, node: NodeId, by: impl Fn(&mut u32)) {
        for (question, counter) in &mut self.counters {
            if is_like(pod, question, &counter.selectors) {
                change(&mut counter.by_node, node, &by);
            }
        }
    }

    /// The namespaces a term speaks of, for a pod of `own`.
    fn namespaces(&self, term: &PodAffinityTerm, own: &str) -> Option<BTreeSet<String>> {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        match &term.namespace_selector {
            None if namespaces.is_empty() => {
                namespaces.insert(own.to_owned());
            }
            None => {}
            Some(selector) if is_empty(selector) => return None,
            Some(selector) => {
                let chosen = self.namespaces.iter().filter(|(_, labels)| selects(selector, labels));
                namespaces.extend(chosen.map(|(name, _)| name.clone()));
            }
        }
        Some(namespaces)
    }
}

fn change(counts: &mut HashMap<NodeId, u32>, node: NodeId, by: impl Fn(&mut u32)) {
    let count = counts.entry(node).or_default();
    by(count);
    if *count == 0 {
        counts.remove(&node);
    }
}

fn is_like(pod: &Pod, question: &Question, selectors: &[Option<LabelSelector>]) -> bool {
    let none = Labels::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    question.iter().zip(selectors).all(|(like, selector)| {
        like.namespaces.as_ref().is_none_or(|namespaces| namespaces.contains(namespace))
            && selector.as_ref().is_some_and(|selector| selects(selector, labels))
    })
}

/// The pod's required anti-affinity terms, with what makes equal ones equal.
fn anti_terms(pod: &Pod) -> impl Iterator<Item = (String, &str, &PodAffinityTerm)> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    affinity
        .and_then(|affinity| affinity.pod_anti_affinity.as_ref())
        .and_then(|anti| anti.required_during_scheduling_ignored_during_execution.as_ref())
        .into_iter()
        .flatten()
        .map(move |term| {
            let key = serde_json::to_string(&(namespace, term)).expect("API types have string keys only");
            (key, namespace, term)
        })
}

fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|expression| {
            let value = labels.get(&expression.key);
            let listed =
                value.is_some_and(|value| expression.values.iter().flatten().any(|other| other == value));
            match expression.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// Counts by the value of a node label.
type ByDomain = BTreeMap<String, i64>;

struct Spread {
    key: String,
    counts: ByDomain,
    /// The fewest pods in any domain the pod could go to.
    least: i64,
    max_skew: i64,
    /// 1 if the pod counts itself.
    own: i64,
}

/// What a pod's terms, and those of others about it, come to at this moment.
pub struct Terms {
    together: Vec<(String, ByDomain)>,
    /// Nobody is there to be with yet, and the pod would do itself.
    first: bool,
    apart: Vec<(String, ByDomain)>,
    guarded: Vec<(String, BTreeSet<String>)>,
    spread: Vec<Spread>,
    even: Vec<(String, ByDomain)>,
    wishes: Vec<(i64, String, ByDomain)>,
}

impl Terms {
    /// `None` if where other pods are does not matter to this one.
    pub fn of(cache: &mut Cache, pending: &Pending) -> Option<Self> {
        let guarded = guarded(cache, &pending.pod);
        if pending.shape.identity.is_none() && guarded.is_empty() {
            return None;
        }
        let pod = &*pending.pod;
        let own = pod.metadata.namespace.as_deref().unwrap_or_default();
        let affinity = &pending.shape.affinity;
        let friends = affinity.pod_affinity.as_ref();
        let strangers = affinity.pod_anti_affinity.as_ref();

        let required: Vec<PodAffinityTerm> = friends
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.clone())
            .unwrap_or_default();
        let like_all: Question = required.iter().map(|term| like(&cache.topology, term, own)).collect();
        let selectors: Vec<_> = required.iter().map(|term| term.label_selector.clone()).collect();
        let together: Vec<(String, ByDomain)> = required
            .iter()
            .map(|t| (t.topology_key.clone(), ask(cache, &like_all, &t.topology_key)))
            .collect();
        let first =
            together.iter().all(|(_, counts)| counts.is_empty()) && is_like(pod, &like_all, &selectors);

        let apart = strangers
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.clone())
            .unwrap_or_default()
            .iter()
            .map(|term| {
                let question = vec![like(&cache.topology, term, own)];
                (term.topology_key.clone(), ask(cache, &question, &term.topology_key))
            })
            .collect();

        let mut wishes = Vec::new();
        let preferred = [
            (1, friends.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.clone())),
            (-1, strangers.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.clone())),
        ];
        for (sign, terms) in preferred {
            for wish in terms.unwrap_or_default() {
                let term = &wish.pod_affinity_term;
                let question = vec![like(&cache.topology, term, own)];
                let counts = ask(cache, &question, &term.topology_key);
                wishes.push((sign * i64::from(wish.weight), term.topology_key.clone(), counts));
            }
        }

        let (mut spread, mut even) = (Vec::new(), Vec::new());
        for constraint in &pending.shape.spread {
            let selector = spread_selector(constraint, pod);
            let question = vec![Like {
                namespaces: Some(BTreeSet::from([own.to_owned()])),
                selector: selector.as_ref().map(text),
            }];
            let counts = ask(cache, &question, &constraint.topology_key);
            if constraint.when_unsatisfiable == "DoNotSchedule" {
                let own = i64::from(is_like(pod, &question, &[selector]));
                spread.push(hard_spread(cache, pending, constraint, counts, own));
            } else {
                even.push((constraint.topology_key.clone(), counts));
            }
        }
        Some(Self { together, first, apart, guarded, spread, even, wishes })
    }

    /// Why the node will not do.
    #[must_use]
    pub fn refusal(&self, cache: &Cache, id: NodeId) -> Option<Refusal> {
        let node = cache.node(id).node.as_ref()?;
        let refuse = |reason: &str, unresolvable| Some(Refusal::new(reason, unresolvable, Blocker::Pods));
        for spread in &self.spread {
            let Some(domain) = label(node, &spread.key) else {
                let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Some(Refusal::new(reason, true, Blocker::Node));
            };
            let there = spread.counts.get(domain).copied().unwrap_or(0);
            if there + spread.own - spread.least > spread.max_skew {
                return refuse("node(s) didn't match pod topology spread constraints", false);
            }
        }
        let alone = |key: &str, counts: &ByDomain| match label(node, key) {
            Some(domain) => !self.first && !counts.contains_key(domain),
            None => true,
        };
        if self.together.iter().any(|(key, counts)| alone(key, counts)) {
            return refuse("node(s) didn't match pod affinity rules", true);
        }
        if self.apart.iter().any(|(key, counts)| label(node, key).is_some_and(|d| counts.contains_key(d))) {
            return refuse("node(s) didn't match pod anti-affinity rules", false);
        }
        if self.guarded.iter().any(|(key, domains)| label(node, key).is_some_and(|d| domains.contains(d))) {
            return refuse("node(s) didn't satisfy existing pods anti-affinity rules", false);
        }
        None
    }

    /// Pods to keep away from, as soft spread constraints count them; `None` without any.
    #[must_use]
    pub fn crowd(&self, cache: &Cache, id: NodeId) -> Option<i64> {
        let node = cache.node(id).node.as_ref()?;
        let count = |(key, counts): &(String, ByDomain)| match label(node, key) {
            Some(domain) => counts.get(domain).copied().unwrap_or(0),
            None => counts.values().sum(),
        };
        (!self.even.is_empty()).then(|| self.even.iter().map(count).sum())
    }

    /// Weights of preferred terms that hold on the node, once for each pod.
    #[must_use]
    pub fn company(&self, cache: &Cache, id: NodeId) -> i64 {
        let Some(node) = cache.node(id).node.as_ref() else { return 0 };
        let holds = |key: &str, counts: &ByDomain| {
            label(node, key).and_then(|domain| counts.get(domain)).copied().unwrap_or(0)
        };
        self.wishes.iter().map(|(weight, key, counts)| weight * holds(key, counts)).sum()
    }
}

fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn text(selector: &LabelSelector) -> String {
    serde_json::to_string(selector).expect("API types have string keys only")
}

fn like(topology: &Topology, term: &PodAffinityTerm, own: &str) -> Like {
    Like { namespaces: topology.namespaces(term, own), selector: term.label_selector.as_ref().map(text) }
}

/// How many pods there are, by the nodes' label `key`.
fn ask(cache: &mut Cache, question: &Question, key: &str) -> ByDomain {
    cache.topology.asked += 1;
    let asked = cache.topology.asked;
    if !cache.topology.counters.contains_key(question) {
        let selectors: Vec<Option<LabelSelector>> = question
            .iter()
            .map(|like| {
                like.selector.as_ref().map(|text| serde_json::from_str(text).expect("written by `text`"))
            })
            .collect();
        let mut by_node = HashMap::new();
        for (pod, node) in cache.placed().into_values() {
            if is_like(pod, question, &selectors) {
                *by_node.entry(node).or_default() += 1;
            }
        }
        let counters = &mut cache.topology.counters;
        if counters.len() >= COUNTERS_MAX
            && let Some(oldest) =
                counters.iter().min_by_key(|(_, counter)| counter.used).map(|(q, _)| q.clone())
        {
            counters.remove(&oldest);
        }
        counters.insert(question.clone(), Counter { selectors, by_node, used: asked });
    }
    let mut counts = ByDomain::new();
    if let Some(counter) = cache.topology.counters.get_mut(question) {
        counter.used = asked;
    }
    let counter = &cache.topology.counters[question];
    for (id, count) in &counter.by_node {
        if let Some(domain) = cache.node(*id).node.as_ref().and_then(|node| label(node, key)) {
            *counts.entry(domain.to_owned()).or_default() += i64::from(*count);
        }
    }
    counts
}

/// Domains that placed pods keep this one out of.
fn guarded(cache: &Cache, pod: &Pod) -> Vec<(String, BTreeSet<String>)> {
    let none = Labels::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    let own = pod.metadata.namespace.as_deref().unwrap_or_default();
    let concerns = |guard: &&Guard| {
        let selector = guard.term.label_selector.as_ref();
        selector.is_some_and(|selector| selects(selector, labels))
            && cache.topology.namespaces(&guard.term, &guard.namespace).is_none_or(|all| all.contains(own))
    };
    let domains = |guard: &Guard| {
        let key = &guard.term.topology_key;
        let nodes = guard.by_node.keys().filter_map(|id| cache.node(*id).node.as_ref());
        (key.clone(), nodes.filter_map(|node| label(node, key).map(str::to_owned)).collect())
    };
    cache.topology.guards.values().filter(concerns).map(domains).collect()
}

/// The constraint's selector, narrowed by `matchLabelKeys` to pods that share the pod's values.
fn spread_selector(constraint: &TopologySpreadConstraint, pod: &Pod) -> Option<LabelSelector> {
    let mut selector = constraint.label_selector.clone()?;
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)) {
            selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: "In".into(),
                values: Some(vec![value.clone()]),
            });
        }
    }
    Some(selector)
}

/// Finds the emptiest domain among nodes the pod's own selectors allow and that have every key it
/// spreads over.
fn hard_spread(
    cache: &Cache,
    pending: &Pending,
    constraint: &TopologySpreadConstraint,
    counts: ByDomain,
    own: i64,
) -> Spread {
    let shape = &pending.shape;
    let honors = |policy: &Option<String>, default: &str| policy.as_deref().unwrap_or(default) == "Honor";
    let by_selector = honors(&constraint.node_affinity_policy, "Honor");
    let by_taints = honors(&constraint.node_taints_policy, "Ignore");
    let keys: Vec<&str> = shape
        .spread
        .iter()
        .filter(|c| c.when_unsatisfiable == "DoNotSchedule")
        .map(|c| c.topology_key.as_str())
        .collect();
    let mut domains = BTreeSet::new();
    for (_, state) in cache.nodes() {
        let Some(node) = state.node.as_deref() else { continue };
        let allowed = (!by_selector || filter::selected(shape, node))
            && (!by_taints || matches!(filter::judge(shape, node, false), Verdict::Fits(_)))
            && keys.iter().all(|key| label(node, key).is_some());
        if allowed && let Some(domain) = label(node, &constraint.topology_key) {
            domains.insert(domain);
        }
    }
    let enough =
        i64::try_from(domains.len()).unwrap_or(i64::MAX) >= constraint.min_domains.map_or(0, i64::from);
    let least = domains.iter().map(|domain| counts.get(*domain).copied().unwrap_or(0)).min();
    Spread {
        key: constraint.topology_key.clone(),
        least: if enough { least.unwrap_or(0) } else { 0 },
        max_skew: constraint.max_skew.into(),
        own,
        counts,
    }
}
