//! Parts of published functions for peers that ask.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use dlambda_proto::encode;
use libp2p_identity::PeerId;
use libp2p_request_response::{InboundFailure, InboundRequestId, Message, ResponseChannel};

use super::run::Running;
use crate::behaviour::functions::{Event, MAX_PART, PartAnswer, PartRequest};
use crate::bucket::Bucket;
use crate::{PublishedFunctions, Store};

/// Bytes that all peers together get at once, and a second later: a peer that comes again under
/// another name gets no more.
const ALL_PEERS: (f64, f64) = (64.0 * MIB, MIB / 4.0);

/// Bytes that one peer gets at once, the largest function, and a second later.
pub(super) const ONE_PEER: (f64, f64) = (17.0 * MIB, MIB / 16.0);

/// What an answer without bytes costs.
const LEAST_COST: f64 = 4096.0;

/// Bytes of answers that are being sent at a time.
const SENDING: usize = 4 << 20;

const MIB: f64 = (1_u32 << 20) as f64;

/// What a node gives of published functions.
pub(super) struct Serving {
    functions: Option<Arc<dyn PublishedFunctions>>,
    budget: Bucket,
    /// Bytes of answers that are not sent yet.
    sending: HashMap<InboundRequestId, usize>,
}

impl Serving {
    pub(super) fn new(functions: Option<Arc<dyn PublishedFunctions>>, now: Instant) -> Self {
        Self {
            functions,
            budget: Bucket::new(ALL_PEERS.0, ALL_PEERS.1, now),
            sending: HashMap::new(),
        }
    }
}

impl<S: Store> Running<S> {
    pub(super) fn functions_event(&mut self, event: Event) {
        match event {
            Event::Message { peer, message, .. } => match message {
                Message::Request {
                    request_id,
                    request,
                    channel,
                } => self.serve_part(peer, request_id, &request, channel),
                Message::Response {
                    request_id,
                    response,
                } => self.part_came(peer, request_id, response),
            },
            Event::OutboundFailure {
                request_id, error, ..
            } => self.part_failed(request_id, &error),
            Event::InboundFailure {
                peer,
                request_id,
                error,
                ..
            } => {
                self.serving.sending.remove(&request_id);
                if let InboundFailure::Io(error) = error
                    && error.kind() == std::io::ErrorKind::InvalidData
                {
                    self.misbehaved(peer, "malformed request");
                }
            }
            Event::ResponseSent { request_id, .. } => {
                self.serving.sending.remove(&request_id);
            }
        }
    }

    fn serve_part(
        &mut self,
        peer: PeerId,
        id: InboundRequestId,
        request: &PartRequest,
        channel: ResponseChannel<PartAnswer>,
    ) {
        let now = Instant::now();
        let answer = match self.peers.may_ask(&peer, now) {
            true => self.part(request),
            false => PartAnswer::Busy,
        };
        let bytes = encode(&answer).len();
        let cost = LEAST_COST.max(f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)));
        let sending: usize = self.serving.sending.values().sum();
        let is_given = sending + bytes <= SENDING
            && self.peers.may_get(&peer, cost, now)
            && self.serving.budget.take_many(cost, now);
        let (answer, bytes) = match is_given {
            true => (answer, bytes),
            false => (PartAnswer::Busy, 0),
        };
        if answer == PartAnswer::Busy {
            self.status.refuse("too many function requests");
        }
        self.status.function_bytes_sent += bytes as u64;
        let functions = &mut self.swarm.behaviour_mut().functions;
        // It is an error if the peer has gone, or has waited too long.
        if functions.send_response(channel, answer).is_ok() {
            self.serving.sending.insert(id, bytes);
        }
    }

    fn part(&self, request: &PartRequest) -> PartAnswer {
        let part = self.serving.functions.as_ref().and_then(|functions| {
            let part = functions.part(&request.function, request.offset, MAX_PART)?;
            (!part.bytes.is_empty() && part.bytes.len() <= MAX_PART).then_some(part)
        });
        match part {
            Some(part) => PartAnswer::Part {
                size: part.size,
                bytes: part.bytes.into(),
            },
            None => PartAnswer::Missing,
        }
    }
}
