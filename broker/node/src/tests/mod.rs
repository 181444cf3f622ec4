//! Real nodes in one process, over a network in memory.

mod functions;
mod gossip;
mod hostile;
mod many;
mod market;
mod support;
mod walls;
