//! Numbered and checksummed frames, to tell what a path loses, doubles, reorders, corrupts or delays.

mod flows;
mod frame;
mod histogram;
mod load;
mod pace;
mod sender;
mod window;

pub use flows::{FlowReport, ReceiveReport, Receiver};
pub use frame::{ETHERTYPE, HEADER_BYTES, Numbered, SIZE_MIN_BYTES};
pub use histogram::{Histogram, Latency};
pub use load::{Load, NoLoad};
pub use pace::Pace;
pub use sender::{SendReport, Sender, SenderOptions};
pub use window::{Arrival, Window};

/// Nanoseconds of the clock that all processes of a machine share.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}
