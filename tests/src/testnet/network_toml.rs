//! The file that tells programs how to use the network.

use std::{fmt::Write as _, fs, path::Path};

use super::{TestnetError, torrc::Authority};

/// Writes `network.toml`.
pub(super) fn save(path: &Path, authorities: &[Authority]) -> Result<(), TestnetError> {
    write(path, &render(authorities))
}

/// Writes a network file.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), TestnetError> {
    fs::write(path, text).map_err(TestnetError::io("write", path))
}

/// Says in a Tor network's file that there is a mixnet, too, which `section`
/// describes.
pub(crate) fn add_nym(path: &Path, section: &str) -> Result<(), TestnetError> {
    let text = fs::read_to_string(path).map_err(TestnetError::io("read", path))?;
    write(path, &with_nym(&text, section))
}

fn with_nym(text: &str, section: &str) -> String {
    let both = "transport = [\"tor\", \"nym\"]";
    text.replacen(ONLY_TOR, both, 1) + section
}

const ONLY_TOR: &str = "transport = \"tor\"";

fn render(authorities: &[Authority]) -> String {
    // Fresh keys make the name unique, and stable across restarts of nodes.
    let unique: String = authorities
        .iter()
        .flat_map(|authority| authority.v3ident.chars())
        .take(8)
        .map(|digit| digit.to_ascii_lowercase())
        .collect();
    let v3idents: Vec<_> = authorities
        .iter()
        .map(|authority| format!("\"{}\"", authority.v3ident))
        .collect();
    let mut toml = format!(
        "\
# A private Tor network on loopback; made by dlambda-testnet. It ends with the
# program that made it, and offers no anonymity.
name = \"testnet-{unique}\" # keeps its cache and state apart from other networks'
{ONLY_TOR}

[tor] # arti configuration, merged over arti's defaults
address_filter.allow_local_addrs = true
# All relays share one address: do not take them for one family.
path_rules.ipv4_subnet_family_prefix = 33
path_rules.ipv6_subnet_family_prefix = 129

[tor.tor_network.authorities]
v3idents = [{}]
",
        v3idents.join(", "),
    );
    for authority in authorities {
        let _infallible = write!(
            toml,
            "
[[tor.tor_network.fallback_caches]]
rsa_identity = \"{}\"
ed_identity = \"{}\"
orports = [\"127.0.0.1:{}\"]
",
            authority.rsa_identity, authority.ed_identity, authority.or_port,
        );
    }
    toml
}

#[cfg(test)]
mod tests {
    use dlambda_privacy::network::{Network, TransportName};

    use super::*;

    fn authority(index: u16) -> Authority {
        Authority {
            nickname: format!("auth{index}"),
            or_port: 5000 + index,
            dir_port: 7000 + index,
            v3ident: "0B1E8F6E708A4C33A9D8B66771ADF60F472514E0".into(),
            rsa_identity: "4966FA9194C1ED7CA3B23F04748C21B7CC806E3A".into(),
            ed_identity: "m195KSTwzXvqFO3jzOQPVUzIqByVVLPBFjUphfYkwyo".into(),
        }
    }

    #[test]
    fn our_programs_accept_the_file() {
        let network = Network::parse(&render(&[authority(0), authority(1)])).unwrap();
        assert_eq!(network.name, "testnet-0b1e8f6e");
        assert_eq!(network.transports, [TransportName::Tor]);
        let caches = network.tor["tor_network"]["fallback_caches"].as_array();
        assert_eq!(caches.map(Vec::len), Some(2));
    }

    #[test]
    fn our_programs_accept_the_file_with_a_mixnet_in_it() {
        let section = "\n[nym]\napi_url = \"http://127.0.0.1:9/\"\n";
        let network = Network::parse(&with_nym(&render(&[authority(0)]), section)).unwrap();
        assert_eq!(network.transports, [TransportName::Tor, TransportName::Nym]);
        assert!(network.nym.api_url.is_some() && !network.tor.is_empty());
    }
}
