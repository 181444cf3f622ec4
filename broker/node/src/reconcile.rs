//! How a node learns what a peer has and it lacks: range-based set reconciliation (negentropy).
//!
//! Ids are salted anew for each run. A fingerprint of a range is a sum of its ids, so without a
//! salt somebody could prepare items whose sums agree, and hide one of them from a node for ever.
//!
//! No I/O: requests and answers are handed in and out.

use std::collections::{BTreeMap, VecDeque};

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::Held;
use crate::behaviour::exchange::{MAX_ANSWER, MAX_ITEMS, MAX_REQUEST, RunId};

/// Bytes that a message of negentropy may have in a request: the rest is for what is around it.
const REQUEST_ROOM: u64 = (MAX_REQUEST - 1024) as u64;

/// The same in an answer, for messages and for items.
const ANSWER_ROOM: usize = MAX_ANSWER - 4096;

/// Messages of one run. Three are enough for a million items of which a hundred differ, and a
/// node that has nothing needs one for each 30,000 items.
const MAX_ROUNDS: usize = 64;

/// Items that one run may find to be missing.
const MAX_MISSING: usize = 200_000;

/// What is wrong with a peer's part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum ReconcileError {
    /// Not a message of negentropy, or not one that has a place here.
    #[error("a message that has no place in this run")]
    Malformed,
    /// The run does not end.
    #[error("more rounds, or more items, than a run may have")]
    Endless,
}

/// What the initiator does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Sends a message.
    Send(Vec<u8>),
    /// Asks for items, by their ids in this run, 32 bytes each.
    Fetch(Vec<u8>),
    /// Nothing: the run is over.
    Done,
}

/// The side that wants to know what it lacks.
pub(crate) struct Initiator {
    negentropy: Negentropy<'static, NegentropyStorageVector>,
    rounds: usize,
    missing: VecDeque<[u8; 32]>,
    asked: usize,
}

/// The side that answers. It keeps what it had when the run began.
pub(crate) struct Responder {
    storage: NegentropyStorageVector,
    /// What the ids of the run stand for.
    digests: BTreeMap<[u8; 32], [u8; 32]>,
}

impl Initiator {
    /// Begins a run with what is held here; the first step is to send the message.
    pub(crate) fn new(run: RunId, held: &[Held]) -> Result<(Self, Vec<u8>), ReconcileError> {
        let storage = storage(run, held)?;
        let mut negentropy = Negentropy::owned(storage, REQUEST_ROOM).map_err(malformed)?;
        let message = negentropy.initiate().map_err(malformed)?;
        let initiator = Self {
            negentropy,
            rounds: 1,
            missing: VecDeque::new(),
            asked: 0,
        };
        Ok((initiator, message))
    }

    /// Takes the peer's answer to a message.
    pub(crate) fn message(&mut self, message: &[u8]) -> Result<Step, ReconcileError> {
        let (mut here, mut there) = (Vec::new(), Vec::new());
        let next = self
            .negentropy
            .reconcile_with_ids(message, &mut here, &mut there)
            .map_err(malformed)?;
        // What we have and the peer lacks it will find out by itself.
        drop(here);
        if self.missing.len() + there.len() > MAX_MISSING || self.rounds >= MAX_ROUNDS {
            return Err(ReconcileError::Endless);
        }
        self.missing.extend(there.into_iter().map(Id::to_bytes));
        match next {
            Some(next) => {
                self.rounds += 1;
                Ok(Step::Send(next))
            }
            None => Ok(self.fetch()),
        }
    }

    /// Takes the peer's answer to a request for items: how many of those asked for it has dealt
    /// with, from the first on.
    pub(crate) fn items(&mut self, count: usize) -> Result<Step, ReconcileError> {
        if count == 0 || count > self.asked {
            return Err(ReconcileError::Malformed);
        }
        self.missing.drain(..count);
        Ok(self.fetch())
    }

    fn fetch(&mut self) -> Step {
        self.asked = self.missing.len().min(MAX_ITEMS);
        if self.asked == 0 {
            return Step::Done;
        }
        let ids = self.missing.iter().take(self.asked);
        Step::Fetch(ids.flatten().copied().collect())
    }
}

impl Responder {
    /// What is held here, for one run.
    pub(crate) fn new(run: RunId, held: &[Held]) -> Result<Self, ReconcileError> {
        let digests = held
            .iter()
            .map(|item| (salted(run, &item.digest), item.digest));
        Ok(Self {
            storage: storage(run, held)?,
            digests: digests.collect(),
        })
    }

    /// Answers a message.
    pub(crate) fn message(&self, message: &[u8]) -> Result<Vec<u8>, ReconcileError> {
        let mut negentropy =
            Negentropy::borrowed(&self.storage, ANSWER_ROOM as u64).map_err(malformed)?;
        negentropy.reconcile(message).map_err(malformed)
    }

    /// Answers a request for items: one for each id from the first on, as many as fit. An item
    /// that is no longer there is empty.
    pub(crate) fn items(
        &self,
        ids: &[u8],
        mut item: impl FnMut(&[u8; 32]) -> Option<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, ReconcileError> {
        let (ids, []) = ids.as_chunks::<32>() else {
            return Err(ReconcileError::Malformed);
        };
        if ids.is_empty() || ids.len() > MAX_ITEMS {
            return Err(ReconcileError::Malformed);
        }
        let mut items = Vec::new();
        let mut room = ANSWER_ROOM;
        for id in ids {
            let digest = self.digests.get(id).ok_or(ReconcileError::Malformed)?;
            let bytes = item(digest).unwrap_or_default();
            // A length of up to five bytes stands before each.
            match room.checked_sub(bytes.len() + 5) {
                Some(rest) => room = rest,
                None => break,
            }
            items.push(bytes);
        }
        Ok(items)
    }
}

fn storage(run: RunId, held: &[Held]) -> Result<NegentropyStorageVector, ReconcileError> {
    let mut storage = NegentropyStorageVector::with_capacity(held.len());
    for item in held {
        let id = Id::from_byte_array(salted(run, &item.digest));
        storage.insert(item.at.0, id).map_err(malformed)?;
    }
    storage.seal().map_err(malformed)?;
    Ok(storage)
}

fn salted(run: RunId, digest: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"dlambda/reconcile/v1");
    hash.update(run);
    hash.update(digest);
    hash.finalize().into()
}

fn malformed(_: negentropy::Error) -> ReconcileError {
    ReconcileError::Malformed
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dlambda_proto::UnixSeconds;
    use proptest::prelude::*;

    use super::*;

    fn held(numbers: impl IntoIterator<Item = u64>) -> Vec<Held> {
        let item = |number: u64| Held {
            at: UnixSeconds(1_800_000_000 + number / 50 * 3600),
            digest: Sha256::digest(number.to_be_bytes()).into(),
        };
        numbers.into_iter().map(item).collect()
    }

    struct Outcome {
        fetched: Vec<Vec<u8>>,
        rounds: usize,
        bytes: usize,
    }

    /// Runs to the end; items are their digests, `size` bytes long.
    fn run(ours: &[Held], theirs: &[Held], size: usize) -> Outcome {
        let run = [9; 16];
        let responder = Responder::new(run, theirs).expect("a set");
        let (mut initiator, first) = Initiator::new(run, ours).expect("a set");
        let mut step = Step::Send(first);
        let (mut fetched, mut rounds, mut bytes) = (Vec::new(), 0, 0);
        loop {
            step = match step {
                Step::Send(message) => {
                    rounds += 1;
                    let answer = responder.message(&message).expect("is well-formed");
                    assert!(message.len() <= MAX_REQUEST && answer.len() <= MAX_ANSWER);
                    bytes += message.len() + answer.len();
                    initiator.message(&answer).expect("is well-formed")
                }
                Step::Fetch(ids) => {
                    let item = |digest: &[u8; 32]| {
                        let mut item = digest.to_vec();
                        item.resize(size, 0);
                        Some(item)
                    };
                    let items = responder
                        .items(&ids, item)
                        .expect("asked for what there is");
                    assert!(items.iter().map(Vec::len).sum::<usize>() <= MAX_ANSWER);
                    let step = initiator.items(items.len()).expect("as many as asked for");
                    fetched.extend(items);
                    step
                }
                Step::Done => break,
            };
        }
        Outcome {
            fetched,
            rounds,
            bytes,
        }
    }

    fn digests(held: &[Held]) -> BTreeSet<[u8; 32]> {
        held.iter().map(|item| item.digest).collect()
    }

    #[test]
    fn a_node_with_nothing_learns_everything() {
        let theirs = held(0..40_000);
        let outcome = run(&[], &theirs, 32);
        assert_eq!(outcome.fetched.len(), theirs.len());
        assert!(outcome.rounds <= 3, "{} rounds", outcome.rounds);
    }

    #[test]
    fn a_few_differences_cost_little() {
        let (ours, theirs) = (held(20..20_000), held((0..19_990).chain(30_000..30_020)));
        let outcome = run(&ours, &theirs, 400);
        assert_eq!(outcome.fetched.len(), 40);
        assert!(outcome.rounds <= 4, "{} rounds", outcome.rounds);
        assert!(outcome.bytes < 64 << 10, "{} bytes", outcome.bytes);
    }

    #[test]
    fn items_that_do_not_fit_in_one_answer_come_in_the_next() {
        let theirs = held(0..600);
        let outcome = run(&[], &theirs, 16 << 10);
        assert_eq!(outcome.fetched.len(), 600);
    }

    #[test]
    fn one_item_has_another_id_in_every_run() {
        let item = held([1])[0].digest;
        assert_ne!(salted([1; 16], &item), salted([2; 16], &item));
    }

    #[test]
    fn a_run_that_does_not_end_is_given_up() {
        // The responder has other items each time it is asked.
        let run = [1; 16];
        let (mut initiator, _) = Initiator::new(run, &held(0..5_000)).expect("a set");
        let mut steps = 0;
        let ended = loop {
            let theirs = held(steps * 10_000..steps * 10_000 + 6_000);
            let responder = Responder::new(run, &theirs).expect("a set");
            let (_, message) = Initiator::new(run, &held(0..5_000)).expect("a set");
            let answer = responder.message(&message).expect("is well-formed");
            match initiator.message(&answer) {
                Err(error) => break error,
                Ok(_) => steps += 1,
            }
            assert!(steps <= MAX_ROUNDS as u64);
        };
        assert_eq!(ended, ReconcileError::Endless);
    }

    #[test]
    fn answers_that_were_not_asked_for_are_refused() {
        let run = [1; 16];
        let (mut initiator, _) = Initiator::new(run, &[]).expect("a set");
        assert_eq!(initiator.items(1), Err(ReconcileError::Malformed));
        let theirs = held(0..3);
        let responder = Responder::new(run, &theirs).expect("a set");
        let (_, message) = Initiator::new(run, &[]).expect("a set");
        let answer = responder.message(&message).expect("is well-formed");
        assert!(matches!(initiator.message(&answer), Ok(Step::Fetch(_))));
        assert_eq!(initiator.items(4), Err(ReconcileError::Malformed));
        assert_eq!(initiator.items(0), Err(ReconcileError::Malformed));
        for ids in [vec![], vec![0; 31], vec![0; 32], vec![0; 32 * 300]] {
            let refused = responder.items(&ids, |_| None).err();
            assert_eq!(refused, Some(ReconcileError::Malformed));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn exactly_what_is_missing_is_fetched(
            ours in prop::collection::btree_set(0..400_u64, 0..300),
            theirs in prop::collection::btree_set(0..400_u64, 0..300),
        ) {
            let (ours, theirs) = (held(ours), held(theirs));
            let outcome = run(&ours, &theirs, 32);
            let fetched: Vec<[u8; 32]> =
                outcome.fetched.iter().map(|item| item[..].try_into().expect("a digest")).collect();
            let distinct: BTreeSet<_> = fetched.iter().copied().collect();
            prop_assert_eq!(distinct.len(), fetched.len());
            let expected: BTreeSet<_> = &digests(&theirs) - &digests(&ours);
            prop_assert_eq!(distinct, expected);
        }

        #[test]
        fn garbage_is_an_error_or_harmless(message in prop::collection::vec(any::<u8>(), 0..600)) {
            let theirs = held(0..100);
            let responder = Responder::new([0; 16], &theirs).expect("a set");
            let (mut initiator, _) = Initiator::new([0; 16], &held(50..150)).expect("a set");
            let versioned: Vec<u8> = [&[0x61], &message[..]].concat();
            for message in [message, versioned] {
                if let Ok(answer) = responder.message(&message) {
                    prop_assert!(answer.len() <= MAX_ANSWER);
                }
                if let Ok(Step::Send(next)) = initiator.message(&message) {
                    prop_assert!(next.len() <= MAX_REQUEST);
                }
            }
        }
    }
}
