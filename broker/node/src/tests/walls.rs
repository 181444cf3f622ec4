//! What keeps networks apart, and addresses out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dlambda_privacy::TransportError;
use dlambda_privacy::transport::memory::{MemoryNetwork, MemoryTransport};
use dlambda_privacy::transport::{Connection, Listener, Service, Transport};
use dlambda_proto::{Endpoint, NetworkId};
use futures::FutureExt as _;
use libp2p_core::transport::{DialOpts, PortUse, TransportError as DialRefused};
use libp2p_core::{Endpoint as Role, Transport as _};

use super::support::{Peer, endpoint, quick, transport, until, until_all_have};
use crate::transport::{OnionTransport, to_multiaddr};

const FAST: Duration = Duration::from_millis(5);

#[tokio::test(flavor = "multi_thread")]
async fn without_the_key_there_is_no_connection() {
    let network = MemoryNetwork::new(FAST);
    let keyed = |key: u8, bootstrap: &[&Peer]| {
        let mut config = quick(bootstrap);
        config.key = Some([key; 32]);
        config
    };
    let first = Peer::start(&network, 1, keyed(1, &[])).await;
    let friend = Peer::start(&network, 2, keyed(1, &[&first])).await;
    let wrong = Peer::start(&network, 3, keyed(2, &[&first])).await;
    let none = Peer::start(&network, 4, quick(&[&first])).await;
    let members = [first, friend];
    members[0].publish(b"for members").await;
    until_all_have(&members, b"for members").await;
    until("strangers were turned away", async || {
        members[0].refusals("connection not set up").await >= 2
    })
    .await;
    for stranger in [wrong, none] {
        assert_eq!(stranger.status().await.peers, 0);
        assert_eq!(stranger.status().await.items, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_different_networks_exchange_nothing() {
    let network = MemoryNetwork::new(FAST);
    let first = Peer::start(&network, 1, quick(&[])).await;
    let friend = Peer::start(&network, 2, quick(&[&first])).await;
    let mut config = quick(&[&first]);
    config.network = NetworkId::from_bytes([8; 16]);
    let stranger = Peer::start(&network, 3, config).await;
    stranger.publish(b"of another network").await;
    let members = [first, friend];
    members[0].publish(b"of this network").await;
    until_all_have(&members, b"of this network").await;
    until("one has hung up on the other", async || {
        let here = members[0].refusals("other protocols").await;
        here + stranger.refusals("other protocols").await > 0 && stranger.status().await.peers == 0
    })
    .await;
    assert!(!stranger.has(b"of this network"));
    assert!(members.iter().all(|peer| !peer.has(b"of another network")));
}

/// Counts dials.
struct Counting(MemoryTransport, AtomicUsize);

#[async_trait]
impl Transport for Counting {
    async fn dial(
        &self,
        endpoint: &Endpoint,
        service: Service,
    ) -> Result<Connection, TransportError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.dial(endpoint, service).await
    }

    async fn listen(&self, service: Service) -> Result<Box<dyn Listener>, TransportError> {
        self.0.listen(service).await
    }
}

#[tokio::test]
async fn what_is_no_onion_address_is_refused_and_not_dialled() {
    let network = MemoryNetwork::new(FAST);
    let counting = Counting(transport(&network, 1), AtomicUsize::new(0));
    let counting = Arc::new(counting);
    let listener = counting.listen(Service::Overlay).await.expect("listens");
    let traffic = Arc::default();
    let mut onion = OnionTransport::new(counting.clone(), listener, 1000 * FAST, traffic)
        .expect("an onion service");
    let options = DialOpts {
        role: Role::Dialer,
        port_use: PortUse::Reuse,
    };
    for text in [
        "/ip4/127.0.0.1/tcp/4001",
        "/ip4/192.0.2.1/udp/4001/quic-v1",
        "/dns4/example.org/tcp/443",
        "/dnsaddr/example.org",
    ] {
        let dialled = onion.dial(text.parse().expect("a multiaddr"), options);
        let refused = matches!(dialled, Err(DialRefused::MultiaddrNotSupported(_)));
        assert!(refused, "{text}");
    }
    assert_eq!(counting.1.load(Ordering::SeqCst), 0);
    // Nothing is dialled before the future is polled, and then once.
    let there = to_multiaddr(&endpoint(&network, 2)).expect("an onion service");
    let dialling = onion.dial(there, options);
    assert_eq!(counting.1.load(Ordering::SeqCst), 0);
    let Ok(dialling) = dialling else {
        panic!("an onion address is dialled");
    };
    assert!(dialling.boxed().await.is_err(), "nobody is there");
    assert_eq!(counting.1.load(Ordering::SeqCst), 1);
}
