//! States of domains by `XEN_DOMCTL_getdomaininfo` and `XEN_SYSCTL_getdomaininfolist`.
//!
//! Both hypercalls demand the interface version of the running hypervisor, so it is found by trying.

use std::mem::size_of;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::hypercall::{Buffer, Privcmd};
use super::sys::{self, DomainInfo, DomainInfoList, Domctl, Sysctl};
use crate::limits::DOMAINS_MAX;
use crate::{DomId, DomainState, Error, PAGE_BYTES, Result};

/// Domains per hypercall.
const BATCH: usize = 256;
/// The argument is in the first page, the list after it.
const LIST_OFFSET: usize = PAGE_BYTES;
const BUFFER_BYTES: usize = LIST_OFFSET + (BATCH * size_of::<DomainInfo>()).next_multiple_of(PAGE_BYTES);

/// The privileged interface with its versions.
#[derive(Debug)]
pub(super) struct XenDomains {
    caller: Mutex<Caller>,
    domctl_version: u32,
    sysctl_version: u32,
}

#[derive(Debug)]
struct Caller {
    privcmd: Privcmd,
    buffer: Buffer,
}

impl XenDomains {
    pub(super) fn open() -> Result<Self> {
        let mut caller = Caller { privcmd: Privcmd::open()?, buffer: Buffer::new(BUFFER_BYTES)? };
        let domctl_version =
            probe("domctl", sys::DOMCTL_VERSIONS, |version| caller.info(version, DomId::DOM0).map(drop))?;
        let sysctl_version =
            probe("sysctl", sys::SYSCTL_VERSIONS, |version| caller.batch(version, 0, 1).map(drop))?;
        Ok(Self { caller: Mutex::new(caller), domctl_version, sysctl_version })
    }

    fn caller(&self) -> MutexGuard<'_, Caller> {
        // A panic in another thread leaves nothing in the buffer that the next call would use.
        self.caller.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first version that the hypervisor does not refuse as unknown (`EACCES`).
fn probe(
    call: &'static str,
    versions: &'static [u32],
    mut attempt: impl FnMut(u32) -> Result<(), Errno>,
) -> Result<u32> {
    for version in versions {
        match attempt(*version) {
            Err(Errno::ACCESS) => {}
            Ok(()) | Err(Errno::SRCH) => return Ok(*version),
            Err(source) => return Err(Error::System { what: call, source }),
        }
    }
    Err(Error::UnknownInterface { call, tried: versions })
}

impl crate::DomainInfo for XenDomains {
    fn get(&self, domid: DomId) -> Result<Option<DomainState>> {
        match self.caller().info(self.domctl_version, domid) {
            // Some versions answer with the next domain that exists.
            Ok(info) => Ok(Some(state(&info)).filter(|state| state.domid == domid)),
            Err(Errno::SRCH) => Ok(None),
            Err(source) => Err(Error::Domain { what: "get the state", domid, source }),
        }
    }

    fn list(&self) -> Result<Vec<DomainState>> {
        let mut caller = self.caller();
        let mut states: Vec<DomainState> = vec![];
        while states.len() < DOMAINS_MAX {
            let first = states.last().map_or(0, |last| last.domid.0.saturating_add(1));
            let batch =
                caller.batch(self.sysctl_version, first, BATCH).map_err(Error::system("list domains"))?;
            states.extend(batch.iter().map(state));
            if batch.len() < BATCH {
                break;
            }
        }
        states.truncate(DOMAINS_MAX);
        Ok(states)
    }
}

impl Caller {
    fn info(&mut self, version: u32, domid: DomId) -> Result<DomainInfo, Errno> {
        let domctl = Domctl {
            cmd: sys::DOMCTL_GETDOMAININFO,
            interface_version: version,
            domain: domid.0,
            pad: [0; 3],
            info: DomainInfo::default(),
            rest: [0; sys::DOMCTL_REST_BYTES],
        };
        self.buffer.put(0, domctl);
        // SAFETY: `domctl` takes the address of such a struct, which is in the buffer and refers to nothing else.
        unsafe { self.privcmd.call(sys::HYPERVISOR_DOMCTL, self.buffer.address(0)) }?;
        // SAFETY: the struct holds integers only.
        Ok(unsafe { self.buffer.get::<Domctl>(0) }.info)
    }

    /// At most `count` domains from `first` on.
    fn batch(&mut self, version: u32, first: u16, count: usize) -> Result<Vec<DomainInfo>, Errno> {
        assert!(count <= BATCH, "the buffer holds a batch");
        let list = DomainInfoList {
            first_domain: first,
            pad: 0,
            max_domains: u32::try_from(count).unwrap_or(u32::MAX),
            buffer: self.buffer.address(LIST_OFFSET),
            num_domains: 0,
            pad2: 0,
        };
        let cmd = sys::SYSCTL_GETDOMAININFOLIST;
        self.buffer
            .put(0, Sysctl { cmd, interface_version: version, list, rest: [0; sys::SYSCTL_REST_BYTES] });
        // SAFETY: `sysctl` takes the address of such a struct; the list it refers to has room for `count` in the buffer.
        unsafe { self.privcmd.call(sys::HYPERVISOR_SYSCTL, self.buffer.address(0)) }?;
        // SAFETY: the struct holds integers only.
        let answer = unsafe { self.buffer.get::<Sysctl>(0) };
        let found = (answer.list.num_domains as usize).min(count);
        let offsets = (0..found).map(|i| LIST_OFFSET + i * size_of::<DomainInfo>());
        // SAFETY: the struct holds integers only.
        Ok(offsets.map(|offset| unsafe { self.buffer.get::<DomainInfo>(offset) }).collect())
    }
}

fn state(info: &DomainInfo) -> DomainState {
    let shutdown = info.flags & sys::DOMINF_SHUTDOWN != 0;
    let reason = info.flags >> sys::DOMINF_SHUTDOWN_SHIFT & u32::from(u8::MAX);
    DomainState {
        domid: DomId(info.domain),
        shutdown,
        shutdown_reason: shutdown.then_some(u8::try_from(reason).unwrap_or(u8::MAX)),
        dying: info.flags & sys::DOMINF_DYING != 0,
        handle: info.handle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_understood() {
        let info = DomainInfo { domain: 5, flags: 3 << 16 | 1 << 2, ..DomainInfo::default() };
        let state = state(&info);
        assert_eq!((state.domid, state.shutdown_reason, state.dying), (DomId(5), Some(3), false));
        let running = DomainInfo { flags: 3 << 16 | 1 << 5 | 1, ..DomainInfo::default() };
        let state = super::state(&running);
        assert_eq!((state.shutdown, state.shutdown_reason, state.dying), (false, None, true));
    }

    #[test]
    fn an_unknown_interface_is_refused_with_what_was_tried() {
        const VERSIONS: &[u32] = &[0x15, 0x16];
        let mut tried = vec![];
        let error = probe("domctl", VERSIONS, |version| {
            tried.push(version);
            Err(Errno::ACCESS)
        });
        assert_eq!(tried, VERSIONS);
        assert!(error.unwrap_err().to_string().contains("0x15"));
        let known =
            probe("domctl", VERSIONS, |version| if version == 0x16 { Ok(()) } else { Err(Errno::ACCESS) });
        assert_eq!(known.unwrap(), 0x16);
        let denied = probe("domctl", VERSIONS, |_| Err(Errno::PERM));
        assert!(matches!(denied, Err(Error::System { source: Errno::PERM, .. })));
    }
}
