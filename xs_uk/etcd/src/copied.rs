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

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::Notify;
use tokio::time::Instant;
use xs_consensus::{
    Appended, Consensus, CopyLag, Cursor, Embedded, EngineState, Epoch, Index, Loaded, LogError, Repairs,
};

use crate::channel::{Connector, Tcp};
use crate::copier::{Copier, Progress};
use crate::engine::EtcdLog;
use crate::error::EtcdError;
use crate::limits::{LAG_BYTES_MAX, LAG_BYTES_RESUME, SNAPSHOT_BYTES_MAX};
use crate::options::EtcdOptions;

/// How the log is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// Where to. Its `unavailable_after_ms` and `log_bytes_max` hold for the copied log.
    pub etcd: EtcdOptions,
    /// How long an entry may wait for others to go with it.
    pub linger: Duration,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where the asynchronous half runs.
#[derive(Clone)]
enum Home {
    /// On a thread of its own.
    Thread,
    /// On the caller's runtime and network. The number takes the place of random ones.
    Runtime { connector: Arc<dyn Connector>, nonce: u64 },
}

/// What the two halves share.
#[derive(Debug)]
struct Shared {
    copier: Mutex<Copier>,
    stir: Notify,
    wake: OwnedFd,
    raised: AtomicBool,
    stopped: AtomicBool,
    asleep: AtomicBool,
    /// An append waits for room.
    blocked: AtomicBool,
    leads: AtomicBool,
    position: AtomicU64,
    index: AtomicU64,
    waited_ms: AtomicU64,
    used_bytes: AtomicU64,
    /// One more than the newer leader's epoch that etcd knows; 0 for none.
    newer: AtomicU64,
    /// What it was when the copier was not busy.
    state: Mutex<EngineState>,
    used_bytes_max: u64,
    unavailable_after_ms: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn new(copier: Copier, wake: OwnedFd, from: &Cursor, options: &EtcdOptions) -> Self {
        Self {
            copier: Mutex::new(copier),
            stir: Notify::new(),
            wake,
            raised: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            leads: AtomicBool::new(false),
            position: AtomicU64::new(from.position),
            index: AtomicU64::new(from.index.0),
            waited_ms: AtomicU64::new(0),
            used_bytes: AtomicU64::new(0),
            newer: AtomicU64::new(0),
            state: Mutex::default(),
            used_bytes_max: options.log_bytes_max,
            unavailable_after_ms: options.unavailable_after_ms,
        }
    }

    /// Copies until the log is dropped.
    async fn run(self: Arc<Self>) {
        let (origin, raised) = (Instant::now(), lock(&self.copier).raised());
        tokio::pin!(raised);
        while !self.stopped.load(Ordering::Acquire) {
            let pause = self.turn(origin.elapsed());
            if pause.is_none() && !self.fall_asleep() {
                continue;
            }
            let rest = pause.unwrap_or(Duration::MAX);
            tokio::select! {
                biased;
                () = self.stir.notified() => {}
                () = &mut raised => raised.set(lock(&self.copier).raised()),
                () = tokio::time::sleep(rest) => {}
            }
            self.asleep.store(false, Ordering::Relaxed);
        }
    }

    /// As it is, or was a moment ago if the copier is busy.
    fn state(&self) -> EngineState {
        let mut last = lock(&self.state);
        if let Ok(copier) = self.copier.try_lock() {
            *last = copier.state();
        }
        last.clone()
    }

    fn turn(&self, now: Duration) -> Option<Duration> {
        let mut copier = lock(&self.copier);
        let progress = copier.turn(now);
        drop(copier);
        self.publish(&progress);
        progress.pause
    }

    fn publish(&self, progress: &Progress) {
        let millis = u64::try_from(progress.waited.as_millis()).unwrap_or(u64::MAX);
        self.waited_ms.store(millis, Ordering::Relaxed);
        self.used_bytes.store(progress.used_bytes, Ordering::Relaxed);
        self.index.store(progress.to.place.index.0, Ordering::Relaxed);
        self.position.store(progress.to.place.position, Ordering::Release);
        let newer = progress.newer.map_or(0, |newer| newer.0.saturating_add(1));
        let news = self.leads.swap(progress.leads, Ordering::Release) != progress.leads
            || self.newer.swap(newer, Ordering::Release) != newer;
        let unblocked = self.lets_go_on(progress, millis) && self.blocked.swap(false, Ordering::AcqRel);
        if unblocked || news {
            self.raised.store(true, Ordering::Release);
            // It can only refuse when it is readable anyway.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// Whether an append that waits for room is to be tried again: there is some, or none will come in time.
    fn lets_go_on(&self, progress: &Progress, waited_ms: u64) -> bool {
        let room = progress.lag_bytes <= LAG_BYTES_RESUME && progress.used_bytes < self.used_bytes_max;
        room || waited_ms >= self.unavailable_after_ms
    }

    /// False if there is something to do after all. Who appends looks at the flag behind its append.
    fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let idle = !lock(&self.copier).has_unread();
        self.asleep.store(idle, Ordering::Relaxed);
        idle
    }

    fn appended(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.stir.notify_one();
        }
    }
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
    /// To be let go once etcd has it.
    release: Option<Cursor>,
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
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| EtcdError::System { call: "eventfd", source: errno.into() })?;
        Ok(Self { log, options, home, wake, copying: None, release: None })
    }

    fn begin(&mut self, epoch: Epoch) -> Result<(), LogError> {
        let to = self.log.copied().unwrap_or_default();
        let (connector, nonce) = match &self.home {
            Home::Thread => (Arc::new(Tcp) as Arc<dyn Connector>, None),
            Home::Runtime { connector, nonce } => (connector.clone(), Some(*nonce)),
        };
        // Nobody is told of batches, and the log's size is bounded here.
        let options = EtcdOptions { watch: false, log_bytes_max: u64::MAX, ..self.options.etcd.clone() };
        let (mut etcd, driver) =
            EtcdLog::on_runtime(&options, to.copied(), connector, nonce).map_err(failed)?;
        etcd.lead(epoch)?;
        let copier = Copier::new(self.log.view(to.place)?, etcd, to, epoch, self.options.linger);
        let wake = self.wake.try_clone().map_err(failed)?;
        let shared = Arc::new(Shared::new(copier, wake, &to.place, &self.options.etcd));
        let copies = shared.clone().run();
        // The driver ends when it is told so, which the copier's end does.
        let task = Box::pin(async move {
            tokio::select! {
                biased;
                () = driver => {}
                () = copies => {}
            }
        });
        self.copying = Some(Copying { epoch, shared, thread: self.home.run(task)? });
        Ok(())
    }

    fn check_copy(&self) -> Result<(), LogError> {
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
        if lag.bytes >= LAG_BYTES_MAX {
            shared.blocked.store(true, Ordering::Release);
            return Err(LogError::Busy { queued: usize::try_from(lag.entries).unwrap_or(usize::MAX) });
        }
        Ok(())
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
        let Some(Copying { shared, .. }) = &self.copying else { return Ok(()) };
        let copied = shared.index.load(Ordering::Relaxed);
        if let Some(cursor) = self.release.take_if(|cursor| cursor.index.0 <= copied) {
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
        EngineState { copy_lag: Some(self.lag(copying)), ..copying.shared.state() }
    }

    fn save_snapshot(&mut self, cursor: &Cursor, snapshot: Vec<u8>) -> Result<bool, LogError> {
        let Some(copying) = &self.copying else { return Err(LogError::NotLeading) };
        if snapshot.len() > SNAPSHOT_BYTES_MAX {
            return Err(LogError::TooLarge { bytes: snapshot.len() });
        }
        lock(&copying.shared.copier).keep(*cursor, snapshot);
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
        self.release = Some(*cursor);
        self.release_copied()
    }

    fn used_bytes(&self) -> u64 {
        let copied = self.copying.as_ref().map(|copying| copying.shared.used_bytes.load(Ordering::Relaxed));
        self.log.used_bytes().max(copied.unwrap_or(0))
    }

    fn capacity_bytes(&self) -> u64 {
        self.log.capacity_bytes().min(self.options.etcd.log_bytes_max)
    }

    fn take_repairs(&mut self) -> Repairs {
        self.log.take_repairs()
    }
}
