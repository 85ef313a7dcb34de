//! SIGINT and SIGTERM: the first asks the verb at work to stop politely, the second ends the program at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Whether somebody asked to stop, and whether a verb is at work that listens.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    requested: AtomicBool,
    listeners: AtomicUsize,
}

impl Stop {
    pub(crate) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// A verb begins that asks [`Stop::is_requested`] now and then.
    pub(crate) fn listen(&self) {
        self.listeners.fetch_add(1, Ordering::Relaxed);
    }

    /// It has ended.
    pub(crate) fn unlisten(&self) {
        self.listeners.fetch_sub(1, Ordering::Relaxed);
    }

    /// False if there is nobody to be asked, or all were asked before.
    fn request(&self) -> bool {
        let first = !self.requested.swap(true, Ordering::Relaxed);
        first && self.listeners.load(Ordering::Relaxed) > 0
    }
}

/// Returns when the program is to end at once. Dropping the verb's future then is like a crash, which is safe.
pub(crate) async fn watch(stop: &Stop) -> Failure {
    let signals = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    let (mut interrupt, mut terminate) = match signals {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(source), _) | (_, Err(source)) => return Failure::Runtime { source },
    };
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if !stop.request() {
            return Failure::Interrupted;
        }
        eprintln!("stopping after what is under way; a second signal ends at once");
    }
}
