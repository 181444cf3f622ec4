//! Proof of work for contracts: memory-hard to make, cheap to throw away.
//!
//! The work is Argon2id (RFC 9106) over 4 MiB in one pass, until its hash begins
//! with as many zero bits as the provider asks for. Checking costs one such
//! hash, about a millisecond; so that a made-up proof does not cost its sender
//! nothing and the provider that much, a *stamp* of plain SHA-256 hashes over
//! the proof comes first, which takes the sender longer than the check takes
//! the provider.
//!
//! The challenge is the sealed message itself: work for one proposal is worth
//! nothing for another, and nothing about earlier visits is in it.
//!
//! A proof must not tell how fast its maker is. So the counting starts at random
//! numbers, which hide how many hashes it took, and the proof is sent at one of
//! few times after the greeting ([`sending_time`]).

use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use dlambda_proto::{ContractEnvelope, Greeting, ProofOfWork, ProviderId, encode};
use sha2::{Digest as _, Sha256};

/// Memory of one hash, in KiB.
const MEMORY_KIB: u32 = 4 << 10;
const PASSES: u32 = 1;
/// Zero bits of a stamp: 65,536 hashes on average, some 7 ms.
const STAMP_BITS: u8 = 16;

/// Shortest time from a greeting to a proof.
const LEAST_SENDING: Duration = Duration::from_millis(250);
/// Of the time for 2^effort hashes of a millisecond each, so many times pass at least: most
/// machines are done then.
const SENDING_FACTOR: u32 = 4;

/// How long after the greeting a proof is to leave that is ready after `ready`: four milliseconds
/// for each of 2^`effort` hashes (a quarter of a second at least), or twice as much, or four times,
/// and so on.
///
/// Under one in twenty proofs of a machine that does a hash in 1.3 ms, and half of those of one
/// that takes 5 ms, leave later than the first of these times: that much a provider still learns
/// from one proof.
#[must_use]
pub fn sending_time(effort: u8, ready: Duration) -> Duration {
    let hashes = 1_u32 << effort.min(Greeting::MAX_EFFORT);
    let mut time = (Duration::from_millis(1) * hashes * SENDING_FACTOR).max(LEAST_SENDING);
    while time < ready {
        time = time.saturating_mul(2);
    }
    time
}

/// Does the work, unless `stop` says to give up (asked after every hash).
///
/// It takes 2^`effort` hashes of about a millisecond on average; effort is capped at
/// [`Greeting::MAX_EFFORT`]. Counting starts at `starts`, the second for the stamp: they must be
/// random, and fresh for each proof.
pub fn perform(
    provider: &ProviderId,
    envelope: &ContractEnvelope,
    effort: u8,
    starts: [u64; 2],
    mut stop: impl FnMut() -> bool,
) -> Option<ProofOfWork> {
    let challenge = challenge(provider, envelope);
    let effort = effort.min(Greeting::MAX_EFFORT);
    let mut hasher = Hasher::new()?;
    for solution in counting_from(starts[0]) {
        let hash = hasher.hash(&challenge, solution)?;
        if leading_zeros(&hash) >= effort {
            let is_stamp = |stamp: &u64| is_stamp(&challenge, solution, &hash, *stamp);
            let stamp = counting_from(starts[1]).find(is_stamp)?;
            return Some(ProofOfWork {
                solution,
                hash,
                stamp,
            });
        }
        if stop() {
            return None;
        }
    }
    None
}

/// All numbers, this one first.
fn counting_from(start: u64) -> impl Iterator<Item = u64> {
    (0..=u64::MAX).map(move |count| start.wrapping_add(count))
}

/// Whether `work` was done on `envelope`, to at least this effort.
///
/// Costs a few microseconds if it was made up without a stamp, one hash of
/// 4 MiB otherwise.
#[must_use]
pub fn verify(provider: &ProviderId, envelope: &ContractEnvelope, effort: u8) -> bool {
    let Some(work) = &envelope.work else {
        return false;
    };
    if leading_zeros(&work.hash) < effort {
        return false;
    }
    let challenge = challenge(provider, envelope);
    is_stamp(&challenge, work.solution, &work.hash, work.stamp)
        && Hasher::new().and_then(|mut hasher| hasher.hash(&challenge, work.solution))
            == Some(work.hash)
}

fn challenge(provider: &ProviderId, envelope: &ContractEnvelope) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"dlambda/work/v1\0");
    hash.update(provider.as_bytes());
    hash.update(encode(&envelope.epoch));
    hash.update(envelope.encapsulated_key);
    hash.update(&envelope.ciphertext);
    hash.finalize().into()
}

struct Hasher {
    argon2: Argon2<'static>,
    memory: Vec<Block>,
}

impl Hasher {
    fn new() -> Option<Self> {
        let params = Params::new(MEMORY_KIB, PASSES, 1, Some(32)).ok()?;
        let blocks = params.block_count();
        Some(Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            memory: vec![Block::default(); blocks],
        })
    }

    fn hash(&mut self, challenge: &[u8; 32], solution: u64) -> Option<[u8; 32]> {
        let mut out = [0; 32];
        self.argon2
            .hash_password_into_with_memory(
                &solution.to_be_bytes(),
                challenge,
                &mut out,
                &mut self.memory,
            )
            .ok()?;
        Some(out)
    }
}

fn is_stamp(challenge: &[u8; 32], solution: u64, hash: &[u8; 32], stamp: u64) -> bool {
    let mut digest = Sha256::new();
    digest.update(b"dlambda/stamp/v1\0");
    digest.update(challenge);
    digest.update(solution.to_be_bytes());
    digest.update(hash);
    digest.update(stamp.to_be_bytes());
    leading_zeros(&digest.finalize().into()) >= STAMP_BITS
}

fn leading_zeros(hash: &[u8; 32]) -> u8 {
    let mut zeros = 0;
    for byte in hash {
        let here = byte.leading_zeros();
        zeros += here;
        if here < 8 {
            break;
        }
    }
    u8::try_from(zeros).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use dlambda_proto::{Epoch, IdentityKey};

    use super::*;

    fn provider() -> ProviderId {
        IdentityKey::from_seed(&[1; 32]).id()
    }

    fn envelope() -> ContractEnvelope {
        ContractEnvelope {
            epoch: Epoch(1),
            encapsulated_key: [1; 32],
            ciphertext: vec![2; 100],
            work: None,
        }
    }

    fn worked(effort: u8) -> ContractEnvelope {
        let work = perform(&provider(), &envelope(), effort, [u64::MAX, 7], || false);
        ContractEnvelope { work, ..envelope() }
    }

    #[test]
    fn work_is_good_for_one_message_and_provider() {
        let done = worked(2);
        assert!(verify(&provider(), &done, 2));
        assert!(verify(&provider(), &done, 0));
        let other = IdentityKey::from_seed(&[2; 32]).id();
        assert!(!verify(&other, &done, 2));
        let mut changed = done;
        changed.ciphertext[0] ^= 1;
        assert!(!verify(&provider(), &changed, 2));
        assert!(!verify(&provider(), &envelope(), 0), "none is not enough");
    }

    #[test]
    fn too_little_and_made_up_work_is_refused() {
        let done = worked(1);
        let zeros = leading_zeros(&done.work.expect("done").hash);
        assert!(!verify(&provider(), &done, zeros + 1));
        // A hash that looks like much work, with an honest stamp on it.
        let challenge = challenge(&provider(), &envelope());
        let hash = [0; 32];
        let stamp = (0..).find(|stamp| is_stamp(&challenge, 5, &hash, *stamp));
        let work = ProofOfWork {
            solution: 5,
            hash,
            stamp: stamp.expect("found"),
        };
        let made_up = ContractEnvelope {
            work: Some(work),
            ..envelope()
        };
        assert!(!verify(&provider(), &made_up, 1));
    }

    #[test]
    fn work_stops_when_told() {
        let mut asked = 0;
        let work = perform(&provider(), &envelope(), 16, [0; 2], || {
            asked += 1;
            asked == 3
        });
        assert!(work.is_none() && asked == 3);
    }

    /// The number of hashes, over the time, would be the speed of the caller's processor.
    #[test]
    fn a_proof_does_not_tell_how_many_hashes_it_took() {
        for start in [0, 1 << 40, u64::MAX - 1] {
            let work = perform(&provider(), &envelope(), 2, [start, !start], || false);
            let work = work.expect("done");
            assert!(work.solution.wrapping_sub(start) < 1000);
            assert!(work.stamp.wrapping_sub(!start) < 1 << 24);
            let done = ContractEnvelope {
                work: Some(work),
                ..envelope()
            };
            assert!(verify(&provider(), &done, 2));
        }
    }

    #[test]
    fn proofs_leave_at_few_times_whatever_the_machine() {
        let ms = Duration::from_millis;
        for (effort, ready, leaves) in [
            (0, 0, 250),
            (6, 1, 256),
            (6, 256, 256),
            (6, 257, 512),
            (6, 5000, 8192),
            (12, 1, 16_384),
            (12, 16_385, 32_768),
            (200, 1, 4 * 65_536),
        ] {
            assert_eq!(
                sending_time(effort, ms(ready)),
                ms(leaves),
                "{effort}, {ready}"
            );
        }
        let times: std::collections::BTreeSet<_> = (0..10_000)
            .map(|ready| sending_time(8, ms(ready)))
            .collect();
        assert_eq!(times.len(), 5, "in ten seconds: {times:?}");
    }
}
