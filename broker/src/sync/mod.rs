//! How a guest takes the catalogue from several nodes, without I/O.
//!
//! ```text
//! manifests of all sources
//!   -> the whole catalogue of one of them, drawn at random
//!   -> of the others, the buckets whose digests differ from it; or all, if more than 32 differ
//!   -> the proofs of forks, unless the same were taken already
//!   -> the union is known; what most list, a bootstrap node among them, is chosen
//! ```
//!
//! Nothing that is asked depends on what the guest has: a [`Sync`] does not know it. A source that
//! fails, lies or withholds is noted and replaced while there are others.

mod state;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use dlambda_proto::{Answer, Ask, Endpoint, ListingFork, Manifest, UnixSeconds};
use rand_core::Rng;

use self::state::{Reference, State, Step};
use crate::snapshot::read::{Chunks, check_manifest};
use crate::sources::{Plan, Request, Roster, Sources};
use crate::tally::{Known, Lists, Pool};
use crate::{GuestError, Rules, SourceFault, SyncError, WorkCheck};

/// Buckets that may differ before a catalogue is taken whole.
const MAX_DIFFERENT: usize = 32;
/// Chunks that are asked of one source at a time.
const CHUNKS_AT_ONCE: usize = 2;

/// A sync. See the module.
pub struct Sync {
    rules: Rules,
    roster: Roster<State>,
    pool: Pool,
    /// Whose catalogue is taken first.
    base: Option<usize>,
    reference: Option<Reference>,
    random: u64,
    is_done: bool,
}

/// What a sync brought.
#[derive(Debug)]
#[non_exhaustive]
pub struct Synced {
    /// Every provider that any source lists, and whether most do.
    pub known: Vec<Known>,
    /// Proofs that sources have, and those that were found.
    pub forks: Vec<ListingFork>,
    /// Proofs that follow from what different sources list: to be submitted to a node.
    pub found: Vec<ListingFork>,
    /// How many sources answered everything.
    pub answered: usize,
    /// Sources that do not count, and why not.
    pub faults: Vec<(Endpoint, SourceFault)>,
}

impl Sync {
    /// A sync from these sources. `rules` bound what is taken: they need not be those of the nodes.
    #[must_use]
    pub fn new(
        rules: Rules,
        work: Arc<dyn WorkCheck>,
        sources: Sources,
        now: UnixSeconds,
        rng: &mut impl Rng,
    ) -> Self {
        Self {
            rules,
            roster: Roster::new(sources),
            pool: Pool::new(rules, work, now),
            base: None,
            reference: None,
            random: rng.next_u64(),
            is_done: false,
        }
    }

    /// Counts what has come until now: sources that have not answered everything do not count.
    ///
    /// # Errors
    ///
    /// [`SyncError`] if too few have.
    pub fn finish(mut self) -> Result<Synced, SyncError> {
        let is_done = |state: &State| matches!(state, State::Done(_));
        self.roster.count_unfinished(is_done);
        let votes = self.roster.votes(State::lists)?;
        let answered = votes.len();
        Ok(Synced {
            known: self.pool.tally(&votes),
            forks: self.pool.forks(),
            found: self.pool.found(),
            answered,
            faults: self.roster.faults(),
        })
    }

    fn next_of(&mut self, member: usize) -> Option<Request> {
        let it = &mut self.roster.members[member];
        if it.is_out() {
            return None;
        }
        let (most, ask) = match &mut it.state {
            State::Manifest => (1, Ask::Manifest),
            State::Whole {
                manifest,
                chunks,
                next,
            } if *next < chunks.total() => {
                let ask = Ask::Chunk(manifest.snapshot, *next);
                if it.in_flight < CHUNKS_AT_ONCE {
                    *next += 1;
                }
                (CHUNKS_AT_ONCE, ask)
            }
            State::Buckets(buckets) => (1, buckets.ask()?),
            State::Forks {
                manifest, pages, ..
            } => {
                let page = u32::try_from(pages.len() / Answer::MAX_FORKS).ok()?;
                (1, Ask::Forks(manifest.snapshot, page))
            }
            _ => return None,
        };
        (it.in_flight < most).then(|| self.roster.request(member, ask))
    }

    fn take(&mut self, member: usize, ask: &Ask, answer: Answer) -> Result<(), SourceFault> {
        let state = std::mem::take(&mut self.roster.members[member].state);
        let step = match (state, ask, answer) {
            (State::Manifest, Ask::Manifest, Answer::Manifest(manifest)) => {
                check_manifest(&manifest, &self.rules)?;
                Step::To(State::Waiting(manifest))
            }
            (state, Ask::Chunk(_, number), Answer::Chunk(chunk)) => {
                state.take_chunk(*number, chunk, self.rules.network)?
            }
            (State::Buckets(buckets), Ask::Bucket(..), Answer::Listings(listings)) => {
                buckets.take(listings, self.rules.network)?
            }
            (state, Ask::Forks(..), Answer::Forks(forks)) => state.take_forks(forks)?,
            _ => return Err(SourceFault::WrongAnswer),
        };
        self.enter(member, step)
    }

    /// Goes on with a source after a step.
    fn enter(&mut self, member: usize, step: Step) -> Result<(), SourceFault> {
        let state = match step {
            Step::To(state) => state,
            Step::Listings(manifest, lists, new) => {
                for read in new {
                    self.pool.add(read)?;
                }
                self.after_listings(manifest, lists)
            }
            Step::Forks(manifest, lists, forks) => {
                for fork in forks {
                    self.pool.add_fork(fork)?;
                }
                if let Some(reference) = &mut self.reference {
                    reference.forks.push(manifest.forks_digest);
                }
                State::Done(lists)
            }
        };
        self.roster.members[member].state = state;
        Ok(())
    }

    /// All listings of a source are here; the proofs may be missing.
    fn after_listings(&mut self, manifest: Manifest, lists: Lists) -> State {
        let reference = self.reference.get_or_insert_with(|| Reference {
            buckets: manifest.buckets.clone(),
            lists: lists.clone(),
            forks: Vec::new(),
        });
        if manifest.forks == 0 || reference.forks.contains(&manifest.forks_digest) {
            return State::Done(lists);
        }
        State::Forks {
            manifest,
            lists,
            pages: Vec::new(),
        }
    }

    fn fail(&mut self, member: usize, fault: SourceFault) {
        self.roster.fail(member, fault);
        self.leave_base(member);
    }

    fn leave_base(&mut self, member: usize) {
        if self.base == Some(member) {
            self.base = None;
        }
    }

    /// Goes on where nothing is waited for.
    fn advance(&mut self) {
        loop {
            while self.reference.is_none() && self.is_ready_for_base() {
                self.choose_base();
            }
            if self.reference.is_some() {
                self.compare_waiting();
            }
            let at_work = |state: &State| !matches!(state, State::Done(_));
            let mut members = self.roster.members.iter();
            if members.any(|it| !it.is_out() && at_work(&it.state)) {
                return;
            }
            if !self.fail_those_that_withhold() {
                self.is_done = true;
                return;
            }
        }
    }

    /// Whether no catalogue is being taken whole, and all manifests are here.
    fn is_ready_for_base(&self) -> bool {
        let mut active = self.roster.members.iter().filter(|it| !it.is_out());
        let all_wait = active
            .clone()
            .all(|it| matches!(it.state, State::Waiting(_)));
        self.base.is_none() && active.next().is_some() && all_wait
    }

    /// Draws whose catalogue is taken whole.
    fn choose_base(&mut self) {
        let members = self.roster.members.iter().enumerate();
        let active = members.filter(|(_, it)| !it.is_out()).map(|(at, _)| at);
        let active: Vec<_> = active.collect();
        let count = u64::try_from(active.len()).unwrap_or(1).max(1);
        let drawn = usize::try_from(self.random % count).unwrap_or(0);
        self.random = self.random.rotate_right(7);
        self.base = active.get(drawn).copied();
        if let Some(member) = self.base {
            self.start_whole(member);
        }
    }

    fn compare_waiting(&mut self) {
        for member in 0..self.roster.members.len() {
            let it = &self.roster.members[member];
            let (State::Waiting(manifest), false) = (&it.state, it.is_out()) else {
                continue;
            };
            let reference = self.reference.as_ref();
            let different = reference.map(|it| it.different_from(manifest));
            match different {
                Some(buckets) if buckets.len() <= MAX_DIFFERENT => {
                    self.start_buckets(member, buckets);
                }
                _ => self.start_whole(member),
            }
        }
    }

    fn start_whole(&mut self, member: usize) {
        let state = std::mem::take(&mut self.roster.members[member].state);
        let State::Waiting(manifest) = state else {
            return;
        };
        let chunks = Chunks::new(manifest.clone());
        let whole = State::Whole {
            manifest,
            chunks,
            next: 0,
        };
        // Without listings there is no chunk to wait for.
        let step = whole.finish_if_complete(self.rules.network);
        self.enter_or_fail(member, step);
    }

    fn start_buckets(&mut self, member: usize, buckets: Vec<u8>) {
        let state = std::mem::take(&mut self.roster.members[member].state);
        let (State::Waiting(manifest), Some(reference)) = (state, &self.reference) else {
            return;
        };
        let step = reference.start(manifest, buckets);
        self.enter_or_fail(member, Ok(step));
    }

    fn enter_or_fail(&mut self, member: usize, step: Result<Step, SourceFault>) {
        if let Err(fault) = step.and_then(|step| self.enter(member, step)) {
            self.fail(member, fault);
        }
    }

    /// Fails the sources that withhold. Says whether there are any.
    fn fail_those_that_withhold(&mut self) -> bool {
        let withhold = self.roster.withholding(&self.pool, State::lists);
        for member in &withhold {
            self.fail(*member, SourceFault::Withheld);
        }
        !withhold.is_empty()
    }
}

impl Plan for Sync {
    fn next(&mut self) -> Option<Request> {
        (0..self.roster.members.len()).find_map(|member| self.next_of(member))
    }

    fn receive(&mut self, id: u64, answer: Result<Answer, GuestError>) {
        let Some((member, ask)) = self.roster.take(id) else {
            return;
        };
        let taken = match answer {
            Err(error) => Err(error.into()),
            Ok(Answer::Busy) => Err(SourceFault::Busy),
            Ok(Answer::Gone) if !self.roster.members[member].has_restarted => {
                self.roster.restart(member);
                self.roster.members[member].has_restarted = true;
                self.leave_base(member);
                Ok(())
            }
            Ok(Answer::Gone) => Err(SourceFault::Gone),
            Ok(answer) => self.take(member, &ask, answer),
        };
        if let Err(fault) = taken {
            self.fail(member, fault);
        }
        self.advance();
    }

    fn is_done(&self) -> bool {
        self.is_done || self.roster.members.is_empty()
    }
}

impl std::fmt::Debug for Sync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sync({} sources)", self.roster.members.len())
    }
}
