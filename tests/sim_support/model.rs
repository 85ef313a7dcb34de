//! What a repository must hold, as far as anybody was promised anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use backup::SessionId;
use backup::backup_backend::Bytes;

/// Bytes that were backed up.
pub(crate) type Content = Bytes;

#[derive(Debug, Default)]
pub(crate) struct ModelRepo(Mutex<Sets>);

#[derive(Debug, Default)]
struct Sets {
    /// What each session set out to store.
    tried: BTreeMap<SessionId, Content>,
    /// Snapshots that `backup()` returned.
    acked: BTreeSet<SessionId>,
    /// Snapshots that somebody gave up, or tried to.
    dropped: BTreeSet<SessionId>,
    /// How often each verb succeeded and failed.
    counts: BTreeMap<&'static str, [u64; 2]>,
}

impl ModelRepo {
    pub(crate) fn attempt(&self, session: SessionId, content: Content) {
        self.0.lock().unwrap().tried.insert(session, content);
    }

    pub(crate) fn ack(&self, snapshot: SessionId) {
        self.0.lock().unwrap().acked.insert(snapshot);
    }

    /// From now on nothing is promised of it.
    pub(crate) fn drop(&self, snapshot: SessionId) {
        self.0.lock().unwrap().dropped.insert(snapshot);
    }

    /// What is promised now.
    pub(crate) fn promised(&self) -> Vec<SessionId> {
        let sets = self.0.lock().unwrap();
        sets.acked.difference(&sets.dropped).copied().collect()
    }

    pub(crate) fn is_promised(&self, snapshot: &SessionId) -> bool {
        let sets = self.0.lock().unwrap();
        sets.acked.contains(snapshot) && !sets.dropped.contains(snapshot)
    }

    /// What a snapshot must give back, whether or not it was acked.
    pub(crate) fn content(&self, snapshot: &SessionId) -> Option<Content> {
        self.0.lock().unwrap().tried.get(snapshot).cloned()
    }

    /// Counts how a verb ended.
    pub(crate) fn count(&self, verb: &'static str, is_good: bool) {
        let counts = &mut self.0.lock().unwrap().counts;
        counts.entry(verb).or_default()[usize::from(!is_good)] += 1;
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, [u64; 2]> {
        self.0.lock().unwrap().counts.clone()
    }
}
