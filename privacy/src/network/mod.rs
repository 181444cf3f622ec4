//! The network file: all that differs between the public network and another.

mod overlay;

use std::fmt;
use std::num::NonZeroU16;
use std::path::Path;
use std::str::FromStr;

use dlambda_proto::Endpoint;
use serde::{Deserialize, Deserializer};

pub use self::overlay::{OverlayNetwork, PreSharedKey};

use crate::NetworkFileError;

/// Which anonymity network to use, and how to find it.
///
/// Without a file these are the public Tor network with arti's defaults and
/// Nym's mainnet with its SDK's.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Network {
    /// Keeps the caches and state of different networks apart: 1 to 64 of
    /// `a-z 0-9 -`.
    pub name: String,
    /// How connections can be made, the preferred way first: at least one. In
    /// the file a name, or a list of names.
    #[serde(rename = "transport", deserialize_with = "one_or_several")]
    pub transports: Vec<TransportName>,
    /// Arti's own configuration, merged over arti's defaults.
    #[serde(default)]
    pub tor: toml::Table,
    /// The mixnet.
    #[serde(default)]
    pub nym: NymNetwork,
    /// Plain loopback sockets.
    #[serde(default)]
    pub direct: DirectNetwork,
    /// Where providers are found; without it, they have to be told.
    #[serde(default)]
    pub overlay: Option<OverlayNetwork>,
}

/// Where on loopback a provider listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DirectNetwork {
    /// A provider that is started again on the same port has the same address;
    /// without one, it takes any port that is free.
    pub port: Option<NonZeroU16>,
}

/// Which mixnet to use, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct NymNetwork {
    /// Base URL of the nym-api; without one, Nym's mainnet.
    pub api_url: Option<String>,
    /// How one's own traffic is hidden.
    pub traffic: NymTraffic,
    /// How long a packet waits at each mix on average, in ms, if not for as
    /// long as `traffic` says. A client that waits otherwise than others stands out.
    pub mean_delay_ms: Option<u16>,
}

/// How a Nym client hides its own traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NymTraffic {
    /// The SDK's own defaults: packets wait 15 ms at every hop on average, and
    /// leave at random times whether there is something to send or not.
    #[default]
    Standard,
    /// 1 ms a hop, no cover traffic, everything leaves at once. An observer of
    /// the caller's gateway then sees when a call is made and how large it is;
    /// the provider still does not learn who calls.
    Fast,
}

/// How connections are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TransportName {
    /// Plain loopback sockets, no anonymity. For tests of D-Lambda itself.
    DangerouslyDirect,
    /// The Nym mixnet, through a helper program.
    Nym,
    /// Tor, through arti.
    Tor,
}

impl Network {
    /// The public networks: Tor, and Nym's mainnet.
    #[must_use]
    pub fn public() -> Self {
        Self {
            name: "tor".to_owned(),
            transports: vec![TransportName::Tor, TransportName::Nym],
            tor: toml::Table::new(),
            nym: NymNetwork::default(),
            direct: DirectNetwork::default(),
            overlay: None,
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
        if let Some(wrong) = network.overlay.as_ref().and_then(OverlayNetwork::check) {
            return Err(NetworkFileError::Syntax(wrong.to_owned()));
        }
        Ok(network)
    }

    /// Whether its Tor directory authorities are its own: a private Tor network.
    pub(crate) fn has_own_authorities(&self) -> bool {
        let tor_network = self.tor.get("tor_network").and_then(toml::Value::as_table);
        tor_network.is_some_and(|it| it.contains_key("authorities"))
    }
}

impl TransportName {
    /// The transport that reaches such addresses.
    #[must_use]
    pub fn of(endpoint: &Endpoint) -> Option<Self> {
        match endpoint {
            Endpoint::DangerouslyDirect(_) => Some(Self::DangerouslyDirect),
            Endpoint::Nym(_) => Some(Self::Nym),
            Endpoint::Onion(_) => Some(Self::Tor),
            _ => None,
        }
    }
}

impl FromStr for TransportName {
    type Err = NetworkFileError;

    fn from_str(text: &str) -> Result<Self, NetworkFileError> {
        match text {
            "dangerously-direct" => Ok(Self::DangerouslyDirect),
            "nym" => Ok(Self::Nym),
            "tor" => Ok(Self::Tor),
            _ => Err(NetworkFileError::Syntax(
                "transports are `tor`, `nym` and `dangerously-direct`".to_owned(),
            )),
        }
    }
}

fn one_or_several<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<TransportName>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrSeveral {
        One(TransportName),
        Several(Vec<TransportName>),
    }
    let names = match OneOrSeveral::deserialize(from) {
        Ok(OneOrSeveral::One(name)) => vec![name],
        Ok(OneOrSeveral::Several(names)) => names,
        Err(_) => Vec::new(),
    };
    let repeated = (1..names.len()).any(|at| names[..at].contains(&names[at]));
    if names.is_empty() || repeated {
        return Err(serde::de::Error::custom(
            "`transport` is `tor`, `nym` or a list of both, each once",
        ));
    }
    Ok(names)
}

impl fmt::Display for TransportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DangerouslyDirect => "dangerously-direct",
            Self::Nym => "nym",
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
        assert_eq!(network.transports, [TransportName::Tor]);
        assert!(network.tor.contains_key("path_rules"));
    }

    #[test]
    fn a_private_tor_network_has_authorities_of_its_own() {
        assert!(!Network::public().has_own_authorities());
        let text = "name = \"mine\"\ntransport = \"tor\"\n";
        assert!(!Network::parse(text).unwrap().has_own_authorities());
        let private = format!("{text}[tor.tor_network.authorities]\nv3idents = []\n");
        assert!(Network::parse(&private).unwrap().has_own_authorities());
    }

    #[test]
    fn reads_several_transports() {
        let text = "name = \"t-1\"\ntransport = [\"nym\", \"tor\"]\n[nym]\napi_url = \"http://127.0.0.1:1/\"\ntraffic = \"fast\"\n";
        let network = Network::parse(text).expect("valid");
        assert_eq!(network.transports, [TransportName::Nym, TransportName::Tor]);
        assert_eq!(network.nym.traffic, NymTraffic::Fast);
        for name in network.transports {
            assert_eq!(name.to_string().parse::<TransportName>().ok(), Some(name));
        }
    }

    #[test]
    fn reads_a_port() {
        let text = "name = \"t-1\"\ntransport = \"dangerously-direct\"\n";
        let port = |text: &str| Network::parse(text).expect("valid").direct.port;
        assert_eq!(port(text), None);
        let fixed = format!("{text}[direct]\nport = 20000\n");
        assert_eq!(port(&fixed), NonZeroU16::new(20000));
    }

    #[test]
    fn refuses_mistakes() {
        for text in [
            "",
            "name = \"a\"\ntransport = \"carrier-pigeon\"",
            "name = \"../up\"\ntransport = \"tor\"",
            "name = \"a\"\ntransport = []",
            "name = \"a\"\ntransport = [\"tor\", \"tor\"]",
            "name = \"a\"\ntransport = \"nym\"\n[nym]\ntraffic = \"reckless\"",
            "name = \"a\"\ntransport = \"tor\"\ntransprot = 1",
            "name = \"a\"\ntransport = \"tor\"\n[direct]\nport = 0",
            "name = \"a\"\ntransport = \"tor\"\n[tor.storage]\nstate_dir = \"/\"",
        ] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
    }
}
