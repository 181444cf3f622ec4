//! Kademlia, which here finds nodes and stores nothing.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::iter::Empty;
use std::num::NonZeroUsize;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use dlambda_proto::Endpoint as Place;

use libp2p_core::transport::PortUse;
use libp2p_core::{Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_kad::store::{Error, RecordStore, Result as StoreResult};
use libp2p_kad::{
    Behaviour, BucketInserts, Caching, Config, Mode, ProviderRecord, QueryInfo, Record, RecordKey,
    StoreInserts,
};
use libp2p_swarm::dial_opts::DialOpts;
use libp2p_swarm::{
    ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour,
    StreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};

use crate::bucket::Bucket;
use crate::transport::from_multiaddr;

/// Addresses of one peer that are dialled for a query. Peers report as many as they like, and
/// each would be a circuit.
const ADDRESSES: usize = 2;

/// Bytes of a message: twenty peers with an onion address or two.
const MAX_PACKET: usize = 8 << 10;

/// Peers that a look-up may dial at once.
const DIALS: f64 = 4.0;

/// How long it takes until it may dial one more, in seconds.
const SECONDS_A_DIAL: f64 = 20.0;

/// Peers that a look-up asks.
const LOOKED_AT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);

/// What was heard of and not taken up yet.
const HEARD: usize = 256;

/// Kademlia, of which the whole swarm sees onion addresses only, and few dials: by itself it dials
/// whoever it hears of, and is soon connected to everybody.
pub(crate) struct Routing {
    inner: Behaviour<NoRecords>,
    dials: Bucket,
    heard: VecDeque<Heard>,
}

/// A peer that others know, and where they say it is.
#[derive(Debug)]
pub(crate) struct Heard {
    /// The peer.
    pub(crate) peer: PeerId,
    /// Where it should be.
    pub(crate) address: Place,
}

impl Routing {
    /// The routing of a node.
    pub(crate) fn new(local: PeerId, protocol: StreamProtocol) -> Self {
        let mut config = Config::new(protocol);
        config
            .set_query_timeout(Duration::from_secs(120))
            .set_substreams_timeout(Duration::from_secs(30))
            .set_max_packet_size(MAX_PACKET)
            .set_parallelism(NonZeroUsize::MIN.saturating_add(2))
            .disjoint_query_paths(true)
            .set_kbucket_inserts(BucketInserts::Manual)
            .set_record_filtering(StoreInserts::FilterBoth)
            .set_caching(Caching::Disabled)
            .set_record_ttl(None)
            .set_replication_interval(None)
            .set_publication_interval(None)
            .set_provider_record_ttl(None)
            .set_provider_publication_interval(None)
            // Look-ups are made at random times instead.
            .set_periodic_bootstrap_interval(None);
        let mut routing = Behaviour::with_config(local, NoRecords, config);
        routing.set_mode(Some(Mode::Server));
        Self {
            inner: routing,
            dials: Bucket::new(DIALS, 1.0 / SECONDS_A_DIAL, Instant::now()),
            heard: VecDeque::new(),
        }
    }

    /// Ends what Kademlia begins by itself whenever it knows a new peer and few others: look-ups
    /// in every bucket, of some hundred kilobytes each time.
    fn end_bootstraps(&mut self) {
        for mut query in self.inner.iter_queries_mut() {
            if matches!(query.info(), QueryInfo::Bootstrap { .. }) {
                query.finish();
            }
        }
    }

    /// Tells Kademlia that a peer cannot be reached, and us of the peer.
    fn do_not_dial(&mut self, options: &DialOpts) {
        let (Some(peer), connection) = (options.get_peer_id(), options.connection_id()) else {
            return;
        };
        let addresses = self.inner.handle_pending_outbound_connection(
            connection,
            Some(peer),
            &[],
            Endpoint::Dialer,
        );
        let mut addresses = addresses.unwrap_or_default().into_iter();
        if let Some(address) = addresses.find_map(|address| from_multiaddr(&address))
            && self.heard.len() < HEARD
        {
            self.heard.push_back(Heard { peer, address });
        }
        self.inner
            .on_swarm_event(FromSwarm::DialFailure(DialFailure {
                peer_id: Some(peer),
                error: &DialError::Aborted,
                connection_id: connection,
            }));
    }

    /// A peer that we have dialled at this address.
    pub(crate) fn add(&mut self, peer: &PeerId, address: Multiaddr) {
        self.inner.add_address(peer, address);
    }

    /// A peer that is no longer there, or that we want no more of.
    pub(crate) fn remove(&mut self, peer: &PeerId) {
        self.inner.remove_peer(peer);
    }

    /// Looks for the nodes around a random place.
    pub(crate) fn look_around(&mut self) {
        let place = PeerId::random();
        self.inner.get_n_closest_peers(place, LOOKED_AT);
    }

    /// How many peers are in the table.
    pub(crate) fn known(&mut self) -> usize {
        self.inner
            .kbuckets()
            .map(|bucket| bucket.num_entries())
            .sum()
    }
}

/// A store that takes nothing: what nodes keep is signed listings, in the catalogue.
pub(crate) struct NoRecords;

impl RecordStore for NoRecords {
    type RecordsIter<'a> = Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> StoreResult<()> {
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, _: ProviderRecord) -> StoreResult<()> {
        Err(Error::MaxProvidedKeys)
    }

    fn providers(&self, _: &RecordKey) -> Vec<ProviderRecord> {
        Vec::new()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }

    fn remove_provider(&mut self, _: &RecordKey, _: &PeerId) {}
}

impl NetworkBehaviour for Routing {
    type ConnectionHandler = <Behaviour<NoRecords> as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Heard;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let mut known = self
            .inner
            .handle_pending_outbound_connection(connection, peer, addresses, role)?;
        known.retain(|address| from_multiaddr(address).is_some());
        known.truncate(ADDRESSES);
        Ok(known)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner
            .on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            self.end_bootstraps();
            if let Some(heard) = self.heard.pop_front() {
                return Poll::Ready(ToSwarm::GenerateEvent(heard));
            }
            match ready!(self.inner.poll(cx)) {
                // What a look-up finds are peers that it has reached: we know them.
                ToSwarm::GenerateEvent(_) => {}
                ToSwarm::Dial { opts } if self.dials.take(Instant::now()) => {
                    return Poll::Ready(ToSwarm::Dial { opts });
                }
                ToSwarm::Dial { opts } => self.do_not_dial(&opts),
                other => {
                    return Poll::Ready(
                        other.map_out(|_| unreachable!("events are handled above")),
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dlambda_proto::OnionAddress;

    use super::*;
    use crate::transport::to_multiaddr;

    #[test]
    fn of_what_peers_report_few_onion_addresses_are_dialled() {
        let protocol = StreamProtocol::new("/dlambda/test");
        let mut routing = Routing::new(PeerId::random(), protocol);
        let peer = PeerId::random();
        let onion = |key: u8| {
            let address = OnionAddress::from_public_key([key; 32]);
            to_multiaddr(&Place::Onion(address)).expect("an onion service")
        };
        let ip4: Multiaddr = "/ip4/192.0.2.1/tcp/4001".parse().expect("a multiaddr");
        for address in [ip4, onion(1), onion(2), onion(3)] {
            routing.add(&peer, address);
        }
        let dialled = routing.handle_pending_outbound_connection(
            ConnectionId::new_unchecked(1),
            Some(peer),
            &[],
            Endpoint::Dialer,
        );
        let dialled = dialled.expect("is not denied");
        assert_eq!(dialled.len(), ADDRESSES);
        assert!(
            dialled
                .iter()
                .all(|address| from_multiaddr(address).is_some())
        );
    }
}
