//! Work for the overlay: Equihash (96, 5), quick to check.
//!
//! Every node checks everybody's work, so the check decides: some 8 us, where a solution takes some
//! 45 ms and 10 MiB. (Contracts, which one provider checks, take Argon2id: [`crate::pow`].)
//! Solutions are common; a rare one is worth more. What one is worth shows in a hash of it.
//!
//! Equihash: Biryukov and Khovratovich, NDSS 2016; as in the Zcash protocol specification, section
//! 7.7.1, whose personalisation the checking crate has.

mod solver;

use dlambda_proto::{Day, Work};
use sha2::{Digest as _, Sha256};

const N: u32 = 96;
const K: u32 = 5;

/// Does the work for a challenge of `day`, unless `stop` says to give up (asked after every run of
/// some 90 ms).
///
/// It takes `effort` solutions on average, of which a run finds two. Counting starts at `start`,
/// which must be random, and fresh for each work.
pub fn perform(
    challenge: &[u8; 32],
    day: Day,
    effort: u64,
    start: [u8; 16],
    mut stop: impl FnMut() -> bool,
) -> Option<Work> {
    let mut count = u128::from_be_bytes(start);
    loop {
        let nonce = count.to_be_bytes();
        for solution in solver::solve(challenge, &nonce) {
            let work = Work {
                day,
                nonce,
                solution,
            };
            if shown(challenge, &work) >= effort {
                return Some(work);
            }
        }
        if stop() {
            return None;
        }
        count = count.wrapping_add(1);
    }
}

/// How many solutions it takes on average to find one that is worth as much; `None` if this is
/// none. The challenge must be of the work's day.
#[must_use]
pub fn effort(challenge: &[u8; 32], work: &Work) -> Option<u64> {
    equihash::is_valid_solution(N, K, challenge, &work.nonce, &work.solution)
        .is_ok()
        .then(|| shown(challenge, work))
}

/// What the hash of a solution shows, at least 1.
fn shown(challenge: &[u8; 32], work: &Work) -> u64 {
    let mut hash = Sha256::new();
    hash.update(b"dlambda/overlay-effort/v1\0");
    hash.update(challenge);
    hash.update(work.nonce);
    hash.update(work.solution);
    let hash: [u8; 32] = hash.finalize().into();
    let first = hash
        .iter()
        .take(8)
        .fold(0, |first, byte| first << 8 | u64::from(*byte));
    u64::MAX / first.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: [u8; 32] = [7; 32];

    fn work(effort: u64) -> Work {
        perform(&CHALLENGE, Day(3), effort, [9; 16], || false).unwrap()
    }

    #[test]
    fn work_that_was_done_is_worth_its_effort_and_nothing_elsewhere() {
        let done = work(4);
        assert!(effort(&CHALLENGE, &done).unwrap() >= 4);
        assert_eq!(effort(&[8; 32], &done), None);
        let mut other = done.clone();
        other.nonce[15] ^= 1;
        assert_eq!(effort(&CHALLENGE, &other), None);
        for bit in [0, 100, 543] {
            let mut other = done.clone();
            other.solution[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(effort(&CHALLENGE, &other), None, "{bit}");
        }
    }

    #[test]
    fn who_stops_has_no_work() {
        let mut runs = 0;
        let stop = || {
            runs += 1;
            runs == 2
        };
        assert_eq!(perform(&CHALLENGE, Day(3), u64::MAX, [9; 16], stop), None);
        assert_eq!(runs, 2);
    }

    /// A run has 2 solutions on average; half of all solutions show an effort of 2.
    #[test]
    fn solutions_are_as_common_as_expected() {
        let mut solutions = 0_u32;
        let mut rare = 0_u32;
        for number in 0..24_u128 {
            let nonce = number.to_be_bytes();
            for solution in solver::solve(&CHALLENGE, &nonce) {
                let work = Work {
                    day: Day(3),
                    nonce,
                    solution,
                };
                let shown = effort(&CHALLENGE, &work).expect("the solver's solutions are valid");
                solutions += 1;
                rare += u32::from(shown >= 2);
            }
        }
        println!("{solutions} solutions in 24 runs, {rare} of effort 2");
        assert!((20..=90).contains(&solutions), "{solutions}");
        assert!((solutions / 5..=solutions * 4 / 5).contains(&rare));
    }
}
