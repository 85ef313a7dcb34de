//! A writer's run around its work: a session opened, kept alive beside the work, and ended by a commit or given up.

use std::future::Future;
use std::time::Duration;

use backup_core::SessionId;
use backup_manifest::SnapshotManifest;

use crate::env::buggify;
use crate::repository::session::{Found, Opening, Session};
use crate::{Error, Event, Observer, Repository};

/// How often a run starts over, or goes on in another session, before it gives up.
pub(crate) const TRIES_MAX: u32 = 5;

/// Whoever makes snapshots in a repository.
pub(crate) struct Writer<'a> {
    pub(crate) repo: &'a Repository,
    pub(crate) opening: Opening<'a>,
    /// How often the session shows that it lives.
    pub(crate) beat: Duration,
    pub(crate) observer: &'a dyn Observer,
}

impl Writer<'_> {
    pub(crate) async fn open(&self) -> Result<(Session, Found), Error> {
        Session::open(self.repo, self.opening, self.observer).await
    }

    /// Commits what `storing` comes to, and names the snapshot. The session is given up when there is none.
    pub(crate) async fn finish<T>(
        &self,
        session: &Session,
        storing: impl Future<Output = Result<(SnapshotManifest, T), Error>>,
    ) -> Result<(SessionId, T), Error> {
        let stored = tokio::select! {
            // When both are ready, what was stored counts.
            biased;
            stored = storing => stored,
            lost = session.keep_alive(self.repo, self.beat) => Err(lost),
        };
        // Everything that the manifest refers to is durable: now the snapshot may come to be.
        let committed = match stored {
            Ok((manifest, made)) => {
                let committed = self.commit(session, manifest).await;
                committed.map(|snapshot| (snapshot, made))
            }
            Err(error) => Err(error),
        };
        if committed.is_err() {
            session.give_up(self.repo).await;
        }
        committed
    }

    /// Commits; in another session, if a collector gave this one up and all that it needs is there still.
    async fn commit(
        &self,
        session: &Session,
        mut manifest: SnapshotManifest,
    ) -> Result<SessionId, Error> {
        let mut other = None;
        for _ in 0..TRIES_MAX {
            let session = other.as_ref().unwrap_or(session);
            manifest.session = session.id;
            manifest.nonce = session.nonce;
            match session.commit(self.repo, manifest.clone()).await {
                Ok(()) => {
                    buggify("committed, before the caller knows").await;
                    let snapshot = session.id;
                    self.observer.event(&Event::SnapshotCommitted { snapshot });
                    return Ok(snapshot);
                }
                Err(Error::SessionAborted { .. }) => {}
                Err(error) => return Err(error),
            }
            buggify("aborted, before another session").await;
            let next = Session::go_on(self.repo, session, self.opening, self.observer).await?;
            match next {
                Some(next) => other = Some(next),
                None => break,
            }
        }
        Err(Error::SessionAborted {
            session: manifest.session,
        })
    }
}
