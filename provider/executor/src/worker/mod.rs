//! Worker processes: where strangers' functions run.

mod channel;
mod messages;
mod pool;
pub(crate) mod serve;

pub(crate) use pool::{Pool, Retire};
