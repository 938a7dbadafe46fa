//! Domains, event channels, store pages and domain information, on Xen and on a local stand-in.
#![allow(unsafe_code)]
