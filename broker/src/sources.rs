//! Which nodes a guest asks, and what it has asked them.
//!
//! Five: two bootstrap nodes, and three of the nodes that are chosen providers' own, drawn at
//! random, those known for longer more often. If there are too few of one sort, more of the other
//! are asked. Which ones are asked follows from chance and from what was chosen before; *what* they
//! are asked does not.

use std::collections::{BTreeMap, HashSet, VecDeque};

use dlambda_proto::{Answer, Ask, Endpoint};
use rand_core::Rng;

use crate::tally::{Lists, Pool};
use crate::{GuestError, SourceFault, SyncError};

/// Nodes that are asked at once.
pub const SOURCES: usize = 5;
const BOOTSTRAP: usize = 2;
/// Most nodes that can take the place of failing ones, of each sort.
const SPARES: usize = 8;
/// Days from which on a node counts no more for being known for longer.
const OLD_DAYS: u64 = 30;

/// A node to ask.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Where.
    pub endpoint: Endpoint,
    /// Whether the network file names it.
    pub is_bootstrap: bool,
}

/// The nodes to ask, in random order, and those that take the place of failing ones.
#[derive(Clone, Default)]
pub struct Sources {
    first: Vec<Source>,
    spare: VecDeque<Source>,
}

/// What is to be sent to a node, on a circuit of its own.
#[derive(Clone)]
pub struct Request {
    /// Names the request to [`Plan::receive`].
    pub id: u64,
    /// Where it goes.
    pub endpoint: Endpoint,
    /// What is asked.
    pub ask: Ask,
}

/// Requests that follow from answers, without I/O.
pub trait Plan {
    /// The next request that can be sent now.
    fn next(&mut self) -> Option<Request>;

    /// Takes the answer to a request. May check many signatures, some 70 us each.
    fn receive(&mut self, id: u64, answer: Result<Answer, GuestError>);

    /// Whether no request will follow.
    fn is_done(&self) -> bool;
}

impl Sources {
    /// Draws from the bootstrap nodes and from other nodes, each with the days since it is known.
    #[must_use]
    pub fn draw(bootstrap: &[Endpoint], others: &[(Endpoint, u64)], rng: &mut impl Rng) -> Self {
        let others = others.iter().filter(|(it, _)| !bootstrap.contains(it));
        let weighted = others.map(|(it, days)| (*it, 1 + (*days).min(OLD_DAYS)));
        let mut others = shuffled(weighted, false, rng);
        let mut bootstrap = shuffled(bootstrap.iter().map(|it| (*it, 1)), true, rng);
        let mut rest = bootstrap.split_off(bootstrap.len().min(BOOTSTRAP));
        let mut first = bootstrap;
        let mut more = others.split_off(others.len().min(SOURCES - BOOTSTRAP));
        first.append(&mut others);
        let missing = SOURCES.saturating_sub(first.len());
        first.extend(rest.drain(..missing.min(rest.len())));
        let missing = SOURCES.saturating_sub(first.len());
        first.extend(more.drain(..missing.min(more.len())));
        rest.truncate(SPARES);
        more.truncate(SPARES);
        Self {
            first,
            spare: rest.into_iter().chain(more).collect(),
        }
    }

    /// Those that are asked first.
    #[must_use]
    pub fn first(&self) -> &[Source] {
        &self.first
    }
}

/// In random order, without repetition: a weight of two comes first twice as often.
fn shuffled(
    endpoints: impl Iterator<Item = (Endpoint, u64)>,
    is_bootstrap: bool,
    rng: &mut impl Rng,
) -> Vec<Source> {
    let mut seen = HashSet::new();
    let mut keyed: Vec<(f64, Source)> = Vec::new();
    for (endpoint, weight) in endpoints {
        let source = Source {
            endpoint,
            is_bootstrap,
        };
        if seen.insert(endpoint) {
            let wait = crate::schedule::exponential(rng.next_u64());
            keyed.push((wait / small(weight), source));
        }
    }
    keyed.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    keyed.into_iter().map(|(_, source)| source).collect()
}

fn small(weight: u64) -> f64 {
    f64::from(u32::try_from(weight).unwrap_or(u32::MAX))
}

/// The nodes of one plan, with what each of them is at.
pub(crate) struct Roster<S> {
    pub(crate) members: Vec<Member<S>>,
    planned: usize,
    spare: VecDeque<Source>,
    pending: BTreeMap<u64, (usize, Ask)>,
    next: u64,
}

pub(crate) struct Member<S> {
    pub(crate) source: Source,
    pub(crate) state: S,
    pub(crate) fault: Option<SourceFault>,
    pub(crate) in_flight: usize,
    /// Whether it was asked all over again once.
    pub(crate) has_restarted: bool,
}

/// Nodes that are asked one thing each.
impl<T> Roster<Option<T>> {
    /// A node that was not asked yet.
    pub(crate) fn unasked(&self) -> Option<usize> {
        let mut members = self.members.iter();
        members.position(|it| it.in_flight == 0 && it.state.is_none() && !it.is_out())
    }

    /// Whether every node has answered or is given up.
    pub(crate) fn is_answered(&self) -> bool {
        let mut members = self.members.iter();
        members.all(|it| it.is_out() || it.state.is_some())
    }
}

impl<S: Default> Roster<S> {
    pub(crate) fn new(sources: Sources) -> Self {
        let planned = sources.first.len();
        let members = sources.first.into_iter().map(Member::new).collect();
        Self {
            members,
            planned,
            spare: sources.spare,
            pending: BTreeMap::new(),
            next: 0,
        }
    }

    pub(crate) fn request(&mut self, member: usize, ask: Ask) -> Request {
        let id = self.next;
        self.next += 1;
        self.pending.insert(id, (member, ask.clone()));
        self.members[member].in_flight += 1;
        let endpoint = self.members[member].source.endpoint;
        Request { id, endpoint, ask }
    }

    /// Whom a request went to that is still waited for, and what it was.
    pub(crate) fn take(&mut self, id: u64) -> Option<(usize, Ask)> {
        let (member, ask) = self.pending.remove(&id)?;
        let in_flight = &mut self.members[member].in_flight;
        *in_flight = in_flight.saturating_sub(1);
        Some((member, ask))
    }

    /// Starts again with a node: what it was asked is not waited for.
    pub(crate) fn restart(&mut self, member: usize) {
        self.pending.retain(|_, (it, _)| *it != member);
        self.members[member].in_flight = 0;
        self.members[member].state = S::default();
    }

    /// Gives a node up, and takes another if there is one: of the same sort if possible.
    pub(crate) fn fail(&mut self, member: usize, fault: SourceFault) {
        self.restart(member);
        self.members[member].fault = Some(fault);
        let wanted = self.members[member].source.is_bootstrap;
        let same = self.spare.iter().position(|it| it.is_bootstrap == wanted);
        if let Some(source) = self.spare.remove(same.unwrap_or(0)) {
            self.members.push(Member::new(source));
        }
    }

    /// Gives up those that have not answered everything.
    pub(crate) fn count_unfinished(&mut self, is_finished: impl Fn(&S) -> bool) {
        for member in &mut self.members {
            if !member.is_out() && !is_finished(&member.state) {
                member.fault = Some(SourceFault::Unfinished);
            }
        }
    }

    /// What those list that answered everything, and whether each is a bootstrap node.
    pub(crate) fn votes<'a>(
        &'a self,
        lists: impl Fn(&'a S) -> Option<&'a Lists>,
    ) -> Result<Vec<(bool, &'a Lists)>, SyncError> {
        if self.members.is_empty() {
            return Err(SyncError::NoSource);
        }
        let members = self.members.iter().filter(|it| !it.is_out());
        let votes: Vec<_> = members
            .filter_map(|it| Some((it.source.is_bootstrap, lists(&it.state)?)))
            .collect();
        if !votes.iter().any(|(is_bootstrap, _)| *is_bootstrap) {
            return Err(SyncError::NoBootstrap);
        }
        // Three, or all that there are.
        let (answered, needed) = (votes.len(), self.planned.min(3));
        if answered < needed {
            return Err(SyncError::TooFew { answered, needed });
        }
        Ok(votes)
    }

    /// Those that withhold what all bootstrap nodes list.
    pub(crate) fn withholding<'a>(
        &'a self,
        pool: &Pool,
        lists: impl Fn(&'a S) -> Option<&'a Lists>,
    ) -> Vec<usize> {
        let members = self.members.iter().enumerate();
        let done: Vec<_> = members
            .filter(|(_, it)| !it.is_out())
            .filter_map(|(at, it)| Some((at, it.source.is_bootstrap, lists(&it.state)?)))
            .collect();
        let bootstrap: Vec<_> = done.iter().filter(|it| it.1).map(|it| it.2).collect();
        let others = done.iter().filter(|it| !it.1);
        let withhold = others.filter(|it| pool.withholds(it.2, &bootstrap));
        withhold.map(|it| it.0).collect()
    }

    pub(crate) fn faults(&mut self) -> Vec<(Endpoint, SourceFault)> {
        let members = self.members.iter_mut();
        members
            .filter_map(|it| Some((it.source.endpoint, it.fault.take()?)))
            .collect()
    }
}

impl<S: Default> Member<S> {
    fn new(source: Source) -> Self {
        Self {
            source,
            state: S::default(),
            fault: None,
            in_flight: 0,
            has_restarted: false,
        }
    }

    pub(crate) fn is_out(&self) -> bool {
        self.fault.is_some()
    }
}

macro_rules! scrubbed {
    ($($type:ident),*) => {$(
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($type), "([scrubbed])"))
            }
        }
    )*};
}

scrubbed!(Source, Sources, Request);

#[cfg(test)]
mod tests {
    use dlambda_proto::OnionAddress;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    fn endpoint(byte: u8) -> Endpoint {
        Endpoint::Onion(OnionAddress::from_public_key([byte; 32]))
    }

    fn draw(bootstrap: u8, others: u8, seed: u8) -> Sources {
        let bootstrap: Vec<_> = (0..bootstrap).map(endpoint).collect();
        let others: Vec<_> = (100..100 + others).map(|it| (endpoint(it), 1)).collect();
        Sources::draw(&bootstrap, &others, &mut ChaCha8Rng::from_seed([seed; 32]))
    }

    #[test]
    fn two_bootstrap_nodes_and_three_others_are_asked_where_there_are_as_many() {
        for (bootstrap, others, expected) in [
            (5, 50, (2, 3)),
            (5, 0, (5, 0)),
            (1, 50, (1, 4)),
            (2, 1, (2, 1)),
            (0, 3, (0, 3)),
            (9, 1, (4, 1)),
        ] {
            let sources = draw(bootstrap, others, 1);
            let named = sources.first.iter().filter(|it| it.is_bootstrap).count();
            assert_eq!((named, sources.first.len() - named), expected);
            assert!(sources.spare.len() <= 2 * SPARES);
            assert!(sources.spare.iter().all(|it| !sources.first.contains(it)));
        }
        assert!(draw(5, 50, 1).first != draw(5, 50, 2).first);
    }

    #[test]
    fn nodes_known_for_long_are_drawn_more_often_but_not_always() {
        let others: Vec<_> = (0..40)
            .map(|it| (endpoint(it), if it < 20 { 30 } else { 0 }))
            .collect();
        let mut rng = ChaCha8Rng::from_seed([3; 32]);
        let mut old = 0;
        for _ in 0..400 {
            let sources = Sources::draw(&[], &others, &mut rng);
            let is_old = |it: &&Source| others[..20].iter().any(|(old, _)| *old == it.endpoint);
            old += sources.first.iter().filter(is_old).count();
        }
        assert!((1_700..2_000).contains(&old), "{old} of 2000");
    }

    #[test]
    fn a_node_that_is_also_a_bootstrap_node_is_asked_once() {
        let sources = Sources::draw(
            &[endpoint(1), endpoint(1)],
            &[(endpoint(1), 1), (endpoint(2), 1), (endpoint(2), 1)],
            &mut ChaCha8Rng::from_seed([3; 32]),
        );
        assert_eq!(sources.first.len() + sources.spare.len(), 2);
    }
}
