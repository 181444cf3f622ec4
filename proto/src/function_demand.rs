//! How often a provider's published functions are called: one signed statement a day, in powers of
//! two.
//!
//! Only functions that the provider publishes are named. A function that a caller brought is never
//! counted here: one that a single person uses is a name.

use std::fmt;

use minicbor::{CborLen, Decode, Encode};

use crate::advert::signed_by_its_author;
use crate::{
    Authentic, Day, FunctionId, IdentityKey, ListingError, NetworkId, ProviderId, Signable,
    UnixSeconds, decode, encode,
};

const PURPOSE: &str = "function-demand/v1";

/// What a provider says of the calls of one day to functions that it publishes.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct FunctionDemand {
    /// The network.
    #[n(0)]
    pub network: NetworkId,
    /// Whose functions they are.
    #[n(1)]
    pub provider: ProviderId,
    /// The day of the calls. It is over.
    #[n(2)]
    pub day: Day,
    /// The functions, each once, in the order of their ids: 1 to
    /// [`FunctionDemand::MAX_FUNCTIONS`].
    #[n(3)]
    pub functions: Vec<DemandedFunction>,
}

/// A published function, and how often it was called.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct DemandedFunction {
    /// The function.
    #[n(0)]
    pub function: FunctionId,
    /// How often.
    #[n(1)]
    pub calls: CallsStep,
}

/// A number of calls, rounded down to a power of two: 64 at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, CborLen)]
#[cbor(transparent)]
pub struct CallsStep(#[n(0)] u8);

/// A statement's bytes with a signature that is not checked yet. Equality is of the signed bytes.
#[derive(Clone, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct SignedFunctionDemand {
    #[cbor(n(0), with = "minicbor::bytes")]
    demand: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    signature: [u8; 64],
}

impl CallsStep {
    /// Logarithm of the least number of calls that is told: 64. Fewer calls could be one person's.
    const LEAST: u8 = 6;
    /// Logarithm of the largest.
    const MOST: u8 = 40;

    /// The step of so many calls; `None` below 64.
    #[must_use]
    pub fn of_calls(calls: u64) -> Option<Self> {
        let exponent = u8::try_from(calls.checked_ilog2()?).ok()?;
        (exponent >= Self::LEAST).then_some(Self(exponent.min(Self::MOST)))
    }

    /// The least number of calls of the step.
    #[must_use]
    pub fn at_least(self) -> u64 {
        1 << self.0
    }
}

impl<'b, C> Decode<'b, C> for CallsStep {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let exponent = d.u8()?;
        match (Self::LEAST..=Self::MOST).contains(&exponent) {
            true => Ok(Self(exponent)),
            false => Err(minicbor::decode::Error::message("not a step of calls")),
        }
    }
}

impl Signable for FunctionDemand {
    type Signed = SignedFunctionDemand;
}

impl FunctionDemand {
    /// Most functions in a statement.
    pub const MAX_FUNCTIONS: usize = 32;
    /// Largest statement with its signature, in bytes.
    pub const MAX_BYTES: usize = 2048;
    /// How many days after its day a statement is of use.
    pub const LIFE_DAYS: u64 = 2;
    /// How far the clocks of two machines may be apart, in seconds.
    const CLOCK_SKEW_SECONDS: u64 = 3600;

    /// What is told of these calls of a day: nothing if no function was called 64 times. Of more
    /// than [`FunctionDemand::MAX_FUNCTIONS`] functions those with the most calls are told.
    #[must_use]
    pub fn of_counts(
        network: NetworkId,
        provider: ProviderId,
        day: Day,
        counts: impl IntoIterator<Item = (FunctionId, u64)>,
    ) -> Option<Self> {
        let told = counts.into_iter().filter_map(|(function, calls)| {
            let calls = CallsStep::of_calls(calls)?;
            Some(DemandedFunction { function, calls })
        });
        let mut functions: Vec<_> = told.collect();
        functions.sort_by_key(|it| (std::cmp::Reverse(it.calls), it.function));
        functions.truncate(Self::MAX_FUNCTIONS);
        functions.sort_by_key(|it| it.function);
        let demand = Self {
            network,
            provider,
            day,
            functions,
        };
        demand.check_bounds().is_ok().then_some(demand)
    }

    /// Signs the statement with the identity it names.
    ///
    /// # Errors
    ///
    /// [`ListingError::Signature`] if `key` is another identity's; [`ListingError::Bound`].
    pub fn sign(&self, key: &IdentityKey) -> Result<SignedFunctionDemand, ListingError> {
        if key.id() != self.provider {
            return Err(ListingError::Signature);
        }
        self.check_bounds()?;
        let demand = encode(self);
        let signature = key.sign(&self.network.domain(PURPOSE), &demand);
        Ok(SignedFunctionDemand { demand, signature })
    }

    /// Whether the statement is of use at `now`: its day is over, and not for long.
    ///
    /// # Errors
    ///
    /// [`ListingError::TooEarly`] or [`ListingError::Expired`].
    pub fn check_time(&self, now: UnixSeconds) -> Result<(), ListingError> {
        if self.day >= Day::of(now.plus(Self::CLOCK_SKEW_SECONDS)) {
            return Err(ListingError::TooEarly);
        }
        if self.day.0.saturating_add(Self::LIFE_DAYS) < Day::of(now).0 {
            return Err(ListingError::Expired);
        }
        Ok(())
    }

    fn check_bounds(&self) -> Result<(), ListingError> {
        let count = self.functions.len();
        let are_ordered = (self.functions)
            .windows(2)
            .all(|pair| matches!(pair, [one, next] if one.function < next.function));
        for (good, what) in [
            ((1..=Self::MAX_FUNCTIONS).contains(&count), "functions"),
            (are_ordered, "order of functions"),
        ] {
            if !good {
                return Err(ListingError::Bound(what));
            }
        }
        Ok(())
    }
}

impl SignedFunctionDemand {
    /// What the statement says. It is of this network and within its bounds; its signature is not
    /// looked at.
    ///
    /// # Errors
    ///
    /// [`ListingError`] says why not.
    pub fn claims(&self, network: NetworkId) -> Result<FunctionDemand, ListingError> {
        if minicbor::len(self) > FunctionDemand::MAX_BYTES {
            return Err(ListingError::TooLarge);
        }
        let value: FunctionDemand = decode(&self.demand)?;
        if value.network != network {
            return Err(ListingError::OtherNetwork);
        }
        value.check_bounds()?;
        Ok(value)
    }

    /// Believes that the identity in the statement signed it for this network.
    ///
    /// # Errors
    ///
    /// [`ListingError`] says why not.
    pub fn authenticate(
        self,
        network: NetworkId,
    ) -> Result<Authentic<FunctionDemand>, ListingError> {
        let value = self.claims(network)?;
        let domain = network.domain(PURPOSE);
        if !(value.provider).verify(&domain, &self.demand, &self.signature) {
            return Err(ListingError::Signature);
        }
        Ok(signed_by_its_author(value, self))
    }
}

impl PartialEq for SignedFunctionDemand {
    fn eq(&self, other: &Self) -> bool {
        self.demand == other.demand
    }
}

impl Eq for SignedFunctionDemand {}

impl fmt::Debug for FunctionDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FunctionDemand([scrubbed])")
    }
}

impl fmt::Debug for DemandedFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DemandedFunction([scrubbed])")
    }
}

impl fmt::Debug for SignedFunctionDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedFunctionDemand([scrubbed])")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NETWORK: NetworkId = NetworkId::from_bytes([1; 16]);

    fn function(number: u8) -> FunctionId {
        FunctionId::of(&[number])
    }

    fn demand(key: &IdentityKey, counts: &[(FunctionId, u64)]) -> Option<FunctionDemand> {
        FunctionDemand::of_counts(NETWORK, key.id(), Day(100), counts.iter().copied())
    }

    #[test]
    fn a_statement_is_of_one_network_one_author_and_two_days() {
        let key = IdentityKey::from_seed(&[1; 32]);
        let value = demand(&key, &[(function(1), 64)]).unwrap();
        let signed = value.sign(&key).unwrap();
        assert!(*signed.clone().authenticate(NETWORK).unwrap() == value);
        let elsewhere = signed
            .clone()
            .authenticate(NetworkId::from_bytes([2; 16]))
            .unwrap_err();
        assert_eq!(elsewhere, ListingError::OtherNetwork);
        let mut forged = signed;
        forged.signature[0] ^= 1;
        let refused = forged.authenticate(NETWORK).unwrap_err();
        assert_eq!(refused, ListingError::Signature);
        let other = IdentityKey::from_seed(&[2; 32]);
        assert_eq!(value.sign(&other).unwrap_err(), ListingError::Signature);
        let at = |day: u64, second: u64| value.check_time(Day(day).begins().plus(second));
        assert_eq!(at(100, 80_000), Err(ListingError::TooEarly));
        assert_eq!(at(101, 0), Ok(()));
        assert_eq!(at(102, 86_399), Ok(()));
        assert_eq!(at(103, 0), Err(ListingError::Expired));
    }

    #[test]
    fn fewer_than_64_calls_are_not_told() {
        let key = IdentityKey::from_seed(&[1; 32]);
        assert!(demand(&key, &[(function(1), 63), (function(2), 0)]).is_none());
        let told = demand(&key, &[(function(1), 63), (function(2), 64)]).unwrap();
        assert_eq!(told.functions.len(), 1);
        assert!(told.functions[0].function == function(2));
        for exponent in [0_u8, 5, 41, 255] {
            assert!(decode::<CallsStep>(&encode(&exponent)).is_err());
        }
    }

    #[test]
    fn statements_that_break_a_bound_are_refused() {
        let key = IdentityKey::from_seed(&[1; 32]);
        let counts: Vec<_> = (0..40).map(|it| (function(it), 64 << it)).collect();
        let full = demand(&key, &counts).unwrap();
        assert_eq!(full.functions.len(), FunctionDemand::MAX_FUNCTIONS);
        let signed = full.sign(&key).unwrap();
        assert!(minicbor::len(&signed) <= FunctionDemand::MAX_BYTES);
        let least = full.functions.iter().map(|it| it.calls.at_least()).min();
        assert_eq!(least, Some(64 << 8), "the most called ones are told");
        let change = |change: fn(&mut FunctionDemand)| {
            let mut changed = full.clone();
            change(&mut changed);
            let demand = encode(&changed);
            let signature = key.sign(&NETWORK.domain(PURPOSE), &demand);
            SignedFunctionDemand { demand, signature }.claims(NETWORK)
        };
        assert!(change(|_| {}).is_ok());
        let order = Err(ListingError::Bound("order of functions"));
        assert_eq!(change(|it| it.functions.swap(0, 1)), order);
        let twice = |it: &mut FunctionDemand| it.functions[1] = it.functions[0];
        assert_eq!(change(twice), order);
        let none = Err(ListingError::Bound("functions"));
        assert_eq!(change(|it| it.functions.clear()), none);
    }

    proptest! {
        #[test]
        fn a_step_is_the_power_of_two_below_the_calls(calls in any::<u64>()) {
            match CallsStep::of_calls(calls) {
                None => prop_assert!(calls < 64),
                Some(step) => {
                    prop_assert!(step.at_least() <= calls);
                    prop_assert!(step.0 == CallsStep::MOST || calls / 2 < step.at_least());
                }
            }
        }

        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(signed) = decode::<SignedFunctionDemand>(&bytes) {
                prop_assert!(signed.authenticate(NETWORK).is_err());
            }
        }
    }
}
