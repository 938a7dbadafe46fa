//! Options of `tests/crash net`.

use sim_guest::net::traffic::Load;

use super::faults::Deed;
use crate::Output;

/// A run against the network backend.
#[derive(Clone, Debug, clap::Args)]
pub struct NetArgs {
    /// Faults to inject.
    #[arg(long, default_value_t = 100)]
    pub faults: u64,
    /// Seed of faults and traffic; drawn and shown if left out.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Simulated guests.
    #[arg(long, default_value_t = 2)]
    pub guests: u16,
    /// Frames a second that each guest sends, and that each guest is sent.
    #[arg(long, default_value_t = 5000)]
    pub rate: u64,
    /// Bytes of the smallest frame.
    #[arg(long, default_value_t = 60)]
    pub size_min: usize,
    /// Bytes of the largest frame.
    #[arg(long, default_value_t = 1514)]
    pub size_max: usize,
    /// Loads that take turns while faults are injected, each for 50 of them: RATE:LEAST-MOST, in frames a second and bytes,
    /// in place of the rate and sizes above.
    #[arg(long, value_delimiter = ',')]
    pub loads: Vec<Load>,
    /// The shortest pause between a recovery and the next fault, in milliseconds. A process that dies again within 100 ms is
    /// restarted only so often.
    #[arg(long, default_value_t = 110)]
    pub pause_ms: u64,
    /// How much longer a pause may be.
    #[arg(long, default_value_t = 60)]
    pub jitter_ms: u64,
    /// Which processes are harmed: all if left out, the driver most often.
    #[arg(long, value_delimiter = ',')]
    pub targets: Vec<NetTarget>,
    /// Which faults, all but slow, link-down and garbage if left out. Of a driver: kill, stop, loop, livelock, slow, exit, panic; taken,
    /// published, garbage (it writes nonsense into its lane again and again); storm (it is killed four times, each time
    /// before it serves); link-down (its network card is switched off for a while). Of a shadow: kill, stop, storm, and die (at one of
    /// the places around its commits). Of both: flip (a bit in the memory that it shares with others). Of
    /// keeper and vaults: kill, stop.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub deeds: Vec<Deed>,
    /// How the backend reaches its network card.
    #[arg(long, value_enum, default_value_t = NicDriver::Packet)]
    pub driver: NicDriver,
    /// How many of a hundred faults hit two different processes at the same instant, with a signal each.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub overlapping: u32,
    /// Guests that misbehave beside the others, each in one way: never-take, corrupt-indices, random-ring, post-nothing,
    /// event-storm, huge-chains, flood. They must cost nobody a frame and cause no restart.
    #[arg(long, value_delimiter = ',')]
    pub hostile: Vec<String>,
    /// Seconds of traffic without any fault after the last one. Whatever the keeper condemns then is a false alarm.
    #[arg(long, default_value_t = 0)]
    pub calm_s: u64,
    /// Threads that burn all the processor time they get, all the while.
    #[arg(long, default_value_t = 0)]
    pub hogs: u16,
    /// For people or for programs.
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

/// A kind of process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NetTarget {
    /// The NIC's driver.
    Driver,
    /// The backend that guests see.
    Shadow,
    /// The one that watches all others.
    Keeper,
    /// One of the two that hold all descriptors for the next keeper.
    Vault,
}

/// A kind of network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NicDriver {
    /// A packet socket.
    Packet,
    /// AF_XDP.
    Xdp,
    /// A TAP device.
    Tap,
}

impl NicDriver {
    /// As in a specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Xdp => "xdp",
            Self::Tap => "tap",
        }
    }
}
