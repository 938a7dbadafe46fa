//! The xenstore as a pure, replicated state machine.
#![forbid(unsafe_code)]
