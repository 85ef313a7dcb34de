//! Buffers for long reads, handed on from one to the next: fresh memory costs a page fault for every page. They are kept only
//! while somebody holds one, so that a store at rest takes no memory.

use std::collections::TryReserveError;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Shorter reads take what the allocator gives.
const LONG_LEN: usize = 1 << 20;

/// Whole packs: asked for with more than 32 MiB, glibc maps the memory and gives it back at once; with less, the heaps of a
/// few threads keep 100 MB and more (measured). What is not written to costs nothing. Source:
/// `DEFAULT_MMAP_THRESHOLD_MAX` on 64-bit systems.
const LONG_CAPACITY: usize = 33 << 20;
const PACK_LEN: usize = 8 << 20;

/// Kept at most; more are read at once only with many cores.
const KEPT_MAX: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Reads(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    kept: Vec<Vec<u8>>,
    lent: usize,
}

/// A buffer that goes back when its bytes are dropped.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) buffer: Vec<u8>,
    /// `None` for a short one.
    home: Option<Arc<Reads>>,
}

impl Lease {
    /// An empty buffer with room for `len` bytes.
    pub(super) fn take(reads: &Arc<Reads>, len: usize) -> Result<Self, TryReserveError> {
        let mut lease = Self {
            buffer: Vec::new(),
            home: None,
        };
        if len < LONG_LEN {
            lease.buffer.try_reserve_exact(len)?;
            return Ok(lease);
        }
        {
            let mut state = reads.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.lent += 1;
            let fits = state.kept.iter().position(|kept| kept.capacity() >= len);
            if let Some(found) = fits {
                lease.buffer = state.kept.swap_remove(found);
            }
        }
        // From here on the lease is counted, and dropping it counts it out.
        lease.home = Some(reads.clone());
        let capacity = if len < PACK_LEN {
            len
        } else {
            len.max(LONG_CAPACITY)
        };
        lease.buffer.clear();
        if lease.buffer.capacity() < len {
            lease.buffer.try_reserve_exact(capacity)?;
        }
        Ok(lease)
    }

    pub(super) fn into_bytes(mut self) -> Bytes {
        match self.home {
            Some(_) => Bytes::from_owner(self),
            None => Bytes::from(std::mem::take(&mut self.buffer)),
        }
    }
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(home) = &self.home else { return };
        let mut state = home.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.lent -= 1;
        if state.lent == 0 {
            state.kept.clear();
        } else if state.kept.len() < KEPT_MAX {
            state.kept.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_handed_on_while_one_is_lent_and_given_back_after() {
        let reads = Arc::<Reads>::default();
        let kept = || reads.0.lock().unwrap().kept.len();
        let first = Lease::take(&reads, LONG_LEN).unwrap().into_bytes();
        let second = Lease::take(&reads, 2 * LONG_LEN).unwrap().into_bytes();
        assert_eq!(kept(), 0);
        drop(second);
        assert_eq!(kept(), 1);
        let again = Lease::take(&reads, 2 * LONG_LEN).unwrap();
        assert_eq!((kept(), again.buffer.len()), (0, 0));
        drop(again);
        drop(first);
        assert_eq!(kept(), 0);
        assert_eq!(Lease::take(&reads, 10).unwrap().into_bytes().len(), 0);
        assert_eq!(reads.0.lock().unwrap().lent, 0);
    }
}
