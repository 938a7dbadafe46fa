//! Attack class E: rings that lie, change under the reader, or go away. Others do not notice.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hypervisor::DomId;
use sim_guest::{Guest, Tx};
use tests::{Stand, message};
use xs_protocol::{MessageType as T, ring};

const WAIT: Duration = Duration::from_secs(10);

/// Another guest and a tool are served, by the same processes.
struct Bystanders {
    guest: Guest,
    processes: Vec<u32>,
    epoch: u64,
}

impl Bystanders {
    fn of(stand: &Stand) -> Self {
        Self { guest: stand.guest().1, processes: stand.processes(), epoch: stand.epoch() }
    }

    fn served(&mut self, stand: &Stand, what: &str) {
        self.guest.write("data/bystander", what.as_bytes()).unwrap_or_else(|error| panic!("{what}: {error}"));
        stand.client().write("/bystander", what).unwrap();
    }

    fn unharmed(mut self, stand: &Stand) {
        self.served(stand, "the end");
        assert_eq!(stand.processes(), self.processes);
        assert_eq!(stand.epoch(), self.epoch);
        stand.check();
    }
}

fn random(seed: &mut u64) -> u32 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    u32::try_from(*seed >> 32).unwrap()
}

/// Writes into a page while the store reads it: indices, requests, lengths, everything.
fn scribble(stand: &Stand, domid: DomId, stop: &AtomicBool, offsets: &[usize]) {
    let page = stand.hypervisor().map_store_page(domid).unwrap();
    let mut seed = 0x0bad_5eed;
    while !stop.load(Ordering::Relaxed) {
        let offset = offsets[random(&mut seed) as usize % offsets.len()];
        let value = match random(&mut seed) % 4 {
            0 => random(&mut seed),
            1 => page.load_u32(offset).wrapping_add(random(&mut seed) % 2048),
            2 => 0,
            _ => page.load_u32(ring::REQ_CONS_OFFSET).wrapping_add(random(&mut seed) % 64),
        };
        page.store_u32(offset, value);
    }
}

/// The values that the store checks change between its look and its use (double fetch).
#[test]
fn a_page_that_changes_while_it_is_read() {
    let stand = Stand::start(&[]);
    let mut bystanders = Bystanders::of(&stand);
    let indices =
        [ring::REQ_PROD_OFFSET, ring::RSP_CONS_OFFSET, ring::REQ_CONS_OFFSET, ring::RSP_PROD_OFFSET];
    let requests: Vec<usize> = (0..ring::RING_BYTES as usize).step_by(4).collect();
    let all: Vec<usize> = (0..2080).step_by(4).collect();
    for (round, offsets) in [&indices[..], &requests, &all].into_iter().cycle().take(9).enumerate() {
        let (domid, mut guest) = stand.guest();
        guest.set_reply_timeout(Duration::from_millis(20));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| scribble(&stand, domid, &stop, offsets));
            for _ in 0..100 {
                // Nonsense, silence and errors are all its own doing.
                let _ = guest.write("data/x", b"value");
                let _ = guest.kick();
                if guest.page().load_u32(ring::ERROR_OFFSET) != 0 {
                    guest.page().store_u32(ring::ERROR_OFFSET, 0);
                    guest.page().store_u32(ring::CONNECTION_OFFSET, ring::RECONNECT);
                }
            }
            bystanders.served(&stand, &format!("round {round}"));
            stop.store(true, Ordering::Relaxed);
        });
        stand.hypervisor().destroy(domid).unwrap();
    }
    bystanders.unharmed(&stand);
}

/// The domain, and its page with it, goes away in the middle of requests.
#[test]
fn a_domain_destroyed_in_the_middle_of_a_request() {
    let stand = Stand::start(&[]);
    let mut bystanders = Bystanders::of(&stand);
    let whole = message(T::WRITE, 1, 0, 8, b"data/x\0v");
    for cut in 0..=whole.len() {
        let (domid, mut guest) = stand.guest();
        guest.watch("data", "t").unwrap();
        let _ = guest.send_raw(&[whole.repeat(20).as_slice(), &whole[..cut]].concat());
        if cut % 2 == 0 {
            stand.hypervisor().destroy(domid).unwrap();
        } else {
            stand.hypervisor().set_dying(domid).unwrap();
        }
        bystanders.served(&stand, &format!("cut {cut}"));
    }
    bystanders.unharmed(&stand);
}

#[test]
fn reconnecting_in_the_middle_of_a_packet() {
    let stand = Stand::start(&[]);
    let bystanders = Bystanders::of(&stand);
    let (_, mut guest) = stand.guest();
    let whole = message(T::WRITE, 1, 0, 8, b"data/x\0v");
    for cut in 0..=whole.len() {
        let tx = guest.transaction_start().unwrap();
        guest.write_in(tx, "data/never", b"v").unwrap();
        guest.send_raw(&whole[..cut]).unwrap();
        assert!(guest.reconnect(WAIT).unwrap());
        // Neither the rest of the packet nor the transaction is there any more.
        guest.write("data/y", &[u8::try_from(cut).unwrap()]).unwrap();
        assert_eq!(guest.read("data/y").unwrap(), [u8::try_from(cut).unwrap()]);
        assert!(guest.request(T::TRANSACTION_END, tx, &[b"T\0"]).is_err());
        assert!(guest.read("data/never").is_err());
    }
    bystanders.unharmed(&stand);
}

/// Event storms of many guests at once, with nothing on their rings.
#[test]
fn storms_of_many_guests() {
    let stand = Stand::start(&[]);
    let mut bystanders = Bystanders::of(&stand);
    let mut storms: Vec<Guest> = (0..4).map(|_| stand.guest().1).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for storm in &mut storms {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    storm.kick().unwrap();
                }
            });
        }
        let began = Instant::now();
        for round in 0..100 {
            bystanders.served(&stand, &round.to_string());
        }
        stop.store(true, Ordering::Relaxed);
        assert!(began.elapsed() < WAIT, "{:?}", began.elapsed());
    });
    for storm in &mut storms {
        storm.request(T::WRITE, Tx::NONE, &[b"data/x\0v"]).unwrap();
    }
    bystanders.unharmed(&stand);
}
