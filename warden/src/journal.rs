//! The kept events, and those who read them as they come.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use api::v1;
use tokio::sync::broadcast;

use crate::event::{Event, Severity};
use crate::ids::{ServiceId, TimeUs};
use crate::limits::{EVENTS_BEHIND_MAX, EVENTS_KEPT_MAX};
use crate::metrics::Metrics;

/// A bounded ring of events. A slow reader misses events and is told how many; nobody ever waits for it.
#[derive(Debug)]
pub struct Journal {
    inner: Mutex<Inner>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Inner {
    kept: VecDeque<v1::Event>,
    last_id: u64,
    readers: Option<broadcast::Sender<v1::Event>>,
    /// [`api::clock_us`] at the warden's start.
    started_us: u64,
}

impl Default for Journal {
    fn default() -> Self {
        Self::after(0, 0)
    }
}

impl Journal {
    /// The numbers go on from those of an earlier warden; times are told as they passed since [`api::clock_us`] was
    /// `started_us`.
    pub fn after(last_id: u64, started_us: u64) -> Self {
        let readers = Some(broadcast::Sender::new(EVENTS_BEHIND_MAX));
        let inner = Mutex::new(Inner { kept: VecDeque::new(), last_id, readers, started_us });
        Self { inner, metrics: Metrics::default() }
    }

    /// The newest event's number.
    pub fn last_id(&self) -> u64 {
        self.lock().last_id
    }

    /// What was counted of the events.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Numbers an event, keeps it, counts it, hands it to the readers and logs it.
    pub fn record(&self, now: TimeUs, event: &Event) {
        let mut inner = self.lock();
        inner.last_id += 1;
        let event = to_api(inner.last_id, now, inner.started_us, event);
        if inner.kept.len() == EVENTS_KEPT_MAX {
            inner.kept.pop_front();
        }
        inner.kept.push_back(event.clone());
        self.metrics.observe(&event);
        log(&event);
        if let Some(readers) = &inner.readers {
            // No reader is no error.
            let _ = readers.send(event);
        }
    }

    /// The last `replay` events, and all that follow them without a gap; none follow after [`Journal::close`].
    pub fn subscribe(&self, replay: usize) -> (Vec<v1::Event>, Option<broadcast::Receiver<v1::Event>>) {
        let inner = self.lock();
        let skipped = inner.kept.len().saturating_sub(replay);
        let replayed = inner.kept.iter().skip(skipped).cloned().collect();
        (replayed, inner.readers.as_ref().map(broadcast::Sender::subscribe))
    }

    /// Ends all readers' streams.
    pub fn close(&self) {
        self.lock().readers = None;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change leaves the journal valid at each step, so a panic elsewhere does not spoil it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unix time in milliseconds, for people; nothing is decided by it.
pub fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn to_api(id: u64, now: TimeUs, started_us: u64, event: &Event) -> v1::Event {
    v1::Event {
        id,
        time_ms: unix_ms(),
        monotonic_us: now.0,
        clock_us: started_us + now.0,
        severity: match event.severity {
            Severity::Info => v1::Severity::Info,
            Severity::Warning => v1::Severity::Warning,
            Severity::Error => v1::Severity::Error,
        }
        .into(),
        kind: event.kind.as_str().to_owned(),
        service: event.service.map_or_else(|| "warden".to_owned(), |service| service.to_string()),
        replica: event.service.and_then(ServiceId::replica),
        pid: event.pid,
        incarnation: event.incarnation,
        cause: event.cause.clone().unwrap_or_default(),
        epoch: event.epoch,
        detect_us: event.detect_us,
        recover_us: event.recover_us,
        takeover_us: event.takeover_us,
        detail: event.detail.clone(),
    }
}

fn log(event: &v1::Event) {
    macro_rules! line {
        ($macro:ident) => {
            tracing::$macro!(
                id = event.id,
                kind = event.kind,
                service = event.service,
                pid = event.pid,
                incarnation = event.incarnation,
                cause = (!event.cause.is_empty()).then_some(event.cause.as_str()),
                epoch = event.epoch,
                detect_us = event.detect_us,
                recover_us = event.recover_us,
                takeover_us = event.takeover_us,
                "{}",
                event.detail
            )
        };
    }
    match event.severity() {
        v1::Severity::Info => line!(info),
        v1::Severity::Warning => line!(warn),
        v1::Severity::Error => line!(error),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::{RecvError, TryRecvError};

    use super::*;
    use crate::event::Kind;

    fn record(journal: &Journal, count: usize) {
        for _ in 0..count {
            journal.record(TimeUs(1), &Event::new(Severity::Info, Kind::Stopping));
        }
    }

    #[test]
    fn the_bound_on_kept_events_is_reached_and_the_newest_stay() {
        let journal = Journal::default();
        record(&journal, EVENTS_KEPT_MAX + 3);
        let (all, _) = journal.subscribe(usize::MAX);
        assert_eq!((all.len(), all[0].id), (EVENTS_KEPT_MAX, 4));
        let (two, _) = journal.subscribe(2);
        assert_eq!(two.iter().map(|event| event.id).collect::<Vec<_>>(), [4098, 4099]);
    }

    #[test]
    fn events_are_dated_by_the_clock_of_the_host() {
        let began = api::clock_us();
        let journal = Journal::after(7, began);
        journal.record(TimeUs(5), &Event::new(Severity::Info, Kind::Stopping));
        let (all, _) = journal.subscribe(1);
        assert_eq!((all[0].id, all[0].clock_us), (8, began + 5));
        assert!(api::clock_us() >= began);
    }

    #[test]
    fn what_follows_a_replay_follows_without_a_gap() {
        let journal = Journal::default();
        record(&journal, 2);
        let (replayed, follow) = journal.subscribe(1);
        record(&journal, 1);
        let mut follow = follow.unwrap();
        assert_eq!((replayed[0].id, follow.try_recv().unwrap().id), (2, 3));
        assert_eq!(follow.try_recv(), Err(TryRecvError::Empty));
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_how_much_it_missed() {
        let journal = Journal::default();
        let (_, follow) = journal.subscribe(0);
        record(&journal, EVENTS_BEHIND_MAX + 5);
        let mut follow = follow.unwrap();
        assert_eq!(follow.recv().await, Err(RecvError::Lagged(5)));
        assert_eq!(follow.recv().await.unwrap().id, 6);
    }

    #[tokio::test]
    async fn closing_ends_the_readers() {
        let journal = Journal::default();
        let (_, follow) = journal.subscribe(0);
        journal.close();
        assert_eq!(follow.unwrap().recv().await, Err(RecvError::Closed));
        assert!(journal.subscribe(0).1.is_none());
    }
}
