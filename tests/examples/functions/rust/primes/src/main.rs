//! primes N: prints how many primes are below N, at most 10^12.
//!
//! Memory stays small however long it takes, so a great N is a test of fuel and of deadlines.

use std::io::{self, Write};
use std::process::ExitCode;

const SEGMENT: u64 = 1 << 16;
const MOST: u64 = 1_000_000_000_000;

/// The odd primes up to `limit`.
fn small_primes(limit: u64) -> Vec<u64> {
    let mut composite = vec![false; limit as usize + 1];
    let mut primes = Vec::new();
    for n in (3..=limit).step_by(2) {
        if !composite[n as usize] {
            primes.push(n);
            (n * n..=limit)
                .step_by(2 * n as usize)
                .for_each(|m| composite[m as usize] = true);
        }
    }
    primes
}

/// The sieve of Eratosthenes over the odd numbers, a segment at a time.
fn count_below(n: u64) -> u64 {
    if n <= 2 {
        return 0;
    }
    let mut count = 1;
    // Each odd prime, with its next odd multiple that is to be crossed out.
    let mut primes: Vec<(u64, u64)> = small_primes(n.isqrt())
        .into_iter()
        .map(|p| (p, p * p))
        .collect();
    let mut composite = vec![false; SEGMENT as usize];
    let mut start = 3;
    while start < n {
        let end = n.min(start + 2 * SEGMENT);
        composite.fill(false);
        for (prime, next) in &mut primes {
            while *next < end {
                composite[((*next - start) / 2) as usize] = true;
                *next += 2 * *prime;
            }
        }
        let odds = (end - start).div_ceil(2) as usize;
        count += composite[..odds]
            .iter()
            .filter(|&&composite| !composite)
            .count() as u64;
        start += 2 * SEGMENT;
    }
    count
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(|n| n.parse()) {
        Some(Ok(n)) if n <= MOST && arguments.len() == 1 => {
            let written = writeln!(io::stdout(), "{}", count_below(n));
            written.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
        }
        _ => {
            eprintln!("usage: primes N, at most {MOST}");
            ExitCode::from(2)
        }
    }
}
