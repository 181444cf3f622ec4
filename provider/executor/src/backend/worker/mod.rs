//! Worker processes: where strangers' functions run.

mod channel;
mod liveness;
pub(crate) mod messages;
mod pool;
pub(crate) mod serve;

#[cfg(test)]
pub(crate) use messages::{Response, Setup};
pub(crate) use pool::{SlotGuard, WorkerPool};
