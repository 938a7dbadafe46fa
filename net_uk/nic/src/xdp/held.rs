//! The sockets, the memory and the program of a network card over `AF_XDP`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Instant;

use rustix::event::epoll;

use crate::error::{NicError, Result, system as failed};
use crate::limits::{
    LINK_HEADER_BYTES, RING_BYTES_MAX, SEND_BUFFER_BYTES, XDP_BUSY_PAUSE, XDP_BUSY_WAIT, XDP_HEADROOM_BYTES,
    XDP_QUEUES_MAX,
};
use crate::mapping::Mapping;
use crate::spec::NicSpec;
use crate::sys::{self, Interface};
use crate::xdp::book::Book;
use crate::xdp::ring::{Ring, RingKind};
use crate::xdp::{bpf, system};

/// Where all memory lies: notes, then the frames of each queue. The first queue's are followed by those towards the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) rx_slots: u32,
    pub(crate) tx_slots: u32,
    pub(crate) chunk_bytes: usize,
}

impl Layout {
    /// The kernel's rings have a power of two of slots.
    pub(crate) fn new(spec: &NicSpec) -> Self {
        let frame_bytes = spec.mtu_bytes as usize + LINK_HEADER_BYTES + XDP_HEADROOM_BYTES;
        Self {
            rx_slots: spec.rx_slots.next_power_of_two(),
            tx_slots: spec.tx_slots.next_power_of_two(),
            chunk_bytes: frame_bytes.next_power_of_two().max(2048),
        }
    }

    /// Bytes of this many queues.
    pub(crate) fn bytes(&self, spec: &NicSpec, queues: usize) -> Result<u64> {
        let bytes = self.area_at(queues);
        if bytes > RING_BYTES_MAX {
            let reason = "all queues take 512 MiB at most; with queues=N no further one is tried";
            return Err(NicError::Spec { text: spec.to_string(), reason });
        }
        Ok(bytes as u64)
    }

    fn area_bytes(&self, queue: usize) -> usize {
        let tx_slots = if queue == 0 { self.tx_slots } else { 0 };
        (self.rx_slots as usize + tx_slots as usize) * self.chunk_bytes
    }

    /// Where a queue's frames begin; so also the size of all before it.
    fn area_at(&self, queue: usize) -> usize {
        Book::bytes(self.tx_slots) + (0..queue).map(|before| self.area_bytes(before)).sum::<usize>()
    }

    /// Maps the frames of a queue.
    pub(crate) fn map_area(&self, memory: impl AsFd, queue: usize) -> Result<Mapping> {
        Mapping::new(memory, self.area_bytes(queue), self.area_at(queue) as u64)
    }

    /// Where in the first queue's memory a frame towards the device lies.
    pub(crate) fn tx_address(&self, slot: u32) -> usize {
        (self.rx_slots as usize + slot as usize) * self.chunk_bytes
    }

    /// The slot whose frame lies there.
    pub(crate) fn tx_slot_of(&self, address: usize) -> Option<u32> {
        let slot = (address / self.chunk_bytes).checked_sub(self.rx_slots as usize)?;
        u32::try_from(slot).ok().filter(|slot| *slot < self.tx_slots)
    }
}

/// The sockets, the memory and the program.
#[derive(Debug)]
pub struct XdpHeld {
    /// Readable when a socket is.
    poll: OwnedFd,
    memory: OwnedFd,
    map: OwnedFd,
    link: OwnedFd,
    /// A packet socket that receives nothing and knows the device.
    control: OwnedFd,
    tx: OwnedFd,
    rx: Vec<OwnedFd>,
    /// The ring towards the device. The kernel lets nobody map it any more once the device is gone.
    sending: Option<Ring>,
    spec: NicSpec,
}

/// Descriptors besides those of the queues.
const FDS: usize = 6;

impl XdpHeld {
    /// Opens sockets for the queues of an interface, and attaches the program: from then on the host sees none of their
    /// frames. The device is told to take no VLAN tag out of frames and to join no segments: neither could be told from
    /// what comes over the rings.
    ///
    /// # Errors
    /// [`NicError::Spec`], [`NicError::Xdp`] where the kernel or the device cannot, or what else the kernel reports.
    pub fn open(spec: &NicSpec) -> Result<Self> {
        spec.check()?;
        let layout = Layout::new(spec);
        let control = sys::packet_socket().map_err(system::explain("socket"))?;
        let ifindex = sys::interface_number(&control, &spec.interface)?;
        sys::watch_interface(&control, ifindex)?;
        sys::receive_all(&control, ifindex)?;
        leave_frames_alone(Interface::named(&spec.interface), &control)?;
        let ifindex = ifindex.cast_unsigned();
        // Tells at once whether there is AF_XDP.
        drop(system::socket()?);
        let map = bpf::create_map(u32::try_from(XDP_QUEUES_MAX).unwrap_or(u32::MAX))?;
        let link = bpf::attach(bpf::load(&map)?, ifindex, spec.xdp.mode)?;
        let memory = rustix::fs::memfd_create("nic-frames", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(failed("memfd_create"))?;
        let rx = open_queues(spec, layout, &memory, ifindex)?;
        let tx = open_sender(layout, &rx[0], ifindex)?;
        // The last attempt may have been for one that there is not.
        rustix::fs::ftruncate(&memory, layout.bytes(spec, rx.len())?).map_err(failed("ftruncate"))?;
        Book::create(&memory, layout.tx_slots, u32::try_from(rx.len()).unwrap_or(u32::MAX))?;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("epoll_create"))?;
        for (queue, socket) in (0..).zip(&rx) {
            epoll::add(&poll, socket, epoll::EventData::new_u64(queue.into()), epoll::EventFlags::IN)
                .map_err(failed("epoll_ctl"))?;
            bpf::insert(&map, queue, socket)?;
        }
        let sending = Some(Ring::map(&tx, RingKind::Send, layout.tx_slots)?);
        Ok(Self { poll, memory, map, link, control, tx, rx, sending, spec: spec.clone() })
    }

    /// As [`XdpHeld::open`], but waits a while for a device whose former sockets the kernel is still taking down, which it
    /// does some time after they were closed.
    ///
    /// # Errors
    /// As [`XdpHeld::open`].
    pub fn open_waiting(spec: &NicSpec) -> Result<Self> {
        let begin = Instant::now();
        loop {
            match Self::open(spec) {
                Err(error) if error.is_busy() && begin.elapsed() < XDP_BUSY_WAIT => {
                    thread::sleep(XDP_BUSY_PAUSE)
                }
                opened => return opened,
            }
        }
    }

    /// Takes over the descriptors.
    ///
    /// # Errors
    /// [`NicError::Spec`], [`NicError::Descriptors`].
    pub fn from_fds(spec: &NicSpec, mut fds: Vec<OwnedFd>) -> Result<Self> {
        spec.check()?;
        let have = fds.len();
        let wrong = NicError::Descriptors { have, need: FDS + 1 };
        if !(FDS + 1..=FDS + XDP_QUEUES_MAX).contains(&have) {
            return Err(wrong);
        }
        let rx = fds.split_off(FDS);
        let [poll, memory, map, link, control, tx] = <[_; FDS]>::try_from(fds).map_err(|_| wrong)?;
        let sending = Ring::map(&tx, RingKind::Send, Layout::new(spec).tx_slots).ok();
        Ok(Self { poll, memory, map, link, control, tx, rx, sending, spec: spec.clone() })
    }

    /// The descriptors: to poll, of the memory, the map, the link, a packet socket, the socket to send on, and those to
    /// receive on.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let one = [&self.poll, &self.memory, &self.map, &self.link, &self.control, &self.tx];
        one.into_iter().chain(&self.rx).map(AsFd::as_fd).collect()
    }

    /// What it was opened with.
    pub fn spec(&self) -> &NicSpec {
        &self.spec
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout::new(&self.spec)
    }

    pub(crate) fn poll(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }

    pub(crate) fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    pub(crate) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    pub(crate) fn sender(&self) -> BorrowedFd<'_> {
        self.tx.as_fd()
    }

    /// The ring towards the device; none if that was gone before this process began.
    pub(crate) fn sending(&self) -> Option<&Ring> {
        self.sending.as_ref()
    }

    pub(crate) fn receivers(&self) -> &[OwnedFd] {
        &self.rx
    }
}

/// Opens as many queues as were asked for, or as there are.
fn open_queues(spec: &NicSpec, layout: Layout, memory: &OwnedFd, ifindex: u32) -> Result<Vec<OwnedFd>> {
    let wanted = spec.xdp.queues as usize;
    let mut queues = vec![];
    loop {
        if queues.len() == wanted && wanted > 0 {
            return Ok(queues);
        }
        match open_queue(spec, layout, memory, ifindex, queues.len()) {
            // So there is no such queue.
            Err(error) if wanted == 0 && !queues.is_empty() && error.is_invalid() => return Ok(queues),
            Ok(_) if queues.len() == XDP_QUEUES_MAX => {
                return Err(NicError::Spec {
                    text: spec.to_string(),
                    reason: "the device has more than 16 queues; reduce them (ethtool -L) or say how many to serve",
                });
            }
            opened => queues.push(opened?),
        }
    }
}

fn open_queue(
    spec: &NicSpec,
    layout: Layout,
    memory: &OwnedFd,
    ifindex: u32,
    queue: usize,
) -> Result<OwnedFd> {
    rustix::fs::ftruncate(memory, layout.bytes(spec, queue + 1)?).map_err(failed("ftruncate"))?;
    let socket = system::socket()?;
    let area = layout.map_area(memory, queue)?;
    let chunk_bytes = u32::try_from(layout.chunk_bytes).unwrap_or(u32::MAX);
    system::register_memory(&socket, area.place(), chunk_bytes)?;
    system::make_ring(&socket, libc::XDP_UMEM_FILL_RING, layout.rx_slots)?;
    system::make_ring(&socket, libc::XDP_UMEM_COMPLETION_RING, layout.tx_slots)?;
    system::make_ring(&socket, libc::XDP_RX_RING, layout.rx_slots)?;
    let fill = Ring::map(&socket, RingKind::Fill, layout.rx_slots)?;
    for slot in 0..layout.rx_slots {
        fill.set_address(slot, u64::from(slot) * layout.chunk_bytes as u64);
    }
    fill.produce(layout.rx_slots);
    let queue = u32::try_from(queue).unwrap_or(u32::MAX);
    system::bind(&socket, ifindex, queue, spec.xdp.zero_copy)?;
    // Each driver will.
    match Ring::map(&socket, RingKind::Fill, layout.rx_slots) {
        Ok(_) => Ok(socket),
        Err(NicError::System { call, source }) => Err(NicError::Xdp {
            what: "a successor could not map the rings; Linux 6.4 lets it",
            call,
            source,
        }),
        Err(error) => Err(error),
    }
}

fn open_sender(layout: Layout, owner: &OwnedFd, ifindex: u32) -> Result<OwnedFd> {
    let socket = system::socket()?;
    system::make_ring(&socket, libc::XDP_TX_RING, layout.tx_slots)?;
    sys::enlarge_send_buffer(&socket, SEND_BUFFER_BYTES)?;
    system::bind_beside(&socket, ifindex, 0, owner)?;
    Ok(socket)
}

/// Has the device hand over each frame as it came. What it cannot do at all, it need not be told to leave.
fn leave_frames_alone(interface: Interface, control: &OwnedFd) -> Result<()> {
    interface.join_no_frames(control)?;
    let flags = interface.flags(control)?;
    let set = interface.set_flags(control, flags & !sys::ETH_FLAG_RXVLAN);
    if interface.flags(control)? & (sys::ETH_FLAG_RXVLAN | sys::ETH_FLAG_LRO) == 0 {
        return Ok(());
    }
    let source = match set {
        Err(NicError::System { source, .. }) => source,
        _ => std::io::ErrorKind::Unsupported.into(),
    };
    let what = "the device takes VLAN tags out of frames or joins segments, and cannot be told not to";
    Err(NicError::Xdp { what, call: "ETHTOOL_SFLAGS", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(text: &str) -> Layout {
        Layout::new(&text.parse().unwrap())
    }

    #[test]
    fn memory_holds_the_largest_packet_and_is_bounded() {
        for (text, chunk_bytes) in [("xdp:a", 2048), ("xdp:a,mtu=1774", 2048), ("xdp:a,mtu=1775", 4096)] {
            assert_eq!(layout(text).chunk_bytes, chunk_bytes, "{text}");
        }
        let spec = "xdp:a,rx=32768,tx=16".parse().unwrap();
        let layout = Layout::new(&spec);
        assert!(layout.bytes(&spec, 7).is_ok());
        assert!(matches!(layout.bytes(&spec, 8), Err(NicError::Spec { .. })));
    }

    #[test]
    fn every_slot_has_its_memory() {
        let layout = layout("xdp:a,rx=17,tx=16");
        assert_eq!((layout.rx_slots, layout.tx_slots), (32, 16));
        for slot in 0..16 {
            assert_eq!(layout.tx_slot_of(layout.tx_address(slot)), Some(slot));
        }
        assert_eq!((layout.tx_slot_of(31 * 2048), layout.tx_slot_of(48 * 2048)), (None, None));
        assert_eq!(layout.area_at(1) - layout.area_at(0), 48 * 2048);
        assert_eq!(layout.area_at(2) - layout.area_at(1), 32 * 2048);
    }
}
