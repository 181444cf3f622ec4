//! What D-Lambda is tested, measured and shown with: a private Tor network, a private mixnet, a
//! provider in this process, and the eye of a provider that writes everything down.

#![forbid(unsafe_code)]

pub mod adversary;
pub mod anonymity_set;
pub mod bench;
pub mod load;
pub mod local;
pub mod market;
pub mod mixnet;
pub mod networks;
pub mod overlay;
pub mod packets;
pub mod program;
pub mod shared;
pub mod testnet;
pub mod tor;
pub mod view;
