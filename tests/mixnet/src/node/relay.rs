//! What a node does with a packet: check, unwrap, delay, and send on or hand over.

use std::{
    io,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use nym_sphinx_forwarding::packet::MixPacket;
use nym_sphinx_framing::{
    codec::{NymCodec, NymCodecError},
    packet::FramedNymPacket,
    processing::{MixProcessingResultData, PartiallyUnwrappedPacket, ProcessedFinalHop},
};
use tokio_util::codec::FramedRead;

use super::{Forwarder, Node};
use crate::{run::Run, tap::WatchedStream};

/// The longest that a packet is delayed, whatever it asks for.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Takes in what reached the end of its route.
pub(crate) trait Exit: Send + Sync {
    /// Takes `message` for the client whose address is `to`; a SURB-ack is a
    /// message that nobody waits for once its client is gone.
    fn deliver(&self, to: [u8; 32], message: Vec<u8>, is_ack: bool) -> Delivery;
}

/// What became of a message at the end of its route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It is on its way to the client, or held for it.
    Taken,
    /// The client is not known here, or the message is no use any more.
    Unknown,
    /// No room.
    Full,
}

/// A node at work.
pub(crate) struct Relay {
    node: Arc<Node>,
    run: Run,
    forwarder: Arc<Forwarder>,
    exit: Option<Arc<dyn Exit>>,
}

impl Relay {
    pub(crate) fn new(
        node: Arc<Node>,
        run: Run,
        forwarder: Arc<Forwarder>,
        exit: Option<Arc<dyn Exit>>,
    ) -> Self {
        Self {
            node,
            run,
            forwarder,
            exit,
        }
    }

    /// Takes packets from another node until the connection ends, or something
    /// comes that is no packet.
    pub(crate) async fn read(self: Arc<Self>, stream: WatchedStream) {
        let mut frames = FramedRead::new(stream, NymCodec);
        while let Some(frame) = frames.next().await {
            match frame {
                Ok(packet) => self.receive(packet),
                Err(NymCodecError::IoError(err))
                    if err.kind() == io::ErrorKind::ConnectionReset =>
                {
                    return;
                }
                Err(err) => {
                    tracing::debug!(node = %self.node.identity.name, "no packet: {err}");
                    self.node.tally.malformed.up();
                    return;
                }
            }
        }
    }

    fn receive(&self, packet: FramedNymPacket) {
        let tally = &self.node.tally;
        tally.received.up();
        if self.node.shared.loss.strikes() {
            tally.dropped.up();
            return;
        }
        let key = self.node.identity.sphinx.private_key().inner();
        let Ok(packet) = PartiallyUnwrappedPacket::new(packet, key) else {
            tally.malformed.up();
            return;
        };
        if !self.is_new(&packet) {
            tally.replayed.up();
            return;
        }
        match packet
            .finalise_unwrapping()
            .map(|done| done.processing_data)
        {
            Ok(MixProcessingResultData::ForwardHop { packet, delay }) => {
                self.delay(
                    packet,
                    delay.map_or(Duration::ZERO, |delay| delay.to_duration()),
                );
            }
            Ok(MixProcessingResultData::FinalHop { final_hop_data }) => self.finish(final_hop_data),
            Err(err) => {
                tracing::debug!(node = %self.node.identity.name, "cannot unwrap: {err}");
                tally.malformed.up();
            }
        }
    }

    /// Whether the packet has not been here. One without a tag never counts as
    /// new: it could not be told from its replay.
    fn is_new(&self, packet: &PartiallyUnwrappedPacket) -> bool {
        packet.replay_tag().is_some_and(|tag| {
            let mut replay = self
                .node
                .replay
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            replay.insert(*tag)
        })
    }

    fn delay(&self, packet: MixPacket, delay: Duration) {
        let delay = delay.min(MAX_DELAY);
        let Ok(place) = self.node.delayed.clone().try_acquire_owned() else {
            self.node.tally.overflowed.up();
            return;
        };
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.node.tally.delay_us.add(micros);
        let forwarder = self.forwarder.clone();
        self.run.spawn(async move {
            tokio::time::sleep(delay).await;
            forwarder.send(packet).await;
            drop(place);
        });
    }

    fn finish(&self, hop: ProcessedFinalHop) {
        let tally = &self.node.tally;
        let Some(exit) = &self.exit else {
            tally.malformed.up();
            return;
        };
        tally.r#final.up();
        let is_ack = hop.forward_ack.is_none();
        match exit.deliver(*hop.destination.as_bytes_ref(), hop.message, is_ack) {
            Delivery::Taken => {
                if let Some(ack) = hop.forward_ack {
                    tally.acks.up();
                    // Without waiting: the exits must never wait for layer 1,
                    // which waits for layer 2, and so on to the exits.
                    self.forwarder.try_send(ack);
                }
            }
            Delivery::Unknown => tally.undeliverable.up(),
            Delivery::Full => tally.overflowed.up(),
        }
    }
}
