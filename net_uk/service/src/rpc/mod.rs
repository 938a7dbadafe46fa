//! gRPC: `ppvmm.v1.Net`, `grpc.health.v1` and reflection, on a thread of the keeper's own.
//!
//! The keeper waits for none of it: it stores what it knows in a [`View`] and the number of the last event, and looks for
//! requests in a bounded queue when an eventfd is readable. All else is read from shared memory by this thread.

mod metrics;
mod server;
mod source;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::{oneshot, watch};

use crate::error::Error;
use crate::limits::RPC_ASKS_MAX;
use crate::shadow::uplink::{drain, eventfd};
use metrics::Metrics;
pub use source::{ProcessView, Source, View, unix_ms};

/// Harm that somebody asks for.
#[derive(Debug)]
pub struct Ask {
    /// A part's name.
    pub target: String,
    /// What to do to it.
    pub fault: String,
    /// The process that was harmed; none if no such process lives.
    pub answer: oneshot::Sender<Option<u32>>,
}

/// The keeper's end.
#[derive(Debug)]
pub struct Window {
    view: watch::Sender<View>,
    told: watch::Sender<u64>,
    asks: Receiver<Ask>,
    wake: Arc<OwnedFd>,
}

/// The server's end.
#[derive(Debug)]
pub(crate) struct Clerk {
    view: watch::Receiver<View>,
    told: watch::Receiver<u64>,
    asks: SyncSender<Ask>,
    wake: Arc<OwnedFd>,
}

/// Both ends.
///
/// # Errors
/// [`Error::System`].
pub(crate) fn ends() -> Result<(Window, Clerk), Error> {
    let (view, view_seen) = watch::channel(View::default());
    let (told, told_seen) = watch::channel(0);
    let (sender, asks) = sync_channel(RPC_ASKS_MAX);
    let wake = Arc::new(eventfd()?);
    let clerk = Clerk { view: view_seen, told: told_seen, asks: sender, wake: Arc::clone(&wake) };
    Ok((Window { view, told, asks, wake }, clerk))
}

impl Window {
    /// Readable when somebody asks for something.
    pub fn wake(&self) -> &OwnedFd {
        &self.wake
    }

    /// What is asked for.
    pub fn asked(&self) -> Vec<Ask> {
        drain(&self.wake);
        self.asks.try_iter().collect()
    }

    /// Shows what is known, if that has changed.
    pub fn show(&self, view: View) {
        self.view.send_if_modified(|shown| {
            let changed = *shown != view;
            *shown = view;
            changed
        });
    }

    /// Says that there are events up to this number.
    pub fn told(&self, number: u64) {
        self.told.send_if_modified(|last| std::mem::replace(last, number) != number);
    }
}

/// Serves at a socket in the file system, which only its owner can reach, until the process ends.
///
/// # Errors
/// What the system says.
pub(crate) fn start(path: &Path, source: Source, clerk: Clerk) -> Result<(), Error> {
    let listener = control::listen::bind(path, rustix::net::SocketType::STREAM)
        .map_err(|error| Error::Rpc(format!("{}: {error}", path.display())))?;
    let listener = std::os::unix::net::UnixListener::from(listener);
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move || {
        if let Err(error) = runtime.block_on(server::serve(listener, source, clerk)) {
            tracing::error!(%error, "gRPC is not served any more");
        }
    };
    std::thread::Builder::new().name("rpc".to_owned()).spawn(serve)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_bounded_and_wake_the_keeper() {
        let (window, clerk) = ends().unwrap();
        let ask = || {
            let (answer, answered) = oneshot::channel();
            let ask = Ask { target: "shadow".into(), fault: "kill".into(), answer };
            (clerk.asks.try_send(ask).is_ok(), answered)
        };
        let answered: Vec<_> = (0..RPC_ASKS_MAX).map(|_| ask()).collect();
        assert!(answered.iter().all(|(sent, _)| *sent) && !ask().0);
        assert_eq!(window.asked().len(), RPC_ASKS_MAX);
        assert!(ask().0);
    }

    #[test]
    fn only_changes_are_shown() {
        let (window, mut clerk) = ends().unwrap();
        window.show(View::default());
        assert!(!clerk.view.has_changed().unwrap());
        window.show(View { serving: true, ..View::default() });
        assert!(clerk.view.borrow_and_update().serving);
        window.told(0);
        assert!(!clerk.told.has_changed().unwrap());
        window.told(7);
        assert_eq!(*clerk.told.borrow_and_update(), 7);
    }
}
