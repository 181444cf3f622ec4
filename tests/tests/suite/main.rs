//! The one integration-test binary.
//!
//! Modules whose names begin with `tor` need the `tor` program and run one
//! after the other; the rest use a network in memory.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod adversary;
mod any_provider;
mod arrows;
mod audits;
mod audits_like_calls;
mod calls;
mod cases;
mod code_cache;
mod contracts;
mod determinism;
mod equivocation;
mod floods;
mod hostile_callers;
mod hostile_contracts;
mod hostile_functions;
mod hostile_providers;
mod http_functions;
mod kill;
mod local_run;
mod nym;
mod nym_entry;
mod nym_faults;
mod nym_market;
mod nym_programs;
mod nym_view;
mod own_machine;
mod real_programs;
mod shell;
mod spreading;
mod support;
mod tor;
mod tor_any;
mod tor_contracts;
mod tor_demo;
mod tor_guards;
mod tor_leaks;
mod tor_market;
mod tor_programs;
mod tor_readme;
mod tor_testnet;
mod unlinkable;
mod unseen;
