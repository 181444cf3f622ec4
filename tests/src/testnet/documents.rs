//! Reading the few lines the harness needs from files that tor writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use super::TestnetError;

/// Flags without which a node would be of no use to clients.
const NEEDED_FLAGS: [&str; 6] = ["Fast", "Guard", "HSDir", "Running", "V2Dir", "Valid"];

/// The second word of a `fingerprint` or `fingerprint-ed25519` file, the
/// first being the nickname.
pub(super) fn read_fingerprint(path: &Path) -> Result<String, TestnetError> {
    word_after(path, None, "a fingerprint")
}

/// The fingerprint of the voting key in an authority certificate.
pub(super) fn read_v3ident(certificate: &Path) -> Result<String, TestnetError> {
    word_after(
        certificate,
        Some("fingerprint"),
        "the voting key's fingerprint",
    )
}

/// The nicknames of the nodes whose descriptors an authority has stored.
pub(super) fn read_described(authority_dir: &Path) -> BTreeSet<String> {
    ["cached-descriptors", "cached-descriptors.new"]
        .iter()
        .flat_map(|name| described(&read_lossy(&authority_dir.join(name))))
        .collect()
}

/// Whether a node has the consensus.
pub(super) fn has_consensus(dir: &Path) -> bool {
    dir.join("cached-microdesc-consensus").is_file()
}

/// Checks that a client's consensus lists every node as fully usable and equal
/// in bandwidth, and that it carries shared random values.
pub(super) fn check_consensus<'a>(
    client_dir: &Path,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), TestnetError> {
    let consensus = read_lossy(&client_dir.join("cached-microdesc-consensus"));
    let problems = problems(&consensus, names);
    if problems.is_empty() {
        return Ok(());
    }
    Err(TestnetError::Incomplete(problems.join(", ")))
}

fn word_after(
    path: &Path,
    keyword: Option<&str>,
    expected: &'static str,
) -> Result<String, TestnetError> {
    let text = fs::read_to_string(path).map_err(TestnetError::io("read", path))?;
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(first, _)| keyword.is_none_or(|keyword| *first == keyword))
        .map(|(_, rest)| rest.split_whitespace().collect::<String>())
        .filter(|word| !word.is_empty())
        .ok_or_else(|| TestnetError::Parse {
            path: path.to_owned(),
            expected,
        })
}

fn described(descriptors: &str) -> Vec<String> {
    descriptors
        .lines()
        .filter_map(|line| line.strip_prefix("router "))
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

fn problems<'a>(consensus: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let flags = flags_by_name(consensus);
    let mut problems = Vec::new();
    for name in names {
        match flags.get(name) {
            None => problems.push(format!("{name} is missing")),
            Some(flags) => problems.extend(
                NEEDED_FLAGS
                    .iter()
                    .filter(|flag| !flags.contains(*flag))
                    .map(|flag| format!("{name} is not {flag}")),
            ),
        }
    }
    let mut bandwidths = consensus.lines().filter(|line| line.starts_with("w "));
    if let Some(first) = bandwidths.next()
        && bandwidths.any(|line| line != first)
    {
        problems.push("bandwidths differ".to_owned());
    }
    if !consensus.contains("\nshared-rand-current-value ") {
        problems.push("no shared random value".to_owned());
    }
    problems
}

fn flags_by_name(consensus: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut flags = BTreeMap::new();
    let mut name = None;
    for line in consensus.lines() {
        if let Some(rest) = line.strip_prefix("r ") {
            name = rest.split(' ').next();
        } else if let (Some(rest), Some(name)) = (line.strip_prefix("s "), name) {
            flags.insert(name, rest.split(' ').collect());
        }
    }
    flags
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSENSUS: &str = "network-status-version 3 microdesc\n\
        shared-rand-current-value 3 AAAA=\n\
        r auth0 x 2026-11-23 21:33:37 127.0.0.1 5001 7001\nm x\n\
        s Authority Exit Fast Guard HSDir Running Stable V2Dir Valid\n\
        r relay0 y 2026-11-23 21:33:37 127.0.0.1 5002 0\nm y\n\
        s Exit Fast HSDir Running Stable V2Dir Valid\nw Bandwidth=0 Unmeasured=1\n";

    fn written(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn reads_fingerprints() {
        let (_dir, path) = written("auth0 4966FA9194C1ED7CA3B23F04748C21B7CC806E3A\n");
        assert_eq!(
            read_fingerprint(&path).unwrap(),
            "4966FA9194C1ED7CA3B23F04748C21B7CC806E3A"
        );
        let (_dir, path) = written("auth0 m195KSTwzXvqFO3jzOQPVUzIqByVVLPBFjUphfYkwyo\n");
        assert_eq!(
            read_fingerprint(&path).unwrap(),
            "m195KSTwzXvqFO3jzOQPVUzIqByVVLPBFjUphfYkwyo"
        );
    }

    #[test]
    fn joins_a_fingerprint_in_groups() {
        let (_dir, path) = written("relay0 4966 FA91 94C1\n");
        assert_eq!(read_fingerprint(&path).unwrap(), "4966FA9194C1");
    }

    #[test]
    fn reads_the_voting_key_from_a_certificate() {
        let (_dir, path) = written(
            "dir-key-certificate-version 3\nfingerprint 0B1E8F6E\ndir-key-published 2026\n",
        );
        assert_eq!(read_v3ident(&path).unwrap(), "0B1E8F6E");
    }

    #[test]
    fn an_empty_file_is_an_error() {
        let (_dir, path) = written("");
        assert!(matches!(
            read_fingerprint(&path),
            Err(TestnetError::Parse { .. })
        ));
    }

    #[test]
    fn names_what_a_consensus_lacks() {
        assert!(problems(CONSENSUS, ["auth0"].into_iter()).is_empty());
        assert_eq!(
            problems(CONSENSUS, ["auth0", "relay0", "relay1"].into_iter()),
            ["relay0 is not Guard", "relay1 is missing"]
        );
        assert_eq!(problems("", std::iter::empty()), ["no shared random value"]);
        let uneven = CONSENSUS.to_owned() + "w Bandwidth=1 Unmeasured=1\n";
        assert_eq!(problems(&uneven, std::iter::empty()), ["bandwidths differ"]);
    }

    #[test]
    fn lists_described_nodes() {
        let text = "@uploaded-at 2026\nrouter relay3 127.0.0.1 5 0 0\nrouter-signature\nrouter auth0 127.0.0.1 6 0 7\n";
        assert_eq!(described(text), ["relay3", "auth0"]);
    }
}
