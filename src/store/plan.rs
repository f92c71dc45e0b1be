//! What a transaction would do, decided before anything happens.

use std::collections::HashMap;
use std::sync::Arc;

use super::record::Moment;
use super::seal::Vault;
use super::state::State;
use super::{Change, CommitError, Event, Expect, Key, Record, Revision, Write};

/// Transactions on top of a state, checked and numbered, not yet applied.
pub(super) struct Plan<'a> {
    /// Where keys of new objects come from, if any are sealed.
    vault: Option<&'a Vault>,
    revision: Revision,
    events: Vec<Event>,
    /// What `events` leave of the keys they touch; empty if nobody will ask.
    overlay: HashMap<Key, Option<Arc<Record>>>,
    several: bool,
}

impl<'a> Plan<'a> {
    /// `several`: whether more than one write will be added.
    pub(super) fn new(state: &State, vault: Option<&'a Vault>, several: bool) -> Self {
        Self { vault, revision: state.revision(), events: Vec::new(), overlay: HashMap::new(), several }
    }

    /// Adds one transaction of the time `now`, whole or not at all. `state` is the one the plan was made for.
    pub(super) fn add(
        &mut self,
        state: &State,
        writes: Vec<Write>,
        now: Moment,
    ) -> Result<Vec<Option<Arc<Record>>>, CommitError> {
        let (events, revision) = (self.events.len(), self.revision);
        let mut records = Vec::with_capacity(writes.len());
        for write in writes {
            match self.add_write(state, write, now) {
                Ok(record) => records.push(record),
                Err(conflict) => {
                    self.undo(events, revision);
                    return Err(conflict);
                }
            }
        }
        Ok(records)
    }

    /// What the plan changes so far, in order.
    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    pub(super) fn into_events(self) -> Vec<Event> {
        self.events
    }

    fn add_write(
        &mut self,
        state: &State,
        write: Write,
        now: Moment,
    ) -> Result<Option<Arc<Record>>, CommitError> {
        let Write { key, expect, change } = write;
        let previous = match self.overlay.get(&key) {
            Some(planned) => planned.clone(),
            None => state.get(&key).cloned(),
        };
        let met = match expect {
            Expect::Absent => previous.is_none(),
            Expect::Revision(revision) => previous.as_ref().is_some_and(|record| record.revision == revision),
        };
        if !met {
            return Err(CommitError::Conflict { key, found: previous });
        }
        let revision = self.revision + 1;
        let (record, deleted) = match (change, &previous) {
            (Change::Nothing, _) | (Change::Delete, None) => return Ok(None),
            (Change::Delete, Some(previous)) => (previous.deleted(revision, now), true),
            (Change::Put { object, encoded }, Some(previous)) => {
                let key = previous.key.clone();
                let data_key = previous.data_key().cloned();
                (Record::commit(key, revision, previous.created, now, data_key, object, &encoded), false)
            }
            (Change::Put { object, encoded }, None) => {
                let key = state.share_namespace(key);
                let data_key = self.vault.and_then(|vault| vault.new_key(key.collection));
                (Record::commit(key, revision, revision, now, data_key, object, &encoded), false)
            }
        };
        self.revision = revision;
        if self.several {
            self.overlay.insert(record.key.clone(), (!deleted).then(|| record.clone()));
        }
        self.events.push(Event { revision, record: record.clone(), previous, deleted });
        Ok(Some(record))
    }

    fn undo(&mut self, events: usize, revision: Revision) {
        for event in self.events.drain(events..).rev() {
            // What a transaction before this one in the plan left is in the overlay's place again; for
            // a key that none touched, this is what the state has.
            self.overlay.insert(event.record.key.clone(), event.previous);
        }
        self.revision = revision;
    }
}
