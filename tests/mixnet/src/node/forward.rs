//! Connections to next hops: one each, made when needed, and made again.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use nym_sphinx_forwarding::packet::MixPacket;
use nym_sphinx_framing::{codec::NymCodec, packet::FramedNymPacket};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_util::codec::Encoder;

use super::Node;
use crate::run::Run;

/// Sends one node's packets to their next hops.
pub(crate) struct Forwarder {
    node: Arc<Node>,
    run: Run,
    /// As many at most as the network has nodes.
    hops: Mutex<HashMap<SocketAddr, mpsc::Sender<MixPacket>>>,
}

impl Forwarder {
    pub(crate) fn new(node: Arc<Node>, run: Run) -> Self {
        Self {
            node,
            run,
            hops: Mutex::default(),
        }
    }

    /// Sends `packet` to its next hop, waiting for room in the queue.
    pub(crate) async fn send(&self, packet: MixPacket) {
        let Some(queue) = self.queue(packet.next_hop_address()) else {
            return;
        };
        // Fails at the end of the run only.
        let _ = queue.send(packet).await;
    }

    /// Sends `packet` to its next hop, or gives it up when the queue is full.
    pub(crate) fn try_send(&self, packet: MixPacket) {
        let Some(queue) = self.queue(packet.next_hop_address()) else {
            return;
        };
        if let Err(mpsc::error::TrySendError::Full(_)) = queue.try_send(packet) {
            self.node.tally.overflowed.up();
        }
    }

    /// The queue of a next hop; none (and counted) when no node listens there.
    fn queue(&self, hop: SocketAddr) -> Option<mpsc::Sender<MixPacket>> {
        if !self.node.shared.hops.contains(&hop) {
            self.node.tally.malformed.up();
            return None;
        }
        let mut hops = self.hops.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = hops.entry(hop).or_insert_with(|| {
            let (queue, packets) = mpsc::channel(self.node.shared.limits.queued);
            let link = Outgoing::new(hop);
            self.run.spawn(write(self.node.clone(), link, packets));
            queue
        });
        Some(queue.clone())
    }
}

/// Writes packets to one next hop. A packet that cannot be written is given up:
/// its sender hears no ack and sends another.
async fn write(node: Arc<Node>, mut link: Outgoing, mut packets: mpsc::Receiver<MixPacket>) {
    let mut frame = tokio_util::bytes::BytesMut::new();
    loop {
        let packet = tokio::select! {
            packet = packets.recv() => packet,
            () = link.closed() => continue,
        };
        let Some(packet) = packet else { return };
        frame.clear();
        let framed = FramedNymPacket::from_mix_packet(packet, false);
        if NymCodec.encode(framed, &mut frame).is_err() {
            node.tally.malformed.up();
            continue;
        }
        match link.write(&frame).await {
            Ok(()) => node.tally.forwarded.up(),
            Err(err) => {
                tracing::debug!(node = %node.identity.name, hop = %link.hop, "not sent: {err}");
                node.tally.undeliverable.up();
            }
        }
    }
}

/// A connection to a next hop that may be down.
struct Outgoing {
    hop: SocketAddr,
    stream: Option<TcpStream>,
}

impl Outgoing {
    fn new(hop: SocketAddr) -> Self {
        Self { hop, stream: None }
    }

    /// Waits until the next hop closes the connection, which it never writes
    /// to: the next packet must not be written into a connection that is gone.
    async fn closed(&mut self) {
        match &mut self.stream {
            None => std::future::pending().await,
            Some(stream) => {
                let mut byte = [0];
                let _ = stream.read(&mut byte).await;
                self.stream = None;
            }
        }
    }

    async fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        if let Some(stream) = &mut self.stream
            && stream.write_all(frame).await.is_ok()
        {
            return Ok(());
        }
        let stream = self.stream.insert(connect(self.hop).await?);
        let written = stream.write_all(frame).await;
        if written.is_err() {
            self.stream = None;
        }
        written
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "nodes of the test network dial each other, on loopback"
)]
async fn connect(hop: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(hop).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
