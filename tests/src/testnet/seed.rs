//! A past for new nodes, so that the network need not wait to have one.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use data_encoding::BASE64;
use sha2::{Digest as _, Sha256};

use super::{TestnetError, dir::NetworkDir, torrc::Authority};

const DAY: Duration = Duration::from_secs(86_400);

/// Gives all authorities the same shared random values, as if they had run the
/// protocol before (it takes 24 votes); onion services use them.
pub(super) fn shared_randomness<'a>(
    authorities: impl Iterator<Item = &'a Authority> + Clone,
    dir: &NetworkDir,
) -> Result<(), TestnetError> {
    let now = SystemTime::now();
    let state = format!(
        "Version 1\nTorVersion testnet\nValidAfter {}\nValidUntil {}\n\
         SharedRandPreviousValue {n} {}\nSharedRandCurrentValue {n} {}\n",
        utc(now),
        utc(now + DAY),
        random_value(authorities.clone(), "previous"),
        random_value(authorities.clone(), "current"),
        n = authorities.clone().count(),
    );
    for authority in authorities {
        let path = dir.make_node_dir(&authority.nickname)?.join("sr-state");
        fs::write(&path, &state).map_err(TestnetError::io("write", &path))?;
    }
    Ok(())
}

/// Makes a node remember a busy day, the same for every node.
///
/// A new relay has seen 0 or 1 kB/s of traffic. Where some have seen 1, clients
/// choose those for every hop, and find no path.
pub(super) fn bandwidth(node_dir: &Path) -> Result<(), TestnetError> {
    let now = utc(SystemTime::now());
    let history: String = ["Read", "Write"]
        .iter()
        .map(|way| {
            format!(
                "BWHistory{way}Ends {now}\nBWHistory{way}Interval {}\n\
                 BWHistory{way}Values 8640000000\nBWHistory{way}Maxima 100000\n",
                DAY.as_secs()
            )
        })
        .collect();
    let path = node_dir.join("state");
    fs::write(&path, history).map_err(TestnetError::io("write", &path))
}

/// As random as the fresh voting keys it is made from.
fn random_value<'a>(authorities: impl Iterator<Item = &'a Authority>, label: &str) -> String {
    let mut hash = Sha256::new_with_prefix(label);
    for authority in authorities {
        hash.update(&authority.v3ident);
    }
    BASE64.encode(&hash.finalize())
}

/// `YYYY-MM-DD HH:MM:SS`, the way tor writes times.
fn utc(time: SystemTime) -> String {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (year, month, day) = civil_date(seconds / 86_400);
    let of_day = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// The Gregorian date of a day counted from 1970-01-01.
fn civil_date(day: u64) -> (u64, u64, u64) {
    // Counts from 0000-03-01, so that leap days end their years.
    let day = day + 719_468;
    let of_era = day % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year + day / 146_097 * 400 + u64::from(month <= 2);
    (year, month, of_year - (153 * shifted_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_times_as_tor_does() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_798_761_599, "2026-12-31 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(
                utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
                text
            );
        }
    }
}
