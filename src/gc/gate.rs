//! Holds what is read ahead to a number of bytes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

/// Lets in what there is room for; what is larger than the room is let in alone.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    room: Arc<Semaphore>,
    room_len: u32,
}

impl Gate {
    /// With room for `len_max` bytes.
    pub(crate) fn new(len_max: usize) -> Self {
        let room_len = units(len_max as u64).max(1);
        Self {
            room: Arc::new(Semaphore::new(room_len as usize)),
            room_len,
        }
    }

    /// Waits for room; it is given back when the permit is dropped. To be asked in the order in which things are used:
    /// what is waited for must not wait for room that a later one holds.
    pub(crate) async fn enter(self, len: u64) -> Result<OwnedSemaphorePermit, Error> {
        let wanted = units(len).min(self.room_len);
        let entered = self.room.acquire_many_owned(wanted).await;
        entered.map_err(|_| Error::WorkerLost)
    }
}

/// KiB, so that they can be counted.
fn units(len: u64) -> u32 {
    u32::try_from(len.div_ceil(1024))
        .unwrap_or(u32::MAX)
        .min(1 << 28)
}
