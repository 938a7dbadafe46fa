//! The log in shared memory, copied to etcd.
//!
//! An append is committed in shared memory, which outlives every process of the store, and etcd follows: within a
//! moment while all is well, within [`LAG_BYTES_MAX`] and a time limit always. Beyond the bytes appends wait, beyond the
//! time they are refused. Leaders fence each other in shared memory at once; etcd's own fence keeps a leader that was
//! replaced from writing there.
//!
//! What this gives up: if the memory itself is lost, etcd lacks the entries of the last moment. All that talk to the store
//! then are lost with it: they live on the same machine.
//!
//! The first leader of all waits until etcd knows it, so that an etcd which cannot be reached is noticed before anything
//! is stored. Later ones do not.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use tokio::time::Instant;
use xs_consensus::{
    Appended, Consensus, CopyLag, Cursor, Embedded, EngineHealth, EngineState, Epoch, Index, Loaded,
    LogError, Repairs,
};

use crate::channel::{Connector, Tcp, credentials, endpoints};
use crate::engine::random;
use crate::error::EtcdError;
use crate::limits::{LAG_BYTES_MAX, SNAPSHOT_BYTES_MAX};
use crate::options::EtcdOptions;
use follow::{Maker, Shared, Task, lock};

mod follow;

/// How the log is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// Where to. Its `unavailable_after_ms` and `log_bytes_max` hold for the copied log.
    pub etcd: EtcdOptions,
    /// How long an entry may wait for others to go with it.
    pub linger: Duration,
}

/// Where the asynchronous half runs.
#[derive(Clone)]
enum Home {
    /// On a thread of its own.
    Thread,
    /// On the caller's runtime and network. The number takes the place of random ones.
    Runtime { connector: Arc<dyn Connector>, nonce: u64 },
}

/// A running copier.
struct Copying {
    epoch: Epoch,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Copying {
    fn check_newer(&self) -> Result<(), LogError> {
        match self.shared.newer.load(Ordering::Acquire) {
            0 => Ok(()),
            newer => Err(LogError::Fenced { ours: self.epoch.0, newer: newer - 1 }),
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.shared.stir.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}

/// The log in shared memory, copied to etcd: one process's view.
pub struct CopiedLog {
    log: Embedded,
    options: CopyOptions,
    home: Home,
    wake: OwnedFd,
    copying: Option<Copying>,
    /// To be let go once etcd has it: what comes first, and the newest of all others.
    releases: VecDeque<Cursor>,
    /// Since when etcd lacks too much.
    busy_since: Option<Instant>,
}

impl CopiedLog {
    /// Uses a view of the log in shared memory. A leader copies it, on a thread of its own.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub fn new(log: Embedded, options: CopyOptions) -> Result<Self, EtcdError> {
        Self::at(log, options, Home::Thread)
    }

    /// As [`Self::new`], with the asynchronous half on the caller's tokio runtime and over the caller's own network.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub fn on_runtime(
        log: Embedded,
        options: CopyOptions,
        connector: Arc<dyn Connector>,
        nonce: u64,
    ) -> Result<Self, EtcdError> {
        Self::at(log, options, Home::Runtime { connector, nonce })
    }

    fn at(log: Embedded, options: CopyOptions, home: Home) -> Result<Self, EtcdError> {
        options.etcd.validate()?;
        // Files that cannot be read are to be noticed now, and not by a leader.
        endpoints(&options.etcd)?;
        credentials(&options.etcd)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| EtcdError::System { call: "eventfd", source: errno.into() })?;
        Ok(Self { log, options, home, wake, copying: None, releases: VecDeque::new(), busy_since: None })
    }

    fn begin(&mut self, epoch: Epoch) -> Result<(), LogError> {
        let (connector, nonce) = match &self.home {
            Home::Thread => (Arc::new(Tcp) as Arc<dyn Connector>, random()?),
            Home::Runtime { connector, nonce } => (connector.clone(), *nonce),
        };
        // Nobody is told of batches, and the log's size is bounded here.
        let options = EtcdOptions { watch: false, log_bytes_max: u64::MAX, ..self.options.etcd.clone() };
        let (log, linger) = (self.log.view(self.log.cursor())?, self.options.linger);
        let maker = Maker { log, options, connector, nonce, epoch, linger };
        let (copier, driver) = maker.begin()?;
        let wake = self.wake.try_clone().map_err(failed)?;
        let shared = Arc::new(Shared::new(copier, wake, &self.options.etcd));
        let thread = self.home.run(Box::pin(shared.clone().copy(maker, driver)))?;
        self.copying = Some(Copying { epoch, shared, thread });
        Ok(())
    }

    fn check_copy(&mut self) -> Result<(), LogError> {
        let Some(copying) = &self.copying else { return Err(LogError::NotLeading) };
        copying.check_newer()?;
        let shared = &copying.shared;
        let waited_ms = shared.waited_ms.load(Ordering::Relaxed);
        if waited_ms >= shared.unavailable_after_ms {
            return Err(LogError::Unavailable { waited_ms });
        }
        let (used_bytes, capacity_bytes) = (shared.used_bytes.load(Ordering::Relaxed), shared.used_bytes_max);
        if used_bytes >= capacity_bytes {
            shared.blocked.store(true, Ordering::Release);
            return Err(LogError::Full { used_bytes, capacity_bytes });
        }
        let lag = self.lag(copying);
        if lag.bytes < LAG_BYTES_MAX {
            self.busy_since = None;
            return Ok(());
        }
        // Something may get through all the time, and never enough.
        let busy_since = *self.busy_since.get_or_insert_with(Instant::now);
        let waited_ms = u64::try_from(busy_since.elapsed().as_millis()).unwrap_or(u64::MAX);
        if waited_ms >= shared.unavailable_after_ms {
            return Err(LogError::Unavailable { waited_ms });
        }
        shared.blocked.store(true, Ordering::Release);
        Err(LogError::Busy { queued: usize::try_from(lag.entries).unwrap_or(usize::MAX) })
    }

    fn lag(&self, copying: &Copying) -> CopyLag {
        let Shared { index, position, waited_ms, .. } = &*copying.shared;
        let here = self.log.cursor();
        CopyLag {
            entries: here.index.0.saturating_sub(index.load(Ordering::Relaxed)),
            bytes: here.position.saturating_sub(position.load(Ordering::Acquire)),
            waited_ms: waited_ms.load(Ordering::Relaxed),
        }
    }

    /// What was to be let go and is in etcd by now.
    fn release_copied(&mut self) -> Result<(), LogError> {
        let (Some(copying), Some(cursor)) = (&self.copying, self.releases.front().copied()) else {
            return Ok(());
        };
        if cursor.index.0 > copying.shared.index.load(Ordering::Relaxed) {
            return Ok(());
        }
        // What counts is the place that a successor will find.
        if self.log.copied().is_some_and(|noted| noted.place.position >= cursor.position) {
            self.releases.pop_front();
            self.log.release(&cursor)?;
        }
        Ok(())
    }
}

impl Home {
    fn run(&self, task: Task) -> Result<Option<JoinHandle<()>>, LogError> {
        if let Self::Runtime { .. } = self {
            drop(tokio::spawn(task));
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let thread =
            std::thread::Builder::new().name("etcd".to_owned()).spawn(move || runtime.block_on(task));
        thread.map(Some).map_err(failed)
    }
}

fn failed(error: impl std::fmt::Display) -> LogError {
    LogError::Engine { what: error.to_string() }
}

impl Consensus for CopiedLog {
    fn lead(&mut self, epoch: Epoch) -> Result<(), LogError> {
        self.log.lead(epoch)?;
        if self.copying.as_ref().is_none_or(|copying| copying.epoch != epoch) {
            self.copying = None;
            self.begin(epoch)?;
        }
        Ok(())
    }

    fn is_leading(&mut self) -> Result<bool, LogError> {
        let Some(copying) = &self.copying else { return self.log.is_leading() };
        copying.check_newer()?;
        let begun = self.log.copied().is_some() || self.log.bytes_behind(0)? > 0;
        Ok(self.log.is_leading()? && (begun || copying.shared.leads.load(Ordering::Acquire)))
    }

    fn append(&mut self, entry: &[u8]) -> Result<Appended, LogError> {
        self.release_copied()?;
        self.check_copy()?;
        let appended = self.log.append(entry);
        if let Some(Copying { shared, .. }) = &self.copying {
            match &appended {
                Ok(_) => shared.appended(),
                // What is to be let go may wait for etcd.
                Err(LogError::Full { .. }) => shared.blocked.store(true, Ordering::Release),
                Err(_) => {}
            }
        }
        appended
    }

    fn next(&mut self, entry: &mut Vec<u8>) -> Result<Option<Index>, LogError> {
        let next = self.log.next(entry)?;
        if let (None, Some(copying)) = (next, &self.copying)
            && copying.shared.raised.swap(false, Ordering::AcqRel)
        {
            // Nothing to read: it was not readable.
            let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
        }
        Ok(next)
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_fd())
    }

    fn state(&self) -> EngineState {
        let Some(copying) = &self.copying else { return EngineState::default() };
        let (mut state, lag) = (copying.shared.state(), self.lag(copying));
        state.copy_lag = Some(lag);
        let refuses = lag.waited_ms >= copying.shared.unavailable_after_ms || lag.bytes >= LAG_BYTES_MAX;
        if refuses && state.health == EngineHealth::Healthy {
            state.health = EngineHealth::Waiting { waited_ms: lag.waited_ms };
        }
        state
    }

    fn save_snapshot(&mut self, cursor: &Cursor, snapshot: Vec<u8>) -> Result<bool, LogError> {
        let Some(copying) = &self.copying else { return Err(LogError::NotLeading) };
        if snapshot.len() > SNAPSHOT_BYTES_MAX {
            return Err(LogError::TooLarge { bytes: snapshot.len() });
        }
        if !lock(&copying.shared.copier).keep(*cursor, snapshot) {
            return Err(LogError::Busy { queued: 1 });
        }
        copying.shared.stir.notify_one();
        Ok(true)
    }

    /// On this machine the warden keeps snapshots.
    fn load_snapshot(&mut self) -> Result<Loaded, LogError> {
        Ok(Loaded::Nothing)
    }

    fn cursor(&self) -> Cursor {
        self.log.cursor()
    }

    /// Lets go what is in etcd; the rest as soon as it is there.
    fn release(&mut self, cursor: &Cursor) -> Result<(), LogError> {
        self.releases.truncate(1);
        self.releases.push_back(*cursor);
        self.release_copied()
    }

    fn used_bytes(&self) -> u64 {
        let Some(Copying { shared, .. }) = &self.copying else { return self.log.used_bytes() };
        // More than half is when a snapshot is taken.
        let wanted = shared.wants_snapshot.load(Ordering::Relaxed).then_some(self.capacity_bytes() / 2);
        let copied = shared.used_bytes.load(Ordering::Relaxed);
        self.log.used_bytes().max(copied).max(wanted.unwrap_or(0))
    }

    fn capacity_bytes(&self) -> u64 {
        self.log.capacity_bytes().min(self.options.etcd.log_bytes_max)
    }

    /// What etcd does not have yet, or keeps until the snapshot is there that is being brought.
    fn retains(&self) -> bool {
        let saving = |copying: &Copying| copying.shared.saving.load(Ordering::Relaxed);
        !self.releases.is_empty() || self.copying.as_ref().is_some_and(saving)
    }

    fn take_repairs(&mut self) -> Repairs {
        self.log.take_repairs()
    }
}
