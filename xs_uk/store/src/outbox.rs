//! What waits to be sent to a client.
//!
//! A client that is far behind needs no event twice, so identical waiting events become one, as with the reference
//! daemon. Each replica does so by itself and at its own time, for replicas differ in what they still hold: the leader
//! forgets what it has queued for the client, followers learn of that later. What makes it safe is that *the last* of
//! identical events stays, under its own ordinal. An event goes only if the same one waits behind it, and that one is
//! delivered by whoever leads then, whether or not a former leader delivered the first. (With the first one kept, a
//! follower might drop an event in favour of one that the client has already: a lost event.) Ordinals are given to all.

use std::collections::{HashSet, VecDeque};

use twox_hash::XxHash3_64;
use xs_protocol::HEADER_BYTES;

use crate::limits::COALESCE_BYTES;

/// What a waiting message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The reply to a logged request.
    Reply,
    /// A watch event.
    Event,
}

/// Capacity above which an empty outbox gives its memory back, in bytes.
const KEEP_BYTES: usize = 64 << 10;

/// Wire-ready messages in order. Each has an ordinal: 1, 2, 3 … for each connection, never used again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    last_ordinal: u64,
    /// All messages, behind `delivered` bytes of ones that are trimmed.
    bytes: Vec<u8>,
    delivered: usize,
    messages: VecDeque<Message>,
    event_bytes: usize,
    /// Event bytes that were left when identical events were last looked for.
    coalesced_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    ordinal: u64,
    kind: Kind,
    len: usize,
    /// A checksum of its bytes, its ordinal and its kind.
    seal: u64,
}

impl Message {
    fn new(ordinal: u64, kind: Kind, bytes: &[u8]) -> Message {
        Message { ordinal, kind, len: bytes.len(), seal: seal(ordinal, kind, bytes) }
    }
}

fn seal(ordinal: u64, kind: Kind, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(ordinal << 1 | u64::from(kind == Kind::Event), bytes)
}

impl Outbox {
    pub fn push(&mut self, kind: Kind, message: &[u8]) {
        self.last_ordinal += 1;
        self.push_as(Message::new(self.last_ordinal, kind, message), message);
        // Each search costs as much as the events that came since the one before.
        if self.event_bytes > COALESCE_BYTES.max(2 * self.coalesced_bytes) {
            self.coalesce();
        }
    }

    /// Drops each event that waits once more further behind. Special events tell of a different domain each time.
    fn coalesce(&mut self) {
        let mut seen = HashSet::new();
        let mut keep: Vec<bool> = Vec::with_capacity(self.messages.len());
        let mut end = self.bytes.len();
        for message in self.messages.iter().rev() {
            let bytes = &self.bytes[end - message.len..end];
            end -= message.len;
            let special = bytes.get(HEADER_BYTES) == Some(&b'@');
            keep.push(message.kind == Kind::Reply || special || seen.insert(bytes));
        }
        let mut keep = keep.into_iter().rev();
        self.retain(|_| keep.next().unwrap_or(true));
        self.coalesced_bytes = self.event_bytes;
    }

    /// What is kept keeps its checksum as well: what was damaged before stays so.
    fn retain(&mut self, mut keep: impl FnMut(&Message) -> bool) {
        let mut kept = Outbox { last_ordinal: self.last_ordinal, ..Outbox::default() };
        for (message, bytes) in self.messages() {
            if keep(message) {
                kept.push_as(*message, bytes);
            }
        }
        *self = kept;
    }

    fn push_as(&mut self, message: Message, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.messages.push_back(message);
        if message.kind == Kind::Event {
            self.event_bytes += message.len;
        }
    }

    pub fn last_ordinal(&self) -> u64 {
        self.last_ordinal
    }

    pub fn event_bytes(&self) -> usize {
        self.event_bytes
    }

    pub fn total_bytes(&self) -> usize {
        self.bytes.len() - self.delivered
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, Kind, &[u8])> {
        self.messages().map(|(message, bytes)| (message.ordinal, message.kind, bytes))
    }

    /// As [`Self::iter`], each with whether it is what was queued.
    pub fn verified(&self) -> impl Iterator<Item = (u64, &[u8], bool)> {
        self.messages().map(|(message, bytes)| {
            (message.ordinal, bytes, seal(message.ordinal, message.kind, bytes) == message.seal)
        })
    }

    fn messages(&self) -> impl Iterator<Item = (&Message, &[u8])> {
        let mut rest = &self.bytes[self.delivered..];
        self.messages.iter().map(move |message| {
            let (head, tail) = rest.split_at(message.len);
            rest = tail;
            (message, head)
        })
    }

    /// Forgets all messages up to an ordinal.
    pub fn trim(&mut self, delivered_ordinal: u64) {
        while let Some(message) = self.messages.front()
            && message.ordinal <= delivered_ordinal
        {
            self.delivered += message.len;
            if message.kind == Kind::Event {
                self.event_bytes -= message.len;
            }
            self.messages.pop_front();
        }
        // Moves what is left only when that is less than what goes.
        if self.delivered * 2 >= self.bytes.len() {
            self.bytes.drain(..self.delivered);
            self.delivered = 0;
        }
        self.coalesced_bytes = self.coalesced_bytes.min(self.event_bytes);
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP_BYTES {
            self.bytes = Vec::new();
        }
    }

    /// Drops events up to an ordinal; replies stay.
    pub fn discard_events(&mut self, up_to: u64) {
        self.retain(|message| message.kind == Kind::Reply || message.ordinal > up_to);
    }

    /// Drops replies; events stay. For a client that was told already that it will get none.
    pub fn discard_replies(&mut self) {
        self.retain(|message| message.kind == Kind::Event);
    }

    /// As [`Self::discard_replies`], but the newest reply stays.
    pub fn discard_older_replies(&mut self) {
        let newest = self.messages.iter().rfind(|message| message.kind == Kind::Reply);
        let newest = newest.map(|message| message.ordinal);
        self.retain(|message| message.kind == Kind::Event || Some(message.ordinal) == newest);
    }

    /// Drops everything; ordinals go on.
    pub fn clear(&mut self) {
        *self = Outbox { last_ordinal: self.last_ordinal, ..Outbox::default() };
    }

    /// For tests: damages a byte.
    #[cfg(test)]
    pub fn flip(&mut self, at: usize) {
        self.bytes[at] ^= 1;
    }

    /// An outbox as it was saved. `None` if the ordinals do not increase up to `last_ordinal`.
    pub fn restore(
        last_ordinal: u64,
        messages: impl Iterator<Item = (u64, Kind, Vec<u8>)>,
    ) -> Option<Outbox> {
        let mut outbox = Outbox { last_ordinal, ..Outbox::default() };
        let mut previous = 0;
        for (ordinal, kind, message) in messages {
            if ordinal <= previous || ordinal > last_ordinal {
                return None;
            }
            previous = ordinal;
            outbox.push_as(Message::new(ordinal, kind, &message), &message);
        }
        Some(outbox)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_newest_reply_and_all_events_stay() {
        let mut outbox = Outbox::default();
        for (kind, message) in
            [(Kind::Reply, b"a"), (Kind::Event, b"b"), (Kind::Reply, b"c"), (Kind::Event, b"d")]
        {
            outbox.push(kind, message);
        }
        outbox.discard_older_replies();
        let kept: Vec<_> = outbox.iter().map(|(ordinal, _, message)| (ordinal, message.to_vec())).collect();
        assert_eq!(kept, [(2, b"b".to_vec()), (3, b"c".to_vec()), (4, b"d".to_vec())]);
        assert_eq!(outbox.last_ordinal(), 4);
    }

    proptest! {
        #[test]
        fn behaves_as_a_list(ops in proptest::collection::vec((0u8..8, 0usize..60), 0..200)) {
            let mut outbox = Outbox::default();
            let mut model: Vec<(u64, Kind, Vec<u8>)> = Vec::new();
            let mut last = 0u64;
            for (op, size) in ops {
                match op {
                    0 => {
                        let up_to = last.saturating_sub(size as u64 / 8);
                        outbox.trim(up_to);
                        model.retain(|(ordinal, ..)| *ordinal > up_to);
                    }
                    1 => {
                        let up_to = last.saturating_sub(size as u64 / 8);
                        outbox.discard_events(up_to);
                        model.retain(|(ordinal, kind, _)| *kind == Kind::Reply || *ordinal > up_to);
                    }
                    _ => {
                        let kind = if op % 2 == 0 { Kind::Event } else { Kind::Reply };
                        last += 1;
                        let message = vec![(last % 251) as u8; size];
                        outbox.push(kind, &message);
                        model.push((last, kind, message));
                    }
                }
                let now: Vec<_> = outbox.iter().map(|(o, k, m)| (o, k, m.to_vec())).collect();
                prop_assert_eq!(&now, &model);
                let events = model.iter().filter(|(_, kind, _)| *kind == Kind::Event);
                prop_assert_eq!(outbox.event_bytes(), events.map(|(_, _, m)| m.len()).sum::<usize>());
            }
            let saved = outbox.iter().map(|(o, k, m)| (o, k, m.to_vec())).collect::<Vec<_>>();
            let restored = Outbox::restore(outbox.last_ordinal(), saved.into_iter()).unwrap();
            prop_assert!(restored.iter().eq(outbox.iter()));
        }
    }

    fn event(path: &str) -> Vec<u8> {
        [&[0; HEADER_BYTES], path.as_bytes()].concat()
    }

    proptest! {
        /// A leader that delivers at any time, and a follower that learns of it late, coalesce at different times.
        /// Whenever the leader dies, the client gets every event at least once after its last occurrence.
        #[test]
        fn replicas_that_coalesce_apart_lose_nothing(
            steps in proptest::collection::vec((0u8..6, 0usize..40), 1..300),
            dies in 0usize..300,
        ) {
            let (mut leader, mut follower) = (Outbox::default(), Outbox::default());
            let mut client: Vec<(u64, Vec<u8>)> = Vec::new();
            let mut last_of: std::collections::BTreeMap<Vec<u8>, u64> = std::collections::BTreeMap::new();
            let mut delivered = 0;
            for (step, (op, number)) in steps.into_iter().enumerate() {
                match (op, step < dies) {
                    (0, true) => {
                        // It delivers some and dies before the follower hears of it, or not.
                        let queued = leader.iter().take(number).map(|(o, _, m)| (o, m.to_vec())).collect::<Vec<_>>();
                        delivered = queued.last().map_or(delivered, |(ordinal, _)| *ordinal);
                        client.extend(queued);
                        leader.trim(delivered);
                    }
                    (1, true) => follower.trim(delivered),
                    (2, true) => leader.coalesce(),
                    (3, true) => follower.coalesce(),
                    (_, true) => {
                        let message = event(&format!("/{number}"));
                        leader.push(Kind::Event, &message);
                        follower.push(Kind::Event, &message);
                        last_of.insert(message, leader.last_ordinal());
                    }
                    _ => {}
                }
                prop_assert_eq!(leader.last_ordinal(), follower.last_ordinal());
            }
            follower.trim(delivered);
            client.extend(follower.iter().map(|(o, _, m)| (o, m.to_vec())));
            prop_assert!(client.is_sorted_by_key(|(ordinal, _)| *ordinal));
            for (message, last) in last_of {
                prop_assert!(client.iter().any(|(ordinal, got)| *got == message && *ordinal >= last));
            }
        }
    }

    #[test]
    fn identical_events_become_one_and_others_stay() {
        let mut outbox = Outbox::default();
        outbox.push(Kind::Reply, &event("/x"));
        for number in 0..2 * COALESCE_BYTES {
            outbox.push(Kind::Event, &event(["/x", "/y"][number % 2]));
        }
        assert!(outbox.event_bytes() <= COALESCE_BYTES + 18, "{}", outbox.event_bytes());
        outbox.coalesce();
        let last = outbox.last_ordinal();
        let left: Vec<_> = outbox.iter().map(|(ordinal, kind, _)| (ordinal, kind)).collect();
        assert_eq!(left, [(1, Kind::Reply), (last - 1, Kind::Event), (last, Kind::Event)]);
        for _ in 0..2 {
            outbox.push(Kind::Event, &event("@releaseDomain"));
        }
        outbox.coalesce();
        assert_eq!(outbox.iter().count(), 5, "each tells of another domain");
    }

    #[test]
    fn a_flipped_bit_is_seen_whatever_happens_to_the_others() {
        let mut outbox = Outbox::default();
        for kind in [Kind::Reply, Kind::Event, Kind::Event, Kind::Reply] {
            outbox.push(kind, b"/path");
        }
        outbox.bytes[7] ^= 4;
        let sound = |outbox: &Outbox| outbox.verified().map(|(_, _, sound)| sound).collect::<Vec<_>>();
        assert_eq!(sound(&outbox), [true, false, true, true]);
        outbox.discard_replies();
        assert_eq!(sound(&outbox), [false, true], "keeping is no repair");
        outbox.messages[1].ordinal ^= 64;
        assert_eq!(sound(&outbox), [false, false]);
    }

    #[test]
    fn ordinals_are_never_used_again() {
        let mut outbox = Outbox::default();
        outbox.push(Kind::Event, b"a");
        outbox.clear();
        outbox.push(Kind::Reply, b"b");
        assert_eq!(outbox.iter().collect::<Vec<_>>(), [(2, Kind::Reply, &b"b"[..])]);
        assert!(Outbox::restore(1, [(2, Kind::Reply, vec![])].into_iter()).is_none());
    }
}
