//! One writer's run, in the order that keeps it safe beside collectors: announce, read the gc log, list the packs,
//! read the index, acknowledge; store, answering to rounds of collection meanwhile; commit by creating the cell.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backup_backend::{Bytes, ErrorKind, PutMode, StorageBackend};
use backup_core::{DocumentKind, PackId, SegmentPack, SessionId};
use backup_manifest::{
    Ack, Cell, GcPlan, SessionOpen, SnapshotManifest, gc_plan_key, session_ack_key,
    session_beat_key, session_open_key, snapshot_key,
};

use crate::env::buggify;
use crate::repository::documents::{read_cell, seal};
use crate::repository::gc_log::{GcLog, read_plan};
use crate::repository::index::Index;
use crate::repository::load_index::{Condemned, Survey, load_usable};
use crate::repository::store_key;
use crate::{Error, Event, Observer, Repository};

/// Who opens a session, and what for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening<'a> {
    /// What the session's name begins with comes from this.
    pub(crate) source: &'a str,
    pub(crate) host: &'a str,
    /// `backup`, `restore` …, for people.
    pub(crate) purpose: &'a str,
}

/// What a session has found in the store.
pub(crate) struct Found {
    /// Packs that it may rely on and no segment names yet.
    pub(crate) unnamed: Vec<SegmentPack>,
    pub(crate) survey: Survey,
}

/// An open session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    /// Tells an earlier try of our own from somebody else's cell.
    pub(crate) nonce: [u8; 16],
    pub(crate) started_ns: i64,
    /// What it may rely on, and what it does rely on.
    pub(crate) index: Arc<Index>,
    /// The packs it made, from before they are put.
    own: Mutex<HashSet<PackId>>,
    /// The newest round that it has answered to.
    known: AtomicU64,
    beats: AtomicU64,
}

impl Session {
    /// Opens a session and reads what it may rely on.
    ///
    /// The order of the five steps is what the proof of safe collection rests on.
    pub(crate) async fn open(
        repo: &Repository,
        opening: Opening<'_>,
        observer: &dyn Observer,
    ) -> Result<(Self, Found), Error> {
        let started_ns = repo.env().clock.now_ns();
        let unix_ms = u64::try_from(started_ns / 1_000_000).unwrap_or(0);
        let tag = repo.keys().source_tag(opening.source);
        let id = SessionId::new(tag, unix_ms, repo.env().random()?);

        announce(repo, &id, started_ns, opening).await?;
        buggify("announced, before the list").await;
        let mut survey = Survey::take(repo).await?;
        buggify("listed, before the gc log").await;
        let log = survey.gc_log(repo).await?;
        let condemned: Condemned = log.condemned(repo).await?.into_iter().collect();
        if log.has_done() {
            // A round that is done had deleted before, but perhaps not before the same listing came to its packs.
            survey.list_packs_again(repo).await?;
        }
        buggify("gc log read, before the list of packs").await;
        let (index, unnamed) = load_usable(repo, &survey, &condemned).await?;
        let (known, _) = log.newest();
        let session = Self {
            id,
            nonce: repo.env().random()?,
            started_ns,
            index: Arc::new(index),
            own: Mutex::default(),
            known: AtomicU64::new(known),
            beats: AtomicU64::new(0),
        };
        buggify("index read, before the ack").await;
        let name = session_ack_key(&id, known);
        repo.create_object(&name, session.ack(repo, known, Vec::new())?)
            .await?;
        session.tell_weakness(repo, &survey, observer).await?;
        observer.event(&Event::SessionOpened { session: id });
        Ok((session, Found { unnamed, survey }))
    }

    /// Opens a session to go on with what `before` stored and relied on, which a collector took for dead. `None` if
    /// some of it may no longer be relied on.
    pub(crate) async fn go_on(
        repo: &Repository,
        before: &Self,
        opening: Opening<'_>,
        observer: &dyn Observer,
    ) -> Result<Option<Self>, Error> {
        let mut needed: HashSet<PackId> = before.index.relied_on().collect();
        needed.extend(before.own_packs().iter());
        let (session, _) = Self::open(repo, opening, observer).await?;
        if session.index.rely_on_packs(&needed) {
            return Ok(Some(session));
        }
        session.give_up(repo).await;
        Ok(None)
    }

    /// Notes a pack that is about to be put: a collector that condemns it is told that it is needed.
    pub(crate) fn will_put(&self, pack: PackId) {
        self.own_packs().insert(pack);
    }

    fn own_packs(&self) -> std::sync::MutexGuard<'_, HashSet<PackId>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers to rounds of collection and shows that the session lives, again and again, until it is dropped; returns
    /// what makes it senseless to go on.
    pub(crate) async fn keep_alive(&self, repo: &Repository, every: Duration) -> Error {
        loop {
            tokio::time::sleep(every).await;
            match self.beat(repo).await {
                Ok(()) => {}
                Err(Error::Backend(error)) if error.kind().is_retryable() => {}
                Err(error) => return error,
            }
        }
    }

    async fn beat(&self, repo: &Repository) -> Result<(), Error> {
        let known = self.known.load(Ordering::SeqCst);
        let log = GcLog::list(repo).await?;
        let mut answered = false;
        for (number, _) in log.after(known) {
            let plan = read_plan(repo, number, &gc_plan_key(number)).await?;
            buggify("plan read, before the answer").await;
            self.answer(repo, &plan).await?;
            self.known.store(number, Ordering::SeqCst);
            answered = true;
        }
        if !answered {
            let number = self.beats.fetch_add(1, Ordering::SeqCst);
            let name = session_beat_key(&self.id, number);
            repo.create_object(&name, Bytes::new()).await?;
        }
        Ok(())
    }

    /// Nothing new relies on the condemned packs from here on; those that something relies on already are claimed.
    async fn answer(&self, repo: &Repository, plan: &GcPlan) -> Result<(), Error> {
        let mut claims = self.index.condemn(&plan.condemned);
        let own = self.own_packs().clone();
        claims.extend(plan.condemned.iter().filter(|pack| own.contains(pack)));
        let name = session_ack_key(&self.id, plan.round);
        let ack = self.ack(repo, plan.round, claims)?;
        buggify("claims made, before the ack").await;
        // One that is there is an earlier try of ours, whose answer was lost: nothing new has come to rely on the plan's
        // packs since.
        repo.create_unless_there(&name, ack).await.map(drop)
    }

    fn ack(&self, repo: &Repository, round: u64, claims: Vec<PackId>) -> Result<Bytes, Error> {
        let name = session_ack_key(&self.id, round);
        let ack = Ack { round, claims };
        let ack = ack.encode().map_err(|e| Error::damaged(&name, e))?;
        seal(repo, DocumentKind::SessionAck, &name, &ack)
    }

    /// Says what this store does not promise, and what it was seen to break.
    async fn tell_weakness(
        &self,
        repo: &Repository,
        survey: &Survey,
        observer: &dyn Observer,
    ) -> Result<(), Error> {
        let name = session_open_key(&self.id);
        let capabilities = repo.backend().capabilities();
        if !capabilities.create_if_absent {
            let missing = "create-if-absent";
            observer.event(&Event::WeakStore { missing });
        }
        if !capabilities.consistent_list || survey.list(repo, &name).await?.is_empty() {
            let missing = "read-after-write listing";
            observer.event(&Event::WeakStore { missing });
        }
        Ok(())
    }

    /// Creates the cell. From then on the snapshot exists, whatever is returned.
    pub(crate) async fn commit(
        &self,
        repo: &Repository,
        manifest: SnapshotManifest,
    ) -> Result<(), Error> {
        let name = snapshot_key(&self.id);
        let cell = Cell::Snapshot(manifest)
            .encode()
            .map_err(|e| Error::damaged(&name, e))?;
        let sealed = seal(repo, DocumentKind::Snapshot, &name, &cell)?;
        buggify("all stored, before the commit").await;
        let Err(refused) = repo
            .backend()
            .put(&store_key(&name)?, sealed, PutMode::Create)
            .await
        else {
            return Ok(());
        };
        // A refusal or an error after the fact: what stands there decides.
        match read_cell(repo, &self.id).await {
            Ok((Cell::Snapshot(found), _)) if found.nonce == self.nonce => Ok(()),
            Ok((Cell::Aborted, _)) => Err(Error::SessionAborted { session: self.id }),
            // Something stands there, and it could not be read what.
            Err(unread) if refused.kind() == ErrorKind::AlreadyExists => Err(unread),
            _ => Err(refused.into()),
        }
    }

    /// Ends a session that will not commit, so that no collector waits for it. That this fails costs a wait.
    pub(crate) async fn give_up(&self, repo: &Repository) {
        drop(abort(repo, &self.id).await);
    }
}

/// Creates the `open` object: from here on, collectors wait for this session.
async fn announce(
    repo: &Repository,
    id: &SessionId,
    started_ns: i64,
    opening: Opening<'_>,
) -> Result<(), Error> {
    let name = session_open_key(id);
    let open = SessionOpen {
        host: opening.host.into(),
        started_ns,
        purpose: opening.purpose.into(),
    };
    let open = open.encode().map_err(|e| Error::damaged(&name, e))?;
    let sealed = seal(repo, DocumentKind::SessionOpen, &name, &open)?;
    repo.create_object(&name, sealed).await
}

/// Tries to end a session without a snapshot; it may have ended before. Says whether it is this that ended it.
pub(crate) async fn abort(repo: &Repository, id: &SessionId) -> Result<bool, Error> {
    let name = snapshot_key(id);
    let aborted = Cell::Aborted
        .encode()
        .map_err(|e| Error::damaged(&name, e))?;
    let sealed = seal(repo, DocumentKind::Snapshot, &name, &aborted)?;
    repo.create_unless_there(&name, sealed).await
}
