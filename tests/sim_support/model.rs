//! What a repository must hold, as far as anybody was promised anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use backup::SessionId;
use backup::backup_backend::Bytes;

/// Bytes that were backed up.
pub(crate) type Content = Bytes;

#[derive(Debug, Default)]
pub(crate) struct ModelRepo(Mutex<Sets>);

/// What is known of the tries to give one snapshot up.
#[derive(Debug, Default, Clone, Copy)]
struct GivenUp {
    /// Tries in all.
    begun: u64,
    /// Tries of which it is not known how they ended: their decision may come at any time.
    open: u64,
    is_gone: bool,
}

impl GivenUp {
    fn is_promised(&self) -> bool {
        self.open == 0 && !self.is_gone
    }
}

#[derive(Debug, Default)]
struct Sets {
    /// What each session set out to store.
    tried: BTreeMap<SessionId, Content>,
    /// Snapshots that `backup()` returned.
    acked: BTreeSet<SessionId>,
    /// Snapshots that somebody gave up, or may have.
    given_up: BTreeMap<SessionId, GivenUp>,
    /// How often each verb succeeded and failed.
    counts: BTreeMap<&'static str, [u64; 2]>,
}

impl Sets {
    fn is_promised(&self, snapshot: &SessionId) -> bool {
        let given_up = self.given_up.get(snapshot);
        self.acked.contains(snapshot) && given_up.is_none_or(GivenUp::is_promised)
    }
}

impl ModelRepo {
    pub(crate) fn attempt(&self, session: SessionId, content: Content) {
        self.0.lock().unwrap().tried.insert(session, content);
    }

    pub(crate) fn ack(&self, snapshot: SessionId) {
        self.0.lock().unwrap().acked.insert(snapshot);
    }

    /// From now on nothing is promised of these.
    pub(crate) fn begin_forget(&self, snapshots: &[SessionId]) {
        let mut sets = self.0.lock().unwrap();
        for id in snapshots {
            let given_up = sets.given_up.entry(*id).or_default();
            given_up.begun += 1;
            given_up.open += 1;
        }
    }

    /// Of these, those in `gone` were given up. When this is not told, it is not known.
    pub(crate) fn end_forget(&self, snapshots: &[SessionId], gone: &[SessionId]) {
        let mut sets = self.0.lock().unwrap();
        for id in snapshots {
            let given_up = sets.given_up.entry(*id).or_default();
            given_up.open -= 1;
        }
        for id in gone {
            sets.given_up.entry(*id).or_default().is_gone = true;
        }
    }

    /// What to tell [`ModelRepo::end_keep`].
    pub(crate) fn begin_keep(&self, snapshot: SessionId) -> u64 {
        let sets = self.0.lock().unwrap();
        sets.given_up
            .get(&snapshot)
            .map_or(0, |given_up| given_up.begun)
    }

    /// It was taken back: promised again, unless somebody gave it up meanwhile.
    pub(crate) fn end_keep(&self, snapshot: SessionId, begun: u64) {
        let mut sets = self.0.lock().unwrap();
        if let Some(given_up) = sets.given_up.get_mut(&snapshot)
            && given_up.begun == begun
        {
            given_up.is_gone = false;
        }
    }

    /// What is promised now.
    pub(crate) fn promised(&self) -> Vec<SessionId> {
        let sets = self.0.lock().unwrap();
        let acked = sets.acked.iter();
        acked.filter(|id| sets.is_promised(id)).copied().collect()
    }

    /// All sessions, whether or not they came to anything.
    pub(crate) fn tried(&self) -> Vec<SessionId> {
        self.0.lock().unwrap().tried.keys().copied().collect()
    }

    pub(crate) fn acked(&self) -> Vec<SessionId> {
        self.0.lock().unwrap().acked.iter().copied().collect()
    }

    /// What may have been given up.
    pub(crate) fn dropped(&self) -> Vec<SessionId> {
        self.0.lock().unwrap().given_up.keys().copied().collect()
    }

    pub(crate) fn is_promised(&self, snapshot: &SessionId) -> bool {
        self.0.lock().unwrap().is_promised(snapshot)
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
