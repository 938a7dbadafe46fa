//! Services of an earlier warden: their processes, their first words, what they hand over.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use control::{FromService, Hello, Link, LinkError, from_service::Report, names, to_service::Order};
use rustix::net::SocketFlags;
use rustix::process::Signal;
use tokio::sync::{Semaphore, mpsc};

use super::watch::{self, Greeting, Heard, News};
use super::{Child, Keeper, open_pidfd, send_signal};
use crate::error::Error;
use crate::ids::ServiceId;
use crate::limits::{GREETING_MS, GREETINGS_MAX};
use crate::planner::Input;
use crate::spec::bind_packet_listener;
use crate::state::ServiceState;
use control::proc::Stat;

impl Keeper {
    /// Watches a process of an earlier warden. False if it does not live any more.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn adopt(&mut self, service: ServiceId, recorded: &ServiceState) -> Result<bool, Error> {
        let Ok(pidfd) = open_pidfd(recorded.pid) else { return Ok(false) };
        // Looked at while the descriptor holds the process: the pid is nobody else's.
        if !recorded.lives() {
            return Ok(false);
        }
        let pidfd = Arc::new(pidfd);
        let process = watch::Process::adopted(pidfd.clone())?;
        let watching = watch::watch(service, recorded.incarnation, process, None, self.news.clone());
        let child = Child {
            incarnation: recorded.incarnation,
            pid: recorded.pid,
            start_ticks: recorded.start_ticks,
            pidfd,
            link: None,
            watcher: tokio::spawn(watching).abort_handle(),
            adopted: true,
            stopped: false,
            fault_pidfd: None,
        };
        self.children.insert(service, child);
        Ok(true)
    }

    /// Takes a service's first words: keeps what it hands over, and what it is to be told from here on goes through the
    /// link that it opened. Gives what the planner must be told; nothing for a process that is none of ours, which is
    /// ended.
    pub fn greet(&mut self, greeting: Greeting) -> Result<Vec<Input>, String> {
        let Greeting { hello, descriptors, link, pid } = greeting;
        let begin = hello.kept.clone().unwrap_or_default();
        let (service, incarnation) = (ServiceId::of(hello.role(), begin.replica), begin.incarnation);
        let known = self.children.get(&service);
        if !known.is_some_and(|child| child.pid == pid && child.incarnation == incarnation) {
            end_stranger(service, pid);
            return Err(format!("process {pid} says that it is {service}, start {incarnation}"));
        }
        self.attach(service, link).map_err(|error| error.to_string())?;
        let snapshots = self.merge(&hello, descriptors);
        self.spread_snapshots();
        let told = self.order(service, Order::Adopted(true), &[]);
        let aimed = hello.ready.filter(|ready| ready.pid != 0);
        let aimed = aimed.and_then(|ready| self.aim_faults(service, incarnation, ready.pid));
        let said = Input::Hello {
            service,
            incarnation,
            ready: hello.ready.is_some(),
            applied: hello.ready.map_or(0, |ready| ready.applied),
            leads_epoch: hello.leads_epoch,
            orphaned_ms: hello.orphaned_ms,
        };
        let found = snapshots.then(|| Input::SnapshotsFound { indices: self.snapshots.indices() });
        Ok(found.into_iter().chain([said]).chain(aimed).chain(told).collect())
    }

    fn attach(&mut self, service: ServiceId, link: Link) -> Result<(), Error> {
        let Some(child) = self.children.get_mut(&service) else { return Ok(()) };
        let link = Some(Arc::new(watch::readable(link)?));
        let process = watch::Process::adopted(child.pidfd.clone())?;
        // Whoever waited for its end alone is not needed any more; an end that was told twice is told once too often.
        child.watcher.abort();
        let watching = watch::watch(service, child.incarnation, process, link.clone(), self.news.clone());
        child.watcher = tokio::spawn(watching).abort_handle();
        child.link = link;
        Ok(())
    }

    /// Keeps what is not kept yet. True if a snapshot is among it.
    fn merge(&mut self, hello: &Hello, descriptors: Vec<OwnedFd>) -> bool {
        let Some(begin) = &hello.kept else { return false };
        let mut snapshots = false;
        for (name, descriptor) in begin.names.iter().zip(descriptors) {
            let taken = match name.as_str() {
                names::SNAPSHOT => &begin.snapshot,
                names::SNAPSHOT_OLDER => &begin.snapshot_older,
                _ => {
                    if self.kept.get(name).is_none()
                        && let Err(error) = self.kept.insert(name, descriptor)
                    {
                        tracing::warn!(%error, "handed over by a service");
                    }
                    continue;
                }
            };
            if let Some(taken) = taken {
                snapshots |= self.snapshots.found((taken.clone(), descriptor));
            }
        }
        snapshots
    }

    /// Whether a process lives that an earlier warden started.
    pub fn has_adopted(&self) -> bool {
        self.children.values().any(|child| child.adopted)
    }

    /// Which adopted processes were stopped or continued by signals since the last call.
    pub fn halted_adopted(&mut self) -> Vec<Input> {
        let adopted = self.children.iter_mut().filter(|(_, child)| child.adopted);
        let changed = adopted.filter_map(|(&service, child)| {
            let stopped = Stat::of(child.pid)?.is_stopped();
            let incarnation = child.incarnation;
            match (std::mem::replace(&mut child.stopped, stopped), stopped) {
                (false, true) => Some(Input::Halted { service, incarnation }),
                (true, false) => Some(Input::Continued { service, incarnation }),
                _ => None,
            }
        });
        changed.collect()
    }
}

/// The lock says that this warden alone has the run directory: whoever wants to be adopted in it and is not known would
/// serve beside the group.
fn end_stranger(service: ServiceId, pid: u32) {
    if let Ok(pidfd) = open_pidfd(pid) {
        send_signal(service, &pidfd, Signal::KILL);
    }
}

/// Waits at a socket for services of an earlier warden, for as long as this warden runs.
///
/// # Errors
/// [`Error::Path`], [`Error::System`].
pub fn welcome(path: &Path, news: mpsc::Sender<News>) -> Result<(), Error> {
    let listener = bind_packet_listener(path)?;
    rustix::io::ioctl_fionbio(&listener, true).map_err(Error::system("ioctl"))?;
    let listener = watch::readable(listener)?;
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(GREETINGS_MAX));
        while let Ok(mut guard) = listener.readable().await {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(listener.get_ref(), flags) {
                Ok(socket) => {
                    // One that finds no room sees its link closed, and comes again.
                    if let Ok(place) = room.clone().try_acquire_owned() {
                        let news = news.clone();
                        tokio::spawn(async move {
                            hear_greeting(Link::from_fd(socket), news).await;
                            drop(place);
                        });
                    }
                }
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(error) => {
                    tracing::warn!(%error, "a service could not be adopted");
                    tokio::time::sleep(Duration::from_millis(GREETING_MS)).await;
                }
            }
        }
    });
    Ok(())
}

async fn hear_greeting(link: Link, news: mpsc::Sender<News>) {
    match tokio::time::timeout(Duration::from_millis(GREETING_MS), greeting_of(link)).await {
        Ok(Ok(greeting)) => {
            let begin = greeting.hello.kept.clone().unwrap_or_default();
            let service = ServiceId::of(greeting.hello.role(), begin.replica);
            let heard = Heard::Hello(Box::new(greeting));
            // The receiver is gone only if the warden ends.
            let _ = news.send(News { service, incarnation: begin.incarnation, heard }).await;
        }
        Ok(Err(error)) => tracing::warn!(%error, "not adopted"),
        Err(_) => tracing::warn!("not adopted: it said nothing"),
    }
}

async fn greeting_of(link: Link) -> Result<Greeting, LinkError> {
    let pid = link.peer()?;
    let waited = async {
        let watched = watch::readable(link.as_fd().try_clone_to_owned()?).map_err(std::io::Error::other)?;
        watched.readable().await.map(drop)
    };
    // What kept us from waiting shows when there is nothing to receive.
    let _: std::io::Result<()> = waited.await;
    let packet = link.receive::<FromService>()?;
    match packet.message.report {
        Some(Report::Hello(hello)) => Ok(Greeting { hello, descriptors: packet.descriptors, link, pid }),
        _ => Err(LinkError::Closed),
    }
}
