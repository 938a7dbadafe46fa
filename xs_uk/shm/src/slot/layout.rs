//! Offsets inside the header page. Layout version 1; the table's header carries the version.

pub const STATE: usize = 0;
pub const KIND: usize = 4;
pub const CONN_ID: usize = 8;
pub const DOMID: usize = 16;
pub const LOCAL_PORT: usize = 20;
pub const REMOTE_PORT: usize = 24;
pub const DESCRIPTOR: usize = 28;
pub const GENERATION: usize = 32;
pub const GFN: usize = 40;
pub const HANDED: usize = 48;
pub const KNOWN: usize = 52;
pub const VERSION: usize = 64;
pub const RECORDS: [usize; 2] = [128, 192];
pub const RX_BASE: usize = 256;
pub const RX_TAIL: usize = 264;
pub const TX_BASE: usize = 272;
pub const TX_HEAD: usize = 280;
pub const RX_MESSAGE: usize = 320;
pub const RX_VECTOR: usize = 384;
pub const TX_MESSAGE: usize = 448;
pub const TX_VECTOR: usize = 512;
pub const CHECKS: [usize; 2] = [544, 552];
pub const END: usize = 560;
