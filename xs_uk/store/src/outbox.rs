//! What waits to be sent to a client.

use std::collections::VecDeque;

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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    ordinal: u64,
    kind: Kind,
    len: usize,
}

impl Outbox {
    pub fn push(&mut self, kind: Kind, message: &[u8]) {
        self.last_ordinal += 1;
        self.push_as(self.last_ordinal, kind, message);
    }

    fn push_as(&mut self, ordinal: u64, kind: Kind, message: &[u8]) {
        self.bytes.extend_from_slice(message);
        self.messages.push_back(Message { ordinal, kind, len: message.len() });
        if kind == Kind::Event {
            self.event_bytes += message.len();
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
        let mut rest = &self.bytes[self.delivered..];
        self.messages.iter().map(move |message| {
            let (head, tail) = rest.split_at(message.len);
            rest = tail;
            (message.ordinal, message.kind, head)
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
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP_BYTES {
            self.bytes = Vec::new();
        }
    }

    /// Drops events up to an ordinal; replies stay.
    pub fn discard_events(&mut self, up_to: u64) {
        let mut kept = Outbox { last_ordinal: self.last_ordinal, ..Outbox::default() };
        for (ordinal, kind, message) in self.iter() {
            if kind == Kind::Reply || ordinal > up_to {
                kept.push_as(ordinal, kind, message);
            }
        }
        *self = kept;
    }

    /// Drops everything; ordinals go on.
    pub fn clear(&mut self) {
        *self = Outbox { last_ordinal: self.last_ordinal, ..Outbox::default() };
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
            outbox.push_as(ordinal, kind, &message);
        }
        Some(outbox)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
