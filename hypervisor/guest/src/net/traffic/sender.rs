//! The sender of numbered frames.

use serde::Serialize;

use super::frame::{Numbered, SIZE_MIN_BYTES};
use super::load::Load;
use super::now_ns;
use super::pace::Pace;
use crate::Result;
use crate::limits::{SEND_BATCH, TX_FRAME_BYTES_MAX};
use crate::net::wire::{Gso, GsoKind};
use crate::net::{Mac, Netfront, Sent, TxFrame};

/// Bytes of the largest frame that needs no segments.
const PLAIN_BYTES_MAX: usize = 1514;
/// Payload of a TCP segment with time stamps in a frame of [`PLAIN_BYTES_MAX`] bytes.
const SEGMENT_BYTES: u16 = 1448;

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct SenderOptions {
    /// To whom.
    pub to: Mac,
    /// From whom; the interface's address if `None`.
    pub from: Option<Mac>,
    /// The flow of the first queue; the next queues have the next ones.
    pub flow: u64,
    /// How many, and how large.
    pub load: Load,
    /// Where chance begins.
    pub seed: u64,
}

/// What was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SendReport {
    /// Frames put on rings.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The flow of the first queue.
    pub flow: u64,
    /// Frames by queue: the next number of its flow.
    pub next: Vec<u64>,
    /// How often a ring was full.
    pub full: u64,
    /// Frames that the interface dropped.
    pub dropped: u64,
    /// The longest time between two frames, in nanoseconds.
    pub longest_gap_ns: u64,
}

/// A sender.
#[derive(Debug)]
pub struct Sender {
    options: SenderOptions,
    pace: Pace,
    random: fastrand::Rng,
    frame: Vec<u8>,
    queue: usize,
    last_ns: Option<u64>,
    report: SendReport,
}

impl Sender {
    /// Begins.
    pub fn new(options: SenderOptions) -> Self {
        Self::resume(options, SendReport::default())
    }

    /// Goes on after what was sent before.
    pub fn resume(options: SenderOptions, before: SendReport) -> Self {
        Self {
            options,
            pace: Pace::new(options.load.rate, now_ns()),
            random: fastrand::Rng::with_seed(options.seed),
            frame: vec![],
            queue: 0,
            last_ns: None,
            report: SendReport { flow: options.flow, ..before },
        }
    }

    /// From now on it sends so much.
    pub fn set_load(&mut self, load: Load) {
        self.options.load = load;
        self.pace = Pace::new(load.rate, now_ns());
    }

    /// Sends what is due, at most [`SEND_BATCH`] frames, the queues in turn. Is more due for which there is room?
    ///
    /// # Errors
    /// As [`Netfront::send`].
    pub fn step(&mut self, front: &mut Netfront) -> Result<bool> {
        let due = self.pace.due(now_ns()).min(SEND_BATCH as u64);
        self.report.next.resize(front.queue_count(), 0);
        for _ in 0..due {
            let queues = front.queue_count();
            let Some(queue) = (0..queues).map(|n| (self.queue + n) % queues).find(|n| front.has_room(*n))
            else {
                self.report.full += 1;
                return Ok(false);
            };
            self.queue = queue + 1;
            if !self.send(front, queue)? {
                return Ok(false);
            }
        }
        Ok(due == SEND_BATCH as u64)
    }

    fn send(&mut self, front: &mut Netfront, queue: usize) -> Result<bool> {
        let now_ns = now_ns();
        let numbered = Numbered {
            flow: self.options.flow + queue as u64,
            sequence: self.report.next[queue],
            stamp_ns: now_ns,
        };
        let size = self.size(front);
        let from = self.options.from.unwrap_or_else(|| front.mac());
        numbered.write(&mut self.frame, self.options.to, from, size);
        let gso = Gso { size: SEGMENT_BYTES, kind: GsoKind::TcpV4 };
        let frame = match size > PLAIN_BYTES_MAX {
            true => TxFrame::large(&self.frame, gso),
            false => TxFrame::plain(&self.frame),
        };
        match front.send(queue, &frame)? {
            Sent::Queued => self.count(queue, now_ns),
            Sent::Full => self.report.full += 1,
            Sent::Dropped => {
                self.report.dropped += 1;
                self.pace.sent();
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Linux would cut what the backend does not take.
    fn size(&mut self, front: &Netfront) -> usize {
        let offered = front.offered();
        let most = if offered.sg && offered.gso_tcpv4 { TX_FRAME_BYTES_MAX } else { PLAIN_BYTES_MAX };
        let least = self.options.load.least_bytes.clamp(SIZE_MIN_BYTES, most);
        self.random.usize(least..=self.options.load.most_bytes.clamp(least, most))
    }

    fn count(&mut self, queue: usize, now_ns: u64) {
        self.pace.sent();
        let gap_ns = self.last_ns.replace(now_ns).map_or(0, |last_ns| now_ns.saturating_sub(last_ns));
        let report = &mut self.report;
        report.frames += 1;
        report.bytes += self.frame.len() as u64;
        report.next[queue] += 1;
        report.longest_gap_ns = report.longest_gap_ns.max(gap_ns);
    }

    /// How long until the next frame is due, in nanoseconds; 0 if the ring alone holds it up.
    pub fn wait_ns(&self) -> u64 {
        self.pace.wait_ns(now_ns())
    }

    /// What was sent so far.
    pub fn report(&self) -> &SendReport {
        &self.report
    }
}
