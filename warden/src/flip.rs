//! Bit flips in a replica's memory, on purpose: the replica says where a part of a live node lies, and a bit of it is changed
//! from outside.

use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};

use control::{Locate, Located};
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use crate::ids::ServiceId;
use crate::limits::FLIPS_PENDING_MAX;

/// Which bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlipSpec {
    /// The node.
    pub path: String,
    /// The part of it, as `xs_store::Part` names it.
    pub part: String,
    /// The bit, modulo the part's length.
    pub bit: u64,
}

/// What became of a flip: whom it hit, or why it hit nobody.
pub type Flipped = Result<(ServiceId, u32), String>;

/// Flips that wait for the replica's answer.
#[derive(Debug, Default)]
pub struct Flips {
    last: u64,
    pending: BTreeMap<u64, Pending>,
}

#[derive(Debug)]
struct Pending {
    service: ServiceId,
    pid: u32,
    spec: FlipSpec,
    answer: oneshot::Sender<Flipped>,
}

impl Flips {
    /// Notes a flip; gives the question for the replica. None if too many wait.
    pub fn begin(
        &mut self,
        service: ServiceId,
        pid: u32,
        spec: FlipSpec,
        answer: oneshot::Sender<Flipped>,
    ) -> Option<Locate> {
        // Whoever does not wait any more needs no answer.
        self.pending.retain(|_, pending| !pending.answer.is_closed());
        if self.pending.len() >= FLIPS_PENDING_MAX {
            let _ = answer.send(Err("too many flips wait".to_owned()));
            return None;
        }
        self.last += 1;
        let question = Locate { number: self.last, path: spec.path.clone(), part: spec.part.clone() };
        self.pending.insert(self.last, Pending { service, pid, spec, answer });
        Some(question)
    }

    /// The replica's answer: flips the bit. Gives what happened, in words, if it did.
    pub fn located(&mut self, from: ServiceId, located: Located) -> Option<String> {
        let pending = self.pending.remove(&located.number).filter(|pending| pending.service == from)?;
        let Pending { service, pid, spec, answer } = pending;
        let FlipSpec { path, part, bit } = spec;
        let flipped = match located.address {
            0 => Err(format!("{path} has no {part}")),
            address => flip(pid, address, located.length_bytes, bit).map_err(|error| error.to_string()),
        };
        let done = flipped.is_ok().then(|| format!("flip of bit {bit} of {part} of {path}"));
        // Whoever asked may be gone.
        let _ = answer.send(flipped.map(|()| (service, pid)));
        done
    }
}

fn flip(pid: u32, address: u64, length_bytes: u64, bit: u64) -> Result<(), Errno> {
    let offset = (bit / 8).checked_rem(length_bytes).ok_or(Errno::EINVAL)?;
    let base = usize::try_from(address + offset).map_err(|_| Errno::EINVAL)?;
    let pid = Pid::from_raw(i32::try_from(pid).map_err(|_| Errno::ESRCH)?);
    let place = [RemoteIoVec { base, len: 1 }];
    let mut byte = [0];
    process_vm_readv(pid, &mut [IoSliceMut::new(&mut byte)], &place)?;
    byte[0] ^= 1 << (bit % 8);
    process_vm_writev(pid, &[IoSlice::new(&byte)], &place).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_of_our_own_is_flipped_where_it_lies() {
        let value = vec![0_u8; 4];
        let address = value.as_ptr().addr() as u64;
        flip(std::process::id(), address, 4, 8 * 5 + 2).unwrap();
        assert_eq!(std::hint::black_box(&value)[..], [0, 4, 0, 0]);
        assert_eq!(flip(std::process::id(), address, 0, 1), Err(Errno::EINVAL));
    }

    #[test]
    fn flips_that_wait_are_bounded_and_answered() {
        let mut flips = Flips::default();
        let spec = || FlipSpec { path: "/a".into(), part: "value".into(), bit: 0 };
        let mut waiting: Vec<_> = (0..FLIPS_PENDING_MAX)
            .map(|_| {
                let (answer, answered) = oneshot::channel();
                assert!(flips.begin(ServiceId::Replica(1), 1, spec(), answer).is_some());
                answered
            })
            .collect();
        let (answer, mut refused) = oneshot::channel();
        assert!(flips.begin(ServiceId::Replica(1), 1, spec(), answer).is_none());
        assert!(refused.try_recv().unwrap().is_err());
        let nowhere = Located { number: 1, address: 0, length_bytes: 0 };
        assert_eq!(flips.located(ServiceId::Replica(1), nowhere), None);
        assert_eq!(waiting[0].try_recv().unwrap(), Err("/a has no value".to_owned()));
        waiting.clear();
        let (answer, _answered) = oneshot::channel();
        assert!(flips.begin(ServiceId::Replica(1), 1, spec(), answer).is_some());
    }
}
