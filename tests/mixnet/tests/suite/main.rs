//! Real Nym clients over the private mixnet.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]

mod capture;
mod faults;
mod hostile;
mod program;
mod support;
mod traffic;
