//! Seeds that showed a fault once, with their stories. Each is run with the fault built in again, where that is possible,
//! to see that it still shows, and without it.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod refused_replies;
