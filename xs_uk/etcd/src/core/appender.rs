//! The leader's own entries: queue, batch, the one append that is under way.

use std::collections::VecDeque;
use std::time::Duration;

use xs_consensus::{Cursor, Epoch};

use crate::batch::Batch;
use crate::call::{Op, Request};
use crate::keys::Keys;
use crate::limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX};

/// A batch that was handed to etcd and whose fate is open.
#[derive(Debug)]
pub(super) struct InFlight {
    pub batch: Batch,
    pub value: Vec<u8>,
    /// When it was first sent.
    pub since: Duration,
}

/// An entry that waits.
#[derive(Debug)]
pub(super) struct Queued {
    pub entry: Vec<u8>,
    pub epoch: Epoch,
    /// The chain's value behind it, if it is known already.
    pub hash: Option<[u8; 32]>,
}

/// Entries between `append` and commit.
#[derive(Debug, Default)]
pub(super) struct Appender {
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    pub in_flight: Option<InFlight>,
    /// Since when something waits while nothing was committed.
    pub waiting_since: Option<Duration>,
}

impl Appender {
    pub fn push(&mut self, queued: Queued) {
        self.queued_bytes += queued.entry.len();
        self.queue.push_back(queued);
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_none()
    }

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.as_ref().map_or(0, |flight| flight.batch.entries.len())
    }

    /// Bytes that wait or are under way.
    pub fn bytes(&self) -> usize {
        let flying = self.in_flight.as_ref().map_or(0, |flight| flight.value.len());
        self.queued_bytes + flying
    }

    /// The batch under way, or the next one made from the queue behind `before`.
    ///
    /// # Panics
    /// If memory was damaged: what would be sent does not have the chain's value that it is to have. It would be etcd's
    /// for good.
    pub fn flight(&mut self, now: Duration, before: Cursor) -> &InFlight {
        if self.in_flight.is_none() {
            let epoch = self.queue.front().map_or(Epoch(0), |queued| queued.epoch);
            let (entries, hash) = self.take(epoch);
            let batch = Batch::build(epoch, before, entries);
            let value = batch.encode();
            let expected = hash.unwrap_or_else(|| batch.behind().hash);
            let sent = Batch::decode(&value, before.position).map(|sent| sent.behind().hash);
            assert!(sent == Ok(expected), "a batch differs from the log: memory is damaged");
            self.in_flight = Some(InFlight { batch, value, since: now });
        }
        self.in_flight.as_ref().expect("just filled")
    }

    /// A batch has one epoch, because the chain covers it.
    fn take(&mut self, batch_epoch: Epoch) -> (Vec<Vec<u8>>, Option<[u8; 32]>) {
        let (mut entries, mut bytes, mut behind) = (Vec::new(), 0, None);
        while let Some(Queued { entry, epoch, hash }) = self.queue.front() {
            bytes += entry.len();
            let full = entries.len() == BATCH_ENTRIES_MAX || (bytes > BATCH_BYTES_MAX && !entries.is_empty());
            if full || *epoch != batch_epoch {
                break;
            }
            self.queued_bytes -= entry.len();
            behind = *hash;
            entries.extend(self.queue.pop_front().map(|queued| queued.entry));
        }
        (entries, behind)
    }
}

/// The append itself. If it does not hold, the answer tells why: the leader key, then the batch's key.
pub(super) fn request(keys: &Keys, fence: i64, flight: &InFlight) -> Request {
    let key = keys.log(flight.batch.behind().index.0);
    Request::Txn {
        compare: vec![(keys.leader(), fence), (key.clone(), 0)],
        then: vec![Op::Put { key: key.clone(), value: flight.value.clone() }],
        otherwise: vec![Op::get(keys.leader()), Op::get(key)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Queued {
        fn of(entry: Vec<u8>, epoch: u64) -> Self {
            Self { entry, epoch: Epoch(epoch), hash: None }
        }
    }

    #[test]
    fn batches_keep_their_bounds() {
        let mut appender = Appender::default();
        for i in 0..BATCH_ENTRIES_MAX + 1 {
            appender.push(Queued::of(vec![0; usize::from(i == 0)], 1));
        }
        assert_eq!(appender.flight(Duration::ZERO, Cursor::default()).batch.entries.len(), BATCH_ENTRIES_MAX);
        assert_eq!((appender.queued(), appender.in_flight()), (1, BATCH_ENTRIES_MAX));
        let mut appender = Appender::default();
        for _ in 0..9 {
            appender.push(Queued::of(vec![0; BATCH_BYTES_MAX / 8], 1));
        }
        assert_eq!(appender.flight(Duration::ZERO, Cursor::default()).batch.entries.len(), 8);
        assert_eq!(appender.queued_bytes, BATCH_BYTES_MAX / 8);
    }
    #[test]
    fn a_batch_has_one_epoch() {
        let mut appender = Appender::default();
        for epoch in [1, 1, 2] {
            appender.push(Queued::of(vec![7], epoch));
        }
        let first = appender.flight(Duration::ZERO, Cursor::default()).batch.clone();
        assert_eq!((first.epoch, first.entries.len()), (Epoch(1), 2));
        appender.in_flight = None;
        let second = &appender.flight(Duration::ZERO, first.behind()).batch;
        assert_eq!((second.epoch, second.entries.len()), (Epoch(2), 1));
    }
    #[test]
    #[should_panic(expected = "memory is damaged")]
    fn a_batch_that_is_not_the_logs_is_not_sent() {
        let mut appender = Appender::default();
        let right = Batch::build(Epoch(1), Cursor::default(), [vec![7]]).behind().hash;
        appender.push(Queued { hash: Some(right), ..Queued::of(vec![7 ^ 4], 1) });
        appender.flight(Duration::ZERO, Cursor::default());
    }
}
