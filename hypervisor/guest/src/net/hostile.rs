//! What a frontend must not do, for tests of backends.

use std::time::{Duration, Instant};

use hypervisor::local::LocalEvents;
use hypervisor::{EventChannels, PAGE_BYTES};

use super::keys::Mac;
use super::netfront::{NetOptions, Netfront};
use super::queue::Queue;
use super::ring::{FrontRing, REQ_EVENT_OFFSET, REQ_PROD_OFFSET, RSP_EVENT_OFFSET, RSP_PROD_OFFSET};
use super::split::Fragment;
use super::wire::{self, RX_SLOT_BYTES, TX_SLOT_BYTES};
use crate::Result;
use crate::limits::RING_SLOTS;

/// Events for each port in one go.
const STORM_EVENTS: usize = 64;
/// Slots of nonsense in one go.
const NONSENSE_SLOTS: u32 = 32;
/// How long a full ring is kept full in one go.
const FLOOD_TIME: Duration = Duration::from_millis(20);
/// Nobody passes frames to it on (IEEE 802.1Q, table 8-1), so they are done with quickly.
const NOBODY: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0x0f];
const FLOOD_FRAME_BYTES: u16 = 60;

const PAGE_U16_BYTES: u16 = 4096;
const _: () = assert!(PAGE_U16_BYTES as usize == PAGE_BYTES);

/// A way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hostile {
    /// Takes neither responses nor received frames.
    NeverTake,
    /// Writes any numbers over the indices of both rings, the backend's ones too.
    CorruptIndices,
    /// Shows requests of random bytes on both rings.
    RandomRing,
    /// Posts no buffers to receive.
    PostNothing,
    /// Notifies without end.
    EventStorm,
    /// Sends frames of far too many fragments, some of them empty, and some without an end.
    HugeChains,
    /// Keeps its transmit ring full of frames to nobody, faster than they can be taken.
    Flood,
}

impl Hostile {
    /// Changes how an interface is set up.
    pub fn prepare(self, options: &mut NetOptions) {
        match self {
            Self::PostNothing => options.post = false,
            // The frontend's own checks would take its nonsense for the backend's.
            Self::NeverTake | Self::CorruptIndices | Self::RandomRing | Self::Flood => options.take = false,
            Self::EventStorm | Self::HugeChains => {}
        }
    }

    /// Does it again and again, without waiting for events?
    pub fn is_busy(self) -> bool {
        !matches!(self, Self::NeverTake | Self::PostNothing)
    }

    /// Does numbered traffic make sense beside it?
    pub fn allows_traffic(self) -> bool {
        !matches!(self, Self::CorruptIndices | Self::RandomRing | Self::Flood)
    }

    /// Misbehaves once.
    ///
    /// # Errors
    /// If grants are lacking, or the event channel does not work.
    pub fn act(self, front: &mut Netfront, random: &mut fastrand::Rng) -> Result<()> {
        let mac = front.mac();
        let (queues, events) = front.raw();
        for queue in queues {
            match self {
                Self::NeverTake | Self::PostNothing => return Ok(()),
                Self::CorruptIndices => {
                    corrupt(queue.tx.ring(), random);
                    corrupt(queue.rx.ring(), random);
                }
                Self::RandomRing => {
                    nonsense::<TX_SLOT_BYTES>(queue.tx.ring(), random);
                    nonsense::<RX_SLOT_BYTES>(queue.rx.ring(), random);
                }
                Self::HugeChains => chain(queue, random)?,
                Self::EventStorm => {}
                Self::Flood => flood(queue, mac, events)?,
            }
            let times = if self == Self::EventStorm { STORM_EVENTS } else { 1 };
            for port in queue.ports().repeat(times) {
                events.notify(port)?;
            }
        }
        Ok(())
    }
}

fn corrupt(ring: &mut FrontRing, random: &mut fastrand::Rng) {
    let offsets = [REQ_PROD_OFFSET, REQ_EVENT_OFFSET, RSP_PROD_OFFSET, RSP_EVENT_OFFSET];
    let offset = offsets[random.usize(..offsets.len())];
    let near = ring.req_prod().wrapping_add(random.u32(..4 * RING_SLOTS)).wrapping_sub(2 * RING_SLOTS);
    let value = [near, random.u32(..), 0, u32::MAX][random.usize(..4)];
    ring.page().store_u32(offset, value);
}

fn nonsense<const BYTES: usize>(ring: &mut FrontRing, random: &mut fastrand::Rng) {
    let answered = ring.waiting().min(ring.in_flight());
    ring.took(ring.rsp_cons().wrapping_add(answered));
    for _ in 0..random.u32(1..=NONSENSE_SLOTS).min(RING_SLOTS - ring.in_flight()) {
        let mut slot = [0; BYTES];
        random.fill(&mut slot);
        if random.bool() {
            // A grant that may well exist, and few flags.
            let place = if BYTES == TX_SLOT_BYTES { 0 } else { 4 };
            slot[place..place + 4].copy_from_slice(&random.u32(..2048).to_ne_bytes());
        }
        ring.put(&slot);
    }
    ring.push();
}

fn chain(queue: &mut Queue, random: &mut fastrand::Rng) -> Result<()> {
    let (pages, tx) = queue.raw();
    let slots = random.usize(19..=RING_SLOTS as usize).min(tx.room());
    let has_end = random.bool();
    for number in 0..slots {
        let length = if random.u8(..4) == 0 { 0 } else { random.u16(1..=512) };
        let offset = random.u16(..=PAGE_U16_BYTES - length);
        let bytes = vec![0xa5; usize::from(length)];
        let mut request = tx.fragment(pages, Fragment { offset, length }, &bytes)?;
        if number == 0 {
            request.size = random.u16(..);
        }
        if number + 1 < slots || !has_end {
            request.flags |= wire::MORE_DATA;
        }
        tx.put(&request.encode());
    }
    tx.push();
    Ok(())
}

/// Shows the same frame again and again, in each slot as soon as it was answered.
fn flood(queue: &mut Queue, mac: Mac, events: &mut LocalEvents) -> Result<()> {
    let port = queue.ports()[0];
    let (pages, tx) = queue.raw();
    let mut bytes = [0; FLOOD_FRAME_BYTES as usize];
    bytes[..6].copy_from_slice(&NOBODY);
    bytes[6..12].copy_from_slice(&mac.0);
    let request = tx.fragment(pages, Fragment { offset: 0, length: FLOOD_FRAME_BYTES }, &bytes)?;
    let slot = request.encode();
    let began = Instant::now();
    while began.elapsed() < FLOOD_TIME {
        let ring = tx.ring();
        ring.took(ring.rsp_cons().wrapping_add(ring.waiting().min(ring.in_flight())));
        for _ in ring.in_flight()..RING_SLOTS {
            ring.put(&slot);
        }
        if ring.push() {
            events.notify(port)?;
        }
    }
    tx.take_back(pages, request.id);
    Ok(())
}
