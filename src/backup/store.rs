//! The last stages of a backup: sealed blocks become packs, packs are uploaded, and then named by index segments.

use std::sync::Arc;

use backup_core::{
    ChunkKind, FinishedPack, Keys, PackBuilder, PackError, RepositoryId, SealError, SegmentPack,
    SessionId, padme,
};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::{Receiver, Sender};

use crate::backup::assemble::Sealed;
use crate::buffers::Pool;
use crate::env::{Job, buggify, start};
use crate::repository::put_pack::{NewPack, put_pack};
use crate::repository::segments::put_segment;
use crate::repository::session::Session;
use crate::{Error, Event, Observer, Repository};

/// A pack on its way to the store.
pub(crate) type Finishing = (ChunkKind, Job<Result<FinishedPack, PackError>>);

/// Fills packs with sealed blocks.
pub(crate) struct Packer {
    pub(crate) keys: Arc<Keys>,
    pub(crate) repository: RepositoryId,
    pub(crate) session: SessionId,
    pub(crate) env: crate::Env,
    pub(crate) pack_len: usize,
    pub(crate) finishing: Sender<Finishing>,
    /// Buffers for packs, shared with the uploads.
    packs: Arc<Pool<Vec<u8>>>,
    counter: u32,
    data: Option<PackBuilder>,
    tree: Option<PackBuilder>,
}

impl Packer {
    pub(crate) fn new(
        repo: &Repository,
        session: SessionId,
        pack_len: usize,
        packs: Arc<Pool<Vec<u8>>>,
        finishing: Sender<Finishing>,
    ) -> Self {
        Self {
            keys: repo.keys().clone(),
            repository: repo.id(),
            session,
            env: repo.env().clone(),
            pack_len,
            finishing,
            packs,
            counter: 0,
            data: None,
            tree: None,
        }
    }

    /// Takes blocks, in their order, until there are no more.
    pub(crate) async fn run(
        mut self,
        mut sealed: Receiver<Job<Result<Sealed, SealError>>>,
    ) -> Result<(), Error> {
        while let Some(job) = sealed.recv().await {
            let block = job
                .finish()
                .await?
                .map_err(|e| Error::damaged("new block", e))?;
            let is_full = self.builder(block.kind).is_some_and(|b| {
                !b.is_empty() && b.len() + block.record.as_ref().len() > self.pack_len
            });
            if is_full {
                self.finish(block.kind).await?;
            }
            self.push(&block)?;
            if self
                .builder(block.kind)
                .is_some_and(|b| is_good_end(b.len(), self.pack_len))
            {
                self.finish(block.kind).await?;
            }
        }
        self.finish(ChunkKind::Data).await?;
        self.finish(ChunkKind::Tree).await
    }

    fn builder(&self, kind: ChunkKind) -> Option<&PackBuilder> {
        match kind {
            ChunkKind::Data => self.data.as_ref(),
            ChunkKind::Tree => self.tree.as_ref(),
        }
    }

    fn push(&mut self, block: &Sealed) -> Result<(), Error> {
        let (session, pack_len, packs) = (self.session, self.pack_len, &self.packs);
        let counter = &mut self.counter;
        let slot = match block.kind {
            ChunkKind::Data => &mut self.data,
            ChunkKind::Tree => &mut self.tree,
        };
        let builder = slot.get_or_insert_with(|| {
            *counter += 1;
            // A buffer comes back when its pack is uploaded: a new one would cost a page fault for every page.
            let buffer = packs.take_or(|| Vec::with_capacity(pack_len)).into_inner();
            PackBuilder::with_buffer(block.kind, session, *counter, buffer.unwrap_or_default())
        });
        builder
            .push(block.record.as_ref(), &block.chunks)
            .map_err(|e| Error::damaged("new pack", e))
    }

    async fn finish(&mut self, kind: ChunkKind) -> Result<(), Error> {
        let slot = match kind {
            ChunkKind::Data => &mut self.data,
            ChunkKind::Tree => &mut self.tree,
        };
        let Some(builder) = slot.take() else {
            return Ok(());
        };
        let (keys, repository, random) = (self.keys.clone(), self.repository, self.env.random()?);
        let job = start(move || builder.finish(&keys, repository, random));
        self.finishing
            .send((kind, job))
            .await
            .map_err(|_| Error::WorkerLost)
    }
}

/// Whether a pack of this length ends well here: it is long, and there is little between it and its padded length.
/// Without this, padding would take half a block of each pack: 1 % of it. (Measured: 0.3 % with it.)
fn is_good_end(len: usize, pack_len: usize) -> bool {
    let padding = padme(len as u64) - len as u64;
    len >= pack_len / 8 * 5 && padding <= pack_len as u64 / 512
}

/// What uploads need.
pub(crate) struct Uploading<'a> {
    pub(crate) repo: &'a Repository,
    pub(crate) session: &'a Session,
    pub(crate) observer: &'a dyn Observer,
    /// Uploads at once.
    pub(crate) uploads_max: usize,
    /// Where the packs' buffers go back to.
    pub(crate) packs: Arc<Pool<Vec<u8>>>,
}

/// What was uploaded, in bytes as stored.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Uploaded {
    pub(crate) packs: u64,
    pub(crate) pack_bytes: u64,
    pub(crate) segments: u64,
    pub(crate) segment_bytes: u64,
}

/// Packs that no segment names are found by reading their directories; a segment is written when there are as many.
/// Fewer are left for a later run: reading a directory costs two small requests, writing a segment one request that costs
/// twelve times as much, and every chunk's id once more.
const SEGMENT_PACKS_MIN: usize = 8;

/// One segment names at most this many packs, so that an interrupted run leaves no more unnamed.
const SEGMENT_PACKS_MAX: usize = 64;

/// Uploads packs, several at once, and names them in index segments: the segment after its packs. `unnamed` are packs
/// that no segment names yet.
pub(crate) async fn upload(
    uploading: Uploading<'_>,
    mut unnamed: Vec<SegmentPack>,
    mut finishing: Receiver<Finishing>,
) -> Result<Uploaded, Error> {
    let Uploading {
        repo,
        session,
        observer,
        uploads_max,
        packs,
    } = uploading;
    let mut uploads = FuturesUnordered::new();
    let mut uploaded = Uploaded::default();
    let mut is_open = true;
    while is_open || !uploads.is_empty() {
        tokio::select! {
            // What is done is taken first; the order of requests does not hang on a die.
            biased;
            Some(stored) = uploads.next() => {
                let pack: SegmentPack = stored?;
                observer.event(&Event::PackStored { pack: pack.id, bytes: pack.len });
                uploaded.packs += 1;
                uploaded.pack_bytes += pack.len;
                unnamed.push(pack);
                if unnamed.len() >= SEGMENT_PACKS_MAX {
                    name_packs(repo, &mut unnamed, &mut uploaded).await?;
                }
            }
            job = finishing.recv(), if is_open && uploads.len() < uploads_max => match job {
                Some(job) => uploads.push(upload_one(repo, session, &packs, job)),
                None => is_open = false,
            }
        }
    }
    if unnamed.len() >= SEGMENT_PACKS_MIN {
        name_packs(repo, &mut unnamed, &mut uploaded).await?;
    }
    Ok(uploaded)
}

async fn upload_one(
    repo: &Repository,
    session: &Session,
    packs: &Arc<Pool<Vec<u8>>>,
    (kind, job): Finishing,
) -> Result<SegmentPack, Error> {
    let FinishedPack {
        id,
        bytes,
        directory,
        ..
    } = job
        .finish()
        .await?
        .map_err(|e| Error::damaged("new pack", e))?;
    let pack = NewPack {
        kind,
        id,
        bytes: Bytes::from_owner(packs.give(bytes)),
        directory,
    };
    let stored = put_pack(repo, pack, |id| session.will_put(id)).await?;
    buggify("pack uploaded, before its segment").await;
    Ok(stored)
}

async fn name_packs(
    repo: &Repository,
    unnamed: &mut Vec<SegmentPack>,
    uploaded: &mut Uploaded,
) -> Result<(), Error> {
    let (_, len) = put_segment(repo, std::mem::take(unnamed)).await?;
    uploaded.segments += 1;
    uploaded.segment_bytes += len;
    Ok(())
}
