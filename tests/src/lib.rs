//! x

pub mod testnet;
