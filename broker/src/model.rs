//! A model of the overlay, without I/O and under a virtual clock: 10,000 nodes of which 30 % lie.
//!
//! Honest nodes are up to three steps behind each other, as gossip is. Figures are printed.

use std::sync::Arc;
use std::time::Instant;

use dlambda_proto::{
    Answer, Ask, Endpoint, FunctionId, Listing, OnionAddress, ProviderId, SignedListing, Topic,
    decode, encode,
};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng as _};

use crate::catalogue::tests::{Claimed, EFFORT, NOON, Provider, at, catalogue, rules, work};
use crate::tally::Known;
use crate::{Catalogue, GuestError, LookUp, Plan, Refusal, Snapshot, Sources, Sync, SyncError};

const NODES: u64 = 10_000;
const BOOTSTRAP: u64 = 5;
/// Nodes that one guest knows.
const KNOWN: u64 = 300;
const PROVIDERS: u64 = 20;
/// States of the catalogue that honest nodes have at one time.
const STATES: u64 = 4;
/// Different halves, and different canaries.
const VARIANTS: u64 = 8;
const ROUNDS: usize = 400;

/// What a node serves.
#[derive(Clone, Copy)]
enum Conduct {
    /// This state.
    Honest(u64),
    /// Nothing.
    Empty,
    /// This half of the providers.
    Half(u64),
    /// Bytes that are no catalogue.
    Garbage,
    /// All, and a provider that no other node shows.
    Canary(u64),
    /// No answer.
    Silent,
}

/// How liars are chosen.
#[derive(Clone, Copy, Debug)]
enum Liars {
    /// All conducts, at random.
    Mixed,
    /// All withhold.
    Withhold,
    /// All show one canary.
    OneCanary,
}

/// A catalogue that some nodes serve.
struct Variant {
    snapshot: Snapshot,
    topic: Vec<SignedListing>,
}

struct Model {
    honest: Vec<Variant>,
    empty: Variant,
    halves: Vec<Variant>,
    canaries: Vec<Variant>,
    nodes: Vec<Conduct>,
    providers: Vec<ProviderId>,
}

fn topic() -> Topic {
    Topic::Function(FunctionId::of(b"f").digest()[0])
}

fn variant(listings: &[SignedListing]) -> Variant {
    let mut catalogue = catalogue(1_000);
    for listing in listings {
        catalogue.insert(listing.clone(), at(NOON)).unwrap();
    }
    Variant {
        snapshot: Snapshot::of(&catalogue),
        topic: catalogue.topic(topic(), at(NOON), Answer::MAX_LISTINGS),
    }
}

impl Model {
    fn new(liars: Liars, honest_bootstrap: bool, rng: &mut impl Rng) -> Self {
        let mut providers: Vec<_> = (0..PROVIDERS).map(Provider::new).collect();
        let mut listings: Vec<_> = (providers.iter_mut())
            .map(|it| it.publish(NOON - 600))
            .collect();
        let mut honest = vec![variant(&listings)];
        // In each state a tenth of the providers has renewed its listing.
        for state in 1..STATES {
            for (number, provider) in (0..).zip(&mut providers) {
                if number % 10 == state {
                    listings[usize::try_from(number).unwrap()] = provider.publish(NOON);
                }
            }
            honest.push(variant(&listings));
        }
        let halves = (0..VARIANTS).map(|_| {
            let half = listings.iter().filter(|_| rng.next_u64().is_multiple_of(2));
            variant(&half.cloned().collect::<Vec<_>>())
        });
        let halves = halves.collect();
        let canaries = (0..VARIANTS).map(|it| {
            let mut canary = Provider::new(1_000_000 + it);
            canary.effort = 100 * EFFORT;
            variant(&[&listings[..], &[canary.publish(NOON)]].concat())
        });
        let nodes = (0..NODES).map(|number| {
            let lies = rng.next_u64() % 10 < 3 && !(honest_bootstrap && number < BOOTSTRAP);
            if lies {
                liars.conduct(rng)
            } else {
                Conduct::Honest(rng.next_u64() % STATES)
            }
        });
        let nodes = nodes.collect();
        Self {
            honest,
            empty: variant(&[]),
            halves,
            canaries: canaries.collect(),
            nodes,
            providers: providers.iter().map(Provider::id).collect(),
        }
    }

    fn answer(&self, endpoint: &Endpoint, ask: &Ask) -> Result<Answer, GuestError> {
        let number = usize::try_from(number_of(endpoint)).unwrap();
        let conduct = self.nodes[number];
        let at = |it: u64| usize::try_from(it).unwrap();
        let variant = match conduct {
            Conduct::Silent => return Err(GuestError::Deadline),
            Conduct::Honest(state) => &self.honest[at(state)],
            Conduct::Garbage => &self.honest[0],
            Conduct::Empty => &self.empty,
            Conduct::Half(half) => &self.halves[at(half)],
            Conduct::Canary(canary) => &self.canaries[at(canary)],
        };
        let snapshot = &variant.snapshot;
        let is_garbage = matches!(conduct, Conduct::Garbage);
        let answer = match ask {
            Ask::Manifest if is_garbage => {
                let mut manifest = snapshot.manifest().clone();
                manifest.buckets[0].0[0] ^= 1;
                Answer::Manifest(manifest)
            }
            _ if is_garbage => Answer::Chunk(vec![0x9f; 1_000]),
            Ask::Manifest => Answer::Manifest(snapshot.manifest().clone()),
            Ask::Chunk(_, number) => Answer::Chunk(snapshot.chunk(*number).unwrap().to_vec()),
            Ask::Bucket(_, bucket, page) => {
                Answer::Listings(snapshot.bucket(*bucket, *page).unwrap())
            }
            Ask::LookUp(_) => Answer::Listings(variant.topic.clone()),
            _ => Answer::Gone,
        };
        Ok(answer)
    }

    fn sources(&self, rng: &mut impl Rng) -> Sources {
        let bootstrap: Vec<_> = (0..BOOTSTRAP).map(endpoint).collect();
        let others = (0..KNOWN).map(|_| {
            let node = BOOTSTRAP + rng.next_u64() % (NODES - BOOTSTRAP);
            (endpoint(node), node % 60)
        });
        let others: Vec<_> = others.collect();
        Sources::draw(&bootstrap, &others, rng)
    }

    fn sync(&self, rng: &mut impl Rng, asks: &mut usize) -> Result<Vec<Known>, SyncError> {
        let sources = self.sources(rng);
        let mut sync = Sync::new(rules(1_000), Arc::new(Claimed), sources, at(NOON), rng);
        self.run(&mut sync, asks);
        sync.finish().map(|it| it.known)
    }

    fn look_up(&self, rng: &mut impl Rng, asks: &mut usize) -> Result<Vec<Known>, SyncError> {
        let sources = self.sources(rng);
        let work = Arc::new(Claimed);
        let mut look_up = LookUp::new(rules(1_000), work, topic(), sources, at(NOON));
        self.run(&mut look_up, asks);
        look_up.finish().map(|it| it.known)
    }

    fn run(&self, plan: &mut impl Plan, asks: &mut usize) {
        while let Some(request) = plan.next() {
            *asks += 1;
            let answer = self.answer(&request.endpoint, &request.ask);
            plan.receive(request.id, answer);
        }
        assert!(plan.is_done());
    }

    /// Whether exactly the honest providers are chosen, and whether any canary is.
    fn judge(&self, known: &[Known]) -> (bool, bool) {
        let chosen = known.iter().filter(|it| it.is_chosen);
        let mut chosen: Vec<_> = chosen.map(|it| it.listing.provider).collect();
        let before = chosen.len();
        chosen.retain(|it| self.providers.contains(it));
        let has_canary = chosen.len() < before;
        (
            chosen.len() == self.providers.len() && !has_canary,
            has_canary,
        )
    }
}

impl Liars {
    fn conduct(self, rng: &mut impl Rng) -> Conduct {
        match (self, rng.next_u64() % 5) {
            (Self::OneCanary, _) => Conduct::Canary(0),
            (Self::Withhold, _) | (_, 0) => Conduct::Empty,
            (_, 1) => Conduct::Half(rng.next_u64() % VARIANTS),
            (_, 2) => Conduct::Garbage,
            (_, 3) => Conduct::Silent,
            _ => Conduct::Canary(rng.next_u64() % VARIANTS),
        }
    }
}

fn endpoint(number: u64) -> Endpoint {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    Endpoint::Onion(OnionAddress::from_public_key(key))
}

fn number_of(of: &Endpoint) -> u64 {
    let Endpoint::Onion(address) = of else {
        panic!("all are onion services");
    };
    let text = address.unredacted().to_ascii_uppercase();
    // 13 characters of base32 hold the first 8 bytes.
    let bits = text.bytes().take(13).fold(0_u128, |bits, it| {
        let value = match it {
            b'A'..=b'Z' => it - b'A',
            _ => it - b'2' + 26,
        };
        bits << 5 | u128::from(value)
    });
    u64::try_from(bits >> 1).unwrap()
}

type AskFor = fn(&Model, &mut ChaCha8Rng, &mut usize) -> Result<Vec<Known>, SyncError>;

/// How many of the rounds chose exactly the honest catalogue, and how many a canary.
fn rounds(
    what: &str,
    liars: Liars,
    honest_bootstrap: bool,
    rounds: usize,
    ask: AskFor,
) -> (f64, usize) {
    let mut rng = ChaCha8Rng::from_seed([11; 32]);
    let begun = Instant::now();
    let model = Model::new(liars, honest_bootstrap, &mut rng);
    let (mut good, mut canaries, mut asks) = (0_u32, 0, 0);
    for _ in 0..rounds {
        if let Ok(known) = ask(&model, &mut rng, &mut asks) {
            let (is_good, has_canary) = model.judge(&known);
            good += u32::from(is_good);
            canaries += usize::from(has_canary);
        }
    }
    let share = f64::from(good) / f64::from(u32::try_from(rounds).unwrap());
    println!(
        "{what}, {liars:?}, bootstrap honest {honest_bootstrap}: {:.1} % of {rounds} as they should \
         be, {canaries} with a canary, {:.1} requests each, {:.1} s",
        100.0 * share,
        f64::from(u32::try_from(asks).unwrap()) / f64::from(u32::try_from(rounds).unwrap()),
        begun.elapsed().as_secs_f64(),
    );
    (share, canaries)
}

#[test]
fn syncs_choose_the_honest_catalogue_where_30_percent_lie() {
    for liars in [Liars::Mixed, Liars::Withhold, Liars::OneCanary] {
        let (share, canaries) = rounds("syncs", liars, true, ROUNDS, Model::sync);
        assert!(share >= 0.995, "{liars:?}: {share}");
        assert_eq!(canaries, 0, "{liars:?}");
    }
}

#[test]
fn look_ups_choose_the_honest_providers_where_30_percent_lie() {
    for liars in [Liars::Mixed, Liars::Withhold, Liars::OneCanary] {
        let (share, canaries) = rounds("look-ups", liars, true, ROUNDS, Model::look_up);
        assert!(share >= 0.995, "{liars:?}: {share}");
        assert_eq!(canaries, 0, "{liars:?}");
    }
}

/// What rests on the bootstrap nodes: where they lie as often as others, canaries get through.
#[test]
fn a_canary_is_chosen_at_times_where_bootstrap_nodes_show_it_too() {
    let (_, canaries) = rounds("look-ups", Liars::OneCanary, false, 200, Model::look_up);
    assert!(canaries < 200);
}

/// A listing of a random provider, without a signature: where there is no room, none is looked at.
fn unsigned(template: &Listing, effort: u64, rng: &mut impl Rng) -> SignedListing {
    let mut id = [0; 34];
    id[..2].copy_from_slice(&[0x58, 32]);
    rng.fill_bytes(&mut id[2..]);
    let mut listing = template.clone();
    listing.provider = decode(&id).unwrap();
    listing.work = work(listing.work.day, effort);
    let listing = minicbor::bytes::ByteVec::from(encode(&listing));
    let signature = minicbor::bytes::ByteVec::from(vec![0; 64]);
    SignedListing::from_bytes(&encode(&(listing, signature))).unwrap()
}

#[test]
fn fifty_thousand_newcomers_displace_no_provider_of_seven_days() {
    const CAPACITY: usize = 1_000;
    const DAY: u64 = 86_400;
    let begun = Instant::now();
    let mut catalogue: Catalogue = catalogue(CAPACITY);
    let seniors = u64::try_from(CAPACITY * 3 / 4).unwrap();
    let mut seniors: Vec<_> = (0..seniors).map(Provider::new).collect();
    for day in 0..=7 {
        let now = NOON + day * DAY;
        catalogue.prune(at(now));
        for senior in &mut seniors {
            let listing = senior.publish(now);
            catalogue.insert(listing, at(now)).unwrap();
        }
    }
    let now = NOON + 7 * DAY;
    assert_eq!(catalogue.seniors(), seniors.len());
    let mut rng = ChaCha8Rng::from_seed([12; 32]);
    let template = Provider::new(1_000_000).next(now);
    let (mut taken, mut full) = (0, 0);
    for number in 0..50_000 {
        // Work as it falls: half shows twice as much, a quarter four times.
        let shown = u128::from(u64::MAX) * u128::from(EFFORT) / u128::from(rng.next_u64().max(1));
        let effort = u64::try_from(shown).unwrap_or(u64::MAX);
        match catalogue.insert(unsigned(&template, effort, &mut rng), at(now)) {
            Err(Refusal::Full) => full += 1,
            // It would get a place: then it is signed.
            Err(Refusal::Forged) => {
                let mut fake = Provider::new(1_000_000 + number);
                fake.effort = effort;
                catalogue.insert(fake.publish(now), at(now)).unwrap();
                taken += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(taken + full, 50_000);
    // On the next day they come back before the others do.
    let next = now + DAY;
    for senior in &mut seniors {
        let listing = senior.publish(next);
        catalogue.insert(listing, at(next)).unwrap();
    }
    let left = seniors
        .iter()
        .filter(|it| catalogue.get(&it.id()).is_some());
    let left = left.count();
    println!(
        "50,000 newcomers, {CAPACITY} places: {taken} got one for a time, {full} none; {left} of {} \
         seniors are left; {:.1} s",
        seniors.len(),
        begun.elapsed().as_secs_f64(),
    );
    assert_eq!(left, seniors.len());
    assert_eq!(catalogue.len(), CAPACITY);
}
