//! Worker processes: where strangers' functions run.

mod channel;
pub(crate) mod messages;
mod patience;
mod pool;
pub(crate) mod serve;

#[cfg(test)]
pub(crate) use messages::{Report, Setup};
pub(crate) use pool::{Pool, Retire};
