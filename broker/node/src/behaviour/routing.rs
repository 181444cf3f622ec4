//! Kademlia, which here finds nodes and stores nothing.

use std::borrow::Cow;
use std::iter::Empty;
use std::num::NonZeroUsize;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p_core::transport::PortUse;
use libp2p_core::{Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_kad::store::{Error, RecordStore, Result as StoreResult};
use libp2p_kad::{
    Behaviour, BucketInserts, Caching, Config, Event, Mode, ProviderRecord, Record, RecordKey,
    StoreInserts,
};
use libp2p_swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, StreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};

use crate::transport::from_multiaddr;

/// Addresses of one peer that are dialled for a query. Peers report as many as they like, and
/// each would be a circuit.
const ADDRESSES: usize = 2;

/// Bytes of a message: twenty peers with an onion address or two.
const MAX_PACKET: usize = 8 << 10;

/// Kademlia, of which the whole swarm sees onion addresses only.
pub(crate) struct Routing(Behaviour<NoRecords>);

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
        Self(routing)
    }

    /// A peer that we have dialled at this address.
    pub(crate) fn add(&mut self, peer: &PeerId, address: Multiaddr) {
        self.0.add_address(peer, address);
    }

    /// A peer that is no longer there, or that we want no more of.
    pub(crate) fn remove(&mut self, peer: &PeerId) {
        self.0.remove_peer(peer);
    }

    /// Looks for the nodes around a random place.
    pub(crate) fn look_around(&mut self) {
        self.0.get_closest_peers(PeerId::random());
    }

    /// How many peers are in the table.
    pub(crate) fn known(&mut self) -> usize {
        self.0.kbuckets().map(|bucket| bucket.num_entries()).sum()
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
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.0
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
        self.0
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
            .0
            .handle_pending_outbound_connection(connection, peer, addresses, role)?;
        known.retain(|address| from_multiaddr(address).is_some());
        known.truncate(ADDRESSES);
        Ok(known)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.0.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.0.on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.0.poll(cx)
    }
}
