//! A guest's interface.

use net_switch::PortId;

use super::queue::Queue;
use super::wants::Wants;
use crate::state::Place;

/// Names an interface: its place in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VifId(pub u16);

impl VifId {
    /// Of a place.
    pub fn of_place(place: Place) -> Self {
        Self(u16::try_from(place.0).unwrap_or(u16::MAX))
    }

    /// Its place.
    pub fn place(self) -> Place {
        Place(usize::from(self.0))
    }
}

/// Names a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId {
    /// The interface.
    pub vif: VifId,
    /// The queue's number there.
    pub queue: usize,
}

/// A connected interface.
pub struct Vif {
    /// Its port of the switch.
    pub port: PortId,
    /// What the guest takes.
    pub wants: Wants,
    /// Its queues; one that is being worked on is not there.
    pub queues: Vec<Option<Queue>>,
}

impl Vif {
    /// Which queue gets a frame: the same one for all of a flow.
    pub fn queue_index_for(&self, frame: &[u8]) -> Option<usize> {
        let count = self.queues.len();
        if count <= 1 {
            return (count == 1).then_some(0);
        }
        Some(flow_hash(frame) as usize % count)
    }

    /// Its queues.
    pub fn queues_mut(&mut self) -> impl Iterator<Item = &mut Queue> {
        self.queues.iter_mut().flatten()
    }

    /// See [`Self::queue_index_for`].
    pub fn queue_for(&mut self, frame: &[u8]) -> Option<&mut Queue> {
        let index = self.queue_index_for(frame)?;
        self.queues[index].as_mut()
    }
}

/// A hash over addresses and, of an IP frame, addresses and ports as far as they are where they usually are.
fn flow_hash(frame: &[u8]) -> u32 {
    let end = frame.len().min(54);
    let from_ip = frame.len() >= 14 && matches!(frame[12..14], [0x08, 0x00] | [0x86, 0xdd]);
    // Length, identification and checksum differ within a flow; addresses and ports follow them.
    let key =
        if from_ip && frame[12] == 0x08 { &frame[26.min(end)..38.min(end)] } else { &frame[..end.min(14)] };
    key.iter().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_stays_together_and_flows_spread() {
        let frame = |port: u8, length: usize| {
            let mut frame = vec![0; length];
            frame[12..14].copy_from_slice(&[0x08, 0x00]);
            frame[37] = port;
            frame[17] = u8::try_from(length % 200).unwrap();
            frame
        };
        assert_eq!(flow_hash(&frame(7, 60)), flow_hash(&frame(7, 1514)));
        let spread: std::collections::BTreeSet<_> =
            (0..64).map(|port| flow_hash(&frame(port, 60)) % 4).collect();
        assert_eq!(spread.len(), 4);
        flow_hash(&[]);
        flow_hash(&[0; 13]);
    }
}
