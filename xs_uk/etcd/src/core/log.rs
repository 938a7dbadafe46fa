//! Reading the log: pages from where we are to the end, then a watch from there.

use super::reader::{Broken, Taken};
use super::{Core, Role, Watch};
use crate::batch::Batch;
use crate::call::{Found, KeyValue, Output, Slot};
use crate::limits::{WATCH_PAUSE, WATCH_TIMEOUT};
use crate::manifest::Manifest;

impl Core {
    pub(super) fn hear_page(&mut self, revision: i64, found: &[Found]) {
        let (Some(page), Some(latest)) = (found.first(), found.get(1)) else { return };
        if let Some(kv) = latest.kvs.first() {
            let Some(manifest) = Manifest::decode(&kv.value) else {
                return self.set_broken(Broken::Corrupt { index: 0, what: "manifest of snapshots" });
            };
            if revision >= self.revision {
                self.reader.covered(manifest.newest.index);
                self.manifest = Some(manifest);
            }
        }
        let before = self.reader.fetched.index;
        for kv in &page.kvs {
            match self.take(kv) {
                Ok(Taken::Gap) => return self.set_broken(self.gap()),
                Ok(_) => {}
                Err(broken) => return self.set_broken(broken),
            }
        }
        let news = self.reader.fetched.index > before;
        self.wake |= news;
        if news && !self.behind {
            // The watch ought to have told.
            self.stop_watching();
        }
        self.behind = page.more || std::mem::take(&mut self.expecting);
        self.watch_from = revision + 1;
        self.next_poll = self.now + self.config.poll_interval;
        if !page.more {
            self.reached_end(revision);
        }
    }

    fn reached_end(&mut self, revision: i64) {
        let stale = revision.unsigned_abs() < self.reader.fetched.position;
        if !self.reader.anchored && !stale {
            return self.set_broken(self.gap());
        }
        let Role::CatchingUp { me, fence } = self.role else { return };
        if revision < fence || stale {
            // A page that is older than the claim may lack what was appended before it.
            self.lines.pause(self.now, Slot::Read);
        } else {
            self.end = self.reader.fetched.index;
            self.set_role(Role::Leading { me, fence });
        }
    }

    /// What the entry behind `fetched` is missing for.
    fn gap(&self) -> Broken {
        let index = self.reader.fetched.index.0 + 1;
        if self.manifest.as_ref().is_some_and(|manifest| manifest.floor() >= index) {
            Broken::Overrun { index }
        } else {
            Broken::Corrupt { index, what: "missing" }
        }
    }

    fn take(&mut self, kv: &KeyValue) -> Result<Taken, Broken> {
        let index = self.reader.fetched.index.0 + 1;
        let corrupt = |what| Broken::Corrupt { index, what };
        let batch = Batch::decode(&kv.value, kv.mod_revision.unsigned_abs()).map_err(corrupt)?;
        if self.config.keys.log_index(&kv.key) != Some(batch.behind().index.0) {
            return Err(corrupt("key of a batch"));
        }
        self.reader.take(batch, kv.value.len() as u64)
    }

    pub(super) fn take_watched(&mut self, kvs: Vec<KeyValue>) {
        for kv in kvs {
            if !self.reader.has_room() {
                self.behind = true;
                return self.stop_watching();
            }
            match self.take(&kv) {
                Ok(Taken::Gap) => {
                    // A page tells whether it was let go or lost.
                    self.behind = true;
                    return self.stop_watching();
                }
                Ok(Taken::Next) => self.wake = true,
                Ok(Taken::Old) => {}
                Err(broken) => return self.set_broken(broken),
            }
        }
    }

    pub(super) fn stop_watching(&mut self) {
        if self.watch != Watch::None {
            self.watch = Watch::Stale;
        }
    }

    /// When a watch is to begin.
    pub(super) fn watch_at(&self) -> Option<std::time::Duration> {
        let wanted = self.config.watch
            && self.role == Role::Following
            && self.watch == Watch::None
            && !self.behind
            && self.broken.is_none()
            && self.load.is_none()
            && self.reader.anchored;
        wanted.then_some(self.watch_not_before)
    }

    pub(super) fn watch_ended(&mut self) {
        self.watch = Watch::None;
        self.behind = true;
        self.watch_not_before = self.now + WATCH_PAUSE;
    }

    pub(super) fn poll_watch(&mut self) -> Option<Output> {
        match self.watch {
            Watch::Stale => {
                self.watch = Watch::None;
                Some(Output::Unwatch)
            }
            Watch::None if self.watch_at().is_some_and(|at| at <= self.now) => {
                self.watches += 1;
                self.watch = Watch::Open { id: self.watches };
                let keys = &self.config.keys;
                let revision = self.watch_from;
                // A channel that is made anew, and the call.
                let timeout = WATCH_TIMEOUT.max(4 * self.config.call_timeout);
                let (id, key, end) = (self.watches, keys.log(0), keys.log_end());
                Some(Output::Watch { id, key, end, revision, timeout })
            }
            _ => None,
        }
    }
}
