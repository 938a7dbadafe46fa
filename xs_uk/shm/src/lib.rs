//! Shared-memory regions, connection slots and the system calls that fill them.
#![allow(unsafe_code)]
