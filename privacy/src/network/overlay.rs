//! The overlay of a network: its id, where to enter it, what an identity costs.

use std::fmt;

use dlambda_proto::{Endpoint, Endpoints, NetworkId};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// Which overlay to join, and how.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct OverlayNetwork {
    /// The overlay: 32 hexadecimal digits, drawn when it was made.
    pub id: NetworkId,
    /// Where guests and nodes enter it, 16 nodes at most: for each its onion address, and with a
    /// comma between, for guests, its Nym address. They are the root of trust: five or more, of
    /// different operators, are better than one.
    #[serde(default, deserialize_with = "nodes")]
    pub bootstrap: Vec<Endpoints>,
    /// What a listing costs its provider a day: solutions of Equihash (96, 5), some 15 ms each on
    /// one core.
    #[serde(default = "OverlayNetwork::default_effort")]
    pub effort: u64,
    /// A private overlay: nodes and guests without this key are told nothing. Who has it can read
    /// everything, and can only be shut out by a new one.
    #[serde(default)]
    pub key: Option<PreSharedKey>,
}

/// The key of a private overlay: 64 hexadecimal digits. `Debug` says nothing.
#[derive(Clone)]
pub struct PreSharedKey(Zeroizing<[u8; 32]>);

impl OverlayNetwork {
    /// Most bootstrap nodes.
    pub const MAX_BOOTSTRAP: usize = 16;

    /// Most addresses of one bootstrap node.
    pub const MAX_ADDRESSES: usize = 2;

    /// Every address of every bootstrap node.
    pub fn bootstrap_endpoints(&self) -> impl Iterator<Item = Endpoint> {
        let nodes = self.bootstrap.iter();
        nodes.flat_map(|it| it.as_slice().iter().copied())
    }

    /// One address of each bootstrap node that has such a one: who reaches a node at two of them
    /// would otherwise take it for two nodes.
    #[must_use]
    pub fn bootstrap_at(&self, reaches: impl Fn(&Endpoint) -> bool) -> Vec<Endpoint> {
        let nodes = self.bootstrap.iter();
        let at = nodes.filter_map(|it| it.as_slice().iter().find(|it| reaches(it)));
        at.copied().collect()
    }

    /// What a demand costs: a sixty-fourth of a listing.
    #[must_use]
    pub fn demand_effort(&self) -> u64 {
        (self.effort / 64).max(1)
    }

    fn default_effort() -> u64 {
        4096
    }

    /// What is wrong with it.
    pub(super) fn check(&self) -> Option<&'static str> {
        let reachable = |it: &Endpoint| matches!(it, Endpoint::Onion(_) | Endpoint::Nym(_));
        if self.bootstrap.len() > Self::MAX_BOOTSTRAP {
            return Some("`overlay.bootstrap` has at most 16 nodes");
        }
        let mut endpoints = self.bootstrap_endpoints();
        if !endpoints.all(|it| reachable(&it)) {
            return Some("`overlay.bootstrap` has onion and Nym addresses only");
        }
        let most = self.bootstrap.iter().map(|it| it.as_slice().len()).max();
        if most > Some(Self::MAX_ADDRESSES) {
            return Some("each node of `overlay.bootstrap` has at most two addresses");
        }
        (self.effort == 0).then_some("`overlay.effort` is at least 1")
    }
}

impl PreSharedKey {
    /// The key with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for PreSharedKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // The text must not get into an error, which may be printed.
        let wrong = || serde::de::Error::custom("`overlay.key` is 64 hexadecimal digits");
        let text = Zeroizing::new(String::deserialize(from).map_err(|_| wrong())?);
        let mut key = Zeroizing::new([0; 32]);
        if text.len() != 64 {
            return Err(wrong());
        }
        let decoded = data_encoding::HEXLOWER_PERMISSIVE.decode_mut(text.as_bytes(), &mut *key);
        decoded.map_err(|_| wrong())?;
        Ok(Self(key))
    }
}

fn nodes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Endpoints>, D::Error> {
    let each = Vec::<String>::deserialize(from)?.into_iter();
    let parsed = each.map(|text| text.parse());
    parsed
        .collect::<Result<_, _>>()
        .map_err(|error| serde::de::Error::custom(format_args!("`overlay.bootstrap`: {error}")))
}

impl fmt::Debug for PreSharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PreSharedKey([scrubbed])")
    }
}

#[cfg(test)]
mod tests {
    use dlambda_proto::{Endpoint, NymAddress};

    use crate::network::Network;

    const ONION: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

    fn nym() -> String {
        let mut base = [0x66; 32];
        base[0] = 0x58;
        let address = [base, [9; 32], base].concat().try_into().unwrap();
        NymAddress::from_bytes(address).unwrap().unredacted()
    }

    fn with(overlay: &str) -> Result<Network, String> {
        let text = format!("name = \"t\"\ntransport = \"tor\"\n[overlay]\n{overlay}");
        Network::parse(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_an_overlay() {
        let id = "00112233445566778899aabbccddeeff";
        let network = with(&format!("id = \"{id}\"")).unwrap().overlay.unwrap();
        assert_eq!(network.id.to_string(), id);
        assert_eq!((network.bootstrap.len(), network.effort), (0, 4096));
        assert!(network.key.is_none());
        let key = "0f".repeat(32);
        let all = format!("id = \"{id}\"\nbootstrap = [\"{ONION}\"]\neffort = 2\nkey = \"{key}\"");
        let network = with(&all).unwrap().overlay.unwrap();
        assert_eq!(network.bootstrap[0].unredacted(), ONION);
        assert_eq!(network.key.as_ref().unwrap().as_bytes(), &[0x0f; 32]);
        assert!(!format!("{network:?}").contains("15"), "{network:?}");
    }

    #[test]
    fn a_bootstrap_node_with_two_addresses_is_one_node() {
        let id = "id = \"00112233445566778899aabbccddeeff\"";
        let both = format!("{ONION},{}", nym());
        let overlay = with(&format!("{id}\nbootstrap = [\"{both}\", \"{}\"]", nym()));
        let overlay = overlay.unwrap().overlay.unwrap();
        assert_eq!(overlay.bootstrap.len(), 2);
        assert_eq!(overlay.bootstrap_endpoints().count(), 3);
        let onions = overlay.bootstrap_at(|it| matches!(it, Endpoint::Onion(_)));
        assert_eq!(onions.len(), 1);
        let all = overlay.bootstrap_at(|_| true);
        let all: Vec<_> = all.iter().map(Endpoint::unredacted).collect();
        assert_eq!(all, [ONION.to_owned(), nym()]);
    }

    #[test]
    fn refuses_mistakes_and_does_not_repeat_a_key() {
        let id = "id = \"00112233445566778899aabbccddeeff\"";
        for overlay in [
            "",
            "id = \"00\"",
            "id = \"00112233445566778899AABBCCDDEEFF\"",
            &format!("{id}\nbootstrap = [\"example.org\"]"),
            &format!("{id}\nbootstrap = [\"127.0.0.1:1\"]"),
            &format!("{id}\nbootstrap = [{}]", format!("\"{ONION}\",").repeat(17)),
            &format!("{id}\nbootstrap = [\"{ONION},{ONION},{ONION}\"]"),
            &format!("{id}\neffort = 0"),
            &format!("{id}\nkey = \"secret\""),
            &format!("{id}\nkey = \"secret{}\"", "0".repeat(58)),
            &format!("{id}\nother = 1"),
        ] {
            let error = with(overlay).expect_err(overlay);
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
