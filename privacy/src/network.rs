//! The network file: all that differs between the public network and another.

use std::fmt;
use std::path::Path;

use serde::Deserialize;

use crate::NetworkFileError;

/// Which anonymity network to use, and how to find it.
///
/// Without a file this is the public Tor network with arti's defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Network {
    /// Keeps the caches and state of different networks apart: 1 to 64 of
    /// `a-z 0-9 -`.
    pub name: String,
    /// How connections are made.
    pub transport: TransportName,
    /// Arti's own configuration, merged over arti's defaults.
    #[serde(default)]
    pub tor: toml::Table,
}

/// How connections are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TransportName {
    /// Plain loopback sockets, no anonymity. For tests of D-Lambda itself.
    DangerouslyDirect,
    /// Tor, through arti.
    Tor,
}

impl Network {
    /// The public Tor network.
    #[must_use]
    pub fn public() -> Self {
        Self {
            name: "tor".to_owned(),
            transport: TransportName::Tor,
            tor: toml::Table::new(),
        }
    }

    /// Reads a network file.
    ///
    /// # Errors
    ///
    /// [`NetworkFileError`] if it cannot be read or is not valid.
    pub fn read(path: &Path) -> Result<Self, NetworkFileError> {
        Self::parse(&std::fs::read_to_string(path)?)
    }

    /// Reads the text of a network file.
    ///
    /// # Errors
    ///
    /// [`NetworkFileError::Syntax`] if it is not valid.
    pub fn parse(text: &str) -> Result<Self, NetworkFileError> {
        let network: Self = toml::from_str(text)
            .map_err(|error| NetworkFileError::Syntax(error.message().to_owned()))?;
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=64).contains(&network.name.len()) || !network.name.bytes().all(good) {
            return Err(NetworkFileError::Syntax(
                "`name` must be 1 to 64 lower-case letters, digits or hyphens".to_owned(),
            ));
        }
        if network.tor.contains_key("storage") {
            return Err(NetworkFileError::Syntax(
                "`tor.storage` is not the network's to decide".to_owned(),
            ));
        }
        Ok(network)
    }
}

impl fmt::Display for TransportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DangerouslyDirect => "dangerously-direct",
            Self::Tor => "tor",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_network_file() {
        let text = "name = \"t-1\"\ntransport = \"tor\"\n[tor.path_rules]\nipv4_subnet_family_prefix = 33\n";
        let network = Network::parse(text).expect("valid");
        assert_eq!(network.transport, TransportName::Tor);
        assert!(network.tor.contains_key("path_rules"));
    }

    #[test]
    fn refuses_mistakes() {
        for text in [
            "",
            "name = \"a\"\ntransport = \"carrier-pigeon\"",
            "name = \"../up\"\ntransport = \"tor\"",
            "name = \"a\"\ntransport = \"tor\"\ntransprot = 1",
            "name = \"a\"\ntransport = \"tor\"\n[tor.storage]\nstate_dir = \"/\"",
        ] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
    }
}
