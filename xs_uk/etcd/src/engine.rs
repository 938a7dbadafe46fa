//! The synchronous face of the engine.

use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::Notify;
use xs_consensus::{Appended, Consensus, Cursor, EngineState, Epoch, Index, Loaded, LogError};

use crate::channel::{Connector, Tcp, credentials, endpoints};
use crate::core::Core;
use crate::driver::{Driver, Reach};
use crate::error::EtcdError;
use crate::options::EtcdOptions;

/// What face and driver share. The lock is held for short computations only, never while anything is awaited.
#[derive(Debug)]
pub(crate) struct Shared {
    core: Mutex<Core>,
    notify: Notify,
    /// For an owner on the driver's own runtime.
    raised: Notify,
    wake: OwnedFd,
    stopped: AtomicBool,
    failed: AtomicBool,
}

impl Shared {
    /// Runs `act` on the core, then wakes the owner if there is something for it.
    pub fn with<T>(&self, act: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.lock();
        let result = act(&mut core);
        if core.take_wake() {
            self.raise();
        }
        result
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The owner did something that the driver should see.
    pub async fn stirred(&self) {
        self.notify.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic under the lock ends the driver; `failed` tells that, the state is not used any more.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raise(&self) {
        self.raised.notify_one();
        // It can only refuse when it is readable anyway.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn clear(&self) {
        // Nothing to read: it was not readable.
        let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
    }
}

/// Tells the owner when the driver ends without being told to.
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.failed.store(true, Ordering::Release);
        self.0.raise();
    }
}

/// The log in etcd: one process's view.
#[derive(Debug)]
pub struct EtcdLog {
    shared: Arc<Shared>,
    capacity_bytes: u64,
    nonce: Option<u64>,
    thread: Option<JoinHandle<()>>,
}

impl EtcdLog {
    /// Reads on from `from`: the beginning, or the place of a snapshot. The engine works on a thread of its own.
    ///
    /// # Errors
    /// [`EtcdError`]. That etcd cannot be reached is none; [`Consensus::state`] tells.
    pub fn start(options: &EtcdOptions, from: Cursor) -> Result<Self, EtcdError> {
        let (mut log, driver) = Self::on_runtime(options, from, Arc::new(Tcp), None)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| EtcdError::System { call: "runtime", source })?;
        let thread =
            std::thread::Builder::new().name("etcd".to_owned()).spawn(move || runtime.block_on(driver));
        log.thread = Some(thread.map_err(|source| EtcdError::System { call: "thread", source })?);
        Ok(log)
    }

    /// As [`Self::start`], with the asynchronous half as a future for the caller's own runtime and over the caller's own
    /// network. `nonce` takes the place of the random numbers that tell claims apart.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub fn on_runtime(
        options: &EtcdOptions,
        from: Cursor,
        connector: Arc<dyn Connector>,
        nonce: Option<u64>,
    ) -> Result<(Self, impl Future<Output = ()> + Send + 'static), EtcdError> {
        let reach = Reach { endpoints: endpoints(options)?, connector, credentials: credentials(options)? };
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| EtcdError::System { call: "eventfd", source: errno.into() })?;
        let shared = Arc::new(Shared {
            core: Mutex::new(Core::new(options.core(), from)),
            notify: Notify::new(),
            raised: Notify::new(),
            wake,
            stopped: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        });
        let alive = Alive(shared.clone());
        let driver = {
            let shared = shared.clone();
            async move {
                let _alive = alive;
                Driver::new(shared, reach).run().await;
            }
        };
        Ok((Self { shared, capacity_bytes: options.log_bytes_max, nonce, thread: None }, driver))
    }

    /// As [`Consensus::append`], for an entry that a leader of an older epoch has made elsewhere.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn append_of(
        &mut self,
        entry: &[u8],
        epoch: Epoch,
        hash: [u8; 32],
    ) -> Result<Index, LogError> {
        self.act_and_stir(|core| core.append_of(entry, epoch, Some(hash)))
    }

    /// Whether a snapshot is being written, and whether one is kept.
    pub(crate) fn snapshots(&self) -> (bool, bool) {
        self.shared.lock().snapshots()
    }

    /// As [`Consensus::lead`], but what etcd holds of the log is deleted first, and it goes on from this engine's place.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn lead_anew(&mut self, epoch: Epoch) -> Result<(), LogError> {
        let nonce = self.fresh_nonce()?;
        self.act_and_stir(|core| core.lead_anew(epoch, nonce))
    }

    /// Returns when the engine may have something new to say; for an owner on the driver's runtime.
    pub(crate) fn raised(&self) -> impl Future<Output = ()> + Send + 'static {
        let shared = self.shared.clone();
        async move { shared.raised.notified().await }
    }

    fn act<T>(&self, act: impl FnOnce(&mut Core) -> Result<T, LogError>) -> Result<T, LogError> {
        if self.shared.failed.load(Ordering::Acquire) {
            return Err(LogError::Engine { what: "the etcd driver ended".to_owned() });
        }
        act(&mut self.shared.lock())
    }

    fn act_and_stir<T>(&self, act: impl FnOnce(&mut Core) -> Result<T, LogError>) -> Result<T, LogError> {
        let result = self.act(act);
        self.shared.notify.notify_one();
        result
    }

    fn fresh_nonce(&self) -> Result<u64, LogError> {
        if let Some(nonce) = self.nonce {
            return Ok(nonce);
        }
        random()
    }
}

/// A number that nobody else has.
pub(crate) fn random() -> Result<u64, LogError> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| LogError::Engine { what: format!("getrandom: {errno}") })?;
    Ok(u64::from_ne_bytes(bytes))
}

impl Consensus for EtcdLog {
    fn lead(&mut self, epoch: Epoch) -> Result<(), LogError> {
        let nonce = self.fresh_nonce()?;
        self.act_and_stir(|core| core.lead(epoch, nonce))
    }

    fn is_leading(&mut self) -> Result<bool, LogError> {
        self.act(|core| core.is_leading())
    }

    fn append(&mut self, entry: &[u8]) -> Result<Appended, LogError> {
        self.act_and_stir(|core| core.append(entry)).map(Appended::Submitted)
    }

    fn next(&mut self, entry: &mut Vec<u8>) -> Result<Option<Index>, LogError> {
        let mut room = false;
        let next = self.act(|core| {
            let had = core.has_room();
            let next = core.next(entry);
            room = !had && core.has_room();
            if !matches!(next, Ok(Some(_))) {
                // Under the lock: what comes later raises it again.
                self.shared.clear();
            }
            next
        });
        if room {
            self.shared.notify.notify_one();
        }
        next
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.wake.as_fd())
    }

    fn state(&self) -> EngineState {
        self.shared.lock().state()
    }

    fn save_snapshot(&mut self, cursor: &Cursor, snapshot: Vec<u8>) -> Result<bool, LogError> {
        self.act_and_stir(|core| core.save_snapshot(cursor, snapshot)).map(|()| true)
    }

    fn load_snapshot(&mut self) -> Result<Loaded, LogError> {
        self.act_and_stir(Core::load_snapshot)
    }

    fn cursor(&self) -> Cursor {
        self.shared.lock().cursor()
    }

    /// Goes by the snapshots that etcd holds; see [`Consensus::save_snapshot`].
    fn release(&mut self, _cursor: &Cursor) -> Result<(), LogError> {
        if self.is_leading()? { Ok(()) } else { Err(LogError::NotLeading) }
    }

    fn retains(&self) -> bool {
        self.shared.lock().snapshots().0
    }

    fn expect_more(&mut self) {
        self.shared.lock().expect_more();
        self.shared.notify.notify_one();
    }

    fn used_bytes(&self) -> u64 {
        self.shared.lock().used_bytes()
    }

    fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }
}

impl Drop for EtcdLog {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.shared.notify.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}
