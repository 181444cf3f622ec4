//! Answers to what peers ask.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dlambda_proto::{Endpoint, OnionAddress, encode};
use libp2p_identity::PeerId;
use libp2p_request_response::{InboundFailure, InboundRequestId, Message, ResponseChannel};
use minicbor::bytes::ByteVec;

use super::run::{Running, lock};
use super::syncing::Finished;
use crate::Store;
use crate::behaviour::exchange::{Answer, Batch, Event, Request, RunId};
use crate::reconcile::{ReconcileError, Responder};

/// Peers that reconcile with us at a time. Each keeps some 100 bytes of each item.
const SESSIONS: usize = 8;

/// A session that was not used for so long is over.
const SESSION: Duration = Duration::from_secs(60);

/// Nor does a session last longer than this: with eight peers that never end theirs, no other could
/// reconcile.
const LONGEST_SESSION: Duration = Duration::from_secs(180);

/// Answers that are being made at a time.
const JOBS: usize = 4;

/// Bytes of answers that are being sent at a time.
const SENDING: usize = 16 << 20;

/// The answers of a node.
pub(super) struct Answering {
    /// A peer begins no two runs within this time.
    between_runs: Duration,
    sessions: Vec<Session>,
    jobs: usize,
    /// Bytes of answers that are not sent yet.
    sending: HashMap<InboundRequestId, usize>,
}

/// A run that a peer has begun.
struct Session {
    peer: PeerId,
    run: RunId,
    /// `None` while it is being made.
    responder: Option<Arc<Responder>>,
    begun: Instant,
    used: Instant,
}

/// To whom an answer goes.
pub(super) struct ReplyTo {
    peer: PeerId,
    request: InboundRequestId,
    channel: ResponseChannel<Answer>,
}

/// What a job makes for a session.
pub(super) struct Made {
    run: RunId,
    responder: Option<Arc<Responder>>,
    answer: Result<Answer, ReconcileError>,
}

impl<S: Store> Running<S> {
    pub(super) fn exchange_event(&mut self, event: Event) {
        match event {
            Event::Message { peer, message, .. } => match message {
                Message::Request {
                    request_id,
                    request,
                    channel,
                } => {
                    let to = ReplyTo {
                        peer,
                        request: request_id,
                        channel,
                    };
                    self.request(to, request);
                }
                Message::Response {
                    request_id,
                    response,
                } => self.response(peer, request_id, response),
            },
            Event::OutboundFailure { request_id, .. } => self.unanswered(request_id),
            Event::InboundFailure {
                peer,
                request_id,
                error,
                ..
            } => {
                self.answering.sending.remove(&request_id);
                if let InboundFailure::Io(error) = error
                    && error.kind() == std::io::ErrorKind::InvalidData
                {
                    self.misbehaved(peer, "malformed request");
                }
            }
            Event::ResponseSent { request_id, .. } => {
                self.answering.sending.remove(&request_id);
            }
        }
    }

    fn request(&mut self, to: ReplyTo, request: Request) {
        let now = Instant::now();
        if !self.peers.may_ask(&to.peer, now) {
            self.status.refuse("too many requests");
            return self.reply(to, Answer::Busy);
        }
        match request {
            Request::Hello => {
                let answer = match self.own {
                    Endpoint::Onion(address) => Answer::hello(&address),
                    _ => Answer::Busy,
                };
                self.reply(to, answer);
            }
            Request::Reconcile { run, message } => self.reconcile(to, run, message, now),
            Request::Fetch { run, ids } => self.fetch(to, run, ids, now),
        }
    }

    fn reconcile(&mut self, to: ReplyTo, run: RunId, message: ByteVec, now: Instant) {
        let is_open = self.answering.open(to.peer, run, now);
        if !is_open || self.answering.jobs >= JOBS {
            self.status.refuse("too many reconciliations");
            return self.reply(to, Answer::Busy);
        }
        let known = self.answering.responder(to.peer, run, now);
        let store = self.store.clone();
        self.answering.jobs += 1;
        self.jobs.spawn_blocking(move || {
            let made = match known {
                Some(responder) => Ok(responder),
                None => {
                    let held = lock(&store).held();
                    Responder::new(run, &held).map(Arc::new)
                }
            };
            let answer = |responder: &Arc<Responder>| {
                let answer = responder.message(&message)?;
                Ok(Answer::Reconcile(answer.into()))
            };
            let made = Made {
                run,
                answer: made.as_ref().map_err(|error| *error).and_then(answer),
                responder: made.ok(),
            };
            Finished::Answered(to, made)
        });
    }

    fn fetch(&mut self, to: ReplyTo, run: RunId, ids: ByteVec, now: Instant) {
        let responder = self.answering.responder(to.peer, run, now);
        let Some(responder) = responder.filter(|_| self.answering.jobs < JOBS) else {
            self.status.refuse("too many reconciliations");
            return self.reply(to, Answer::Busy);
        };
        let store = self.store.clone();
        self.answering.jobs += 1;
        self.jobs.spawn_blocking(move || {
            let items = responder.items(&ids, |digest| lock(&store).item(digest));
            let batch = |items: Vec<Vec<u8>>| items.into_iter().map(ByteVec::from).collect();
            let made = Made {
                run,
                answer: items.map(|items| Answer::Items(Batch(batch(items)))),
                responder: Some(responder),
            };
            Finished::Answered(to, made)
        });
    }

    /// A job has made an answer.
    pub(super) fn answered(&mut self, to: ReplyTo, made: Made) {
        self.answering.jobs = self.answering.jobs.saturating_sub(1);
        self.answering.made(to.peer, made.run, made.responder);
        match made.answer {
            Ok(answer) => self.reply(to, answer),
            Err(_) => {
                let peer = to.peer;
                self.reply(to, Answer::Busy);
                self.misbehaved(peer, "malformed reconciliation");
            }
        }
    }

    fn reply(&mut self, to: ReplyTo, mut answer: Answer) {
        let mut bytes = encode(&answer).len();
        if self.answering.sending.values().sum::<usize>() + bytes > SENDING {
            answer = Answer::Busy;
            bytes = 0;
        }
        let exchange = &mut self.swarm.behaviour_mut().exchange;
        // It is an error if the peer has gone, or has waited too long.
        if exchange.send_response(to.channel, answer).is_ok() {
            self.answering.sending.insert(to.request, bytes);
        }
    }

    /// A peer has gone.
    pub(super) fn gone(&mut self, peer: PeerId) {
        self.answering
            .sessions
            .retain(|session| session.peer != peer);
        self.abandon(peer);
    }
}

impl Answering {
    /// Answers of which none has been made. A peer may begin a run each `between_runs`.
    pub(super) fn new(between_runs: Duration) -> Self {
        Self {
            between_runs,
            sessions: Vec::new(),
            jobs: 0,
            sending: HashMap::new(),
        }
    }

    /// Whether there is a session of this run, or can be one.
    fn open(&mut self, peer: PeerId, run: RunId, now: Instant) -> bool {
        self.sessions.retain(|session| {
            let is_young = session.begun + LONGEST_SESSION > now;
            (is_young && session.used + SESSION > now) || session.peer == peer
        });
        let is_full = self.sessions.len() >= SESSIONS;
        let theirs = self.sessions.iter_mut().find(|it| it.peer == peer);
        match theirs {
            // While the first message is being answered there is no second.
            Some(session) if session.run == run => session.responder.is_some(),
            Some(session) if session.begun + self.between_runs > now => false,
            Some(session) => {
                *session = Session::new(peer, run, now);
                true
            }
            None if is_full => false,
            None => {
                self.sessions.push(Session::new(peer, run, now));
                true
            }
        }
    }

    fn responder(&mut self, peer: PeerId, run: RunId, now: Instant) -> Option<Arc<Responder>> {
        let mut sessions = self.sessions.iter_mut();
        let session = sessions.find(|it| it.peer == peer && it.run == run)?;
        session.used = now;
        session.responder.clone()
    }

    fn made(&mut self, peer: PeerId, run: RunId, responder: Option<Arc<Responder>>) {
        let mut sessions = self.sessions.iter_mut();
        if let Some(session) = sessions.find(|it| it.peer == peer && it.run == run) {
            session.responder = responder;
        }
    }
}

impl Session {
    fn new(peer: PeerId, run: RunId, now: Instant) -> Self {
        Self {
            peer,
            run,
            responder: None,
            begun: now,
            used: now,
        }
    }
}

/// The address in an answer to a hello.
pub(super) fn address_in(text: &str) -> Option<Endpoint> {
    let address: OnionAddress = text.parse().ok()?;
    Some(Endpoint::Onion(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Who keeps its session busy has its turn, and no more while others wait.
    #[test]
    fn a_session_that_is_used_all_the_time_ends_when_others_come() {
        let mut answering = Answering::new(SECOND);
        let begun = Instant::now();
        let peers: Vec<PeerId> = (0..=SESSIONS).map(|_| PeerId::random()).collect();
        let (last, first) = peers.split_last().unwrap();
        let run: RunId = [0; 16];
        for peer in first {
            assert!(answering.open(*peer, run, begun));
        }
        let mut now = begun;
        while now < begun + LONGEST_SESSION {
            assert!(!answering.open(*last, run, now), "all are taken");
            now += SESSION / 2;
            for session in &mut answering.sessions {
                session.used = now;
            }
        }
        assert!(answering.open(*last, run, now));
        assert_eq!(
            answering.sessions.len(),
            1,
            "the others have had their time"
        );
    }
}
