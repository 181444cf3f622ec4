//! Reconciliation with one peer at a time, from the side that wants to know.

use std::time::{Duration, Instant};

use dlambda_privacy::os_rng;
use libp2p_identity::PeerId;
use libp2p_request_response::OutboundRequestId;
use rand_core::Rng as _;

use super::answering::{Made, ReplyTo, address_in};
use super::chance;
use super::run::{Running, lock};
use crate::behaviour::MAX_MESSAGE;
use crate::behaviour::exchange::{Answer, Batch, Request, RunId};
use crate::reconcile::{Initiator, ReconcileError, Step};
use crate::{GossipTopic, Store, Verdict};

/// Runs that follow each other soon once there are peers, with different ones: one of them may
/// hold back what the others have.
const FIRST_RUNS: u32 = 3;

/// How long a run may take.
const RUN: Duration = Duration::from_secs(900);

/// Peers that were reconciled with last, and are not chosen again while there are others.
const RECENT: usize = 3;

/// Reconciliation of a node, as far as it asks.
#[derive(Default)]
pub(super) struct Syncing {
    run: Option<Run>,
    recent: Vec<PeerId>,
    /// Runs that came to their end since there was no peer.
    runs: u32,
}

struct Run {
    id: RunId,
    peer: PeerId,
    begun: Instant,
    /// `None` while a job has it.
    initiator: Option<Initiator>,
    /// What an answer is awaited to.
    request: Option<OutboundRequestId>,
}

/// What a job has brought.
pub(super) enum Finished {
    /// An answer to a peer.
    Answered(ReplyTo, Made),
    /// The next step of our own run.
    Stepped(RunId, Result<(Initiator, Step), ReconcileError>, Offered),
}

/// What has become of the items that a peer has sent.
#[derive(Default)]
pub(super) struct Offered {
    accepted: u64,
    refused: Vec<&'static str>,
    rejected: Vec<&'static str>,
    proofs: Vec<Vec<u8>>,
}

impl<S: Store> Running<S> {
    /// A new peer is there: the first three are reconciled with soon.
    pub(super) fn arrived(&mut self, now: Instant) {
        if self.syncing.runs < FIRST_RUNS && self.syncing.run.is_none() {
            self.sync_at(now);
        }
    }

    /// Begins a run if there is none. Returns how long to wait for the next, on average.
    pub(super) fn sync(&mut self, now: Instant) -> Duration {
        let soon = self.pace.dial.min(self.pace.reconcile);
        if let Some(run) = &self.syncing.run {
            if run.begun + RUN > now {
                return soon;
            }
            self.syncing.run = None;
        }
        let Some(peer) = self.choose_peer() else {
            return self.pace.reconcile;
        };
        let mut id = RunId::default();
        os_rng().fill_bytes(&mut id);
        self.syncing.run = Some(Run {
            id,
            peer,
            begun: now,
            initiator: None,
            request: None,
        });
        let store = self.store.clone();
        self.jobs.spawn_blocking(move || {
            let held = lock(&store).held();
            let begun = Initiator::new(id, &held);
            let step = begun.map(|(initiator, message)| (initiator, Step::Send(message)));
            Finished::Stepped(id, step, Offered::default())
        });
        self.pace.reconcile
    }

    /// A peer that we have dialled, if possible: an attacker cannot choose to be it.
    fn choose_peer(&self) -> Option<PeerId> {
        let fresh = |peer: &&PeerId| !self.syncing.recent.contains(peer);
        let outgoing: Vec<PeerId> = self.peers.outgoing().filter(fresh).copied().collect();
        let all: Vec<PeerId> = self.peers.all_connected().filter(fresh).copied().collect();
        let any: Vec<PeerId> = self.peers.all_connected().copied().collect();
        let rng = &mut os_rng();
        let pools = [outgoing, all, any];
        pools
            .iter()
            .find_map(|pool| chance::pick(rng, pool).copied())
    }

    /// An answer has come.
    pub(super) fn response(&mut self, peer: PeerId, request: OutboundRequestId, answer: Answer) {
        if let Answer::Hello(text) = &answer {
            if let Some(address) = address_in(text) {
                self.peers.hear_of(peer, address);
            }
            return;
        }
        let Some(run) = self.syncing.awaiting(request) else {
            return;
        };
        let (id, Some(mut initiator)) = (run.id, run.initiator.take()) else {
            return;
        };
        match answer {
            Answer::Reconcile(message) => {
                self.jobs.spawn_blocking(move || {
                    let step = initiator.message(&message);
                    let step = step.map(|step| (initiator, step));
                    Finished::Stepped(id, step, Offered::default())
                });
            }
            Answer::Items(batch) => {
                let (store, clock) = (self.store.clone(), self.clock.clone());
                self.jobs.spawn_blocking(move || {
                    let count = batch.0.len();
                    let mut offered = Offered::default();
                    let step = initiator.items(count);
                    if step.is_ok() {
                        offered = offer_all(batch, |item| {
                            let today = clock.now();
                            lock(&store).offer(GossipTopic::Listings, item, today)
                        });
                    }
                    let step = step.map(|step| (initiator, step));
                    Finished::Stepped(id, step, offered)
                });
            }
            Answer::Busy | Answer::Hello(_) => self.give_up(),
        }
    }

    /// No answer has come.
    pub(super) fn unanswered(&mut self, request: OutboundRequestId) {
        if self.syncing.awaiting(request).is_some() {
            self.give_up();
        }
    }

    /// A peer has gone.
    pub(super) fn abandon(&mut self, peer: PeerId) {
        if self
            .syncing
            .run
            .as_ref()
            .is_some_and(|run| run.peer == peer)
        {
            self.give_up();
        }
        if self.peers.all_connected().next().is_none() {
            // What is gossiped meanwhile is missed.
            self.syncing.runs = 0;
        }
    }

    /// A job is done.
    pub(super) fn finished(&mut self, finished: Finished) {
        match finished {
            Finished::Answered(to, made) => self.answered(to, made),
            Finished::Stepped(id, step, offered) => {
                let peer = match &self.syncing.run {
                    Some(run) if run.id == id => run.peer,
                    // Given up meanwhile.
                    _ => return self.count(None, offered),
                };
                self.count(Some(peer), offered);
                self.stepped(peer, step);
            }
        }
    }

    fn count(&mut self, peer: Option<PeerId>, offered: Offered) {
        self.status.reconciled += offered.accepted;
        for reason in offered.refused {
            self.status.refuse(reason);
        }
        for proof in offered.proofs {
            self.publish(GossipTopic::Listings, proof);
        }
        for reason in offered.rejected {
            match peer {
                Some(peer) => self.misbehaved(peer, reason),
                None => self.status.refuse(reason),
            }
        }
    }

    fn stepped(&mut self, peer: PeerId, step: Result<(Initiator, Step), ReconcileError>) {
        let Ok((initiator, step)) = step else {
            self.misbehaved(peer, "malformed reconciliation");
            return self.give_up();
        };
        // It may have been hung up on for what it has sent.
        let Some(run) = &mut self.syncing.run else {
            return;
        };
        let request = match step {
            Step::Send(message) => Request::Reconcile {
                run: run.id,
                message: message.into(),
            },
            Step::Fetch(ids) => Request::Fetch {
                run: run.id,
                ids: ids.into(),
            },
            Step::Done => return self.done(peer),
        };
        run.initiator = Some(initiator);
        let exchange = &mut self.swarm.behaviour_mut().exchange;
        run.request = Some(exchange.send_request(&peer, request));
    }

    fn done(&mut self, peer: PeerId) {
        self.syncing.forget();
        self.syncing.recent.push(peer);
        if self.syncing.recent.len() > RECENT {
            self.syncing.recent.remove(0);
        }
        self.status.runs += 1;
        self.syncing.runs = self.syncing.runs.saturating_add(1);
        if self.syncing.runs < FIRST_RUNS {
            let wait = chance::wait(&mut os_rng(), self.pace.dial);
            self.sync_at(Instant::now() + wait);
        }
    }

    /// Tries again soon, most likely with another peer.
    fn give_up(&mut self) {
        if let Some(peer) = self.syncing.forget() {
            self.syncing.recent.push(peer);
            if self.syncing.recent.len() > RECENT {
                self.syncing.recent.remove(0);
            }
        }
        let wait = chance::wait(&mut os_rng(), self.pace.dial.saturating_mul(2));
        self.sync_at(Instant::now() + wait);
    }
}

fn offer_all(batch: Batch, mut offer: impl FnMut(&[u8]) -> Verdict) -> Offered {
    let mut offered = Offered::default();
    // What is empty the peer has no more.
    let items = batch.0.iter().filter(|item| !item.is_empty());
    for item in items {
        let verdict = match item.len() > MAX_MESSAGE {
            true => Verdict::Reject("item that is too long"),
            false => offer(item),
        };
        match verdict {
            Verdict::Accept => offered.accepted += 1,
            Verdict::Ignore(reason) => offered.refused.push(reason),
            Verdict::Reject(reason) => offered.rejected.push(reason),
            Verdict::Publish(proof) => offered.proofs.push(proof),
        }
    }
    offered
}

impl Syncing {
    /// The run that waits for the answer to this request; it does so no more.
    fn awaiting(&mut self, request: OutboundRequestId) -> Option<&mut Run> {
        let run = self.run.as_mut()?;
        if run.request != Some(request) {
            return None;
        }
        run.request = None;
        Some(run)
    }

    fn forget(&mut self) -> Option<PeerId> {
        self.run.take().map(|run| run.peer)
    }
}
