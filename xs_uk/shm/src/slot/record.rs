//! How a slot's positions lie in its header page: two places with checksums, of which the version picks one.

use std::sync::atomic::Ordering;

use twox_hash::XxHash3_64;

use super::layout;
use hypervisor::Region;

const _: () = assert!(8 * RECORD_WORDS <= layout::RECORDS[1] - layout::RECORDS[0]);

/// The positions that change together. See the module's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Bytes consumed from the client.
    pub rx_head: u64,
    /// Bytes received (rings; a socket's is kept by the kernel's count).
    pub rx_tail: u64,
    /// Bytes delivered (rings; a socket's is kept by the kernel's count).
    pub tx_head: u64,
    /// Bytes queued for the client.
    pub tx_tail: u64,
    /// Requests consumed.
    pub seq: u64,
    /// Ordinal of the last outbox item that was queued.
    pub delivered: u64,
    /// Our index into the guest's request ring.
    pub req_cons: u32,
    /// Our index into the guest's response ring.
    pub rsp_prod: u32,
    /// Number of the last request that was answered with an error before its outcome was known; 0 if none was.
    pub refused: u64,
}

const RECORD_WORDS: usize = 8;

/// The record that a version picks, and whether it is whole.
pub(super) fn read_record(region: &Region, base: usize, version: u64) -> (Record, bool) {
    let place = (version & 1) as usize;
    let offset = base + layout::RECORDS[place];
    let w: [u64; RECORD_WORDS] = std::array::from_fn(|i| region.u64(offset + 8 * i).load(Ordering::Relaxed));
    let check = region.u64(base + layout::CHECKS[place]).load(Ordering::Relaxed);
    #[expect(clippy::cast_possible_truncation, reason = "two indices share a word")]
    let record = Record {
        rx_head: w[0],
        rx_tail: w[1],
        tx_head: w[2],
        tx_tail: w[3],
        seq: w[4],
        delivered: w[5],
        req_cons: w[6] as u32,
        rsp_prod: (w[6] >> 32) as u32,
        refused: w[7],
    };
    (record, check == check_of(&w))
}

pub(super) fn write_record(region: &Region, base: usize, version: u64, r: &Record) {
    let place = (version & 1) as usize;
    let indices = u64::from(r.req_cons) | u64::from(r.rsp_prod) << 32;
    let words: [u64; RECORD_WORDS] =
        [r.rx_head, r.rx_tail, r.tx_head, r.tx_tail, r.seq, r.delivered, indices, r.refused];
    for (i, word) in words.into_iter().enumerate() {
        region.u64(base + layout::RECORDS[place] + 8 * i).store(word, Ordering::Relaxed);
    }
    region.u64(base + layout::CHECKS[place]).store(check_of(&words), Ordering::Relaxed);
}

/// The checksum of a record; 0 for one of zeros, which a fresh slot has.
fn check_of(words: &[u64; RECORD_WORDS]) -> u64 {
    let sum = |words: &[u64; RECORD_WORDS]| {
        let mut bytes = [0; 8 * RECORD_WORDS];
        for (slot, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *slot = word.to_le_bytes();
        }
        XxHash3_64::oneshot(&bytes)
    };
    sum(words) ^ sum(&[0; RECORD_WORDS])
}
