//! Progress as data, and the polite way to stop.

use backup_core::{PackId, SessionId};
use backup_manifest::ItemPath;

/// Something that happened while a verb ran. Events are data; a program makes text of them.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The store does not keep a promise that safe garbage collection needs; backups still work.
    WeakStore {
        /// Which promise.
        missing: &'static str,
    },
    /// A writer's run has begun.
    SessionOpened {
        /// Its name, and the name of the snapshot to be.
        session: SessionId,
    },
    /// An item of the source was taken into the snapshot.
    ItemFinished {
        /// Which one.
        path: &'a ItemPath,
        /// Bytes of content.
        bytes: u64,
        /// The previous snapshot's content was taken over without reading.
        unchanged: bool,
    },
    /// An item could not be read or restored.
    ItemSkipped {
        /// Which one.
        path: &'a ItemPath,
        /// Why, in words.
        reason: &'a str,
    },
    /// Content went through: bytes of plaintext since the last such event.
    Bytes {
        /// How many.
        bytes: u64,
    },
    /// A pack is durable in the store.
    PackStored {
        /// Its name.
        pack: PackId,
        /// Its length in bytes.
        bytes: u64,
    },
    /// The snapshot exists.
    SnapshotCommitted {
        /// Its name.
        snapshot: SessionId,
    },
    /// How much a verb has to do, as soon as that is known, in bytes.
    Total {
        /// Bytes that `Bytes` events will add up to.
        bytes: u64,
    },
    /// `gc` waits for a session to answer, to end or to be given up.
    SessionAwaited {
        /// Which one.
        session: SessionId,
    },
    /// A pack is gone.
    PackDeleted {
        /// Its name.
        pack: PackId,
        /// Its length in bytes.
        bytes: u64,
    },
    /// A verb of several steps begins the next one.
    Step {
        /// Which one, in words.
        name: &'static str,
    },
    /// `verify` found something wrong, or `copy` something that keeps a snapshot from being copied.
    Damage {
        /// The object concerned.
        object: &'a str,
        /// What is wrong with it.
        finding: &'a str,
    },
}

/// Watches a verb at work. Implemented for `()` and for closures.
pub trait Observer: Send + Sync {
    /// Called for each event, from one task at a time; should return quickly.
    fn event(&self, event: &Event<'_>);

    /// Asked now and then. On `true` the verb finishes what is under way, keeps what it has uploaded for the
    /// next run and returns [`Error::Stopped`](crate::Error::Stopped).
    fn should_stop(&self) -> bool {
        false
    }
}

impl Observer for () {
    fn event(&self, _: &Event<'_>) {}
}

impl<F: Fn(&Event<'_>) + Send + Sync> Observer for F {
    fn event(&self, event: &Event<'_>) {
        self(event);
    }
}
