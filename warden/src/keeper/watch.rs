//! Waits for what one process reports, and for its end.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use control::{FromService, Hello, Link, LinkError, Packet};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::open_pidfd;
use crate::error::Error;
use crate::event::Cause;
use crate::ids::ServiceId;
use crate::limits::{LINK_LOST_MS, REPORTS_PER_TURN_MAX};

const DYING: Duration = Duration::from_millis(LINK_LOST_MS);

/// News of one process.
#[derive(Debug)]
pub struct News {
    /// Which service.
    pub service: ServiceId,
    /// Which start of it.
    pub incarnation: u64,
    /// What was heard.
    pub heard: Heard,
}

/// What was heard of a process.
#[derive(Debug)]
pub enum Heard {
    /// It reports.
    Report(Packet<FromService>),
    /// It closed its link, or sends what is no report; nothing more will be heard but its death.
    LinkLost(LinkError),
    /// It is gone.
    Died(Cause),
    /// It lost an earlier warden and says hello through a fresh link.
    Hello(Box<Greeting>),
}

/// The first words of a service of an earlier warden.
#[derive(Debug)]
pub struct Greeting {
    /// What it says.
    pub hello: Hello,
    /// Its copies of the kept descriptors.
    pub descriptors: Vec<OwnedFd>,
    /// The link to it; does not block.
    pub link: Link,
    /// Its process, as the kernel tells.
    pub pid: u32,
}

/// A process with the descriptor that tells of its end.
pub(super) struct Process {
    /// None if an earlier warden started it.
    child: Option<std::process::Child>,
    pidfd: Arc<OwnedFd>,
    end: AsyncFd<Arc<OwnedFd>>,
}

impl Process {
    /// The process cannot have been reaped, so its pid is still its own.
    pub fn new(mut child: std::process::Child) -> Result<Self, Error> {
        let watched = open_pidfd(child.id()).map(Arc::new).and_then(|pidfd| {
            let end = readable(pidfd.clone())?;
            Ok((pidfd, end))
        });
        match watched {
            Ok((pidfd, end)) => Ok(Self { child: Some(child), pidfd, end }),
            Err(error) => {
                // Nobody would learn of its end, so it must not live.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// A process of an earlier warden.
    pub fn adopted(pidfd: Arc<OwnedFd>) -> Result<Self, Error> {
        // Registered with the runtime under a number of its own: the process may be watched twice for a moment.
        let own = pidfd.try_clone().map_err(Error::system("dup"))?;
        Ok(Self { child: None, end: readable(Arc::new(own))?, pidfd })
    }

    pub fn pidfd(&self) -> Arc<OwnedFd> {
        self.pidfd.clone()
    }

    fn reap(&mut self) -> Cause {
        let Some(child) = &mut self.child else { return Cause::Unseen };
        match child.wait() {
            Ok(status) => cause_of(status),
            Err(error) => Cause::NotStarted(format!("wait: {error}")),
        }
    }
}

/// Registers a descriptor with the runtime.
pub(super) fn readable<T: AsRawFd>(descriptor: T) -> Result<AsyncFd<T>, Error> {
    // The safe constructor is deprecated for types that may close or replace their descriptor meanwhile; a `Link` and an
    // `OwnedFd` cannot, and this crate has no unsafe code.
    #[allow(deprecated)]
    AsyncFd::with_interest(descriptor, Interest::READABLE).map_err(Error::system("epoll_ctl"))
}

fn cause_of(status: ExitStatus) -> Cause {
    match (status.code(), status.signal()) {
        (Some(code), _) => Cause::Exited(code),
        (None, signal) => Cause::Signalled(signal.unwrap_or(0)),
    }
}

async fn wait_readable(
    link: Option<&AsyncFd<Link>>,
) -> Option<std::io::Result<tokio::io::unix::AsyncFdReadyGuard<'_, Link>>> {
    match link {
        Some(link) => Some(link.readable().await),
        None => None,
    }
}

/// Sends news until the process is gone. What it reported before its end comes before its end.
pub(super) async fn watch(
    service: ServiceId,
    incarnation: u64,
    mut process: Process,
    link: Option<Arc<AsyncFd<Link>>>,
    news: mpsc::Sender<News>,
) {
    let tell = async |heard| {
        // The receiver is gone only if the warden ends, and then nobody needs to know.
        let _ = news.send(News { service, incarnation, heard }).await;
    };
    let mut open = link.is_some();
    loop {
        tokio::select! {
            biased;
            readable = wait_readable(link.as_deref()), if open => {
                let (Some(link), Some(Ok(mut guard))) = (&link, readable) else { return };
                for _ in 0..REPORTS_PER_TURN_MAX {
                    match link.get_ref().receive() {
                        Ok(packet) => tell(Heard::Report(packet)).await,
                        Err(LinkError::WouldBlock) => {
                            guard.clear_ready();
                            break;
                        }
                        Err(error) => {
                            open = false;
                            // A dying process closes its link first; then only its death is of interest.
                            let ended = tokio::time::timeout(DYING, process.end.readable()).await;
                            if ended.is_err() {
                                tell(Heard::LinkLost(error)).await;
                            }
                            break;
                        }
                    }
                }
            }
            // An error means that the runtime ends; the process goes on living.
            ended = process.end.readable() => match ended {
                Ok(_) => break,
                Err(_) => return,
            },
        }
    }
    while open
        && let Some(link) = &link
        && let Ok(packet) = link.get_ref().receive()
    {
        tell(Heard::Report(packet)).await;
    }
    let cause = process.reap();
    tell(Heard::Died(cause)).await;
}
