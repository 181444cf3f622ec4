//! The helper as a process, driven over its link, in the private mixnet.
//!
//! The client and the packet formats are Nym's; the network is ours.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod calls;
mod harness;
mod limits;
mod outages;
mod restarts;
mod starts;
