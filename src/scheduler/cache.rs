//! What the scheduler knows: nodes, the room on them, and the pods that take it.
//!
//! Nodes that differ only in name form a class: what selectors, taints and capacity say of one they
//! say of all, so a shape is judged once for each class. Within a class a [`FreeTree`] finds the
//! nodes with room.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::resources::Resources;
use super::shape::{HOSTNAME, HostPort, Shape, group};
use super::topology::Topology;
use super::tree::{Amounts, FreeTree};

pub type NodeId = usize;
pub type ClassId = usize;

/// One node, or the place of one that pods name but that is not known yet.
pub struct NodeState {
    pub name: Arc<str>,
    pub node: Option<Arc<Node>>,
    /// Where in its class; only while `node` is known.
    class: Option<(ClassId, usize)>,
    pub allocatable: Resources,
    pub pods_max: i64,
    pub requested: Resources,
    pub score_milli_cpu: i64,
    pub score_memory: i64,
    pub pods: i64,
    pub ports: Vec<HostPort>,
}

impl NodeState {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            node: None,
            class: None,
            allocatable: Resources::default(),
            pods_max: 0,
            requested: Resources::default(),
            score_milli_cpu: 0,
            score_memory: 0,
            pods: 0,
            ports: Vec::new(),
        }
    }

    #[must_use]
    pub fn free(&self) -> Amounts {
        [
            self.allocatable.milli_cpu.saturating_sub(self.requested.milli_cpu),
            self.allocatable.memory.saturating_sub(self.requested.memory),
            self.allocatable.ephemeral_storage.saturating_sub(self.requested.ephemeral_storage),
            self.pods_max - self.pods,
        ]
    }

    fn charge(&mut self, shape: &Shape) {
        self.requested.add(&shape.requests.exact);
        self.score_milli_cpu += shape.requests.score_milli_cpu;
        self.score_memory += shape.requests.score_memory;
        self.pods += 1;
        self.ports.extend(shape.ports.iter().cloned());
    }

    fn refund(&mut self, shape: &Shape) {
        self.requested.subtract(&shape.requests.exact);
        self.score_milli_cpu -= shape.requests.score_milli_cpu;
        self.score_memory -= shape.requests.score_memory;
        self.pods -= 1;
        for port in &shape.ports {
            if let Some(at) = self.ports.iter().position(|taken| taken == port) {
                self.ports.swap_remove(at);
            }
        }
    }
}

/// Nodes alike in labels (but the host name), taints, `unschedulable` and allocatable.
pub struct Class {
    /// Speaks for all.
    pub sample: Arc<Node>,
    key: Vec<u8>,
    pub slots: Vec<Option<NodeId>>,
    vacant: Vec<usize>,
    pub tree: FreeTree,
    pub count: usize,
    /// Where the next search begins, so that nodes take turns.
    pub next: usize,
}

/// A pod as it counts on its node.
struct Placed {
    node: NodeId,
    shape: Arc<Shape>,
    group: Option<String>,
    pod: Arc<Pod>,
}

/// A pod that waits for a node.
#[derive(Clone)]
pub struct Pending {
    pub pod: Arc<Pod>,
    pub shape: Arc<Shape>,
    pub group: Option<String>,
}

/// Shapes kept though no pod has them, before they are swept.
const SHAPES_IDLE_MAX: usize = 1024;

#[derive(Default)]
pub struct Cache {
    nodes: Vec<Option<NodeState>>,
    vacant: Vec<NodeId>,
    by_name: HashMap<Arc<str>, NodeId>,
    by_hostname: HashMap<String, BTreeSet<NodeId>>,
    classes: Vec<Option<Class>>,
    vacant_classes: Vec<ClassId>,
    class_by_key: HashMap<Vec<u8>, ClassId>,
    classes_by_label: HashMap<(String, String), BTreeSet<ClassId>>,
    /// Moves when the set of classes changes.
    pub classes_generation: u64,
    /// Known nodes.
    pub node_count: usize,
    pods: HashMap<String, Placed>,
    groups: HashMap<String, HashMap<NodeId, u32>>,
    shapes: HashMap<Vec<u8>, Arc<Shape>>,
    shapes_max: usize,
    /// Moves whenever something changes that could let a pod fit that did not.
    pub relief: u64,
    /// Which of several equal classes is asked first.
    pub turn: usize,
    pub topology: Topology,
}

impl Cache {
    /// The pod with its shape, shared with equal pods.
    pub fn pending(&mut self, pod: Arc<Pod>) -> Pending {
        let shape = self.shape(Shape::of(&pod));
        let group = group(&pod);
        Pending { pod, shape, group }
    }

    fn shape(&mut self, shape: Shape) -> Arc<Shape> {
        if self.shapes.len() > self.shapes_max.max(SHAPES_IDLE_MAX) {
            self.shapes.retain(|_, shape| Arc::strong_count(shape) > 1);
            self.shapes_max = 2 * self.shapes.len();
        }
        self.shapes.entry(shape.key()).or_insert_with(|| Arc::new(shape)).clone()
    }

    #[must_use]
    pub fn node(&self, id: NodeId) -> &NodeState {
        self.nodes[id].as_ref().expect("ids are of nodes that are there")
    }

    #[must_use]
    pub fn node_id(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).copied().filter(|id| self.node(*id).node.is_some())
    }

    pub fn nodes_with_hostname(&self, hostname: &str) -> impl Iterator<Item = NodeId> {
        self.by_hostname.get(hostname).into_iter().flatten().copied()
    }

    /// Known nodes, in no particular but a repeatable order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeState)> {
        self.nodes
            .iter()
            .enumerate()
            .filter_map(|(id, state)| Some((id, state.as_ref().filter(|state| state.node.is_some())?)))
    }

    pub fn classes(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        self.classes.iter().enumerate().filter_map(|(id, class)| Some((id, class.as_ref()?)))
    }

    #[must_use]
    pub fn class(&self, id: ClassId) -> Option<&Class> {
        self.classes.get(id)?.as_ref()
    }

    pub fn class_mut(&mut self, id: ClassId) -> Option<&mut Class> {
        self.classes.get_mut(id)?.as_mut()
    }

    /// The classes with a label.
    #[must_use]
    pub fn classes_with(&self, key: &str, value: &str) -> Option<&BTreeSet<ClassId>> {
        self.classes_by_label.get(&(key.to_owned(), value.to_owned()))
    }

    /// The class of a known node.
    #[must_use]
    pub fn class_of(&self, id: NodeId) -> ClassId {
        self.node(id).class.expect("a known node has a class").0
    }

    /// How many pods of `group` are on the node.
    #[must_use]
    pub fn group_on(&self, group: &str, node: NodeId) -> u32 {
        self.groups.get(group).and_then(|counts| counts.get(&node)).copied().unwrap_or(0)
    }

    #[must_use]
    pub fn holds(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// Uids of the pods that count somewhere, sorted.
    #[must_use]
    pub fn pod_uids(&self) -> Vec<String> {
        let mut uids: Vec<String> = self.pods.keys().cloned().collect();
        uids.sort_unstable();
        uids
    }

    /// Names of the known nodes.
    #[must_use]
    pub fn node_names(&self) -> Vec<Arc<str>> {
        self.nodes().map(|(_, state)| state.name.clone()).collect()
    }

    /// Adds a node or takes its new content. Returns whether anything the scheduler looks at changed.
    pub fn set_node(&mut self, node: Arc<Node>) -> bool {
        let name = node.metadata.name.clone().unwrap_or_default();
        let id = self.place_of(&name);
        let key = class_key(&node);
        let hostname = hostname(&node).map(str::to_owned);
        let old = self.nodes[id].as_ref().expect("just found or made");
        let old_hostname = old.node.as_ref().and_then(|node| hostname_owned(node));
        let same_class =
            old.class.is_some_and(|(class, _)| self.class(class).is_some_and(|class| class.key == key));
        if same_class && old_hostname == hostname {
            self.nodes[id].as_mut().expect("as above").node = Some(node);
            return false;
        }
        self.leave_class(id);
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let state = self.nodes[id].as_mut().expect("as above");
        state.allocatable = Resources::of(allocatable);
        state.pods_max = allocatable
            .and_then(|list| list.get("pods"))
            .map_or(0, |pods| crate::kind::quantity::Amount::of(pods).units());
        if state.node.replace(node.clone()).is_none() {
            self.node_count += 1;
        }
        if let Some(hostname) = hostname {
            self.by_hostname.entry(hostname).or_default().insert(id);
        }
        self.join_class(id, key, &node);
        self.relief += 1;
        true
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(&id) = self.by_name.get(name) else { return };
        self.leave_class(id);
        let state = self.nodes[id].as_mut().expect("ids are of nodes that are there");
        if state.node.take().is_some() {
            self.node_count -= 1;
            self.relief += 1;
        }
        self.vacate(id);
    }

    /// Counts `pending` on `node`, which it was assigned or bound to.
    pub fn add_pod(&mut self, pending: &Pending, node: &str) {
        let Some(uid) = pending.pod.metadata.uid.clone() else { return };
        let id = self.place_of(node);
        if self
            .pods
            .get(&uid)
            .is_some_and(|placed| placed.node == id && Arc::ptr_eq(&placed.shape, &pending.shape))
        {
            if let Some(placed) = self.pods.get_mut(&uid) {
                self.topology.pod_removed(&placed.pod, id);
                self.topology.pod_added(&pending.pod, id);
                placed.pod = pending.pod.clone();
            }
            return;
        }
        self.remove_pod(&uid);
        let state = self.nodes[id].as_mut().expect("just found or made");
        state.charge(&pending.shape);
        if let Some(group) = &pending.group {
            *self.groups.entry(group.clone()).or_default().entry(id).or_default() += 1;
        }
        self.topology.pod_added(&pending.pod, id);
        self.pods.insert(
            uid,
            Placed {
                node: id,
                shape: pending.shape.clone(),
                group: pending.group.clone(),
                pod: pending.pod.clone(),
            },
        );
        self.refresh(id);
    }

    /// The pod counts no more. Returns whether it did.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(placed) = self.pods.remove(uid) else { return false };
        let id = placed.node;
        self.nodes[id].as_mut().expect("pods hold their node's place").refund(&placed.shape);
        if let Some(group) = placed.group
            && let Some(counts) = self.groups.get_mut(&group)
        {
            if let Some(count) = counts.get_mut(&id) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&id);
                }
            }
            if counts.is_empty() {
                self.groups.remove(&group);
            }
        }
        self.topology.pod_removed(&placed.pod, id);
        self.relief += 1;
        self.refresh(id);
        self.vacate(id);
        true
    }

    /// The pods that count, with their nodes, sorted by uid.
    #[must_use]
    pub fn placed(&self) -> BTreeMap<&str, (&Pod, NodeId)> {
        self.pods.iter().map(|(uid, placed)| (uid.as_str(), (&*placed.pod, placed.node))).collect()
    }

    /// Tells the node's class what is free now.
    fn refresh(&mut self, id: NodeId) {
        let state = self.nodes[id].as_ref().expect("ids are of nodes that are there");
        if let Some((class, slot)) = state.class {
            let free = state.free();
            let class = self.classes[class].as_mut().expect("a node's class is there");
            class.tree.set(slot, Some(free));
        }
    }

    fn place_of(&mut self, name: &str) -> NodeId {
        if let Some(&id) = self.by_name.get(name) {
            return id;
        }
        let name: Arc<str> = name.into();
        let state = Some(NodeState::new(name.clone()));
        let id = match self.vacant.pop() {
            Some(id) => {
                self.nodes[id] = state;
                id
            }
            None => {
                self.nodes.push(state);
                self.nodes.len() - 1
            }
        };
        self.by_name.insert(name, id);
        id
    }

    /// Forgets a place that neither a node nor a pod needs.
    fn vacate(&mut self, id: NodeId) {
        let state = self.nodes[id].as_ref().expect("ids are of nodes that are there");
        if state.node.is_none() && state.pods == 0 {
            self.by_name.remove(&state.name);
            self.nodes[id] = None;
            self.vacant.push(id);
        }
    }

    fn join_class(&mut self, id: NodeId, key: Vec<u8>, node: &Arc<Node>) {
        let class_id = match self.class_by_key.get(&key) {
            Some(&class) => class,
            None => self.new_class(key, node),
        };
        let free = self.node(id).free();
        let class = self.classes[class_id].as_mut().expect("just found or made");
        let slot = class.vacant.pop().unwrap_or_else(|| {
            class.slots.push(None);
            class.slots.len() - 1
        });
        class.slots[slot] = Some(id);
        class.count += 1;
        class.tree.set(slot, Some(free));
        self.nodes[id].as_mut().expect("the caller's").class = Some((class_id, slot));
    }

    fn new_class(&mut self, key: Vec<u8>, node: &Arc<Node>) -> ClassId {
        let class = Class {
            sample: node.clone(),
            key: key.clone(),
            slots: Vec::new(),
            vacant: Vec::new(),
            tree: FreeTree::default(),
            count: 0,
            next: 0,
        };
        let id = self.vacant_classes.pop().unwrap_or_else(|| {
            self.classes.push(None);
            self.classes.len() - 1
        });
        self.classes[id] = Some(class);
        self.class_by_key.insert(key, id);
        for (key, value) in shared_labels(node) {
            self.classes_by_label.entry((key.clone(), value.clone())).or_default().insert(id);
        }
        self.classes_generation += 1;
        id
    }

    fn leave_class(&mut self, id: NodeId) {
        let state = self.nodes[id].as_mut().expect("the caller's");
        let Some((class_id, slot)) = state.class.take() else { return };
        let hostname = state.node.as_ref().and_then(|node| hostname_owned(node));
        if let Some(hostname) = hostname
            && let Some(ids) = self.by_hostname.get_mut(&hostname)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_hostname.remove(&hostname);
            }
        }
        let class = self.classes[class_id].as_mut().expect("a node's class is there");
        class.slots[slot] = None;
        class.vacant.push(slot);
        class.tree.set(slot, None);
        class.count -= 1;
        if class.count > 0 {
            return;
        }
        let class = self.classes[class_id].take().expect("just seen");
        self.vacant_classes.push(class_id);
        self.class_by_key.remove(&class.key);
        for (key, value) in shared_labels(&class.sample) {
            let entry = (key.clone(), value.clone());
            if let Some(ids) = self.classes_by_label.get_mut(&entry) {
                ids.remove(&class_id);
                if ids.is_empty() {
                    self.classes_by_label.remove(&entry);
                }
            }
        }
        self.classes_generation += 1;
    }
}

/// The node's host name label.
#[must_use]
pub fn hostname(node: &Node) -> Option<&str> {
    node.metadata.labels.as_ref()?.get(HOSTNAME).map(String::as_str)
}

fn hostname_owned(node: &Node) -> Option<String> {
    hostname(node).map(str::to_owned)
}

/// Labels that nodes of a class have in common.
fn shared_labels(node: &Node) -> impl Iterator<Item = (&String, &String)> {
    node.metadata.labels.iter().flatten().filter(|(key, _)| *key != HOSTNAME)
}

/// Equal for nodes of one class.
fn class_key(node: &Node) -> Vec<u8> {
    let labels: BTreeMap<&String, &String> = shared_labels(node).collect();
    let spec = node.spec.as_ref();
    let taints: Vec<_> = spec
        .and_then(|spec| spec.taints.as_ref())
        .into_iter()
        .flatten()
        .map(|taint| (&taint.key, &taint.value, &taint.effect))
        .collect();
    let unschedulable = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    serde_json::to_vec(&(labels, taints, unschedulable, allocatable)).expect("string keys only")
}
