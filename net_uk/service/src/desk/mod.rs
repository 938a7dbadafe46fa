//! Memory that keeper and vaults share: where they show themselves alive, and what the keeper told last. Version 1.
//!
//! ```text
//! page 0: magic u64, version u32, slots u32; words at 64; the journal's words at 192
//! then the journal's slots
//! ```
//! Whoever has it locked is the keeper. The kernel holds that lock for one process alone and gives it up with its end, so
//! two keepers never act at once, whoever started them.

mod journal;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hypervisor::Region;
use rustix::fs::FlockOperation;

pub use journal::{Journal, Lookup};

use crate::error::Error;
use crate::limits::{CONDEMNED_BYTES_MAX, VAULTS};

const MAGIC: u64 = u64::from_le_bytes(*b"ppvmmdsk");
const VERSION: u32 = 1;
const KEEPER_BEAT: usize = 64;
const VAULT_BEATS: usize = 72;
const GENERATION: usize = 136;
const DEPOSITED: usize = 144;
const FINISHED: usize = 152;
const CONDEMNED: usize = 256;
const CONDEMNED_LENGTH: usize = 264;
const CONDEMNED_WHY: usize = 272;
const HEADER_BYTES: usize = 4096;
const DESK_BYTES: usize = HEADER_BYTES + journal::BYTES;

const _: () = assert!(CONDEMNED_WHY + CONDEMNED_BYTES_MAX <= HEADER_BYTES);
const _: () = assert!(VAULT_BEATS + 8 * VAULTS <= GENERATION);

/// The shared memory.
#[derive(Debug, Clone)]
pub struct Desk {
    region: Arc<Region>,
}

/// As long as it is held nobody else is the keeper.
#[derive(Debug)]
pub struct KeeperLock {
    _file: File,
}

impl Desk {
    /// A new one.
    ///
    /// # Errors
    /// [`Error::Region`].
    pub fn create() -> Result<Self, Error> {
        let region = Region::create("net-desk", DESK_BYTES)?;
        region.u32(8).store(VERSION, Ordering::Relaxed);
        region.u64(0).store(MAGIC, Ordering::Release);
        Ok(Self { region: Arc::new(region) })
    }

    /// One that another process made.
    ///
    /// # Errors
    /// [`Error::Region`], [`Error::StateVersion`].
    pub fn open(fd: OwnedFd) -> Result<Self, Error> {
        let region = Region::open(fd, DESK_BYTES)?;
        let have = (region.u64(0).load(Ordering::Acquire), region.u32(8).load(Ordering::Relaxed));
        if have != (MAGIC, VERSION) {
            return Err(Error::StateVersion { magic: have.0, version: have.1 });
        }
        Ok(Self { region: Arc::new(region) })
    }

    /// Waits until no other process is the keeper.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn lock(&self) -> Result<KeeperLock, Error> {
        // A lock belongs to an open file: a descriptor that others have copies of would not do.
        let path = format!("/proc/self/fd/{}", self.region.as_fd().as_raw_fd());
        let file = File::options().read(true).write(true).open(path)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))
            .map_err(Error::system("flock"))?;
        Ok(KeeperLock { _file: file })
    }

    /// What the keeper told.
    pub fn journal(&self) -> Journal {
        Journal::new(Arc::clone(&self.region), HEADER_BYTES)
    }

    /// The keeper's loop turned.
    pub fn beat_keeper(&self) {
        self.add(KEEPER_BEAT, 1);
    }

    /// How often keepers' loops turned.
    pub fn keeper_beats(&self) -> u64 {
        self.word(KEEPER_BEAT)
    }

    /// A vault's loop turned.
    pub fn beat_vault(&self, number: usize) {
        self.add(vault_beat(number), 1);
    }

    /// How often it turned.
    pub fn vault_beats(&self, number: usize) -> u64 {
        self.word(vault_beat(number))
    }

    /// The number of the next keeper: no two have the same one.
    pub fn next_generation(&self) -> u64 {
        self.add(GENERATION, 1)
    }

    /// All vaults that live have the deposit of this number.
    pub fn set_deposited(&self, sequence: u64) {
        self.region.u64(DEPOSITED).store(sequence, Ordering::SeqCst);
    }

    /// The last deposit that all vaults that lived then have.
    pub fn deposited(&self) -> u64 {
        self.word(DEPOSITED)
    }

    /// A vault is about to kill a keeper. The other one, which may be first to see that it is gone, is to know why.
    pub fn condemn(&self, pid: u32, why: &str) {
        let length = why.len().min(CONDEMNED_BYTES_MAX);
        self.region.write(CONDEMNED_WHY, &why.as_bytes()[..length]);
        self.region.u64(CONDEMNED_LENGTH).store(length as u64, Ordering::SeqCst);
        self.region.u64(CONDEMNED).store(pid.into(), Ordering::SeqCst);
    }

    /// Why a keeper was killed, if a vault did it.
    pub fn condemned(&self, pid: u32) -> Option<String> {
        let length = usize::try_from(self.word(CONDEMNED_LENGTH)).ok()?;
        let mut why = vec![0; length.min(CONDEMNED_BYTES_MAX)];
        self.region.read(CONDEMNED_WHY, &mut why);
        (self.word(CONDEMNED) == u64::from(pid)).then(|| String::from_utf8_lossy(&why).into_owned())
    }

    /// All was stopped in order: no further keeper is to begin.
    pub fn set_finished(&self) {
        self.region.u64(FINISHED).store(1, Ordering::SeqCst);
    }

    /// Was all stopped in order?
    pub fn is_finished(&self) -> bool {
        self.word(FINISHED) != 0
    }

    fn word(&self, at: usize) -> u64 {
        self.region.u64(at).load(Ordering::SeqCst)
    }

    fn add(&self, at: usize, more: u64) -> u64 {
        self.region.u64(at).fetch_add(more, Ordering::SeqCst) + more
    }
}

impl AsFd for Desk {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.region.as_fd()
    }
}

fn vault_beat(number: usize) -> usize {
    assert!(number < VAULTS, "numbers of vaults are checked where they come in");
    VAULT_BEATS + 8 * number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(desk: &Desk) -> Desk {
        Desk::open(desk.as_fd().try_clone_to_owned().unwrap()).unwrap()
    }

    #[test]
    fn one_at_a_time_is_the_keeper() {
        let desk = Desk::create().unwrap();
        let first = desk.lock().unwrap();
        let other = again(&desk);
        let (sender, receiver) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            let lock = other.lock().unwrap();
            sender.send(()).unwrap();
            lock
        });
        assert!(receiver.recv_timeout(std::time::Duration::from_millis(50)).is_err());
        drop(first);
        receiver.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        drop(waiting.join().unwrap());
        desk.lock().unwrap();
    }

    #[test]
    fn words_are_shared_and_apart() {
        let desk = Desk::create().unwrap();
        let other = again(&desk);
        desk.beat_keeper();
        (0..VAULTS).for_each(|number| desk.beat_vault(number));
        desk.beat_vault(VAULTS - 1);
        assert_eq!((other.keeper_beats(), other.vault_beats(0), other.vault_beats(VAULTS - 1)), (1, 1, 2));
        assert_eq!((desk.next_generation(), other.next_generation()), (1, 2));
        assert_eq!(other.condemned(9), None);
        desk.condemn(9, &"ß".repeat(CONDEMNED_BYTES_MAX));
        assert_eq!(other.condemned(9).map(|why| why.len()), Some(CONDEMNED_BYTES_MAX));
        desk.condemn(9, "Hung");
        assert_eq!((other.condemned(9).as_deref(), other.condemned(8)), (Some("Hung"), None));
        desk.set_deposited(7);
        assert!(other.deposited() == 7 && !other.is_finished());
        desk.set_finished();
        assert!(other.is_finished());
    }

    #[test]
    fn memory_of_something_else_is_refused() {
        let region = Region::create("other", DESK_BYTES).unwrap();
        let fd = region.as_fd().try_clone_to_owned().unwrap();
        assert!(matches!(Desk::open(fd), Err(Error::StateVersion { magic: 0, version: 0 })));
    }
}
