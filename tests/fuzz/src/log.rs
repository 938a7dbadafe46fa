//! Arbitrary bytes as entries, snapshots, orders and log memory; and a log under appends, deaths and flipped bits.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use prost::Message;
use xs_consensus::limits::{ENTRY_BYTES_MAX, LOG_HEADER_BYTES};
use xs_consensus::{CURSOR_BYTES, Consensus, Cursor, Embedded, Epoch};
use xs_shm::Region;
use xs_store::{Entry, Store};

use crate::bytes::Bytes;
use crate::limits::STEPS_MAX;
use crate::shell::Shell;

/// One copy: header and room for two of the largest entries, in whole pages.
const HALF_BYTES: usize = LOG_HEADER_BYTES + 2 * ENTRY_BYTES_MAX + 4096;

/// The first byte chooses what the others are.
pub fn log(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    match choice % 6 {
        0 => entry(data),
        1 => snapshot(data),
        2 => orders(data),
        3 => memory(data),
        _ => history(&mut Bytes(data)),
    }
}

fn entry(data: &[u8]) {
    let Ok(entry) = Entry::decode(data) else { return };
    let mut again = Vec::new();
    entry.encode(&mut again);
    assert_eq!(Entry::decode(&again).as_ref(), Ok(&entry));
    let mut shell = Shell::new();
    shell.apply(&entry);
    shell.check();
}

/// A snapshot with some bytes changed: refused, or a store that can be asked things.
fn snapshot(data: &[u8]) {
    if let Ok((_, store)) = Store::from_snapshot(data) {
        let _ = store.check();
    }
    let mut shell = Shell::new();
    shell.request(crate::shell::GUEST, xs_protocol::MessageType::WATCH, 0, b"x\0t\0");
    shell.request(crate::shell::GUEST, xs_protocol::MessageType::TRANSACTION_START, 0, b"\0");
    shell.request(crate::shell::GUEST, xs_protocol::MessageType::WRITE, 1, b"x\0v");
    let mut whole = shell.store.snapshot(shell.index).expect("undamaged");
    let mut bytes = Bytes(data);
    for _ in 0..8 {
        if bytes.is_empty() {
            break;
        }
        let at = bytes.word() as usize % whole.len();
        whole[at] = bytes.byte();
    }
    if let Ok((_, store)) = Store::from_snapshot(&whole) {
        let _ = store.check();
        let _ = store.snapshot(shell.index);
    }
}

fn orders(data: &[u8]) {
    if let Ok(order) = control::ToService::decode(data) {
        assert_eq!(control::ToService::decode(order.encode_to_vec().as_slice()), Ok(order));
    }
    if let Ok(said) = control::FromService::decode(data) {
        assert_eq!(control::FromService::decode(said.encode_to_vec().as_slice()), Ok(said));
    }
    if let Some(cursor) = data.first_chunk::<CURSOR_BYTES>() {
        assert_eq!(Cursor::decode(&Cursor::decode(cursor).encode()), Cursor::decode(cursor));
    }
}

/// Arbitrary memory, read from an arbitrary place: an error or an end, never a panic.
fn memory(data: &[u8]) {
    let region = Region::create("fuzz", 2 * HALF_BYTES).expect("shared memory");
    let (cursor, data) = match data.split_first_chunk::<CURSOR_BYTES>() {
        Some((cursor, rest)) if cursor[0] & 1 == 0 => (Cursor::decode(cursor), rest),
        _ => (Cursor::default(), data),
    };
    let mut bytes = Bytes(data);
    while !bytes.is_empty() {
        let at = bytes.word() as usize % HALF_BYTES;
        let length = usize::from(bytes.byte());
        let piece = bytes.slice(length.min(HALF_BYTES - at));
        region.write(at, piece);
        region.write(HALF_BYTES + at, piece);
    }
    let Ok(mut view) = Embedded::attach(region, cursor) else { return };
    let mut entry = Vec::new();
    for _ in 0..STEPS_MAX {
        match view.next(&mut entry) {
            Ok(Some(_)) => drop(Entry::decode(&entry)),
            _ => break,
        }
    }
    if view.lead(Epoch(7)).is_ok() {
        // Whatever it says, it says it.
        let _ = view.append(b"entry");
        let _ = view.release(&cursor);
        let _ = view.used_bytes();
    }
}

/// What is known of a log.
struct History {
    region: Region,
    leader: Option<Embedded>,
    epoch: u64,
    appended: Vec<Vec<u8>>,
    /// Where the newest snapshot is, and what may be read again from there.
    snapshot: Cursor,
    /// Header words that were damaged. Only users of a word mend it, so a second flip could make it good again, and wrong.
    damaged_words: BTreeSet<usize>,
}

/// Appends, deaths, followers, snapshots, torn writes, flipped bits in one copy: what is read is what was appended.
fn history(bytes: &mut Bytes<'_>) {
    let region = Region::create("fuzz", 2 * HALF_BYTES).expect("shared memory");
    let mut log = History {
        region,
        leader: None,
        epoch: 0,
        appended: Vec::new(),
        snapshot: Cursor::default(),
        damaged_words: BTreeSet::new(),
    };
    let damaged_copy = bytes.below(2);
    for _ in 0..STEPS_MAX / 4 {
        if bytes.is_empty() {
            break;
        }
        match bytes.below(8) {
            0 => log.elect(),
            1 => log.leader = None,
            2..=4 => log.append(bytes),
            5 => log.read(),
            6 => log.flip(damaged_copy, bytes),
            _ => log.keep_snapshot(),
        }
    }
    log.read();
}

impl History {
    fn view(&self, from: Cursor) -> Embedded {
        let fd = self.region.as_fd().try_clone_to_owned().expect("a descriptor");
        let region = Region::open(fd, 2 * HALF_BYTES).expect("mapped again");
        Embedded::attach(region, from).expect("our own log")
    }

    /// Reads from the snapshot to the end.
    fn drain(&self) -> Embedded {
        let mut view = self.view(self.snapshot);
        let mut entry = Vec::new();
        while let Some(index) = view.next(&mut entry).expect("one damaged copy changes nothing") {
            let at = usize::try_from(index.0).expect("small") - 1;
            assert_eq!(self.appended.get(at), Some(&entry), "entry {}", index.0);
        }
        assert_eq!(view.cursor().index.0, self.appended.len() as u64, "nothing that was committed is lost");
        view
    }

    fn read(&self) {
        drop(self.drain());
    }

    fn elect(&mut self) {
        self.epoch += 1;
        let mut leader = self.drain();
        leader.lead(Epoch(self.epoch)).expect("the newest epoch");
        if let Some(old) = self.leader.replace(leader).as_mut() {
            assert!(old.append(b"too late").is_err(), "an old leader is fenced");
        }
    }

    fn append(&mut self, bytes: &mut Bytes<'_>) {
        let length = usize::from(bytes.byte()) * 80;
        let entry = bytes.slice(8).repeat(length / 8);
        let Some(leader) = &mut self.leader else { return };
        if leader.append(&entry).is_ok() {
            self.appended.push(entry);
        }
    }

    /// Damages one copy, each time the same one: its page of words, its entries, or what lies behind them.
    fn flip(&mut self, copy: usize, bytes: &mut Bytes<'_>) {
        // The other copy must be good before this one is damaged again.
        self.read();
        let header = bytes.byte() & 1 == 0;
        let within = bytes.word() as usize;
        let at = if header { within % 32 } else { LOG_HEADER_BYTES + within % 4096 };
        if header && !self.damaged_words.insert(at / 8) {
            return;
        }
        let mut byte = [0];
        self.region.read(copy * HALF_BYTES + at, &mut byte);
        self.region.write(copy * HALF_BYTES + at, &[byte[0] ^ 1 << bytes.below(8)]);
    }

    fn keep_snapshot(&mut self) {
        let cursor = self.drain().cursor();
        if let Some(leader) = &mut self.leader
            && leader.release(&cursor).is_ok()
        {
            self.snapshot = cursor;
        }
    }
}
