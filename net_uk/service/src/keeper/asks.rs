//! What others ask of the keeper over gRPC, and what it shows them.

use net_watch::ladder::{NicId, Part, State};
use rustix::process::Signal;

use super::Keeper;
use crate::driver::Fault;
use crate::events::part_name;
use crate::fate::Fate;
use crate::rpc::{ProcessView, Source, View};
use crate::wire::{Misbehave, Order};

/// Whether a target can be harmed so: by a signal, or in a way that its kind of process knows.
pub(crate) fn is_fault(target: &str, fault: &str) -> bool {
    let signal = signal_of(fault).is_some();
    match parse_part(target) {
        Some(Part::Shadow) => signal || Fate::default().arm(fault).is_ok(),
        Some(Part::Driver(_)) => signal || fault.parse::<Fault>().is_ok(),
        None => signal && (target == "keeper" || parse_vault(target).is_some()),
    }
}

/// A part by its name.
pub(super) fn parse_part(name: &str) -> Option<Part> {
    match name.strip_prefix("driver.") {
        None => (name == "shadow").then_some(Part::Shadow),
        Some(number) => Some(Part::Driver(NicId(number.parse().ok()?))),
    }
}

fn parse_vault(name: &str) -> Option<usize> {
    name.strip_prefix("vault.")?.parse().ok()
}

fn signal_of(fault: &str) -> Option<Signal> {
    match fault {
        "kill" => Some(Signal::KILL),
        "stop" => Some(Signal::STOP),
        "cont" => Some(Signal::CONT),
        _ => None,
    }
}

impl Keeper {
    /// Does what was asked for.
    pub(super) fn answer(&mut self) {
        for ask in self.rpc.asked() {
            let hit = self.harm(&ask.target, &ask.fault);
            // Whoever asked may be gone.
            let _ = ask.answer.send(hit);
        }
    }

    /// Harms a process; gives it if it lives.
    fn harm(&self, target: &str, fault: &str) -> Option<u32> {
        let signal = signal_of(fault);
        if let Some(part) = parse_part(target) {
            let child = self.children.get(&part)?;
            match signal {
                Some(signal) => child.process.signal(signal),
                None => child.order(Order::Misbehave(Misbehave { fault: fault.to_owned() })),
            }
            return Some(child.process.pid);
        }
        let signal = signal?;
        if target == "keeper" {
            let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
            return Some(std::process::id());
        }
        let number = parse_vault(target)?;
        let (_, seat) = self.vaults.present().find(|(known, _)| *known == number)?;
        seat.process.signal(signal);
        Some(seat.process.pid)
    }

    /// Shows how things are.
    pub(super) fn show(&self) {
        let parts = self.ladder.view();
        let serving = parts.iter().all(|part| part.state == State::Running);
        let of_part = |part: &net_watch::ladder::PartView| ProcessView {
            name: part_name(part.part),
            pid: self.children.get(&part.part).map_or(0, |child| child.process.pid),
            state: part.state,
            incarnation: part.incarnation.0,
            strikes: part.strikes,
        };
        let watcher =
            |name: String, pid| ProcessView { name, pid, state: State::Running, incarnation: 0, strikes: 0 };
        let vaults = self.vaults.present();
        let vaults = vaults.map(|(number, seat)| watcher(format!("vault.{number}"), seat.process.pid));
        let own = watcher("keeper".to_owned(), std::process::id());
        let processes = parts.iter().map(of_part).chain([own]).chain(vaults).collect();
        self.rpc.show(View { serving, processes });
    }

    /// Where the rest of the status is read.
    pub(super) fn source(&self) -> Source {
        let card = |card: &super::held::Card| (card.held.spec().to_string(), card.lane.clone());
        let profile = self.options.host.profile.name();
        Source {
            profile: profile.to_owned(),
            generation: self.generation,
            injection: self.options.injection,
            since_ms: crate::rpc::unix_ms(),
            state: self.kept.state.clone(),
            cards: self.kept.cards.iter().map(card).collect(),
            journal: self.events.journal().clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_process_has_its_faults() {
        for (target, fault) in [
            ("shadow", "kill"),
            ("shadow", "die:tx-logged:3"),
            ("driver.0", "livelock"),
            ("driver.7", "cont"),
            ("keeper", "stop"),
            ("vault.1", "kill"),
        ] {
            assert!(is_fault(target, fault), "{target} {fault}");
        }
        for (target, fault) in [
            ("shadow", "livelock"),
            ("driver.0", "die:tx-logged:3"),
            ("driver.x", "kill"),
            ("keeper", "panic"),
            ("vault", "kill"),
            ("", ""),
        ] {
            assert!(!is_fault(target, fault), "{target} {fault}");
        }
    }
}
