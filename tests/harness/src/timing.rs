//! From faults and the wardens' events to times: when each fault was noticed, and when what it hit was whole again.
//!
//! Faults and events are dated by the same clock (`CLOCK_MONOTONIC`), so a warden that dies takes no start of a
//! measurement with it. An event that no warden lived to tell leaves its fault without a time; how many have one is
//! part of each figure.

use std::collections::BTreeMap;

use api::v1;

use crate::faults::{Deed, Fault, Target};
use crate::report::Spread;

/// A fault as it was injected.
#[derive(Clone, Debug)]
pub struct Injected {
    /// What it was.
    pub fault: Fault,
    /// Whom it hit: the process that died or stopped, or the service whose memory was changed.
    pub victim: Victim,
    /// `CLOCK_MONOTONIC` just before it, in microseconds.
    pub at_us: u64,
}

/// Whom a fault hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Victim {
    /// A process.
    Process(u32),
    /// A service by its name.
    Service(String),
}

/// An event, and the process id of the warden that told of it.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The warden.
    pub warden: u32,
    /// What it told.
    pub event: v1::Event,
}

/// Times by the names of faults.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// From the fault to the first sign that a warden noticed it.
    pub detection: BTreeMap<String, Spread>,
    /// From that sign to service: a leader serves, or what was hit is ready or mended.
    pub restoration: BTreeMap<String, Spread>,
}

impl Times {
    /// Of all faults. Events in any order.
    pub fn of(faults: &[Injected], mut events: Vec<Heard>) -> Self {
        events.sort_by_key(|heard| heard.event.clock_us);
        let (mut detection, mut restoration) = (Samples::default(), Samples::default());
        let since = |at_us: u64| events.partition_point(|heard| heard.event.clock_us < at_us);
        for (at, injected) in faults.iter().enumerate() {
            // At most two faults are under way at once, so what comes behind the second next one is of another fault.
            let end = faults.get(at + 2).map_or(events.len(), |next| since(next.at_us));
            let later = &events[since(injected.at_us)..end];
            let Some(seen) = noticed(injected, later) else { continue };
            let name = injected.fault.name();
            detection.add(&name, seen.event.clock_us - injected.at_us);
            let after = later.iter().filter(|heard| heard.event.clock_us >= seen.event.clock_us);
            if let Some(whole) =
                after.map(|heard| &heard.event).find(|event| mends(injected, &seen.event, event))
            {
                restoration.add(&name, whole.clock_us - seen.event.clock_us);
            }
        }
        Self { detection: detection.spreads(), restoration: restoration.spreads() }
    }
}

#[derive(Default)]
struct Samples(BTreeMap<String, Vec<u64>>);

impl Samples {
    fn add(&mut self, name: &str, us: u64) {
        self.0.entry(name.to_owned()).or_default().push(us);
    }

    fn spreads(self) -> BTreeMap<String, Spread> {
        self.0.into_iter().map(|(name, times)| (name, Spread::of(times))).collect()
    }
}

fn noticed<'a>(injected: &Injected, later: &'a [Heard]) -> Option<&'a Heard> {
    later.iter().find(|heard| injected.is_noticed_by(heard.warden, &heard.event))
}

impl Injected {
    /// Whether an event is a sign that the fault was noticed.
    pub fn is_noticed_by(&self, warden: u32, event: &v1::Event) -> bool {
        let kind = event.kind.as_str();
        let is_sign = match &self.victim {
            // The next one speaks as soon as it has taken over. Nobody takes over from one that stands still.
            Victim::Process(pid) if self.fault.target == Target::Warden => {
                self.fault.deed == Deed::Kill && warden != *pid
            }
            Victim::Process(pid) => {
                event.pid == Some(*pid) && matches!(kind, "service_died" | "service_killed")
            }
            Victim::Service(name) => {
                event.service == *name
                    && matches!(kind, "corruption_detected" | "replica_outvoted" | "service_died")
            }
        };
        event.clock_us >= self.at_us && is_sign
    }
}

fn mends(injected: &Injected, sign: &v1::Event, event: &v1::Event) -> bool {
    let same_service = event.service == sign.service;
    match (injected.fault.target, injected.fault.deed) {
        (Target::Warden, _) => event.kind == "adopted",
        (Target::Leader, Deed::Kill | Deed::Stop) => event.kind == "leader_serving",
        (_, Deed::Flip) => {
            same_service && matches!(event.kind.as_str(), "corruption_mended" | "service_ready")
        }
        _ => same_service && event.kind == "service_ready",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(warden: u32, clock_us: u64, kind: &str, service: &str, pid: u32) -> Heard {
        let event = v1::Event {
            clock_us,
            kind: kind.into(),
            service: service.into(),
            pid: Some(pid),
            ..v1::Event::default()
        };
        Heard { warden, event }
    }

    fn injected(target: Target, deed: Deed, victim: Victim, at_us: u64) -> Injected {
        Injected { fault: Fault { target, deed }, victim, at_us }
    }

    #[test]
    fn a_leaders_death_is_followed_to_its_successors_service() {
        let events = vec![
            heard(1, 900, "leader_serving", "replica/1", 11),
            heard(1, 300, "service_died", "replica/0", 10),
            heard(1, 200, "service_died", "replica/2", 12),
            heard(1, 100, "service_died", "replica/0", 10),
        ];
        let fault = injected(Target::Leader, Deed::Kill, Victim::Process(10), 150);
        let times = Times::of(&[fault], events);
        assert_eq!(times.detection["kill leader"].median_us, 150);
        assert_eq!(times.restoration["kill leader"].median_us, 600);
    }

    #[test]
    fn a_wardens_death_is_told_by_the_next_one() {
        let events = vec![
            heard(1, 160, "service_ready", "replica/0", 10),
            heard(2, 500, "service_adopted", "replica/0", 10),
            heard(2, 700, "adopted", "warden", 2),
        ];
        let fault = injected(Target::Warden, Deed::Kill, Victim::Process(1), 150);
        let times = Times::of(&[fault], events);
        assert_eq!(times.detection["kill warden"].median_us, 350);
        assert_eq!(times.restoration["kill warden"].median_us, 200);
    }

    #[test]
    fn a_flip_is_mended_in_place_or_by_a_fresh_replica() {
        let events = vec![
            heard(1, 200, "corruption_detected", "replica/0", 10),
            heard(1, 260, "corruption_mended", "replica/0", 10),
            heard(1, 400, "service_died", "replica/1", 11),
            heard(1, 900, "service_ready", "replica/1", 13),
        ];
        let flip =
            |service: &str, at| injected(Target::Leader, Deed::Flip, Victim::Service(service.into()), at);
        let times = Times::of(&[flip("replica/0", 190), flip("replica/1", 300)], events);
        let restored = times.restoration["flip a bit in leader"];
        assert_eq!((restored.count, restored.worst_us), (2, 500));
    }

    #[test]
    fn what_nobody_lived_to_tell_has_no_time() {
        let fault = injected(Target::Gateway, Deed::Kill, Victim::Process(10), 150);
        let times = Times::of(&[fault], vec![heard(1, 160, "service_ready", "gateway", 10)]);
        assert!(times.detection.is_empty() && times.restoration.is_empty());
    }
}
