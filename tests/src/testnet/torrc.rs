//! The configuration of every `tor` process.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::TestnetError;

/// Seconds between two votes.
///
/// Long, so that the network stands still during a test: the harness makes the
/// first consensus complete, and nothing needs a second one. It also makes
/// shared random values and onion service periods last 12 h, see
/// [`HSDIR_INTERVAL_MINUTES`].
const VOTING_INTERVAL: u64 = 1800;

/// The length of an onion service time period. C tor derives it from the voting
/// interval on testing networks (24 rounds); arti reads it from the consensus.
const HSDIR_INTERVAL_MINUTES: u64 = 24 * VOTING_INTERVAL / 60;

/// The shortest time after which a circuit counts as failed, in milliseconds.
///
/// Tor learns from the circuits it has built how long they may take. On loopback that is a few
/// hundredths of a second, which a busy machine exceeds.
const CIRCUIT_TIMEOUT_MS: u64 = 5000;

/// How far ahead the vote is parked until every descriptor has arrived.
const PARKED: Duration = Duration::from_secs(VOTING_INTERVAL - 120);

/// What the other nodes and the clients must know of an authority.
#[derive(Clone, Debug)]
pub(super) struct Authority {
    pub(super) nickname: String,
    pub(super) or_port: u16,
    pub(super) dir_port: u16,
    /// The fingerprint of its voting key.
    pub(super) v3ident: String,
    /// The fingerprint of its RSA relay key.
    pub(super) rsa_identity: String,
    /// Its Ed25519 relay key, base64.
    pub(super) ed_identity: String,
}

/// When a consensus becomes valid; votes go out a few seconds before.
#[derive(Clone, Copy, Debug)]
pub(super) struct VoteAt(u64);

impl VoteAt {
    /// Too late to happen by itself.
    pub(super) fn parked() -> Self {
        Self::at(SystemTime::now() + PARKED)
    }

    /// The first whole second that leaves time to vote (2 s) and to exchange
    /// signatures (2 s), both the least that tor accepts.
    pub(super) fn soon() -> Self {
        Self::at(SystemTime::now() + Duration::from_millis(5500))
    }

    fn at(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()))
    }

    /// How long from now until this vote has surely failed.
    pub(super) fn grace(self) -> Duration {
        let end = UNIX_EPOCH + Duration::from_secs(self.0 + 4);
        end.duration_since(SystemTime::now()).unwrap_or_default()
    }
}

/// Writes an authority's torrc.
pub(super) fn authority(me: &Authority, all: &[Authority], dir: &Path, vote: VoteAt) -> String {
    let mut torrc = node(&me.nickname, me.or_port, all, dir);
    let _infallible = write!(
        torrc,
        "\
DirPort 127.0.0.1:{dir_port}
ContactInfo testnet@example.org
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
ExitPolicy reject *:*
TestingDirAuthVoteExit *
TestingDirAuthVoteGuard *
TestingDirAuthVoteHSDir *
TestingMinExitFlagThreshold 0
MinUptimeHidServDirectoryV2 0
ConsensusParams cbtmintimeout={CIRCUIT_TIMEOUT_MS} hsdir_interval={HSDIR_INTERVAL_MINUTES}
TestingV3AuthVotingStartOffset {offset}
",
        dir_port = me.dir_port,
        offset = vote.0 % VOTING_INTERVAL,
    );
    torrc
}

/// Writes the torrc of a relay that exits to loopback.
pub(super) fn relay(nickname: &str, or_port: u16, all: &[Authority], dir: &Path) -> String {
    node(nickname, or_port, all, dir)
        + "\
ContactInfo testnet@example.org
ExitRelay 1
ExitPolicy accept 127.0.0.0/8:*
ExitPolicy reject *:*
ExitPolicyRejectPrivate 0
"
}

/// Writes a client's torrc; without a port it only proves that circuits work.
pub(super) fn client(socks_port: Option<u16>, all: &[Authority], dir: &Path) -> String {
    let socks = socks_port.map_or_else(|| "0".to_owned(), |port| format!("127.0.0.1:{port}"));
    format!("{}ClientOnly 1\nSocksPort {socks}\n", common(all, dir))
}

/// Writes the torrc of an onion service that forwards to `target`.
pub(super) fn onion(
    virtual_port: u16,
    target: std::net::SocketAddr,
    all: &[Authority],
    dir: &Path,
) -> String {
    format!(
        "{}SocksPort 0\nLog [rend]info stdout\nHiddenServiceDir {}\nHiddenServicePort {virtual_port} {target}\n",
        common(all, dir),
        quoted(&dir.join("onion")),
    )
}

/// Saves a torrc in its node's directory.
pub(super) fn save(dir: &Path, torrc: &str) -> Result<(), TestnetError> {
    let path = dir.join("torrc");
    fs::write(&path, torrc).map_err(TestnetError::io("write", &path))
}

fn node(nickname: &str, or_port: u16, all: &[Authority], dir: &Path) -> String {
    // No node asks a name server outside: this one does not answer.
    let resolv = quoted(&dir.join("resolv.conf"));
    format!(
        "\
{common}Nickname {nickname}
Address 127.0.0.1
ORPort 127.0.0.1:{or_port} IPv4Only
SocksPort 0
AssumeReachable 1
ShutdownWaitLength 0
ServerDNSDetectHijacking 0
ServerDNSResolvConfFile {resolv}
",
        common = common(all, dir),
    )
}

fn common(all: &[Authority], dir: &Path) -> String {
    let mut torrc = format!(
        "\
DataDirectory {dir}
Log notice stdout
LogTimeGranularity 1
__OwningControllerProcess {owner}
NumCPUs 1
MaxMemInQueues 512 MB
TestingTorNetwork 1
PathsNeededToBuildCircuits 0.25
TestingServerDownloadInitialDelay 0
TestingClientDownloadInitialDelay 0
TestingServerConsensusDownloadInitialDelay 0
TestingClientConsensusDownloadInitialDelay 0
TestingV3AuthInitialVotingInterval {VOTING_INTERVAL}
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
V3AuthVotingInterval {VOTING_INTERVAL}
V3AuthVoteDelay 4
V3AuthDistDelay 4
",
        dir = quoted(dir),
        owner = process::id(),
    );
    for authority in all {
        let _infallible = writeln!(
            torrc,
            "DirAuthority {} orport={} v3ident={} 127.0.0.1:{} {}",
            authority.nickname,
            authority.or_port,
            authority.v3ident,
            authority.dir_port,
            authority.rsa_identity,
        );
    }
    torrc
}

/// A path as torrc reads it even with `#` or spaces inside.
pub(super) fn quoted(path: &Path) -> String {
    let escaped = path
        .to_string_lossy()
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority_zero() -> Authority {
        Authority {
            nickname: "auth0".into(),
            or_port: 5001,
            dir_port: 7001,
            v3ident: "AA".repeat(20),
            rsa_identity: "BB".repeat(20),
            ed_identity: "CC".repeat(21),
        }
    }

    #[test]
    fn every_process_knows_the_authorities_and_watches_its_owner() {
        let all = [authority_zero()];
        let dir = Path::new("/tmp/a b#c");
        let torrcs = [
            authority(&all[0], &all, dir, VoteAt(1805)),
            relay("relay0", 5002, &all, dir),
            client(None, &all, dir),
            onion(80, ([127, 0, 0, 1], 8080).into(), &all, dir),
        ];
        let line = format!(
            "DirAuthority auth0 orport=5001 v3ident={} 127.0.0.1:7001 {}",
            all[0].v3ident, all[0].rsa_identity
        );
        let owner = format!("__OwningControllerProcess {}", process::id());
        for torrc in &torrcs {
            assert!(torrc.lines().any(|l| l == line));
            assert!(torrc.lines().any(|l| l == owner));
            assert!(torrc.lines().any(|l| l == "DataDirectory \"/tmp/a b#c\""));
            assert!(torrc.contains("SocksPort 0"));
        }
        assert!(torrcs[0].contains("TestingV3AuthVotingStartOffset 5\n"));
        assert!(!torrcs[1].contains("AuthoritativeDirectory"));
    }

    #[test]
    fn nothing_listens_beyond_loopback() {
        let all = [authority_zero()];
        let dir = Path::new("/tmp/x");
        let torrc = authority(&all[0], &all, dir, VoteAt(0)) + &client(Some(9), &all, dir);
        for line in torrc.lines().filter(|line| line.contains("Port ")) {
            assert!(
                line.contains(" 127.0.0.1:") || line.ends_with("Port 0"),
                "{line}"
            );
        }
    }

    #[test]
    fn a_parked_vote_is_far_and_a_vote_soon_is_near() {
        assert!(VoteAt::parked().grace() > Duration::from_secs(1500));
        assert!(VoteAt::soon().grace() < Duration::from_secs(10));
    }

    #[test]
    fn quotes_are_escaped() {
        assert_eq!(quoted(Path::new(r#"/a"b\c"#)), r#""/a\"b\\c""#);
    }
}
