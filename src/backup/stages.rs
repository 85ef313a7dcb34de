//! The stages that store what a first stage produces, side by side, in bounded memory.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::SegmentPack;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::backup::assemble::{Assembled, Assembler, Sealing};
use crate::backup::produce::Pending;
use crate::backup::store::{Packer, Uploaded, Uploading, upload};
use crate::buffers::Pool;
use crate::env::cores;
use crate::repository::session::Session;
use crate::{Error, Observer, Repository};

/// How packs are made, as the options of a verb say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packing {
    /// Length of a full pack, in bytes.
    pub(crate) pack_len: usize,
    /// Bytes of plaintext of one block.
    pub(crate) block_len: usize,
    pub(crate) zstd_level: i32,
    /// Packs uploaded at once.
    pub(crate) uploads_max: usize,
}

/// What memory there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Bytes of it.
    pub(crate) len_max: usize,
    /// Which share of what packs leave is for buffers (read into, waiting, being sealed), as a fraction.
    pub(crate) for_buffers: (usize, usize),
}

/// How the memory is dealt out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) packing: Packing,
    pub(crate) jobs_max: usize,
    pub(crate) buffer_len: usize,
    blocks_max: usize,
}

/// Packs in memory at least: one of content and one of items in the making, one being finished, one on its way.
const PACKS_IN_MEMORY_MIN: usize = 4;

/// A buffer holds this much more than the longest chunk at least; above, larger ones only take memory.
const BUFFER_LEN_MIN: usize = 1 << 20;
const BUFFER_LEN_MAX: usize = 4 << 20;

impl Packing {
    fn checked(mut self) -> Result<Self, Error> {
        let bad = |option, reason: &str| {
            let reason = reason.into();
            Err(Error::BadOption { option, reason })
        };
        if !(64 << 10..=1 << 30).contains(&self.pack_len) {
            return bad("pack_len", "must be 64 KiB to 1 GiB");
        }
        if !(1..=22).contains(&self.zstd_level) {
            return bad("zstd_level", "must be 1 to 22");
        }
        if !(4 << 10..=16 << 20).contains(&self.block_len) {
            return bad("block_len", "must be 4 KiB to 16 MiB");
        }
        self.uploads_max = self.uploads_max.max(1);
        Ok(self)
    }

    /// Packs in memory at once.
    fn packs_max(&self) -> usize {
        PACKS_IN_MEMORY_MIN.max(self.uploads_max + 2)
    }

    /// Bytes of memory beside the packs.
    pub(crate) fn rest_of(&self, memory_len: usize) -> usize {
        memory_len.saturating_sub(self.pack_len.saturating_mul(self.packs_max()))
    }
}

impl Plan {
    /// Packs take what they must; buffers and blocks share the rest.
    pub(crate) fn new(
        packing: Packing,
        memory: Memory,
        chunk_len_max: usize,
    ) -> Result<Self, Error> {
        let packing = packing.checked()?;
        let (part, whole) = memory.for_buffers;
        let buffers = packing.rest_of(memory.len_max) / whole * part;
        // Three for each job (reading, waiting, being sealed), and two more. Many cores share what there is. A window is
        // cut only up to its last chunk that is certain, so it must be longer than the longest chunk.
        let needed = chunk_len_max + BUFFER_LEN_MIN;
        let longest = needed.max(BUFFER_LEN_MAX);
        let buffer_len = |jobs: usize| (buffers / (3 * jobs + 2)).min(longest);
        let jobs_max = (1..=cores()).rev().find(|jobs| buffer_len(*jobs) >= needed);
        let Some(jobs_max) = jobs_max else {
            let reason = format!(
                "{} packs of {} bytes and chunks of up to {chunk_len_max} need more: allow at least {} bytes",
                packing.packs_max(),
                packing.pack_len,
                packing.packs_max() * packing.pack_len
                    + (needed * 5).div_ceil(part) * whole
                    + whole
            );
            let option = "memory_len_max";
            return Err(Error::BadOption { option, reason });
        };
        Ok(Self {
            packing,
            buffer_len: buffer_len(jobs_max),
            jobs_max,
            blocks_max: jobs_max + 2,
        })
    }
}

/// What the stages share.
pub(crate) struct Stages<'a> {
    pub(crate) repo: &'a Repository,
    pub(crate) session: &'a Session,
    pub(crate) plan: Plan,
    pub(crate) observer: &'a dyn Observer,
}

impl Stages<'_> {
    /// The way from the first stage to the second.
    pub(crate) fn batches(&self) -> (Sender<Pending>, Receiver<Pending>) {
        channel(self.plan.jobs_max)
    }

    /// Runs the four stages side by side: produce → assemble → pack → upload. Channels between them are short: they
    /// bound the memory, and a slow stage holds up the ones before it. `unnamed` are packs that no segment names yet.
    pub(crate) async fn store(
        &self,
        producing: impl Future<Output = Result<(), Error>>,
        batches: Receiver<Pending>,
        unnamed: Vec<SegmentPack>,
    ) -> Result<(Assembled, Uploaded), Error> {
        let (sealed, sealed_in) = channel(self.plan.blocks_max);
        let (finishing, finishing_in) = channel(1);
        let (repo, packing) = (self.repo, self.plan.packing);
        let sealing = Sealing {
            keys: repo.keys().clone(),
            repository: repo.id(),
            level: packing.zstd_level,
            sealers: Pool::new(),
            buffers: Pool::new(),
        };
        let index = self.session.index.clone();
        let assembler = Assembler::new(sealing, index, self.observer, sealed, packing.block_len);
        let packs = Pool::new();
        let packer = Packer::new(
            repo,
            self.session.id,
            packing.pack_len,
            packs.clone(),
            finishing,
        );
        let uploading = Uploading {
            repo,
            session: self.session,
            observer: self.observer,
            uploads_max: packing.uploads_max,
            packs,
        };
        let stopped = AtomicBool::new(false);
        // Being asked to stop ends the first stage like the end of the source, and is noted.
        let producing = async {
            match producing.await {
                Err(Error::Stopped) => {
                    stopped.store(true, Ordering::Relaxed);
                    Ok(())
                }
                other => other,
            }
        };
        let stages = futures::future::try_join4(
            producing,
            assembler.run(batches, &stopped),
            packer.run(sealed_in),
            upload(uploading, unnamed, finishing_in),
        );
        let ((), assembled, (), uploaded) = stages.await?;
        Ok((assembled.ok_or(Error::Stopped)?, uploaded))
    }
}
