//! The two halves of a copied log: what they share, and the copier's task.
//!
//! ```text
//!   copies ----------------> cannot go on ---- a pause ----> a copy begun anew: copies
//! ```

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use xs_consensus::{Consensus, CopiedTo, Embedded, EngineState, Epoch, LogError};

use super::failed;
use crate::channel::Connector;
use crate::copier::{Copier, Progress};
use crate::engine::EtcdLog;
use crate::limits::{LAG_BYTES_RESUME, RENEW_PAUSE};
use crate::options::EtcdOptions;

/// An asynchronous half.
pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What copiers are made with, one after the other.
pub(super) struct Maker {
    /// A view of the log.
    pub log: Embedded,
    pub options: EtcdOptions,
    pub connector: Arc<dyn Connector>,
    /// One for all of them: they are one leader to etcd.
    pub nonce: u64,
    pub epoch: Epoch,
    pub linger: Duration,
}

impl Maker {
    /// Where a leader's copier begins, and whether it begins the copy anew: where nobody knows how far it goes, although it
    /// cannot be begun with the first entry.
    pub fn begin(&self) -> Result<(Copier, Task), LogError> {
        match self.log.copied() {
            Some(to) => self.make(to, false),
            None if self.log.floor_position()? == 0 => self.make(CopiedTo::default(), false),
            None => self.make(CopiedTo { place: self.log.cursor(), revision: 0 }, true),
        }
    }

    /// One that begins the copy anew: with the first entry, if the log still has it.
    fn begin_anew(&self) -> Result<(Copier, Task), LogError> {
        let noted = self.log.copied().map_or_else(|| self.log.cursor(), |to| to.place);
        let place = if self.log.floor_position()? == 0 { Default::default() } else { noted };
        self.make(CopiedTo { place, revision: 0 }, true)
    }

    fn make(&self, to: CopiedTo, anew: bool) -> Result<(Copier, Task), LogError> {
        let made = EtcdLog::on_runtime(&self.options, to.copied(), self.connector.clone(), Some(self.nonce));
        let (mut etcd, driver) = made.map_err(failed)?;
        match anew {
            true => etcd.lead_anew(self.epoch)?,
            false => etcd.lead(self.epoch)?,
        }
        let copier = Copier::new(self.log.view(to.place)?, etcd, to, self.epoch, self.linger);
        Ok((copier, Box::pin(driver)))
    }
}

/// What the two halves share.
#[derive(Debug)]
pub(super) struct Shared {
    pub copier: Mutex<Copier>,
    pub stir: Notify,
    pub wake: OwnedFd,
    pub raised: AtomicBool,
    pub stopped: AtomicBool,
    pub asleep: AtomicBool,
    /// An append waits for room.
    pub blocked: AtomicBool,
    pub leads: AtomicBool,
    pub position: AtomicU64,
    pub index: AtomicU64,
    pub waited_ms: AtomicU64,
    pub used_bytes: AtomicU64,
    /// One more than the newer leader's epoch that etcd knows; 0 for none.
    pub newer: AtomicU64,
    /// What it was when the copier was not busy.
    pub state: Mutex<EngineState>,
    pub wants_snapshot: AtomicBool,
    pub saving: AtomicBool,
    origin: Instant,
    pub used_bytes_max: u64,
    pub unavailable_after_ms: u64,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(copier: Copier, wake: OwnedFd, options: &EtcdOptions) -> Self {
        let from = copier.place();
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
            wants_snapshot: AtomicBool::new(false),
            saving: AtomicBool::new(false),
            origin: Instant::now(),
            used_bytes_max: options.log_bytes_max,
            unavailable_after_ms: options.unavailable_after_ms,
        }
    }

    /// Copies until the log is dropped.
    pub async fn copy(self: Arc<Self>, maker: Maker, mut driver: Task) {
        while !self.is_stopped() {
            tokio::select! {
                biased;
                () = &mut driver => {}
                () = self.run() => {}
            }
            self.pause().await;
            match maker.begin_anew() {
                Ok((copier, next)) => {
                    let mut place = lock(&self.copier);
                    *place = copier.instead_of(&place);
                    driver = next;
                }
                Err(error) => tracing::error!(%error, "the copy in etcd cannot be begun anew yet"),
            }
        }
    }

    async fn pause(&self) {
        let began = Instant::now();
        while !self.is_stopped() && began.elapsed() < RENEW_PAUSE {
            tokio::time::sleep(RENEW_PAUSE / 10).await;
            // How long entries wait goes on being told.
            self.turn();
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Copies until it cannot go on.
    async fn run(&self) {
        let raised = lock(&self.copier).raised();
        tokio::pin!(raised);
        while !self.is_stopped() {
            let progress = self.turn();
            // A newer leader is no reason to begin anew: this one has to end.
            if progress.failed && progress.newer.is_none() {
                return;
            }
            if progress.pause.is_none() && !self.fall_asleep() {
                continue;
            }
            tokio::select! {
                biased;
                () = self.stir.notified() => {}
                () = &mut raised => raised.set(lock(&self.copier).raised()),
                () = tokio::time::sleep(progress.pause.unwrap_or(Duration::MAX)) => {}
            }
            self.asleep.store(false, Ordering::Relaxed);
        }
    }

    /// As it is, or was a moment ago if the copier is busy.
    pub fn state(&self) -> EngineState {
        let mut last = lock(&self.state);
        if let Ok(copier) = self.copier.try_lock() {
            *last = copier.state();
        }
        last.clone()
    }

    fn turn(&self) -> Progress {
        let progress = lock(&self.copier).turn(self.origin.elapsed());
        self.publish(&progress);
        progress
    }

    fn publish(&self, progress: &Progress) {
        let millis = u64::try_from(progress.waited.as_millis()).unwrap_or(u64::MAX);
        self.waited_ms.store(millis, Ordering::Relaxed);
        self.used_bytes.store(progress.used_bytes, Ordering::Relaxed);
        self.wants_snapshot.store(progress.wants_snapshot, Ordering::Relaxed);
        self.saving.store(progress.saving, Ordering::Relaxed);
        self.index.store(progress.to.place.index.0, Ordering::Relaxed);
        self.position.store(progress.to.place.position, Ordering::Release);
        let newer = progress.newer.map_or(0, |newer| newer.0.saturating_add(1));
        let news = self.leads.swap(progress.leads, Ordering::Release) != progress.leads
            || self.newer.swap(newer, Ordering::Release) != newer;
        let unblocked = self.lets_go_on(progress, millis) && self.blocked.swap(false, Ordering::AcqRel);
        if unblocked || news {
            // It can only refuse when it is readable anyway. Written first: who sees the mark finds something to read.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
            self.raised.store(true, Ordering::Release);
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

    pub fn appended(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.stir.notify_one();
        }
    }
}
