//! Granted pages of simulated domains.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::client::Broker;
use super::memory::{Access, ForeignMemory};
use crate::limits::{GRANT_COPIES_MAX, MEMORIES_CACHED_MAX};
use crate::{
    CopyDirection, DomId, GrantCopy, GrantRef, GrantStatus, Grants, PAGE_BYTES, Page, Refusal, Result,
};

/// Grants to one domain.
pub(super) struct LocalGrants {
    broker: Broker,
    domid: DomId,
    memories: Mutex<BTreeMap<DomId, ForeignMemory>>,
}

impl LocalGrants {
    pub(super) fn new(broker: Broker, domid: DomId) -> Self {
        Self { broker, domid, memories: Mutex::default() }
    }

    fn memories(&self) -> MutexGuard<'_, BTreeMap<DomId, ForeignMemory>> {
        // A cache: a panic elsewhere leaves nothing half-done in it.
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, domid: DomId, act: impl FnOnce(&ForeignMemory) -> T) -> Result<T> {
        let mut memories = self.memories();
        memories.retain(|_, memory| !memory.is_gone());
        if memories.len() >= MEMORIES_CACHED_MAX {
            memories.clear();
        }
        let memory = match memories.entry(domid) {
            Entry::Occupied(cached) => cached.into_mut(),
            Entry::Vacant(place) => place.insert(ForeignMemory::open(self.broker.memory(domid)?)?),
        };
        Ok(act(memory))
    }
}

impl Grants for LocalGrants {
    fn map(&self, domid: DomId, gref: GrantRef) -> Result<Page> {
        self.with(domid, |memory| memory.page(memory.frame(gref, self.domid, Access::Write)?))?
    }

    fn copy(&self, domid: DomId, copies: &mut [GrantCopy<'_>]) -> Result<()> {
        assert!(copies.len() <= GRANT_COPIES_MAX, "callers keep the bound");
        self.with(domid, |memory| {
            for copy in copies {
                copy.status = one(memory, self.domid, copy);
            }
        })
    }
}

fn one(memory: &ForeignMemory, to: DomId, copy: &GrantCopy<'_>) -> GrantStatus {
    let (offset, length) = (usize::from(copy.offset_bytes), usize::from(copy.length_bytes));
    if offset + length > PAGE_BYTES {
        return GrantStatus::BAD_COPY_ARG;
    }
    let access = match copy.direction {
        CopyDirection::FromGuest => Access::Read,
        CopyDirection::ToGuest => Access::Write,
    };
    let frame = match memory.frame(copy.gref, to, access) {
        Ok(frame) => frame,
        Err(Refusal::Denied) => return GrantStatus::PERMISSION_DENIED,
        Err(_) => return GrantStatus::BAD_GREF,
    };
    let place = frame as usize * PAGE_BYTES + offset;
    match copy.direction {
        CopyDirection::FromGuest => memory.memory().copy_to(place, copy.region, copy.region_offset, length),
        CopyDirection::ToGuest => copy.region.copy_to(copy.region_offset, memory.memory(), place, length),
    }
    GrantStatus::OKAY
}
