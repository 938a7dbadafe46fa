//! A network frontend that behaves as Linux's `xen-netfront` with its checks against a backend that misbehaves
//! (`drivers/net/xen-netfront.c` of Linux 5.16 and later), over the local profile's memory and event channels.

mod broken;
mod driver;
mod echo;
mod hostile;
mod keys;
mod netfront;
mod pages;
mod queue;
pub mod ring;
mod runner;
mod rx;
mod split;
pub mod traffic;
mod tx;
pub mod wire;

pub use broken::{BadFrame, Broken};
pub use driver::{NetDriver, Seen};
pub use echo::EchoReport;
pub use hostile::Hostile;
pub use keys::{Mac, Offered};
pub use netfront::{NetOptions, NetStats, Netfront, Sent};
pub use pages::Pages;
pub use queue::{QUEUE_PAGES, Queue};
pub use runner::{InterfaceReport, Report, Runner, RunnerOptions, Woken};
pub use rx::{RxFrame, RxFront, RxStats};
pub use split::{Fragment, Splits};
pub use tx::{TxFrame, TxFront, TxStats};
