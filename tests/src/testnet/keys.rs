//! The keys of the directory authorities, made before anything starts.

use std::{fs, path::Path, process::Stdio, time::SystemTime};

use data_encoding::BASE64;
use futures::future::{try_join, try_join_all};
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use super::{
    TestnetError,
    dir::NetworkDir,
    documents,
    ports::PortLease,
    process::{TOR, TOR_GENCERT, tor_arguments},
    torrc::{self, Authority},
    wait::Deadline,
};

/// An authority with the ports that wait for its process.
pub(super) struct NewAuthority {
    pub(super) authority: Authority,
    pub(super) or_port: PortLease,
    pub(super) dir_port: PortLease,
}

/// Makes the keys of all authorities, in parallel, and chooses their ports.
pub(super) async fn make_authorities(
    count: usize,
    dir: &NetworkDir,
    deadline: Deadline,
) -> Result<Vec<NewAuthority>, TestnetError> {
    let names = (0..count).map(|index| format!("auth{index}"));
    let made = timeout(
        deadline.left(),
        try_join_all(names.map(|name| make_authority(name, dir))),
    )
    .await
    .map_err(|_elapsed| TestnetError::Timeout("making the authorities' keys"))??;
    seed_shared_randomness(&made, dir)?;
    Ok(made)
}

async fn make_authority(name: String, dir: &NetworkDir) -> Result<NewAuthority, TestnetError> {
    let node_dir = dir.make_node_dir(&name)?;
    let keys = dir.make_node_dir(&format!("{name}/keys"))?;
    try_join(make_voting_key(&keys), make_relay_keys(&name, &node_dir)).await?;
    let or_port = PortLease::new()?;
    let dir_port = PortLease::new()?;
    Ok(NewAuthority {
        authority: Authority {
            or_port: or_port.port(),
            dir_port: dir_port.port(),
            v3ident: documents::read_v3ident(&keys.join("authority_certificate"))?,
            rsa_identity: documents::read_fingerprint(&node_dir.join("fingerprint"))?,
            ed_identity: documents::read_fingerprint(&node_dir.join("fingerprint-ed25519"))?,
            nickname: name,
        },
        or_port,
        dir_port,
    })
}

async fn make_voting_key(keys: &Path) -> Result<(), TestnetError> {
    let mut command = Command::new(TOR_GENCERT);
    command
        .args(["--create-identity-key", "--passphrase-fd", "0", "-m", "12"])
        .arg("-i")
        .arg(keys.join("authority_identity_key"))
        .arg("-s")
        .arg(keys.join("authority_signing_key"))
        .arg("-c")
        .arg(keys.join("authority_certificate"));
    // The key protects nothing and lives as long as the test.
    run(TOR_GENCERT, command, b"testnet\n").await
}

/// Makes tor create its relay keys, which it also does when asked for them.
async fn make_relay_keys(name: &str, node_dir: &Path) -> Result<(), TestnetError> {
    // The port and the authority are placeholders: tor insists on both.
    let placeholder = format!(
        "DataDirectory {}\nNickname {name}\nAddress 127.0.0.1\nORPort 1\nSocksPort 0\n\
         DirAuthority none 127.0.0.1:1 {}\n",
        torrc::quoted(node_dir),
        "F".repeat(40),
    );
    torrc::save(node_dir, &placeholder)?;
    let mut command = Command::new(TOR);
    command
        .args(tor_arguments(&node_dir.join("torrc")))
        .args(["--list-fingerprint", "--quiet"]);
    run(TOR, command, b"").await
}

async fn run(
    program: &'static str,
    mut command: Command,
    input: &[u8],
) -> Result<(), TestnetError> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(TestnetError::io("start", program))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that reads nothing may close its end first.
        let _closed = stdin.write_all(input).await;
    }
    let output = child
        .wait_with_output()
        .await
        .map_err(TestnetError::io("run", program))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(TestnetError::Command {
        program,
        detail: String::from_utf8_lossy(&said).trim().to_owned(),
    })
}

/// Gives all authorities the same shared random values, as if they had run the
/// protocol before (it takes 24 votes); onion services need them.
fn seed_shared_randomness(made: &[NewAuthority], dir: &NetworkDir) -> Result<(), TestnetError> {
    let now = SystemTime::now();
    let state = format!(
        "Version 1\nTorVersion testnet\nValidAfter {}\nValidUntil {}\n\
         SharedRandPreviousValue {n} {}\nSharedRandCurrentValue {n} {}\n",
        utc(now),
        utc(now + std::time::Duration::from_secs(86_400)),
        random_value(made, "previous"),
        random_value(made, "current"),
        n = made.len(),
    );
    for new in made {
        let path = dir.make_node_dir(&new.authority.nickname)?.join("sr-state");
        fs::write(&path, &state).map_err(TestnetError::io("write", &path))?;
    }
    Ok(())
}

/// As random as the fresh voting keys it is made from.
fn random_value(made: &[NewAuthority], label: &str) -> String {
    let mut hash = Sha256::new_with_prefix(label);
    for new in made {
        hash.update(&new.authority.v3ident);
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
    use std::time::Duration;

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
