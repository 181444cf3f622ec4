//! The listing: what gossip says of a provider, some 400 signed bytes.
//!
//! ```text
//! SignedListing             bytes from anywhere
//!   authenticate(network)   -> Authentic<Listing>   its provider signed it for this network
//!   at(time)                -> Current<Listing>     it is valid now
//! ```
//!
//! A listing is enough to find a provider and to filter. It names the provider's advert by digest:
//! the advert itself comes when a stream to the provider opens, and must have the listed digest.

mod chain;
mod class;
mod network;
mod region;
mod verify;
mod work;

#[cfg(test)]
mod tests;

use std::fmt;

use minicbor::{CborLen, Decode, Encode};
use serde::Serialize;

pub use self::chain::ListingFork;
pub use self::class::{Class, FunctionPrefix, Topic};
pub use self::network::NetworkId;
pub use self::region::Region;
pub use self::verify::{ListingDigest, SignedListing};
pub use self::work::{Day, Work};

use crate::{AdvertDigest, Endpoint, Epoch, ListingError, PlanName, ProviderId, Validity};

/// What gossip says of a provider. At most [`Listing::MAX_BYTES`] with its signature.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Listing {
    /// The network that it is listed in.
    #[n(0)]
    pub network: NetworkId,
    /// Whose listing it is.
    #[n(1)]
    pub provider: ProviderId,
    /// How many listings of this provider came before it in this network.
    #[n(2)]
    pub number: u64,
    /// The listing before it; none in the first.
    #[n(3)]
    pub previous: Option<ListingDigest>,
    /// The epoch of the advert.
    #[n(4)]
    pub epoch: Epoch,
    /// The advert of that epoch.
    #[n(5)]
    pub advert: AdvertDigest,
    /// When it can be chosen: at most [`Listing::MAX_VALIDITY_SECONDS`].
    #[n(6)]
    pub validity: Validity,
    /// Where the provider is called: 1 to 4 endpoints.
    #[n(7)]
    pub endpoints: Vec<Endpoint>,
    /// Where its overlay node is reached, if it runs one for others: at most 2 endpoints.
    #[n(8)]
    pub node: Vec<Endpoint>,
    /// The machine.
    #[n(9)]
    pub resources: Resources,
    /// Where the machine says it is.
    #[n(10)]
    pub region: Option<Region>,
    /// The menu: 1 to 16 plans.
    #[n(11)]
    pub plans: Vec<ListedPlan>,
    /// Functions that the provider always has: at most 16.
    #[n(12)]
    pub functions: Vec<FunctionPrefix>,
    /// The day's work.
    #[n(13)]
    pub work: Work,
}

/// What a machine has, coarse enough to be no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[cbor(array)]
pub struct Resources {
    /// Processors.
    #[n(0)]
    pub cores: u16,
    /// Memory in MiB, a power of two.
    #[n(1)]
    pub memory_mib: u64,
    /// Memory of the largest accelerator in MiB; 0 without one.
    #[n(2)]
    pub gpu_vram_mib: u64,
    /// Whether there is a trusted execution environment.
    #[n(3)]
    pub tee: bool,
}

/// A plan, as far as a listing tells.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[cbor(array)]
pub struct ListedPlan {
    /// The plan's name, unique in a listing.
    #[n(0)]
    pub name: PlanName,
    /// Price of a call in the provider's smallest unit of account.
    #[n(1)]
    pub price: u64,
}

impl Listing {
    /// Largest listing with its signature, in bytes.
    pub const MAX_BYTES: usize = 1024;
    /// Longest validity: 48 hours, since its work is of one day.
    pub const MAX_VALIDITY_SECONDS: u64 = 48 * 3600;
    /// Shortest validity: 12 hours. One that is over sooner could be shown to a visitor and be gone
    /// before anybody compares it.
    pub const MIN_VALIDITY_SECONDS: u64 = 12 * 3600;
    /// Most listings of one provider that begin on one day.
    pub const MAX_A_DAY: usize = 8;
    /// Most functions in it.
    pub const MAX_FUNCTIONS: usize = 16;

    /// Whether a look-up of this topic finds the listing.
    #[must_use]
    pub fn is_in(&self, topic: Topic) -> bool {
        match topic {
            Topic::Class(class) => class.is_met_by(&self.resources),
            Topic::Function(first) => self.functions.iter().any(|it| it.first_byte() == first),
        }
    }

    fn check_bounds(&self) -> Result<(), ListingError> {
        let span = self.validity.until.0.checked_sub(self.validity.from.0);
        let distinct = |i: usize| {
            let name = &self.plans[i].name;
            self.plans[..i].iter().all(|plan| plan.name != *name)
        };
        for (good, what) in [
            (
                span.is_some_and(|it| {
                    (Self::MIN_VALIDITY_SECONDS..=Self::MAX_VALIDITY_SECONDS).contains(&it)
                }),
                "validity",
            ),
            (self.work.day == Day::of(self.validity.from), "day of work"),
            ((self.number == 0) == self.previous.is_none(), "predecessor"),
            ((1..=4).contains(&self.endpoints.len()), "endpoints"),
            (self.node.len() <= 2, "node"),
            (self.resources.memory_mib.is_power_of_two(), "memory"),
            ((1..=16).contains(&self.plans.len()), "plans"),
            ((0..self.plans.len()).all(distinct), "plan names"),
            (self.functions.len() <= Self::MAX_FUNCTIONS, "functions"),
        ] {
            if !good {
                return Err(ListingError::Bound(what));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listing({}, [scrubbed])", self.number)
    }
}
