//! Examples, one for each rule. Random traffic against a model is in `model`.

mod model;

use super::*;
use crate::limits::*;

const LENGTH: u64 = 60;
const START: TimeNs = TimeNs(0);

fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, last])
}

fn numbered(number: u32) -> MacAddress {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddress([2, 1, a, b, c, d])
}

fn group(last: u8) -> MacAddress {
    MacAddress([1, 0, 0x5e, 0, 0, last])
}

fn header(to: MacAddress, from: MacAddress) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..6].copy_from_slice(&to.0);
    header[6..12].copy_from_slice(&from.0);
    header
}

struct Rig {
    switch: Switch,
    nic: PortId,
    vifs: Vec<PortId>,
}

impl Rig {
    /// A NIC, and vifs with the addresses 1, 2 and so on.
    fn new(vifs: u8) -> Self {
        let mut switch = Switch::new(AGEING_DEFAULT_NS);
        let nic = switch.add_port(PortConfig::nic()).unwrap();
        let vifs = (1..=vifs).map(|n| switch.add_port(PortConfig::vif(mac(n))).unwrap()).collect();
        Self { switch, nic, vifs }
    }

    fn send_at(&mut self, now: TimeNs, port: PortId, to: MacAddress, from: MacAddress) -> Forward {
        self.switch.forward(now, port, &header(to, from), LENGTH).unwrap()
    }

    fn send(&mut self, port: PortId, to: MacAddress, from: MacAddress) -> Forward {
        self.send_at(START, port, to, from)
    }
}

fn to(ports: &[PortId]) -> Forward {
    let mut set = PortSet::EMPTY;
    ports.iter().for_each(|port| set.insert(*port));
    Forward::To(set)
}

#[test]
fn a_fixed_address_is_known_before_its_first_frame() {
    let mut rig = Rig::new(2);
    assert_eq!(rig.send(rig.nic, mac(2), mac(99)), to(&[rig.vifs[1]]));
    assert_eq!(rig.send(rig.vifs[0], mac(2), mac(1)), to(&[rig.vifs[1]]));
}

#[test]
fn unknown_stations_are_sought_at_nics_and_at_vifs_that_want_it() {
    let mut rig = Rig::new(2);
    let bridge = PortConfig { wants_unknown: true, ..PortConfig::vif(mac(50)) };
    let bridge = rig.switch.add_port(bridge).unwrap();
    assert_eq!(rig.send(rig.vifs[0], mac(99), mac(1)), to(&[rig.nic, bridge]));
    assert_eq!(rig.send(rig.nic, mac(98), mac(99)), to(&[bridge]));
    assert_eq!(rig.send(rig.vifs[0], mac(99), mac(1)), to(&[rig.nic]));
    assert_eq!(rig.switch.counters(rig.vifs[0]).unwrap().flooded, 1);
}

#[test]
fn a_broadcast_goes_everywhere_but_back() {
    let mut rig = Rig::new(3);
    let all = to(&[rig.nic, rig.vifs[1], rig.vifs[2]]);
    assert_eq!(rig.send(rig.vifs[0], MacAddress::BROADCAST, mac(1)), all);
}

#[test]
fn nothing_goes_back_or_from_nic_to_nic() {
    let mut rig = Rig::new(0);
    let other = rig.switch.add_port(PortConfig::nic()).unwrap();
    rig.send(rig.nic, mac(9), mac(8));
    rig.send(other, mac(9), mac(7));
    for (port, target) in [(rig.nic, mac(8)), (rig.nic, mac(7)), (rig.nic, MacAddress::BROADCAST)] {
        assert_eq!(rig.send(port, target, mac(6)), Forward::Dropped(DropReason::NoTarget));
    }
    assert_eq!(rig.switch.counters(rig.nic).unwrap().no_target, 4);
}

#[test]
fn frames_that_cannot_be_are_dropped_and_counted() {
    let mut rig = Rig::new(1);
    let short = rig.switch.forward(START, rig.nic, &[0; HEADER_BYTES - 1], 13);
    assert_eq!(short, Ok(Forward::Dropped(DropReason::TooShort)));
    for sender in [MacAddress::BROADCAST, group(1), MacAddress([0; 6])] {
        assert_eq!(rig.send(rig.nic, mac(1), sender), Forward::Dropped(DropReason::BadSender));
    }
    let pause = MacAddress([1, 0x80, 0xc2, 0, 0, 1]);
    assert_eq!(rig.send(rig.vifs[0], pause, mac(1)), Forward::Dropped(DropReason::OfTheLink));
    let counters = rig.switch.counters(rig.nic).unwrap();
    assert_eq!((counters.in_frames, counters.too_short, counters.bad_sender), (4, 1, 3));
    assert_eq!(rig.switch.counters(rig.vifs[0]).unwrap().of_the_link, 1);
}

#[test]
fn a_checked_sender_sends_as_itself_only() {
    let mut rig = Rig::new(1);
    let checked = PortConfig { checks_sender: true, ..PortConfig::vif(mac(50)) };
    let checked = rig.switch.add_port(checked).unwrap();
    assert_eq!(rig.send(checked, mac(1), mac(51)), Forward::Dropped(DropReason::Spoofed));
    assert_eq!(rig.send(checked, mac(1), mac(50)), to(&[rig.vifs[0]]));
}

#[test]
fn a_fixed_address_cannot_be_taken() {
    let mut rig = Rig::new(2);
    assert_eq!(rig.send(rig.vifs[1], MacAddress::BROADCAST, mac(1)), Forward::Dropped(DropReason::Spoofed));
    // It is seen at the NIC while a guest moves here; it stays where it is.
    assert_eq!(rig.send(rig.nic, mac(2), mac(1)), to(&[rig.vifs[1]]));
    assert_eq!(rig.send(rig.vifs[1], mac(1), mac(2)), to(&[rig.vifs[0]]));
    let taken = rig.switch.add_port(PortConfig::vif(mac(1)));
    assert_eq!(taken, Err(SwitchError::AddressTaken { mac: mac(1), port: rig.vifs[0] }));
}

#[test]
fn a_guest_does_not_take_the_gateway_from_the_nic() {
    let mut rig = Rig::new(2);
    let gateway = mac(99);
    rig.send(rig.nic, mac(1), gateway);
    rig.send(rig.vifs[1], mac(1), gateway);
    assert_eq!(rig.send(rig.vifs[0], gateway, mac(1)), to(&[rig.nic]));
    assert_eq!(rig.switch.counters(rig.vifs[1]).unwrap().refused_moves, 1);
    // The NIC takes what a guest learned first.
    let printer = mac(98);
    rig.send(rig.vifs[1], mac(1), printer);
    assert_eq!(rig.send(rig.vifs[0], printer, mac(1)), to(&[rig.vifs[1]]));
    rig.send(rig.nic, mac(1), printer);
    assert_eq!(rig.send(rig.vifs[0], printer, mac(1)), to(&[rig.nic]));
    assert_eq!(rig.switch.counters(rig.nic).unwrap().moved_in, 1);
}

#[test]
fn what_is_learned_ages() {
    let mut rig = Rig::new(2);
    rig.send(rig.nic, mac(1), mac(99));
    let (before, after) = (TimeNs(AGEING_DEFAULT_NS - 1), TimeNs(AGEING_DEFAULT_NS));
    rig.send_at(before, rig.vifs[0], mac(99), mac(1));
    assert_eq!(rig.switch.counters(rig.vifs[0]).unwrap().flooded, 0);
    rig.send_at(after, rig.vifs[0], mac(99), mac(1));
    assert_eq!(rig.switch.counters(rig.vifs[0]).unwrap().flooded, 1);
    // Then another port may have it.
    rig.send_at(after, rig.vifs[1], mac(1), mac(99));
    assert_eq!(rig.send_at(after, rig.vifs[0], mac(99), mac(1)), to(&[rig.vifs[1]]));
}

#[test]
fn a_flood_of_senders_displaces_its_own_only() {
    let mut rig = Rig::new(2);
    rig.send(rig.nic, mac(1), mac(99));
    let (hostile, bound) = (rig.vifs[1], u32::try_from(VIF_ADDRESSES_MAX).unwrap());
    for number in 0..10 * bound {
        rig.send(hostile, MacAddress::BROADCAST, numbered(number));
    }
    assert_eq!(rig.send(rig.vifs[0], mac(99), mac(1)), to(&[rig.nic]));
    assert_eq!(rig.send(rig.vifs[0], mac(2), mac(1)), to(&[hostile]));
    let counters = rig.switch.counters(hostile).unwrap();
    assert_eq!((counters.learned, counters.displaced), (u64::from(10 * bound), u64::from(9 * bound)));
    assert_eq!(rig.send(rig.vifs[0], numbered(9 * bound), mac(1)), to(&[hostile]));
    assert_eq!(rig.send(rig.vifs[0], numbered(9 * bound - 1), mac(1)), to(&[rig.nic]));
}

#[test]
fn a_nic_has_a_bound_too() {
    let mut rig = Rig::new(1);
    let bound = u32::try_from(NIC_ADDRESSES_MAX).unwrap();
    for number in 0..=bound {
        rig.send(rig.nic, mac(1), numbered(number));
    }
    assert_eq!(rig.switch.counters(rig.nic).unwrap().displaced, 1);
}

#[test]
fn groups_go_to_those_that_asked_or_do_not_filter() {
    let mut rig = Rig::new(2);
    let filtering = PortConfig { filters_multicast: true, ..PortConfig::vif(mac(50)) };
    let filtering = rig.switch.add_port(filtering).unwrap();
    assert_eq!(rig.send(rig.vifs[0], group(1), mac(1)), to(&[rig.nic, rig.vifs[1]]));
    rig.switch.add_group(filtering, group(1)).unwrap();
    rig.switch.add_group(filtering, group(1)).unwrap();
    assert_eq!(rig.send(rig.vifs[0], group(1), mac(1)), to(&[rig.nic, rig.vifs[1], filtering]));
    assert_eq!(rig.send(rig.vifs[0], group(2), mac(1)), to(&[rig.nic, rig.vifs[1]]));
    assert_eq!(rig.send(rig.nic, MacAddress::BROADCAST, mac(9)), to(&[rig.vifs[0], rig.vifs[1], filtering]));
    rig.switch.remove_group(filtering, group(1)).unwrap();
    assert_eq!(rig.send(rig.vifs[0], group(1), mac(1)), to(&[rig.nic, rig.vifs[1]]));
}

#[test]
fn filters_are_bounded_and_for_groups() {
    let mut rig = Rig::new(1);
    let filtering = PortConfig { filters_multicast: true, ..PortConfig::vif(mac(50)) };
    let filtering = rig.switch.add_port(filtering).unwrap();
    for last in 0..u8::try_from(MULTICAST_MAX).unwrap() {
        rig.switch.add_group(filtering, group(last)).unwrap();
    }
    let full = rig.switch.add_group(filtering, group(200));
    assert_eq!(full, Err(SwitchError::FilterFull { port: filtering, max: MULTICAST_MAX }));
    assert_eq!(rig.switch.add_group(filtering, mac(1)), Err(SwitchError::NotMulticast(mac(1))));
    assert_eq!(rig.switch.add_group(rig.vifs[0], group(1)), Err(SwitchError::Unfit));
}

#[test]
fn a_port_that_is_gone_left_nothing() {
    let mut rig = Rig::new(2);
    let gone = rig.vifs[1];
    rig.send(gone, mac(1), mac(77));
    let counters = rig.switch.remove_port(gone).unwrap();
    assert_eq!((counters.in_frames, counters.in_bytes), (1, LENGTH));
    assert_eq!(rig.switch.remove_port(gone), Err(SwitchError::NoPort(gone)));
    assert_eq!(rig.switch.forward(START, gone, &header(mac(1), mac(2)), 60), Err(SwitchError::NoPort(gone)));
    for target in [mac(2), mac(77)] {
        assert_eq!(rig.send(rig.vifs[0], target, mac(1)), to(&[rig.nic]));
    }
    assert_eq!(rig.switch.add_port(PortConfig::vif(mac(2))), Ok(gone));
    assert_eq!(rig.switch.counters(gone), Ok(Counters::default()));
}

#[test]
fn ports_are_bounded() {
    let mut switch = Switch::new(AGEING_DEFAULT_NS);
    for number in 0..PORTS_MAX {
        let config = PortConfig::vif(numbered(u32::try_from(number).unwrap()));
        assert_eq!(switch.add_port(config).unwrap().index(), number);
    }
    let full = switch.add_port(PortConfig::nic());
    assert_eq!(full, Err(SwitchError::PortsFull { max: PORTS_MAX }));
    assert_eq!(switch.ports().len(), PORTS_MAX);
    assert!(switch.ports().iter().map(PortId::index).eq(0..PORTS_MAX));
}

#[test]
fn ports_that_make_no_sense_are_refused() {
    let mut switch = Switch::new(AGEING_DEFAULT_NS);
    for config in [
        PortConfig { mac: Some(mac(1)), ..PortConfig::nic() },
        PortConfig { filters_multicast: true, ..PortConfig::nic() },
        PortConfig { wants_unknown: false, ..PortConfig::nic() },
        PortConfig { mac: None, checks_sender: true, ..PortConfig::vif(mac(1)) },
    ] {
        assert_eq!(switch.add_port(config), Err(SwitchError::Unfit));
    }
    assert_eq!(switch.add_port(PortConfig::vif(group(1))), Err(SwitchError::NotAStation(group(1))));
}
