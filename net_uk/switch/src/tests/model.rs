//! Random traffic against a model: a list of what was seen where, and the rules as plain conditions on each port.

use proptest::prelude::*;

use super::*;

const AGEING_NS: u64 = 100;

#[derive(Clone, Debug)]
enum Step {
    Add(PortConfig),
    Remove(usize),
    Join(usize, u8),
    Leave(usize, u8),
    Wait(u64),
    Send { port: usize, to: MacAddress, from: MacAddress },
}

/// Few addresses, so that they meet.
fn address() -> impl Strategy<Value = MacAddress> {
    prop_oneof![
        6 => (1..9_u8).prop_map(mac),
        2 => (0..3_u8).prop_map(group),
        1 => Just(MacAddress::BROADCAST),
        1 => Just(MacAddress([1, 0x80, 0xc2, 0, 0, 0])),
        1 => Just(MacAddress([0; 6])),
    ]
}

fn config() -> impl Strategy<Value = PortConfig> {
    let vif = (1..9_u8, any::<[bool; 5]>()).prop_map(|(last, [known, checks, unknown, filters, takes])| {
        PortConfig {
            mac: known.then_some(mac(last)),
            checks_sender: checks && known,
            wants_unknown: unknown,
            filters_multicast: filters,
            takes_over: takes,
            ..PortConfig::vif(mac(last))
        }
    });
    prop_oneof![3 => vif, 1 => Just(PortConfig::nic())]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => config().prop_map(Step::Add),
        1 => (0..6_usize).prop_map(Step::Remove),
        1 => (0..6_usize, 0..3_u8).prop_map(|(port, last)| Step::Join(port, last)),
        1 => (0..6_usize, 0..3_u8).prop_map(|(port, last)| Step::Leave(port, last)),
        1 => (0..60_u64).prop_map(Step::Wait),
        14 => (0..6_usize, address(), address()).prop_map(|(port, to, from)| Step::Send { port, to, from }),
    ]
}

#[derive(Default)]
struct Model {
    ports: Vec<Option<(PortConfig, Vec<MacAddress>)>>,
    /// Latest last.
    seen: Vec<(MacAddress, usize, TimeNs)>,
}

impl Model {
    fn config(&self, port: usize) -> Option<PortConfig> {
        Some(self.ports.get(port)?.as_ref()?.0)
    }

    fn fixed_at(&self, mac: MacAddress) -> Option<usize> {
        (0..self.ports.len()).find(|port| self.config(*port).is_some_and(|config| config.mac == Some(mac)))
    }

    fn at(&self, now: TimeNs, mac: MacAddress) -> Option<usize> {
        let seen = self.seen.iter().find(|(other, ..)| *other == mac);
        let seen = seen.filter(|(.., at)| now.since_ns(*at) < AGEING_NS).map(|(_, port, _)| *port);
        self.fixed_at(mac).or(seen)
    }

    fn see(&mut self, now: TimeNs, port: usize, mac: MacAddress) {
        let config = self.config(port).unwrap();
        let elsewhere = self.at(now, mac).is_some_and(|other| other != port);
        if self.fixed_at(mac).is_some() || (elsewhere && !config.takes_over) {
            return;
        }
        self.seen.retain(|(other, ..)| *other != mac);
        self.seen.push((mac, port, now));
    }

    fn is_dropped(&self, port: usize, to: MacAddress, from: MacAddress) -> bool {
        let config = self.config(port).unwrap();
        let lies = match config.checks_sender {
            true => config.mac != Some(from),
            false => config.kind == PortKind::Vif && self.fixed_at(from).is_some_and(|other| other != port),
        };
        from.is_group() || from == MacAddress([0; 6]) || lies || to.0[..5] == [1, 0x80, 0xc2, 0, 0]
    }

    /// Whether a frame goes out at `out`.
    fn goes_to(&self, now: TimeNs, (port, out): (usize, usize), to: MacAddress) -> bool {
        let (Some(from), Some(Some((config, groups)))) = (self.config(port), self.ports.get(out)) else {
            return false;
        };
        let both_nics = from.kind == PortKind::Nic && config.kind == PortKind::Nic;
        let wanted = match self.at(now, to) {
            _ if to == MacAddress::BROADCAST => true,
            _ if to.is_group() => !config.filters_multicast || groups.contains(&to),
            Some(known) => known == out,
            None => config.kind == PortKind::Nic || config.wants_unknown,
        };
        wanted && port != out && !both_nics
    }

    fn send(&mut self, now: TimeNs, port: usize, to: MacAddress, from: MacAddress) -> Vec<usize> {
        if self.is_dropped(port, to, from) {
            return Vec::new();
        }
        self.see(now, port, from);
        (0..self.ports.len()).filter(|out| self.goes_to(now, (port, *out), to)).collect()
    }

    fn add(&mut self, config: PortConfig) -> Option<usize> {
        if config.mac.is_some_and(|mac| self.fixed_at(mac).is_some()) {
            return None;
        }
        let free = self.ports.iter().position(Option::is_none);
        let port = free.unwrap_or(self.ports.len());
        self.ports.resize(self.ports.len().max(port + 1), None);
        self.ports[port] = Some((config, Vec::new()));
        self.seen.retain(|(mac, ..)| Some(*mac) != config.mac);
        Some(port)
    }

    fn remove(&mut self, port: usize) -> bool {
        self.seen.retain(|(_, at, _)| *at != port);
        self.ports.get_mut(port).and_then(Option::take).is_some()
    }

    fn filter(&mut self, port: usize) -> Option<&mut Vec<MacAddress>> {
        let (config, groups) = self.ports.get_mut(port)?.as_mut()?;
        config.filters_multicast.then_some(groups)
    }
}

fn sent(forward: Result<Forward>) -> Option<Vec<usize>> {
    match forward.ok()? {
        Forward::To(ports) => Some(ports.iter().map(PortId::index).collect()),
        Forward::Dropped(_) => Some(Vec::new()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn it_does_as_the_model(steps in prop::collection::vec(step(), 0..200)) {
        let (mut switch, mut model, mut now) = (Switch::new(AGEING_NS), Model::default(), START);
        for step in steps {
            let id = |port| PortId::new(port).unwrap();
            match step {
                Step::Add(config) => {
                    prop_assert_eq!(switch.add_port(config).ok().map(PortId::index), model.add(config));
                }
                Step::Remove(port) => {
                    prop_assert_eq!(switch.remove_port(id(port)).is_ok(), model.remove(port));
                }
                Step::Join(port, last) => {
                    let filter = model.filter(port);
                    prop_assert_eq!(switch.add_group(id(port), group(last)).is_ok(), filter.is_some());
                    filter.into_iter().for_each(|groups| groups.push(group(last)));
                }
                Step::Leave(port, last) => {
                    let filter = model.filter(port);
                    prop_assert_eq!(switch.remove_group(id(port), group(last)).is_ok(), filter.is_some());
                    filter.into_iter().for_each(|groups| groups.retain(|known| *known != group(last)));
                }
                Step::Wait(ns) => now = TimeNs(now.0 + ns),
                Step::Send { port, to, from } => {
                    let expected = model.config(port).map(|_| model.send(now, port, to, from));
                    let forward = switch.forward(now, id(port), &header(to, from), LENGTH);
                    prop_assert_eq!(sent(forward), expected, "{:?} from {} to {:?}", from, port, to);
                }
            }
        }
    }

    /// Whatever one port sends, where the stations of others are found does not change.
    #[test]
    fn a_hostile_vif_changes_nothing_for_others(
        frames in prop::collection::vec((any::<[u8; 6]>(), any::<[u8; 6]>(), any::<bool>()), 0..500),
    ) {
        let mut rig = Rig::new(3);
        rig.send(rig.nic, mac(1), mac(99));
        let hostile = rig.vifs[2];
        for (to, from, known) in frames {
            let from = if known { mac(from[0] % 100) } else { MacAddress(from) };
            rig.send(hostile, MacAddress(to), from);
        }
        prop_assert_eq!(rig.send(rig.vifs[0], mac(99), mac(1)), to(&[rig.nic]));
        prop_assert_eq!(rig.send(rig.nic, mac(1), mac(99)), to(&[rig.vifs[0]]));
        prop_assert_eq!(rig.send(rig.vifs[0], mac(2), mac(1)), to(&[rig.vifs[1]]));
    }
}
