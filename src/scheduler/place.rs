//! One placement: candidates, scores, the best (BEHAVIOURS 15.6).

use std::sync::Arc;

use super::cache::{Cache, ClassId, NodeId, Pending};
use super::diagnosis::{Diagnosis, Tally};
use super::filter::{self, AFFINITY, Blocker, Liking, Refusal, Verdict};
use super::score::{self, Marks};
use super::shape::{Pins, Shape};
use super::topology::Terms;
use crate::random::Random;

/// Feasible nodes that are compared; kube-scheduler too is content with a hundred
/// (`minFeasibleNodesToFind`). A cluster of up to this many nodes is compared whole.
pub const CANDIDATES_MAX: usize = 100;

/// What placements cost, for tests and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Nodes looked at.
    pub nodes: u64,
    /// Steps in the trees that find them.
    pub steps: u64,
}

/// Chooses a node for the pod. The pod is not counted there yet.
pub fn place(
    cache: &mut Cache,
    pending: &Pending,
    random: &Random,
    work: &mut Work,
) -> Result<NodeId, Arc<Diagnosis>> {
    let shape = &pending.shape;
    if let Some(known) = known_failure(cache, shape) {
        return Err(known);
    }
    let terms = Terms::of(cache, pending);
    let candidates = match shape.pins() {
        Some(pins) => pinned(cache, shape, &terms, &pins, work),
        None => found(cache, shape, &terms, work),
    };
    if candidates.is_empty() {
        let diagnosis = Arc::new(explain(cache, shape, &terms));
        if terms.is_none() {
            let mut memo = shape.memo.lock().expect("nothing panics under this lock");
            memo.failure = Some((cache.relief, diagnosis.clone()));
        }
        return Err(diagnosis);
    }
    Ok(best(cache, pending, &terms, &candidates, random))
}

/// The failure of an equal pod, if nothing has changed since.
fn known_failure(cache: &Cache, shape: &Shape) -> Option<Arc<Diagnosis>> {
    let memo = shape.memo.lock().expect("nothing panics under this lock");
    let (relief, diagnosis) = memo.failure.as_ref()?;
    (*relief == cache.relief && !cache.topology.guards()).then(|| diagnosis.clone())
}

type Candidate = (NodeId, Liking);

/// Nodes with room from the classes that fit, the best liked classes first. Classes that are liked
/// alike give candidates in proportion to their size.
fn found(cache: &mut Cache, shape: &Shape, terms: &Option<Terms>, work: &mut Work) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    let classes = filter::classes(cache, shape);
    for alike in classes.chunk_by(|a, b| a.1 == b.1) {
        let size = |id: ClassId| cache.class(id).map_or(0, |class| class.count);
        let together: usize = alike.iter().map(|(id, _)| size(*id)).sum();
        let start = cache.turn % alike.len();
        for (class_id, _) in alike[start..].iter().chain(&alike[..start]) {
            let left = CANDIDATES_MAX - candidates.len();
            if left == 0 {
                return candidates;
            }
            let share = (CANDIDATES_MAX * cache.class(*class_id).map_or(0, |class| class.count))
                .div_ceil(together.max(1))
                .min(left);
            search(cache, shape, terms, (*class_id, alike[0].1), share, &mut candidates, work);
            cache.turn = cache.turn.wrapping_add(1);
        }
    }
    candidates
}

/// Adds up to `share` nodes of a class, beginning where its last search ended.
fn search(
    cache: &mut Cache,
    shape: &Shape,
    terms: &Option<Terms>,
    (class_id, liking): (ClassId, Liking),
    share: usize,
    candidates: &mut Vec<Candidate>,
    work: &mut Work,
) {
    let Some(class) = cache.class(class_id) else { return };
    let need = filter::need(shape);
    let enough = candidates.len() + share;
    let slots = class.slots.len();
    let start = if class.next < slots { class.next } else { 0 };
    let mut end = start;
    for (from, to) in [(start, slots), (0, start)] {
        let mut at = from;
        while candidates.len() < enough
            && let Some(slot) = class.tree.next(at, &need, &mut work.steps)
            && slot < to
        {
            at = slot + 1;
            end = at;
            let Some(id) = class.slots[slot] else { continue };
            work.nodes += 1;
            if let Some(liking) = fits(cache, shape, terms, id, liking) {
                candidates.push((id, liking));
            }
        }
    }
    if let Some(class) = cache.class_mut(class_id) {
        class.next = end;
    }
}

/// Nodes that the pod names, if they fit.
fn pinned(
    cache: &Cache,
    shape: &Shape,
    terms: &Option<Terms>,
    pins: &Pins,
    work: &mut Work,
) -> Vec<Candidate> {
    let by_hostname = pins.hostnames.iter().flat_map(|hostname| cache.nodes_with_hostname(hostname));
    let by_name = pins.names.iter().filter_map(|name| cache.node_id(name));
    let mut ids: Vec<NodeId> = by_hostname.chain(by_name).collect();
    ids.sort_unstable();
    ids.dedup();
    let judged = ids.into_iter().filter_map(|id| {
        work.nodes += 1;
        let node = cache.node(id).node.as_ref()?;
        match filter::judge(shape, node, true) {
            Verdict::Fits(liking) => Some((id, fits(cache, shape, terms, id, liking)?)),
            Verdict::Refused(_) => None,
        }
    });
    judged.take(CANDIDATES_MAX).collect()
}

/// What selectors that name nodes, room and other pods say of a node whose class fits.
fn fits(
    cache: &Cache,
    shape: &Shape,
    terms: &Option<Terms>,
    id: NodeId,
    mut liking: Liking,
) -> Option<Liking> {
    let state = cache.node(id);
    if shape.names_nodes() {
        let node = state.node.as_ref()?;
        if !filter::selected(shape, node) {
            return None;
        }
        liking.preferred = crate::kind::node_selector::preferred_weight(shape.preferred_nodes(), node);
    }
    if filter::room(shape, state).is_some() {
        return None;
    }
    match terms {
        Some(terms) if terms.refusal(cache, id).is_some() => None,
        _ => Some(liking),
    }
}

/// The candidate with the highest score; of equals, one at random.
fn best(
    cache: &Cache,
    pending: &Pending,
    terms: &Option<Terms>,
    candidates: &[Candidate],
    random: &Random,
) -> NodeId {
    let shape = &pending.shape;
    let marks: Vec<Marks> = candidates
        .iter()
        .map(|(id, liking)| {
            let state = cache.node(*id);
            let group = pending.group.as_deref().map_or(0, |group| i64::from(cache.group_on(group, *id)));
            Marks {
                liking: *liking,
                crowd: terms.as_ref().and_then(|terms| terms.crowd(cache, *id)).unwrap_or(group),
                company: terms.as_ref().map_or(0, |terms| terms.company(cache, *id)),
                room: score::least_allocated(shape, state) + score::balanced(shape, state),
            }
        })
        .collect();
    let totals = score::totals(&marks);
    let highest = totals.iter().copied().max().expect("there are candidates");
    let equals: Vec<NodeId> = candidates
        .iter()
        .zip(&totals)
        .filter(|(_, total)| **total == highest)
        .map(|((id, _), _)| *id)
        .collect();
    let chosen = random.below(equals.len().try_into().expect("a count fits"));
    equals[usize::try_from(chosen).expect("below the count of candidates")]
}

/// Asks every node again, for its reason.
fn explain(cache: &Cache, shape: &Shape, terms: &Option<Terms>) -> Diagnosis {
    let mut tally = Tally::default();
    let pins = shape.pins().filter(|pins| pins.by_field_alone);
    for (_, class) in cache.classes() {
        let verdict = filter::judge(shape, &class.sample, false);
        for id in class.slots.iter().flatten().copied() {
            // Nodes beside those that a daemon set's pod is meant for are not asked for more.
            if let Some(pins) = &pins
                && !pins.names.contains(&*cache.node(id).name)
            {
                tally.add(
                    &Refusal::new("node(s) didn't satisfy plugin(s) [NodeAffinity]", true, Blocker::Node),
                    1,
                );
                continue;
            }
            let refusal = filter::refusal(shape, cache, id, &verdict)
                .or_else(|| terms.as_ref().and_then(|terms| terms.refusal(cache, id)))
                .unwrap_or_else(|| Refusal::new(AFFINITY, true, Blocker::Node));
            tally.add(&refusal, 1);
        }
    }
    tally.diagnosis(shape.never_preempts)
}
