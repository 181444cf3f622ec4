//! What nodes and providers have of syncs and calls, and what they look for in it.

use std::collections::{HashMap, HashSet};

use dlambda_broker::GuestSeal;
use dlambda_privacy::os_rng;
use dlambda_proto::{
    Answer, Ask, FRAME_HEADER_LEN, Frame, FrameHeader, FrameKind, Request, SnapshotId, decode,
};
use dlambda_provider::SessionRecord;
use dlambda_tests::adversary::pairs::Thing;
use dlambda_tests::adversary::{Adversary, Score};
use dlambda_tests::overlay::Visit;
use dlambda_tests::view::{Link, View, WINDOW, links_beside};

/// What was seen, and what only the callers know of it.
pub(super) struct Seen {
    pub(super) visits: Vec<SeenVisit>,
    pub(super) records: Vec<SessionRecord>,
    pub(super) gossip: Vec<Vec<u8>>,
    /// When each call was made, and by whom, by its input.
    pub(super) owners: HashMap<Vec<u8>, (u64, usize)>,
    pub(super) canary_inputs: HashSet<Vec<u8>>,
    pub(super) all_syncs: usize,
    pub(super) all_calls: usize,
    pub(super) at_canary: usize,
}

pub(super) struct SeenVisit {
    pub(super) visit: Visit,
    pub(super) node: usize,
    pub(super) is_second: bool,
}

/// The request of a record that is of a call.
pub(super) fn request(record: &SessionRecord) -> Option<Request> {
    decode(record.request.as_ref()?).ok()
}

impl Seen {
    pub(super) fn calls(&self) -> usize {
        self.records.len()
    }

    /// Whatever two requests of guests, two calls, a request and a call, or one of them and what
    /// was gossiped have in common that not all guests send.
    pub(super) fn links(&self) -> HashSet<Link> {
        let visits = self.visits.iter();
        let asks = visits.map(|it| View::of_guest(&it.visit.circuit, &it.visit.received));
        let calls = self.records.iter().map(View::new);
        let gossip = View::of_gossip(&self.gossip);
        let views: Vec<View> = asks.chain(calls).chain([gossip]).collect();
        links_beside(&views, views.len(), &self.vocabulary())
    }

    /// Strings of the asks of all guests: an ask is a word, and at most the name of a state of the
    /// catalogue, which the node gave, with a number.
    fn vocabulary(&self) -> HashSet<[u8; WINDOW]> {
        let snapshots: HashSet<[u8; 32]> = self.snapshots();
        let mut asks = vec![Ask::Manifest];
        for id in snapshots.into_iter().map(SnapshotId) {
            asks.extend((0..2).flat_map(|page| [Ask::Chunk(id, page), Ask::Forks(id, page)]));
            asks.extend((0..=255).map(|bucket| Ask::Bucket(id, bucket, 0)));
        }
        let mut known = HashSet::from([[0; WINDOW]]);
        for ask in asks {
            let (frame, _) = GuestSeal::Public
                .wrap_ask(&ask, &mut os_rng())
                .expect("fits");
            let bytes = [&frame.header()[..], frame.body()].concat();
            // The rest is zeros.
            let windows = bytes[..128].windows(WINDOW);
            known.extend(windows.map(|it| <[u8; WINDOW]>::try_from(it).expect("as long")));
        }
        known
    }

    /// The names that nodes gave to states of their catalogues.
    fn snapshots(&self) -> HashSet<[u8; 32]> {
        let manifests = self.visits.iter().filter_map(|it| {
            let (header, body) = it.visit.sent.split_first_chunk::<FRAME_HEADER_LEN>()?;
            let header = FrameHeader::parse(*header, &[FrameKind::Answer]).ok()?;
            let frame = Frame::new(header.kind(), body.to_vec()).ok()?;
            let asked = GuestSeal::Public.wrap_ask(&Ask::Manifest, &mut os_rng());
            let (_, binding) = asked.ok()?;
            match GuestSeal::Public.unwrap_answer(binding, &frame).ok()? {
                Answer::Manifest(manifest) => Some(manifest.snapshot.0),
                _ => None,
            }
        });
        manifests.collect()
    }

    /// Syncs, as far as they were seen: requests that came together.
    pub(super) fn sync_things(&self) -> Vec<Thing> {
        let mut things: Vec<Thing> = Vec::new();
        let mut visits: Vec<_> = self.visits.iter().collect();
        visits.sort_by_key(|it| it.visit.at);
        for SeenVisit {
            visit,
            node,
            is_second,
        } in visits
        {
            match things.last_mut() {
                Some(last) if last.at == visit.at.0 => last.places.push(*node),
                _ => things.push(Thing {
                    at: visit.at.0,
                    is_second: *is_second,
                    places: vec![*node],
                }),
            }
        }
        things
    }

    pub(super) fn call_things(&self) -> Vec<Thing> {
        let inputs = self.inputs();
        let things = inputs.map(|input| {
            let (at, caller) = self.owners[&input];
            Thing {
                at,
                is_second: caller == 1,
                places: vec![],
            }
        });
        things.collect()
    }

    fn inputs(&self) -> impl Iterator<Item = Vec<u8>> {
        let requests = self.records.iter().filter_map(request);
        requests.map(|it| it.input)
    }

    /// How well the calls are told apart by themselves.
    pub(super) fn divisions(&self) -> Vec<Score> {
        let adversary = Adversary::new(&self.records);
        adversary.best_divisions(|request| self.owners[&request.input].1 == 1)
    }

    /// Of how many calls it is told by whether they were made at the canary.
    pub(super) fn canary_right(&self) -> usize {
        let right = self.inputs().filter(|input| {
            let (_, caller) = self.owners[input];
            self.canary_inputs.contains(input) == (caller == 0)
        });
        right.count()
    }
}
