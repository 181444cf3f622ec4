//! The check of overlay work, as a seam: models do without the work.

use std::fmt;

use dlambda_proto::Work;

/// Says what work is worth.
pub trait WorkCheck: Send + Sync {
    /// How many solutions it takes on average to find one that is worth as much; `None` if this is
    /// no solution of the challenge.
    fn effort(&self, challenge: &[u8; 32], work: &Work) -> Option<u64>;
}

/// The overlay's work: Equihash (96, 5), checked in some 8 us.
#[derive(Clone, Copy, Debug, Default)]
pub struct Equihash;

impl WorkCheck for Equihash {
    fn effort(&self, challenge: &[u8; 32], work: &Work) -> Option<u64> {
        dlambda_crypto::work::effort(challenge, work)
    }
}

impl fmt::Debug for dyn WorkCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkCheck")
    }
}
