//! What names an engine: the facts that decide what a function computes and what that costs.

use minicbor::{CborLen, Decode, Encode};
use sha2::{Digest as _, Sha256};

use crate::encode;

const DOMAIN: &[u8] = b"dlambda/engine/v1\0";

/// See [`EngineProfile::fingerprint`]. Equal for all calls of all providers with the same
/// software, on every machine.
pub type EngineFingerprint = [u8; 32];

/// A name and a number.
pub type Fact = (String, u64);

/// All facts that decide what a function computes and what that costs in fuel.
///
/// Names are identifiers, in ASCII. Lists are sorted by name and hold no name twice; see
/// [`EngineProfile::new`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
#[non_exhaustive]
pub struct EngineProfile {
    /// Number of the rules that are not in the other fields: virtual clocks, random numbers,
    /// which completions there are. A change of any of them takes a new number.
    #[n(0)]
    pub rules: u32,
    /// Libraries that run functions, each with its exact version.
    #[n(1)]
    pub libraries: Vec<(String, String)>,
    /// WebAssembly proposals that a function may use.
    #[n(2)]
    pub features: Vec<String>,
    /// What things cost, in fuel.
    #[n(3)]
    pub prices: Vec<Fact>,
    /// Bounds that a function can notice.
    #[n(4)]
    pub bounds: Vec<Fact>,
}

impl EngineProfile {
    /// A profile of these facts, in whichever order they come.
    #[must_use]
    pub fn new(
        rules: u32,
        mut libraries: Vec<(String, String)>,
        mut features: Vec<String>,
        mut prices: Vec<Fact>,
        mut bounds: Vec<Fact>,
    ) -> Self {
        libraries.sort();
        libraries.dedup();
        features.sort();
        features.dedup();
        for facts in [&mut prices, &mut bounds] {
            facts.sort();
            facts.dedup();
        }
        Self {
            rules,
            libraries,
            features,
            prices,
            bounds,
        }
    }

    /// Names the engine: SHA-256 over a domain and the canonical encoding.
    #[must_use]
    pub fn fingerprint(&self) -> EngineFingerprint {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(encode(self));
        hash.finalize().into()
    }
}
