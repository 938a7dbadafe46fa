//! Where the status comes from.

use std::time::{SystemTime, UNIX_EPOCH};

use api::v1;
use control::proc::rss_bytes;
use lane::{FrameRing, Lane};
use net_watch::detector::DeviceReport;
use net_watch::ladder;
use netif::MacAddr;

use crate::desk::{Journal, Lookup};
use crate::driver::device_report;
use crate::events::Event;
use crate::state::State;

/// What the keeper knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The shadow and all drivers work.
    pub serving: bool,
    /// The shadow, drivers, the keeper, vaults.
    pub processes: Vec<ProcessView>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessView {
    /// Its part's name.
    pub name: String,
    /// 0 if there is none.
    pub pid: u32,
    /// What it does.
    pub state: ladder::State,
    /// Which start of it; 0 if that is not counted.
    pub incarnation: u64,
    /// Failures in a row.
    pub strikes: u32,
}

/// Puts the status together when it is asked for.
#[derive(Debug)]
pub struct Source {
    /// `xen` or `local`.
    pub profile: String,
    /// Which keeper it is.
    pub generation: u64,
    /// Faults may be injected.
    pub injection: bool,
    /// Unix time of its start in milliseconds.
    pub since_ms: i64,
    /// The shadow's state.
    pub state: State,
    /// The cards' specifications and lanes.
    pub cards: Vec<(String, Lane)>,
    /// The last events.
    pub journal: Journal,
}

impl Source {
    /// The status at this moment.
    pub fn now(&self, view: &View) -> v1::NetStatusResponse {
        let last = self.last_events();
        v1::NetStatusResponse {
            profile: self.profile.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            keeper_number: self.generation,
            since_ms: self.since_ms,
            injection_enabled: self.injection,
            serving: view.serving,
            last_event: self.journal.last(),
            processes: view.processes.iter().map(|process| self.process(process, &last)).collect(),
            cards: (0..).zip(&self.cards).map(|(number, (spec, lane))| card(number, spec, lane)).collect(),
            interfaces: self
                .state
                .connected()
                .map(|(place, record)| v1::NetInterface {
                    domid: record.domid.into(),
                    handle: record.handle,
                    mac: MacAddr(record.mac).to_string(),
                    queues: (0..record.queues.len())
                        .filter_map(|number| queue(number, self.state.queue(place, number).ok()?))
                        .collect(),
                })
                .collect(),
        }
    }

    /// All events that are kept, the newest first.
    fn last_events(&self) -> Vec<Event> {
        let numbers = (self.journal.oldest()..=self.journal.last()).rev();
        numbers
            .filter_map(|number| match self.journal.read(number) {
                Lookup::Found(bytes) => prost::Message::decode(&bytes[..]).ok(),
                Lookup::Gone | Lookup::NotYet => None,
            })
            .collect()
    }

    fn process(&self, process: &ProcessView, last: &[Event]) -> v1::NetProcess {
        let of_it = |kinds: &[&str]| {
            last.iter().find(|event| event.part == process.name && kinds.contains(&event.kind.as_str()))
        };
        let death = of_it(&["ended", "condemned"]);
        let start = of_it(&["started"]).filter(|event| event.pid == Some(process.pid));
        let counted = match process.name.as_str() {
            "keeper" => self.generation,
            _ => process.incarnation,
        };
        v1::NetProcess {
            name: process.name.clone(),
            pid: process.pid,
            state: state_of(process.state).into(),
            incarnation: counted,
            restarts: counted.saturating_sub(1),
            strikes: process.strikes,
            last_death: death.map(|event| event.detail.clone()).unwrap_or_default(),
            since_ms: start.map_or(0, |event| i64::try_from(event.at_us / 1000).unwrap_or(0)),
            rss_bytes: rss_bytes(process.pid),
        }
    }
}

/// The Unix time in milliseconds.
pub fn unix_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

fn card(number: u32, spec: &str, lane: &Lane) -> v1::NetCard {
    let words = lane.words();
    let counts = words.counts();
    let device = match device_report(&words) {
        DeviceReport::Fine => "fine",
        DeviceReport::RingFull => "full",
        DeviceReport::LinkDown => "down",
    };
    v1::NetCard {
        number,
        spec: spec.to_owned(),
        device: device.to_owned(),
        tx_frames: counts.tx_frames,
        tx_bytes: counts.tx_bytes,
        rx_frames: counts.rx_frames,
        rx_bytes: counts.rx_bytes,
        tx_waiting_slots: waiting(lane.tx()),
        rx_waiting_slots: waiting(lane.rx()),
        tx_damaged: counts.tx_damaged,
        rx_damaged: lane.rx_damaged(),
        rx_dropped: counts.rx_dropped,
        tx_refused: counts.tx_refused,
        rx_refused: counts.rx_refused,
    }
}

/// Both ends move on meanwhile: what was taken is read first.
fn waiting(ring: &FrameRing) -> u32 {
    let taken = ring.consumed().slots;
    ring.produced().slots.wrapping_sub(taken).min(ring.slots())
}

fn queue(number: usize, memory: crate::state::QueueMemory) -> Option<v1::NetQueue> {
    let counts = memory.counts;
    Some(v1::NetQueue {
        number: u32::try_from(number).ok()?,
        tx_frames: counts.tx_frames.get(),
        tx_bytes: counts.tx_bytes.get(),
        tx_errors: counts.tx_errors.get(),
        rx_frames: counts.rx_frames.get(),
        rx_bytes: counts.rx_bytes.get(),
        rx_errors: counts.rx_errors.get(),
        rx_overflow: counts.rx_overflow.get(),
        backlog_slots: waiting(&memory.backlog),
    })
}

fn state_of(state: ladder::State) -> v1::NetState {
    match state {
        ladder::State::Down => v1::NetState::Down,
        ladder::State::Starting => v1::NetState::Starting,
        ladder::State::Running => v1::NetState::Running,
        ladder::State::Fencing => v1::NetState::Fencing,
        ladder::State::Resetting => v1::NetState::Resetting,
        ladder::State::GivenUp => v1::NetState::GivenUp,
    }
}
