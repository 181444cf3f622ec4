//! A function from one other node: one fetch at a time.

use std::collections::HashMap;
use std::time::Instant;

use dlambda_proto::{Endpoint, FunctionId};
use libp2p_identity::PeerId;
use libp2p_request_response::{OutboundFailure, OutboundRequestId};
use libp2p_swarm::ConnectionId;
use libp2p_swarm::dial_opts::PeerCondition;
use tokio::sync::oneshot;

use super::connecting::BAN;
use super::download::{Download, Progress};
use super::peers::Candidate;
use super::run::Running;
use crate::behaviour::functions::{PartAnswer, PartRequest};
use crate::{FetchError, Store};

/// Nodes that have sent wrong bytes and are not asked for now.
const MAX_LEFT_ALONE: usize = 256;

/// Connections to a node that may be lost while another one to it stands.
const MAX_LOSSES: u8 = 3;

/// What a fetch ends with.
pub(super) type Fetched = Result<Vec<u8>, FetchError>;

/// Fetches of a node.
#[derive(Default)]
pub(super) struct Fetching {
    current: Option<Fetch>,
    /// Until when. Nodes are left alone by their address: a peer's name costs nothing.
    left_alone: HashMap<Endpoint, Instant>,
}

struct Fetch {
    at: Endpoint,
    stage: Stage,
    download: Download,
    answer: oneshot::Sender<Fetched>,
    /// Connections that were lost under way.
    losses: u8,
}

/// What is awaited.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connection(ConnectionId),
    Part(PeerId, OutboundRequestId),
}

impl Fetching {
    /// The peer that is being asked.
    pub(super) fn peer(&self) -> Option<PeerId> {
        match self.current.as_ref()?.stage {
            Stage::Connection(_) => None,
            Stage::Part(peer, _) => Some(peer),
        }
    }

    /// Whether a fetch goes on that somebody waits for.
    fn is_under_way(&self) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|it| !it.answer.is_closed())
    }

    fn is_left_alone(&self, at: &Endpoint, now: Instant) -> bool {
        self.left_alone.get(at).is_some_and(|until| *until > now)
    }

    fn leave_alone(&mut self, at: Endpoint, now: Instant) {
        self.left_alone.retain(|_, until| *until > now);
        if self.left_alone.len() < MAX_LEFT_ALONE {
            self.left_alone.insert(at, now + BAN);
        }
    }

    /// The fetch, if it waits for this.
    fn take_if(&mut self, is_meant: impl Fn(Stage) -> bool) -> Option<Fetch> {
        self.current.take_if(|it| is_meant(it.stage))
    }
}

impl Fetch {
    fn end(self, result: Fetched) {
        // Who asked may have gone.
        let _ = self.answer.send(result);
    }
}

impl<S: Store> Running<S> {
    /// Begins a fetch.
    pub(super) fn fetch_function(
        &mut self,
        at: Endpoint,
        function: FunctionId,
        most: u32,
        answer: oneshot::Sender<Fetched>,
    ) {
        let now = Instant::now();
        let refused = if self.fetching.is_under_way() {
            Some(FetchError::Occupied)
        } else if self.fetching.is_left_alone(&at, now) {
            Some(FetchError::LeftAlone)
        } else if at == self.own {
            Some(FetchError::Unreachable)
        } else {
            None
        };
        if let Some(error) = refused {
            let _ = answer.send(Err(error));
            return;
        }
        let download = Download::new(function, most);
        let stage = match self.peers.reached_at(&at) {
            Some(peer) => Some(self.ask_for_part(peer, function, 0)),
            None => {
                let candidate = Candidate {
                    address: at,
                    peer: None,
                };
                let connection = self.dial(candidate, PeerCondition::Always);
                connection.map(Stage::Connection)
            }
        };
        match stage {
            None => {
                let _ = answer.send(Err(FetchError::Unreachable));
            }
            Some(stage) => {
                self.fetching.current = Some(Fetch {
                    at,
                    stage,
                    download,
                    answer,
                    losses: 0,
                });
            }
        }
    }

    /// A connection has come about.
    pub(super) fn fetch_from(&mut self, connection: ConnectionId, peer: PeerId) {
        let awaited = Stage::Connection(connection);
        if let Some(fetch) = self.fetching.take_if(|stage| stage == awaited) {
            self.ask_next(fetch, peer, 0);
        }
    }

    /// A connection has not come about, or has ended at once.
    pub(super) fn fetch_not_from(&mut self, connection: ConnectionId) {
        let awaited = Stage::Connection(connection);
        if let Some(fetch) = self.fetching.take_if(|stage| stage == awaited) {
            fetch.end(Err(FetchError::Unreachable));
        }
    }

    /// A part has come.
    pub(super) fn part_came(&mut self, peer: PeerId, id: OutboundRequestId, answer: PartAnswer) {
        let awaited = Stage::Part(peer, id);
        let Some(mut fetch) = self.fetching.take_if(|stage| stage == awaited) else {
            return;
        };
        let progress = match answer {
            PartAnswer::Busy => Err(FetchError::Busy),
            PartAnswer::Missing => Err(FetchError::Missing),
            PartAnswer::Part { size, bytes } => fetch.download.take(size, &bytes),
        };
        match progress {
            Ok(Progress::More(offset)) => self.ask_next(fetch, peer, offset),
            Ok(Progress::Whole) => {
                let _ = fetch.answer.send(Ok(fetch.download.into_bytes()));
            }
            Err(error) => self.not_fetched(fetch, peer, error),
        }
    }

    /// No part has come.
    pub(super) fn part_failed(&mut self, id: OutboundRequestId, error: &OutboundFailure) {
        let is_meant = |stage| matches!(stage, Stage::Part(_, awaited) if awaited == id);
        let Some(mut fetch) = self.fetching.take_if(is_meant) else {
            return;
        };
        let Stage::Part(peer, _) = fetch.stage else {
            return;
        };
        // Two nodes that dial each other at once have two connections, of which one is closed.
        let is_closed = matches!(error, OutboundFailure::ConnectionClosed);
        if is_closed && fetch.losses < MAX_LOSSES && self.swarm.is_connected(&peer) {
            fetch.losses += 1;
            let offset = fetch.download.offset();
            self.ask_next(fetch, peer, offset);
            return;
        }
        let error = match error {
            OutboundFailure::Timeout => FetchError::Deadline,
            OutboundFailure::UnsupportedProtocols => FetchError::Unsupported,
            OutboundFailure::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                FetchError::Malformed
            }
            _ => FetchError::Lost,
        };
        self.not_fetched(fetch, peer, error);
    }

    fn ask_next(&mut self, mut fetch: Fetch, peer: PeerId, offset: u32) {
        if fetch.answer.is_closed() {
            return;
        }
        fetch.stage = self.ask_for_part(peer, fetch.download.function(), offset);
        self.fetching.current = Some(fetch);
    }

    fn ask_for_part(&mut self, peer: PeerId, function: FunctionId, offset: u32) -> Stage {
        let request = PartRequest { function, offset };
        let functions = &mut self.swarm.behaviour_mut().functions;
        Stage::Part(peer, functions.send_request(&peer, request))
    }

    fn not_fetched(&mut self, fetch: Fetch, peer: PeerId, error: FetchError) {
        if error.is_misbehaviour() {
            self.fetching.leave_alone(fetch.at, Instant::now());
            self.misbehaved(
                peer,
                match error {
                    FetchError::WrongBytes => "function of other bytes",
                    _ => "malformed function",
                },
            );
        }
        fetch.end(Err(error));
    }
}
