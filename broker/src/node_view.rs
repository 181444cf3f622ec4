//! What a node answers its guests, without I/O.
//!
//! A node keeps one [`NodeState`]: the catalogue and its last snapshots.

use std::collections::VecDeque;
use std::sync::Arc;

use dlambda_proto::{
    Answer, Ask, Demand, ListingFork, SignedListing, SnapshotId, SubmitRefusal, UnixSeconds,
};

use crate::{Catalogue, Inserted, Refusal, Snapshot};

/// How long a snapshot is kept at least, in seconds, if there is memory: a guest has to finish with
/// one while others are made.
const KEPT_SECONDS: u64 = 900;
/// Bytes of the snapshots that are kept, but for the last four.
const KEPT_BYTES: u64 = 64 << 20;
/// Most snapshots that are kept.
const MOST_KEPT: usize = 512;
const LEAST_KEPT: usize = 4;

/// What a node knows.
#[derive(Debug)]
pub struct NodeState {
    /// The catalogue.
    pub catalogue: Catalogue,
    interval_seconds: Option<u64>,
    /// Each with the time when it was made, the latest last.
    snapshots: VecDeque<(UnixSeconds, Arc<Snapshot>)>,
    made: Option<(UnixSeconds, u64)>,
}

/// What a node has to publish after a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Publish {
    /// A listing.
    Listing(SignedListing),
    /// A proof.
    Fork(Box<ListingFork>),
    /// A demand.
    Demand(Demand),
}

impl NodeState {
    /// The state of a node with this catalogue.
    #[must_use]
    pub fn new(catalogue: Catalogue) -> Self {
        Self {
            catalogue,
            interval_seconds: None,
            snapshots: VecDeque::new(),
            made: None,
        }
    }

    /// The same with this shortest time between two snapshots. Unless it is set, it is a second for
    /// each hundred listings, two seconds at least and two minutes at most: small ones cost little.
    #[must_use]
    pub fn with_interval(self, interval_seconds: u64) -> Self {
        Self {
            interval_seconds: Some(interval_seconds),
            ..self
        }
    }

    /// The latest snapshot. Makes one if the catalogue has changed and it is time.
    pub fn snapshot(&mut self, now: UnixSeconds) -> Arc<Snapshot> {
        let by_size = (self.catalogue.len() as u64 / 100).clamp(2, 120);
        let interval = self.interval_seconds.unwrap_or(by_size);
        let is_due = self.made.is_none_or(|(then, revision)| {
            let waited = now.0.saturating_sub(then.0) >= interval;
            waited && revision != self.catalogue.revision()
        });
        match self.snapshots.back() {
            Some((_, latest)) if !is_due => Arc::clone(latest),
            _ => {
                let latest = Arc::new(Snapshot::of(&self.catalogue));
                self.made = Some((now, self.catalogue.revision()));
                self.snapshots.push_back((now, Arc::clone(&latest)));
                self.forget_snapshots(now);
                latest
            }
        }
    }

    fn forget_snapshots(&mut self, now: UnixSeconds) {
        let bytes = |(_, it): &(UnixSeconds, Arc<Snapshot>)| it.manifest().bytes;
        while self.snapshots.len() > LEAST_KEPT
            && let Some((made, _)) = self.snapshots.front()
        {
            let is_old = now.0.saturating_sub(made.0) >= KEPT_SECONDS;
            let all: u64 = self.snapshots.iter().map(bytes).sum();
            if !is_old && all <= KEPT_BYTES && self.snapshots.len() <= MOST_KEPT {
                return;
            }
            self.snapshots.pop_front();
        }
    }

    /// The answer to a guest, and what is to be published because of it.
    pub fn answer(&mut self, ask: Ask, now: UnixSeconds) -> (Answer, Vec<Publish>) {
        let answer = match ask {
            Ask::Manifest => Answer::Manifest(self.snapshot(now).manifest().clone()),
            Ask::Chunk(id, number) => self.part(id, |it| {
                it.chunk(number).map(|chunk| Answer::Chunk(chunk.to_vec()))
            }),
            Ask::Bucket(id, bucket, page) => {
                self.part(id, |it| it.bucket(bucket, page).map(Answer::Listings))
            }
            Ask::Forks(id, page) => self.part(id, |it| {
                it.forks(page).map(|forks| Answer::Forks(forks.to_vec()))
            }),
            Ask::LookUp(topic) => {
                let found = self.catalogue.topic(topic, now, Answer::MAX_LISTINGS);
                Answer::Listings(found)
            }
            Ask::Offers(class) => {
                let found = self.catalogue.offers(class, now, Answer::MAX_LISTINGS);
                Answer::Offers(found)
            }
            Ask::SubmitListing(listing) => {
                let taken = self.catalogue.insert(listing.clone(), now);
                return submitted(taken, Publish::Listing(listing));
            }
            Ask::SubmitDemand(demand) => {
                let taken = self.catalogue.insert_demand(&demand, now);
                return submitted(taken, Publish::Demand(demand));
            }
            Ask::SubmitFork(fork) => {
                let taken = self.catalogue.insert_fork(fork.clone(), now);
                return submitted(taken, Publish::Fork(Box::new(fork)));
            }
            // Of a later version.
            _ => Answer::Refused(SubmitRefusal::Invalid),
        };
        (answer, Vec::new())
    }

    fn part(&self, id: SnapshotId, part: impl FnOnce(&Snapshot) -> Option<Answer>) -> Answer {
        let snapshot = self.snapshots.iter().find(|(_, it)| it.id() == id);
        snapshot
            .and_then(|(_, it)| part(it))
            .unwrap_or(Answer::Gone)
    }
}

/// What a guest is told, and what others are.
fn submitted(taken: Result<Inserted, Refusal>, what: Publish) -> (Answer, Vec<Publish>) {
    match taken {
        Ok(Inserted::Known) => (Answer::Accepted, Vec::new()),
        Ok(_) => (Answer::Accepted, vec![what]),
        Err(Refusal::Fork(fork)) => {
            let publish = vec![Publish::Fork(fork)];
            (Answer::Refused(SubmitRefusal::Fork), publish)
        }
        Err(refusal) => (Answer::Refused(refusal.to_guest()), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use dlambda_proto::{Day, Topic};

    use super::*;
    use crate::catalogue::tests::{EFFORT, NETWORK, NOON, Provider, at, catalogue, work};

    fn submit(node: &mut NodeState, listing: SignedListing) -> (Answer, Vec<Publish>) {
        node.answer(Ask::SubmitListing(listing), at(NOON))
    }

    #[test]
    fn what_is_submitted_is_published_once_and_served() {
        let mut node = NodeState::new(catalogue(10));
        let mut provider = Provider::new(1);
        let listing = provider.publish(NOON);
        let (answer, publish) = submit(&mut node, listing.clone());
        assert!(answer == Answer::Accepted && publish == [Publish::Listing(listing.clone())]);
        let (answer, publish) = submit(&mut node, listing.clone());
        assert!(answer == Answer::Accepted && publish.is_empty());
        let (answer, _) = node.answer(Ask::Manifest, at(NOON));
        let Answer::Manifest(manifest) = answer else {
            panic!("no manifest");
        };
        let bucket = provider.id().as_bytes()[0];
        let (answer, _) = node.answer(Ask::Bucket(manifest.snapshot, bucket, 0), at(NOON));
        assert!(answer == Answer::Listings(vec![listing.clone()]));
        let chunk = Ask::Chunk(manifest.snapshot, 0);
        let (answer, _) = node.answer(chunk, at(NOON));
        assert!(answer == Answer::Chunk(dlambda_proto::encode(&listing)));
        let topic = Topic::Function(dlambda_proto::FunctionId::of(b"f").digest()[0]);
        let (answer, _) = node.answer(Ask::LookUp(topic), at(NOON));
        assert!(answer == Answer::Listings(vec![listing]));
        for gone in [
            Ask::Chunk(manifest.snapshot, 1),
            Ask::Bucket(manifest.snapshot, bucket, 1),
            Ask::Forks(manifest.snapshot, 1),
            Ask::Chunk(SnapshotId([0; 32]), 0),
        ] {
            assert!(node.answer(gone, at(NOON)).0 == Answer::Gone);
        }
    }

    #[test]
    fn a_contradiction_is_refused_and_its_proof_published() {
        let mut node = NodeState::new(catalogue(10));
        let mut provider = Provider::new(1);
        let mut other = provider.next(NOON);
        other.plans[0].price += 1;
        submit(&mut node, provider.publish(NOON));
        let (answer, publish) = submit(&mut node, provider.sign(&other));
        assert!(answer == Answer::Refused(SubmitRefusal::Fork));
        let [Publish::Fork(fork)] = &publish[..] else {
            panic!("{publish:?}");
        };
        assert_eq!(fork.verify(NETWORK), Ok(provider.id()));
        let again = Ask::SubmitFork((**fork).clone());
        let (answer, publish) = node.answer(again, at(NOON));
        assert!(answer == Answer::Accepted && publish.is_empty());
    }

    #[test]
    fn demands_are_published_once_and_refusals_are_told() {
        let mut node = NodeState::new(catalogue(10));
        let demand = Demand {
            network: NETWORK,
            class: dlambda_proto::Class::from_number(1).unwrap(),
            work: work(Day::of(at(NOON)), EFFORT),
        };
        let (_, publish) = node.answer(Ask::SubmitDemand(demand.clone()), at(NOON));
        assert_eq!(publish, [Publish::Demand(demand.clone())]);
        let (answer, publish) = node.answer(Ask::SubmitDemand(demand.clone()), at(NOON));
        assert!(answer == Answer::Accepted && publish.is_empty());
        let (answer, _) = node.answer(Ask::SubmitDemand(demand), at(NOON + 2 * 86_400));
        assert!(answer == Answer::Refused(SubmitRefusal::NotNow));
    }

    #[test]
    fn snapshots_change_rarely_and_are_kept_for_a_while() {
        let mut node = NodeState::new(catalogue(100)).with_interval(120);
        let first = node.snapshot(at(NOON)).id();
        submit(&mut node, Provider::new(1).publish(NOON));
        assert!(node.snapshot(at(NOON + 119)).id() == first);
        assert!(node.snapshot(at(NOON + 120)).id() != first);
        for number in 2..7 {
            submit(&mut node, Provider::new(number).publish(NOON));
            node.snapshot(at(NOON + 120 * number));
        }
        let forks = |node: &mut NodeState| node.answer(Ask::Forks(first, 0), at(NOON)).0;
        assert!(forks(&mut node) == Answer::Forks(vec![]));
        submit(&mut node, Provider::new(7).publish(NOON));
        node.snapshot(at(NOON + KEPT_SECONDS));
        assert!(forks(&mut node) == Answer::Gone);
        // The last few are kept for as long as none comes after them.
        for number in 8..20 {
            submit(&mut node, Provider::new(number).publish(NOON));
            node.snapshot(at(NOON + KEPT_SECONDS * number));
        }
        assert_eq!(node.snapshots.len(), LEAST_KEPT);
    }
}
