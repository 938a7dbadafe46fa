//! The xenstore wire protocol: messages, paths, permissions, rings.
#![forbid(unsafe_code)]
