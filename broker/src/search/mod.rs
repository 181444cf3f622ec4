//! Search: passively in what was synced, by a look-up of a topic, actively by offers.
//!
//! Only a search yields [`Listed`], and only a dial yields `Verified<Advert>`.

mod look_up;
mod market;
mod offers;

#[cfg(test)]
mod tests;

pub use self::look_up::{LookUp, LookedUp};
pub use self::market::{Listed, Market};
pub(crate) use self::market::{MarketEntry, MarketParts};
pub use self::offers::FindOffers;
