//! Watches of one member. Events leave as entries are applied, in order, so a compaction loses none.

use std::collections::BTreeMap;

use etcd_client::proto::{PbEvent, PbResponseHeader, PbWatchResponse};
use tokio::sync::mpsc;
use tonic::Status;

use crate::limits::{EVENTS_PER_RESPONSE_MAX, WATCHERS_MAX};
use crate::range;
use crate::state::State;

const NO_PUT: i32 = 0;
const NO_DELETE: i32 = 1;
/// The watch id of an answer to a request for progress.
const PROGRESS: i64 = -1;

/// What a client wants to hear of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub key: Vec<u8>,
    pub range_end: Vec<u8>,
    pub start_revision: i64,
    pub filters: Vec<i32>,
    pub prev_kv: bool,
    pub watch_id: i64,
}

struct Watcher {
    wanted: Wanted,
    next_revision: i64,
}

pub(crate) type Sender = mpsc::Sender<Result<PbWatchResponse, Status>>;

struct Stream {
    sender: Sender,
    watchers: BTreeMap<i64, Watcher>,
    next_id: i64,
}

/// The open streams of a member.
#[derive(Default)]
pub(crate) struct Streams {
    open: BTreeMap<u64, Stream>,
    next: u64,
}

impl Streams {
    pub fn open(&mut self, sender: Sender) -> u64 {
        self.next += 1;
        self.open.insert(self.next, Stream { sender, watchers: BTreeMap::new(), next_id: 0 });
        self.next
    }

    pub fn close(&mut self, stream: u64) {
        self.open.remove(&stream);
    }

    pub fn clear(&mut self) {
        self.open.clear();
    }

    pub fn create(&mut self, stream: u64, wanted: Wanted, state: &State) {
        self.with(stream, |stream| stream.create(wanted, state));
    }

    pub fn cancel(&mut self, stream: u64, id: i64, state: &State) {
        self.with(stream, |stream| match stream.watchers.remove(&id) {
            Some(_) => stream.send(PbWatchResponse { canceled: true, ..response(state, id) }),
            None => true,
        });
    }

    pub fn progress(&mut self, stream: u64, state: &State) {
        self.with(stream, |stream| stream.send(response(state, PROGRESS)));
    }

    /// Sends what has happened since the last time.
    pub fn pump(&mut self, state: &State) {
        self.open.retain(|_, stream| stream.pump(state));
    }

    fn with(&mut self, id: u64, act: impl FnOnce(&mut Stream) -> bool) {
        if let Some(stream) = self.open.get_mut(&id)
            && !act(stream)
        {
            self.open.remove(&id);
        }
    }
}

impl Stream {
    fn create(&mut self, mut wanted: Wanted, state: &State) -> bool {
        if wanted.key.is_empty() {
            wanted.key = vec![0];
        }
        let id = if wanted.watch_id == 0 { self.free_id() } else { wanted.watch_id };
        let created = PbWatchResponse { created: true, ..response(state, id) };
        if self.watchers.contains_key(&id) || self.watchers.len() >= WATCHERS_MAX {
            let refused = PbWatchResponse { canceled: true, watch_id: PROGRESS, ..created };
            let cancel_reason = "mvcc: duplicate watch ID provided on the WatchStream".to_owned();
            return self.send(PbWatchResponse { cancel_reason, ..refused });
        }
        let start = wanted.start_revision;
        let next_revision = if start > 0 { start } else { state.revision() + 1 };
        self.watchers.insert(id, Watcher { wanted, next_revision });
        self.send(created) && self.pump(state)
    }

    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn pump(&mut self, state: &State) -> bool {
        let mut responses = Vec::new();
        self.watchers.retain(|id, watcher| watcher.pump(*id, state, &mut responses));
        responses.into_iter().all(|response| self.send(response))
    }

    /// False if the client is gone or too far behind.
    fn send(&self, response: PbWatchResponse) -> bool {
        self.sender.try_send(Ok(response)).is_ok()
    }
}

impl Watcher {
    /// False if what it wants was compacted: that was its last response.
    fn pump(&mut self, id: i64, state: &State, responses: &mut Vec<PbWatchResponse>) -> bool {
        if self.next_revision < state.compacted() {
            let compact_revision = state.compacted();
            responses.push(PbWatchResponse { canceled: true, compact_revision, ..response(state, id) });
            return false;
        }
        let mut events: Vec<PbEvent> = Vec::new();
        let mut last = 0;
        for event in state.changes_from(self.next_revision).filter_map(|event| self.wanted.filter(event)) {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            if events.len() >= EVENTS_PER_RESPONSE_MAX && revision > last {
                let events = std::mem::take(&mut events);
                responses.push(PbWatchResponse { events, ..response(state, id) });
            }
            last = revision;
            events.push(event);
        }
        if !events.is_empty() {
            responses.push(PbWatchResponse { events, ..response(state, id) });
        }
        self.next_revision = self.next_revision.max(state.revision() + 1);
        true
    }
}

impl Wanted {
    fn filter(&self, mut event: PbEvent) -> Option<PbEvent> {
        let key = &event.kv.as_ref()?.key;
        let filter = if event.r#type == 0 { NO_PUT } else { NO_DELETE };
        if !range::contains(&self.key, &self.range_end, key) || self.filters.contains(&filter) {
            return None;
        }
        if !self.prev_kv {
            event.prev_kv = None;
        }
        Some(event)
    }
}

fn response(state: &State, watch_id: i64) -> PbWatchResponse {
    let header = PbResponseHeader { revision: state.revision(), ..PbResponseHeader::default() };
    PbWatchResponse { header: Some(header), watch_id, ..PbWatchResponse::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::WATCH_RESPONSES_MAX;

    #[test]
    fn watchers_of_a_stream_are_bounded() {
        let (sender, mut receiver) = mpsc::channel(WATCH_RESPONSES_MAX);
        let (mut streams, state) = (Streams::default(), State::default());
        let stream = streams.open(sender);
        for _ in 0..=WATCHERS_MAX {
            streams.create(stream, Wanted::default(), &state);
        }
        let responses: Vec<PbWatchResponse> =
            std::iter::from_fn(|| receiver.try_recv().ok()).map(Result::unwrap).collect();
        let refused = responses.iter().filter(|response| response.canceled).count();
        assert_eq!((responses.len(), refused), (WATCHERS_MAX + 1, 1));
    }

    #[test]
    fn a_client_that_reads_nothing_loses_its_stream() {
        let (sender, _receiver) = mpsc::channel(WATCH_RESPONSES_MAX);
        let (mut streams, state) = (Streams::default(), State::default());
        let stream = streams.open(sender);
        for _ in 0..WATCH_RESPONSES_MAX {
            streams.progress(stream, &state);
        }
        assert_eq!(streams.open.len(), 1);
        streams.progress(stream, &state);
        assert_eq!(streams.open.len(), 0);
    }
}
