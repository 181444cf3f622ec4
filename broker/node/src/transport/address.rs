//! Onion addresses as libp2p writes them.

use dlambda_proto::{Endpoint, OnionAddress};
use libp2p_core::multiaddr::{Multiaddr, Protocol};

/// The port in every address. It is notation only: the transport below knows the real one, and a
/// port of one's own would be a mark. libp2p's customary port.
const PORT: u16 = 4001;

/// `/onion3/HASH:4001`; `None` if the endpoint is no onion service.
pub(crate) fn to_multiaddr(endpoint: &Endpoint) -> Option<Multiaddr> {
    let Endpoint::Onion(address) = endpoint else {
        return None;
    };
    let text = address.unredacted();
    let name = text.strip_suffix(".onion")?;
    format!("/onion3/{name}:{PORT}").parse().ok()
}

/// The endpoint of `/onion3/HASH:4001`, with or without a `/p2p/PEER` behind it; `None` for every
/// other address.
pub(crate) fn from_multiaddr(address: &Multiaddr) -> Option<Endpoint> {
    let mut parts = address.iter();
    let Some(Protocol::Onion3(onion)) = parts.next() else {
        return None;
    };
    if onion.port() != PORT {
        return None;
    }
    match (parts.next(), parts.next()) {
        (None | Some(Protocol::P2p(_)), None) => {}
        _ => return None,
    }
    let text = Protocol::Onion3(onion).to_string();
    let name = text.strip_prefix("/onion3/")?.split(':').next()?;
    // Checks version and checksum.
    let address: OnionAddress = format!("{name}.onion").parse().ok()?;
    Some(Endpoint::Onion(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_onion_address_survives_the_way_through_libp2p() {
        let endpoint = Endpoint::Onion(OnionAddress::from_public_key([7; 32]));
        let address = to_multiaddr(&endpoint).expect("an onion service");
        assert!(address.to_string().starts_with("/onion3/"));
        assert_eq!(from_multiaddr(&address), Some(endpoint));
        let peer = libp2p_identity::PeerId::random();
        let with_peer = address.with(Protocol::P2p(peer));
        assert_eq!(from_multiaddr(&with_peer), Some(endpoint));
    }

    #[test]
    fn every_other_address_is_refused() {
        let endpoint = Endpoint::Onion(OnionAddress::from_public_key([7; 32]));
        let good = to_multiaddr(&endpoint).expect("an onion service");
        let mut texts: Vec<String> = [
            "/ip4/192.0.2.1/tcp/4001",
            "/ip6/::1/tcp/4001",
            "/ip4/192.0.2.1/udp/4001/quic-v1",
            "/dns/example.org/tcp/443",
            "/dns4/example.org/tcp/443/wss",
            "/dnsaddr/example.org",
            "/memory/1",
            "/unix/tmp",
        ]
        .map(str::to_owned)
        .to_vec();
        texts.push(format!("{good}/p2p-circuit"));
        texts.push(format!("{good}/tcp/80"));
        texts.push(format!("/ip4/192.0.2.1/tcp/9050{good}"));
        texts.push(good.to_string().replace(":4001", ":80"));
        for text in texts {
            let address: Multiaddr = text.parse().expect("a multiaddr");
            assert_eq!(from_multiaddr(&address), None, "{text}");
        }
        let forged = Multiaddr::from(Protocol::Onion3(([7; 35], PORT).into()));
        assert_eq!(from_multiaddr(&forged), None, "its checksum is wrong");
        assert_eq!(from_multiaddr(&Multiaddr::empty()), None);
    }
}
