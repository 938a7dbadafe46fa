//! Who sends and receives numbered frames at one end of a wire, in a thread of this process.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use figures::Latencies;
use lane::FrameMeta;
use sim_guest::net::Mac;
use sim_guest::net::traffic::{Load, Numbered, Pace, ReceiveReport, Receiver, now_ns};

use crate::error::{Error, Result};
use crate::limits::{BATCH, ECHO_WAIT, SLEEP_MAX};
use crate::usage::thread_cpu_ns;
use crate::wire::Wire;

/// What an endpoint does besides counting what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Once told to, it sends so many frames a second, 0 for as many as the wire takes.
    Send {
        /// Frames a second.
        rate: u64,
    },
    /// It sends everything that comes back to where it came from.
    Echo,
    /// Once told to, it sends the next frame when fewer than this many are under way, to somebody who sends them back.
    Ping {
        /// Frames under way at most.
        window: u64,
    },
}

/// How an endpoint is set up.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    /// Its address.
    pub from: Mac,
    /// To whom it sends, in turn; each is a flow.
    pub to: Vec<Mac>,
    /// Number of the first flow.
    pub flow: u64,
    /// Bytes of the smallest and of the largest frame.
    pub sizes: (usize, usize),
    /// What it does.
    pub role: Role,
}

/// What an endpoint tells at its end.
#[derive(Debug)]
pub struct EndpointReport {
    /// Frames sent, echoes among them.
    pub sent: u64,
    /// What came.
    pub received: ReceiveReport,
    /// Frames that this end's own socket dropped.
    pub dropped: u64,
}

/// How far an endpoint is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Frames sent, echoes among them.
    pub sent: u64,
    /// Different frames that came.
    pub received: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sending: AtomicBool,
    /// One that is new.
    load: Mutex<Option<Load>>,
    sent: AtomicU64,
    received: AtomicU64,
    heard: AtomicU64,
    thread: AtomicU32,
    latencies: Mutex<Latencies>,
}

/// An endpoint; it ends with [`Endpoint::end`].
pub struct Endpoint {
    thread: JoinHandle<Result<EndpointReport>>,
    shared: Arc<Shared>,
}

impl Endpoint {
    /// Counts what comes, and sends once it is told to.
    pub fn start(wire: Box<dyn Wire>, options: EndpointOptions) -> Self {
        let shared: Arc<Shared> = Arc::default();
        let worker = Worker::new(wire, options, Arc::clone(&shared));
        Self { thread: std::thread::spawn(move || worker.run()), shared }
    }

    /// Sends from now on, or no more.
    pub fn set_sending(&self, sending: bool) {
        self.shared.sending.store(sending, Ordering::Relaxed);
    }

    /// So much is sent from now on, if its role is to send.
    pub fn set_load(&self, load: Load) {
        *self.shared.load.lock().unwrap_or_else(PoisonError::into_inner) = Some(load);
    }

    /// How far it is.
    pub fn seen(&self) -> Seen {
        let of = |word: &AtomicU64| word.load(Ordering::Relaxed);
        Seen { sent: of(&self.shared.sent), received: of(&self.shared.received) }
    }

    /// Flows of which something came.
    pub fn flows_heard(&self) -> u64 {
        self.shared.heard.load(Ordering::Relaxed)
    }

    /// What its thread ran, in nanoseconds.
    pub fn cpu_ns(&self) -> u64 {
        thread_cpu_ns(self.shared.thread.load(Ordering::Relaxed))
    }

    /// Times of round trips since this was asked last.
    pub fn take_latencies(&self) -> Latencies {
        let mut latencies = self.shared.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut latencies, Latencies::new())
    }

    /// Ends it.
    ///
    /// # Errors
    /// What ended it before.
    pub fn end(self) -> Result<EndpointReport> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Error::Thread)?
    }
}

struct Worker {
    wire: Box<dyn Wire>,
    options: EndpointOptions,
    shared: Arc<Shared>,
    receiver: Receiver,
    /// While it is told to send.
    pace: Option<Pace>,
    next: Vec<u64>,
    sent: u64,
    /// Frames of our own that came back, or were given up.
    returned: u64,
    last_return_ns: u64,
    frame: Vec<u8>,
    inbox: Vec<u8>,
    random: fastrand::Rng,
}

impl Worker {
    fn new(wire: Box<dyn Wire>, options: EndpointOptions, shared: Arc<Shared>) -> Self {
        Self {
            wire,
            next: vec![0; options.to.len()],
            options,
            shared,
            receiver: Receiver::default(),
            pace: None,
            sent: 0,
            returned: 0,
            last_return_ns: 0,
            frame: vec![],
            inbox: vec![0; lane::limits::FRAME_BYTES_MAX],
            random: fastrand::Rng::with_seed(7),
        }
    }

    fn run(mut self) -> Result<EndpointReport> {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        self.shared.thread.store(u32::try_from(thread).unwrap_or(0), Ordering::Relaxed);
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.take_load();
            let due = self.due();
            let generated = self.generate(due)?;
            self.wire.pump()?;
            let came = self.take()?;
            if came > 0 && self.options.role == Role::Echo {
                self.wire.pump()?;
            }
            self.tell();
            if generated + came == 0 {
                self.wire.wait(self.pause(due))?;
            }
        }
        Ok(EndpointReport {
            sent: self.sent,
            received: self.receiver.report(),
            dropped: self.wire.dropped()?,
        })
    }

    fn take_load(&mut self) {
        let load = self.shared.load.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(load), Role::Send { rate }) = (load, &mut self.options.role) {
            *rate = load.rate;
            self.options.sizes = (load.least_bytes, load.most_bytes);
            self.pace = None;
        }
    }

    /// Frames to be sent now.
    fn due(&mut self) -> u64 {
        let sending = self.shared.sending.load(Ordering::Relaxed);
        let now = now_ns();
        match self.options.role {
            Role::Send { rate } if sending => {
                self.pace.get_or_insert_with(|| Pace::new(rate, now)).due(now).min(BATCH)
            }
            Role::Ping { window } if sending => {
                let lost = now.saturating_sub(self.last_return_ns)
                    > u64::try_from(ECHO_WAIT.as_nanos()).unwrap_or(u64::MAX);
                if lost {
                    self.returned = self.sent;
                    self.last_return_ns = now;
                }
                window.saturating_sub(self.sent.saturating_sub(self.returned)).min(BATCH)
            }
            _ => {
                self.pace = None;
                0
            }
        }
    }

    fn generate(&mut self, due: u64) -> Result<u64> {
        for number in 0..due {
            if !self.send()? {
                return Ok(number);
            }
            if let Some(pace) = &mut self.pace {
                pace.sent();
            }
        }
        Ok(due)
    }

    /// How long there is nothing to do but for what comes. A wire that is full is looked at again soon.
    fn pause(&self, due: u64) -> Duration {
        match &self.pace {
            _ if due > 0 => Duration::from_millis(1),
            Some(pace) => Duration::from_nanos(pace.wait_ns(now_ns())).min(SLEEP_MAX),
            None => SLEEP_MAX,
        }
    }

    /// Sends the next frame to whose turn it is. False if there is no room.
    fn send(&mut self) -> Result<bool> {
        let at = usize::try_from(self.sent % self.next.len().max(1) as u64).unwrap_or(0);
        let Some(to) = self.options.to.get(at).copied() else { return Ok(false) };
        let numbered =
            Numbered { flow: self.options.flow + at as u64, sequence: self.next[at], stamp_ns: now_ns() };
        let (least, most) = self.options.sizes;
        numbered.write(&mut self.frame, to, self.options.from, self.random.usize(least..=most));
        if !stage(self.wire.as_mut(), &self.frame)? {
            return Ok(false);
        }
        self.next[at] += 1;
        self.sent += 1;
        Ok(true)
    }

    fn take(&mut self) -> Result<u64> {
        let mut came = 0;
        while came < 2 * BATCH
            && let Some(frame) = self.wire.inbox().peek()?
        {
            let length = self.wire.inbox().copy_to(&frame, &mut self.inbox);
            if self.options.role == Role::Echo && !self.echo(length)? {
                return Ok(came);
            }
            self.wire.inbox().advance(&frame);
            self.note(length);
            came += 1;
        }
        Ok(came)
    }

    fn note(&mut self, length: usize) {
        let now = now_ns();
        let numbered = self.receiver.take(&self.inbox[..length], now);
        if let Role::Ping { .. } = self.options.role
            && let Some(numbered) = numbered
        {
            self.returned += 1;
            self.last_return_ns = now;
            let latencies = self.shared.latencies.lock();
            latencies
                .unwrap_or_else(PoisonError::into_inner)
                .note(Duration::from_nanos(now.saturating_sub(numbered.stamp_ns)));
        }
    }

    /// Sends what came back: the addresses are no part of what is checked.
    fn echo(&mut self, length: usize) -> Result<bool> {
        if length < 12 {
            return Ok(true);
        }
        let (to, from) = self.inbox[..12].split_at_mut(6);
        to.swap_with_slice(from);
        let staged = stage(self.wire.as_mut(), &self.inbox[..length])?;
        self.sent += u64::from(staged);
        Ok(staged)
    }

    fn tell(&self) {
        self.shared.sent.store(self.sent, Ordering::Relaxed);
        let (received, flows) = self.receiver.progress();
        self.shared.received.store(received, Ordering::Relaxed);
        self.shared.heard.store(flows as u64, Ordering::Relaxed);
    }
}

/// Puts a frame into the outbox. False if there is no room.
fn stage(wire: &mut dyn Wire, frame: &[u8]) -> Result<bool> {
    let outbox = wire.outbox();
    let Some(reservation) = outbox.reserve(frame.len())? else { return Ok(false) };
    outbox.stage_bytes(reservation, frame, &FrameMeta::default())?;
    Ok(true)
}
