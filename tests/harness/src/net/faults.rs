//! Faults of the network backend, and when they were noticed and mended.

use clap::ValueEnum;
use net_stand::Told;
use net_uk::fate::Step;
use net_uk::limits::VAULTS;
use rustix::process::Signal;

use super::args::{NetArgs, NetTarget};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Deed {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Stop,
    /// The driver loops for ever and does nothing else.
    Loop,
    /// The driver shows itself alive and moves nothing.
    Livelock,
    /// The driver waits 20 ms in each turn.
    Slow,
    /// The driver ends with an error.
    Exit,
    /// The driver panics.
    Panic,
    /// The shadow dies at one of the places around its commits.
    Die,
    /// The driver says again and again that it took more frames than there were.
    Taken,
    /// The driver says again and again that it published more frames than fit.
    Published,
    /// The driver publishes again and again what is no frame.
    Garbage,
    /// A bit flips in memory that the process shares with others.
    Flip,
    /// The network card is switched off, and on again.
    LinkDown,
    /// It is killed, and its successors before they serve.
    Storm,
}

impl Deed {
    /// Only in runs that ask for them. A driver that is only late does all its work at a low rate; a card that is switched
    /// off loses what its queues hold; and garbage is counted as frames that were damaged, though they never were.
    const UNUSUAL: [Self; 3] = [Self::Slow, Self::LinkDown, Self::Garbage];

    /// Its name, for people and for the driver.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Loop => "loop",
            Self::Livelock => "livelock",
            Self::Slow => "slow",
            Self::Exit => "exit",
            Self::Panic => "panic",
            Self::Die => "die",
            Self::Taken => "taken",
            Self::Published => "published",
            Self::Garbage => "garbage",
            Self::Flip => "flip",
            Self::LinkDown => "link-down",
            Self::Storm => "storm",
        }
    }

    fn fits(self, target: NetTarget) -> bool {
        match target {
            NetTarget::Driver => self != Self::Die,
            NetTarget::Shadow => {
                matches!(self, Self::Die | Self::Flip | Self::Storm) || self.signal().is_some()
            }
            NetTarget::Keeper | NetTarget::Vault => self.signal().is_some(),
        }
    }

    /// Whether somebody has to notice: some flipped bits mean nothing, and a card that is switched off is nobody's fault.
    pub fn must_be_noticed(self) -> bool {
        !matches!(self, Self::Flip | Self::LinkDown)
    }

    /// The signal that does it from outside.
    pub fn signal(self) -> Option<Signal> {
        match self {
            Self::Kill => Some(Signal::KILL),
            Self::Stop => Some(Signal::STOP),
            _ => None,
        }
    }
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whom it hits.
    pub target: NetTarget,
    /// What it is.
    pub deed: Deed,
    /// Where the shadow dies, and at which time that it comes there.
    pub place: (&'static str, u32),
    /// Which vault.
    pub vault: usize,
    /// Another process is hit at the same instant.
    pub paired: bool,
}

/// A run may want one process alone.
const DRAWS_MAX: u32 = 64;

const USUAL_TARGETS: [NetTarget; 6] = [
    NetTarget::Driver,
    NetTarget::Driver,
    NetTarget::Driver,
    NetTarget::Shadow,
    NetTarget::Keeper,
    NetTarget::Vault,
];

impl Fault {
    /// The next ones, which come at the same instant.
    pub fn draw(rng: &mut fastrand::Rng, args: &NetArgs) -> Vec<Self> {
        let first = Self::draw_one(rng, args);
        if rng.u32(0..100) >= args.overlapping {
            return vec![first];
        }
        let mut others = (0..DRAWS_MAX).map(|_| Self::draw_one(rng, args));
        let Some(second) = others.find(|other| other.part() != first.part()) else { return vec![first] };
        // What a process is told may be lost with the keeper that reads it: a signal is not.
        let signal = |fault: Self| {
            let deed = if fault.deed.signal().is_some() { fault.deed } else { Deed::Kill };
            Self { deed, paired: true, ..fault }
        };
        vec![signal(first), signal(second)]
    }

    fn draw_one(rng: &mut fastrand::Rng, args: &NetArgs) -> Self {
        let targets = if args.targets.is_empty() { &USUAL_TARGETS[..] } else { &args.targets };
        let target = targets[rng.usize(0..targets.len())];
        let fits = |deed: &Deed| {
            let usual = args.deeds.is_empty() && !Deed::UNUSUAL.contains(deed);
            let wanted = usual || args.deeds.contains(deed);
            wanted && deed.fits(target)
        };
        let deeds: Vec<Deed> = Deed::value_variants().iter().copied().filter(fits).collect();
        // Half of all are kills, as far as they are wanted.
        let kill = deeds.contains(&Deed::Kill) && rng.bool();
        let deed = if kill || deeds.is_empty() { Deed::Kill } else { deeds[rng.usize(0..deeds.len())] };
        let (name, _) = Step::MOVING[rng.usize(0..Step::MOVING.len())];
        Self { target, deed, place: (name, rng.u32(1..40)), vault: rng.usize(0..VAULTS), paired: false }
    }

    /// What the process is told, if it does it itself.
    pub fn order(self) -> String {
        match self.deed {
            Deed::Die => format!("die:{}:{}", self.place.0, self.place.1),
            deed => deed.name().to_owned(),
        }
    }

    /// The part's name in events.
    pub fn part(self) -> String {
        match self.target {
            NetTarget::Driver => "driver.0".to_owned(),
            NetTarget::Shadow => "shadow".to_owned(),
            NetTarget::Keeper => "keeper".to_owned(),
            NetTarget::Vault => format!("vault.{}", self.vault),
        }
    }

    /// For people.
    pub fn name(self) -> String {
        let target = match self.target {
            NetTarget::Driver => "driver",
            NetTarget::Shadow => "shadow",
            NetTarget::Keeper => "keeper",
            NetTarget::Vault => "vault",
        };
        let also = if self.paired { " & other" } else { "" };
        format!("{} {target}{also}", self.deed.name())
    }
}

/// Does it tell that somebody failed? Of those that watch there is no plan that says so.
fn is_failure(told: &Told) -> bool {
    let watches = told.part == "keeper" || told.part.starts_with("vault");
    told.kind == "failed" || watches && matches!(told.kind.as_str(), "ended" | "condemned")
}

/// What became of a fault.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The fault.
    pub fault: Fault,
    /// From the fault to the first event that tells of it, in microseconds.
    pub detected_us: Option<u64>,
    /// From the fault until its successor serves.
    pub ready_us: Option<u64>,
    /// From the fault until frames came again.
    pub served_us: Option<u64>,
    /// Failures that the keeper saw of other parts meanwhile: false alarms, or consequences.
    pub others: u64,
}

impl Outcome {
    /// Nothing is known yet.
    pub fn new(fault: Fault) -> Self {
        Self { fault, detected_us: None, ready_us: None, served_us: None, others: 0 }
    }

    /// Reads what was told since the fault. `hit` are all that were harmed.
    pub fn look(&mut self, told: &[Told], at_ns: u64, hit: &[String]) {
        let since = |told: &Told| told.at_monotonic_ns.saturating_sub(at_ns) / 1000;
        let after = || told.iter().filter(|told| told.at_monotonic_ns >= at_ns);
        let part = self.fault.part();
        let own = || after().filter(|told| told.part == part);
        let noticed = own().find(|told| matches!(told.kind.as_str(), "ended" | "condemned"));
        let ready = own().skip_while(|told| told.kind != "started").find(|told| told.kind == "ready");
        let others = after().filter(|told| is_failure(told) && !hit.contains(&told.part)).count();
        (self.detected_us, self.ready_us) = (noticed.map(since), ready.map(since));
        // Told once for a pair.
        self.others = if hit.first() == Some(&part) { others as u64 } else { 0 };
    }

    /// Did the keeper notice?
    pub fn is_noticed(&self) -> bool {
        self.detected_us.is_some()
    }

    /// Is everything as before, whether somebody noticed or not?
    pub fn is_settled(&self) -> bool {
        self.detected_us.is_none() || self.ready_us.is_some()
    }

    /// Is a successor there?
    pub fn is_whole(&self) -> bool {
        self.detected_us.is_some() && self.ready_us.is_some()
    }
}
