//! The look-up of a topic: up to five nodes are asked once each, without I/O.
//!
//! What they list is known by union and chosen as in a sync: by most of them, a bootstrap node
//! among these.

use std::sync::Arc;

use dlambda_proto::{Answer, Ask, Endpoint, ListingFork, SignedListing, Topic, UnixSeconds};

use crate::snapshot::read::Read;
use crate::sources::{Plan, Request, Roster, Sources};
use crate::tally::{Known, Lists, Pool};
use crate::{GuestError, Rules, SourceFault, SyncError, WorkCheck};

/// A look-up. See the module.
pub struct LookUp {
    rules: Rules,
    topic: Topic,
    roster: Roster<Option<Lists>>,
    pool: Pool,
}

/// What a look-up brought.
#[derive(Debug)]
#[non_exhaustive]
pub struct LookedUp {
    /// Every provider that any node lists, and whether most do.
    pub known: Vec<Known>,
    /// Proofs that follow from what different nodes list: to be submitted to a node.
    pub found: Vec<ListingFork>,
    /// How many nodes answered.
    pub answered: usize,
    /// Nodes that do not count, and why not.
    pub faults: Vec<(Endpoint, SourceFault)>,
}

impl LookUp {
    /// A look-up at these nodes.
    #[must_use]
    pub fn new(
        rules: Rules,
        work: Arc<dyn WorkCheck>,
        topic: Topic,
        sources: Sources,
        now: UnixSeconds,
    ) -> Self {
        Self {
            rules,
            topic,
            roster: Roster::new(sources),
            pool: Pool::new(rules, work, now),
        }
    }

    /// Counts what has come until now.
    ///
    /// # Errors
    ///
    /// [`SyncError`] if too few nodes answered.
    pub fn finish(mut self) -> Result<LookedUp, SyncError> {
        self.roster.count_unfinished(Option::is_some);
        let votes = self.roster.votes(Option::as_ref)?;
        let answered = votes.len();
        let known = self.pool.tally(&votes);
        Ok(LookedUp {
            known,
            found: self.pool.found(),
            answered,
            faults: self.roster.faults(),
        })
    }

    fn take(&mut self, listings: Vec<SignedListing>) -> Result<Lists, SourceFault> {
        if listings.len() > Answer::MAX_LISTINGS {
            return Err(SourceFault::WrongAnswer);
        }
        let mut lists = Lists::new();
        for signed in listings {
            let read = Read::of(signed, self.rules.network)?;
            let is_in = read.claims.is_in(self.topic);
            if !is_in || lists.insert(read.provider, read.digest).is_some() {
                return Err(SourceFault::WrongAnswer);
            }
            self.pool.add(read)?;
        }
        Ok(lists)
    }
}

impl Plan for LookUp {
    fn next(&mut self) -> Option<Request> {
        let unasked = self.roster.unasked()?;
        Some(self.roster.request(unasked, Ask::LookUp(self.topic)))
    }

    fn receive(&mut self, id: u64, answer: Result<Answer, GuestError>) {
        let Some((member, _)) = self.roster.take(id) else {
            return;
        };
        let taken = match answer {
            Err(error) => Err(error.into()),
            Ok(Answer::Busy) => Err(SourceFault::Busy),
            Ok(Answer::Listings(listings)) => self.take(listings),
            Ok(_) => Err(SourceFault::WrongAnswer),
        };
        match taken {
            Ok(lists) => self.roster.members[member].state = Some(lists),
            Err(fault) => self.roster.fail(member, fault),
        }
        if self.is_done() {
            let withhold = self.roster.withholding(&self.pool, Option::as_ref);
            for member in withhold {
                self.roster.fail(member, SourceFault::Withheld);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.roster.is_answered()
    }
}

impl std::fmt::Debug for LookUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LookUp([scrubbed])")
    }
}
