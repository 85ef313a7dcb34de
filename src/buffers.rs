//! Large buffers and codec contexts, used again and again instead of being allocated for each window and block.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Things to use again.
pub(crate) struct Pool<T>(Mutex<Vec<T>>);

impl<T> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl<T> Pool<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// One that was used before, or else a new one.
    pub(crate) fn take<E>(
        self: &Arc<Self>,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Pooled<T>, E> {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let value = match idle {
            Some(value) => value,
            None => make()?,
        };
        Ok(Pooled {
            value: Some(value),
            pool: Arc::downgrade(self),
        })
    }

    /// Puts something into the pool's care.
    pub(crate) fn give(self: &Arc<Self>, value: T) -> Pooled<T> {
        Pooled {
            value: Some(value),
            pool: Arc::downgrade(self),
        }
    }

    /// As [`Pool::take`], where making one cannot fail.
    pub(crate) fn take_or(self: &Arc<Self>, make: impl FnOnce() -> T) -> Pooled<T> {
        match self.take(|| Ok::<T, Infallible>(make())) {
            Ok(pooled) => pooled,
            Err(never) => match never {},
        }
    }
}

/// Goes back to its pool when dropped.
pub(crate) struct Pooled<T> {
    value: Option<T>,
    pool: Weak<Pool<T>>,
}

impl<T> fmt::Debug for Pooled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooled").finish_non_exhaustive()
    }
}

impl<T> Pooled<T> {
    /// Takes it out of the pool's care; [`Pool::give`] brings it back.
    pub(crate) fn into_inner(mut self) -> Option<T> {
        self.value.take()
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        self.value.as_mut()
    }
}

impl Pool<Vec<u8>> {
    /// A buffer, empty, that goes back to this pool when the bytes made of it are dropped.
    pub(crate) fn take_empty(self: &Arc<Self>) -> Pooled<Vec<u8>> {
        let mut pooled = self.take_or(Vec::new);
        if let Some(buffer) = pooled.get_mut() {
            buffer.clear();
        }
        pooled
    }
}

impl AsRef<[u8]> for Pooled<Vec<u8>> {
    fn as_ref(&self) -> &[u8] {
        self.value.as_deref().unwrap_or_default()
    }
}

impl<T> Drop for Pooled<T> {
    fn drop(&mut self) {
        if let (Some(value), Some(pool)) = (self.value.take(), self.pool.upgrade()) {
            pool.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(value);
        }
    }
}
