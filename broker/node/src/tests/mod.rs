//! Real nodes in one process, over a network in memory.

mod gossip;
mod hostile;
mod many;
mod support;
mod walls;
