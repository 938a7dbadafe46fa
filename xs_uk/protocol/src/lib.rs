//! The xenstore wire protocol: messages, paths, permissions, rings. No I/O and no state.
//!
//! Sources: Xen's `docs/misc/xenstore.txt`, `docs/misc/xenstore-ring.txt` and `xen/include/public/io/xs_wire.h`.
#![forbid(unsafe_code)]

mod domid;
mod error;
mod header;
pub mod limits;
pub mod message;
pub mod path;
pub mod perms;
pub mod request;
pub mod ring;

pub use domid::{DOMID_ANY, DOMID_SELF, DomId};
pub use error::XsError;
pub use header::{HEADER_BYTES, Header, MessageType};
pub use limits::{MESSAGE_MAX, PAYLOAD_MAX};
pub use path::Path;
pub use perms::{Access, Perm};
