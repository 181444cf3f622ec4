//! Where a provider can be reached.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use minicbor::{CborLen, Decode, Encode};
use sha3::{Digest as _, Sha3_256};

use crate::{IdError, NymAddress};

/// The virtual port on which every provider's onion service answers. One port
/// for all: a port of one's own would be a mark.
pub const ONION_PORT: u16 = 443;

/// The virtual port of the overlay's own protocol, on the onion service of a node: the customary
/// port of libp2p. Guests come by [`ONION_PORT`].
pub const OVERLAY_PORT: u16 = 4001;

/// A version 3 onion address (Tor's rend-spec-v3, section 6), checksum verified.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OnionAddress([u8; 32]);

/// An address in the form that a transport understands.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// A plain loopback socket: no anonymity at all. For tests.
    DangerouslyDirect(SocketAddr),
    /// A client of the Nym mixnet.
    Nym(NymAddress),
    /// An onion service.
    Onion(OnionAddress),
}

/// The places where one provider is reached: one to eight, as people write
/// them with commas between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints(Vec<Endpoint>);

impl OnionAddress {
    /// The address of the onion service with this Ed25519 public key.
    #[must_use]
    pub fn from_public_key(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The address as people write it, with `.onion`.
    #[must_use]
    pub fn unredacted(&self) -> String {
        let mut bytes = self.0.to_vec();
        bytes.extend(self.checksum());
        bytes.push(Self::VERSION);
        format!("{}.onion", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }

    const VERSION: u8 = 3;

    fn checksum(&self) -> [u8; 2] {
        let mut hash = Sha3_256::new();
        hash.update(b".onion checksum");
        hash.update(self.0);
        hash.update([Self::VERSION]);
        let digest = hash.finalize();
        [digest[0], digest[1]]
    }
}

impl FromStr for OnionAddress {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let text = text.to_ascii_lowercase();
        let Some(name) = text.strip_suffix(".onion") else {
            return Err(IdError::Onion("it does not end in .onion"));
        };
        if name.len() != 56 {
            return Err(IdError::Onion(
                "a version 3 address has 56 characters before .onion",
            ));
        }
        let bytes = BASE32_NOPAD
            .decode(name.to_ascii_uppercase().as_bytes())
            .map_err(|_| IdError::Onion("a character outside a-z and 2-7"))?;
        let key = bytes
            .first_chunk::<32>()
            .ok_or(IdError::Onion("too short"))?;
        let address = Self(*key);
        if bytes[34] != Self::VERSION {
            return Err(IdError::Onion("it is not of version 3"));
        }
        if bytes[32..34] != address.checksum() {
            return Err(IdError::Onion(
                "its checksum is wrong; is a character mistyped?",
            ));
        }
        Ok(address)
    }
}

impl Endpoint {
    /// The endpoint as people write it.
    #[must_use]
    pub fn unredacted(&self) -> String {
        match self {
            Self::DangerouslyDirect(address) => address.to_string(),
            Self::Nym(address) => address.unredacted(),
            Self::Onion(address) => address.unredacted(),
        }
    }
}

impl FromStr for Endpoint {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self::DangerouslyDirect(address)),
            Ok(_) => Err(IdError::NotLoopback),
            Err(_) if text.contains('@') => text.parse().map(Self::Nym),
            Err(_) => text.parse().map(Self::Onion),
        }
    }
}

impl Endpoints {
    /// The most that an advert names.
    pub const MAX: usize = 8;

    /// The preferred one.
    #[must_use]
    pub fn first(&self) -> Endpoint {
        // There is one, or it would not have been made.
        self.0[0]
    }

    /// All of them; at least one.
    #[must_use]
    pub fn as_slice(&self) -> &[Endpoint] {
        &self.0
    }

    /// As people write them.
    #[must_use]
    pub fn unredacted(&self) -> String {
        let each: Vec<String> = self.0.iter().map(Endpoint::unredacted).collect();
        each.join(",")
    }
}

impl From<Endpoint> for Endpoints {
    fn from(endpoint: Endpoint) -> Self {
        Self(vec![endpoint])
    }
}

impl TryFrom<Vec<Endpoint>> for Endpoints {
    type Error = IdError;

    fn try_from(endpoints: Vec<Endpoint>) -> Result<Self, IdError> {
        match endpoints.len() {
            1..=Self::MAX => Ok(Self(endpoints)),
            _ => Err(IdError::Endpoints),
        }
    }
}

impl FromStr for Endpoints {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let each = text.split(',').take(Self::MAX + 1).map(str::parse);
        each.collect::<Result<Vec<_>, _>>()?.try_into()
    }
}

impl<C> Encode<C> for Endpoint {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.unredacted())?.ok()
    }
}

impl<C> CborLen<C> for Endpoint {
    fn cbor_len(&self, ctx: &mut C) -> usize {
        self.unredacted().as_str().cbor_len(ctx)
    }
}

impl<'b, C> Decode<'b, C> for Endpoint {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.str()?
            .parse()
            .map_err(|_| minicbor::decode::Error::message("not an endpoint"))
    }
}

impl fmt::Debug for OnionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnionAddress([scrubbed])")
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DangerouslyDirect(_) => f.write_str("DangerouslyDirect([scrubbed])"),
            Self::Nym(_) => f.write_str("Nym([scrubbed])"),
            Self::Onion(_) => f.write_str("Onion([scrubbed])"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The Tor Project's own onion site.
    const TOR: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

    #[test]
    fn reads_and_writes_a_known_address() {
        let address: OnionAddress = TOR.parse().expect("a good address");
        assert_eq!(address.unredacted(), TOR);
        assert_eq!(TOR.to_uppercase().parse(), Ok(address));
        assert!(!format!("{address:?}").contains("2gzyxa"));
    }

    #[test]
    fn refuses_what_is_not_an_onion_address() {
        for text in [
            "",
            "example.com",
            "expyuzz4wqqyqhjn.onion",
            &TOR.replace("2gzy", "2gzz"),
            &TOR.replace("wid.onion", "wia.onion"),
            &TOR.replace('2', "1"),
            &format!("{}.onion", "é".repeat(28)),
        ] {
            assert!(text.parse::<OnionAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn one_provider_has_one_to_eight_places() {
        let both: Endpoints = format!("{TOR},127.0.0.1:9").parse().expect("two");
        assert_eq!(both.as_slice().len(), 2);
        assert_eq!(both.unredacted().parse(), Ok(both));
        for text in ["", ",", &format!("{TOR},"), &[TOR; 9].join(",")] {
            assert!(text.parse::<Endpoints>().is_err(), "{text}");
        }
    }

    #[test]
    fn direct_endpoints_are_loopback_only() {
        assert!("127.0.0.1:9".parse::<Endpoint>().is_ok());
        assert_eq!("192.0.2.1:9".parse::<Endpoint>(), Err(IdError::NotLoopback));
    }
}
