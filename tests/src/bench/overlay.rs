//! What a sync costs a guest, and a listing its provider and its readers, by the number of
//! providers.
//!
//! Without a network: bytes are those of the frames, and time is that of the guest's own processor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dlambda_broker::{
    Catalogue, Equihash, GuestSeal, Market, NodeState, Plan as _, Rules, Sources, Sync, WorkCheck,
};
use dlambda_crypto::work;
use dlambda_privacy::os_rng;
use dlambda_proto::{
    AdvertDigest, Day, Endpoint, Epoch, IdentityKey, ListedPlan, Listing, NetworkId, OnionAddress,
    Requirements, Resources, SignedListing, UnixSeconds, Validity, Work, encode,
};
use rand_core::Rng as _;

use super::Report;
use super::report::Ratio;

const RATIOS: &[Ratio] = &[
    (
        "bytes of a sync over those of the listings, 1,000 providers",
        "sync, 1,000 providers",
        "listings, 1,000 providers",
    ),
    (
        "bytes of a sync over those of the listings, 10,000 providers",
        "sync, 10,000 providers",
        "listings, 10,000 providers",
    ),
    (
        "time to check a listing over that to check its signature",
        "checking a listing",
        "checking a signature",
    ),
];

const NETWORK: NetworkId = NetworkId::from_bytes([1; 16]);
const DAY: Day = Day(20_000);
/// Repetitions of what takes microseconds.
const MANY: u32 = 500;

/// Takes any work: making it for each of thousands of providers would take minutes. What checking
/// it takes is measured apart.
#[derive(Debug)]
struct Unchecked;

impl WorkCheck for Unchecked {
    fn effort(&self, _: &[u8; 32], _: &Work) -> Option<u64> {
        Some(u64::MAX)
    }
}

/// Measures with each of these numbers of providers.
///
/// # Errors
///
/// If a sync does not bring what it should.
pub fn run(sizes: &[usize]) -> Result<Report> {
    let mut report = Report::new("dlambda.bench.overlay/1", RATIOS);
    work_and_checks(&mut report)?;
    for size in sizes {
        sync(*size, &mut report)?;
    }
    charts(sizes, &mut report)?;
    Ok(report)
}

fn charts(sizes: &[usize], report: &mut Report) -> Result<()> {
    let groups: Vec<_> = sizes.iter().map(|it| thousands(*it)).collect();
    let charts: [(_, &[_]); 3] = [
        ("Bytes, by the number of providers", &["listings", "sync"]),
        (
            "Processor time, by the number of providers",
            &["a node's snapshot", "a guest's own time for a sync"],
        ),
        ("Search, by the number of providers", &["a search"]),
    ];
    for (title, series) in charts {
        report.chart(title, series, &groups, |series, group| {
            format!("{series}, {group} providers")
        })?;
    }
    Ok(())
}

fn work_and_checks(report: &mut Report) -> Result<()> {
    let key = identity(0);
    let challenge = Work::for_listing(NETWORK, &key.id(), DAY);
    let started = Instant::now();
    let mut done = None;
    for number in 0..16_u8 {
        done = work::perform(&challenge, DAY, 1, [number; 16], || false);
    }
    report.add("making a solution", "ms", millis(started.elapsed() / 16));
    let done = done.context("work")?;
    let started = Instant::now();
    for _ in 0..MANY {
        ensure!(
            work::effort(&challenge, &done).is_some(),
            "it is a solution"
        );
    }
    report.add(
        "checking a solution",
        "us",
        micros(started.elapsed() / MANY),
    );
    let signed = listing(&key, done)?;
    let started = Instant::now();
    for _ in 0..MANY {
        let mut catalogue = Catalogue::new(rules(1), Arc::new(Equihash));
        catalogue.insert(signed.clone(), now()).context("good")?;
    }
    report.add("checking a listing", "us", micros(started.elapsed() / MANY));
    let (message, signature) = (encode(&signed), key.sign(b"bench", &encode(&signed)));
    let started = Instant::now();
    for _ in 0..MANY {
        ensure!(key.id().verify(b"bench", &message, &signature), "signed");
    }
    report.add(
        "checking a signature",
        "us",
        micros(started.elapsed() / MANY),
    );
    Ok(())
}

fn sync(size: usize, report: &mut Report) -> Result<()> {
    let name = |what: &str| format!("{what}, {} providers", thousands(size));
    let mut catalogue = Catalogue::new(rules(size), Arc::new(Unchecked));
    let mut bytes = 0;
    for number in 0..size {
        let signed = listing(&identity(number), no_work())?;
        bytes += encode(&signed).len();
        catalogue.insert(signed, now()).context("it is taken")?;
    }
    report.add(&name("listings"), "KB", kilobytes(bytes));
    let mut node = NodeState::new(catalogue);
    let started = Instant::now();
    node.snapshot(now());
    report.add(&name("a node's snapshot"), "ms", millis(started.elapsed()));

    let nodes: Vec<Endpoint> = (0..5).map(onion).collect();
    let sources = Sources::draw(&nodes, &[], &mut os_rng());
    let check = Arc::new(Unchecked);
    let mut sync = Sync::new(rules(size), check, sources, now(), &mut os_rng());
    let (mut bytes, mut requests, mut own) = (0, 0, Duration::ZERO);
    loop {
        let started = Instant::now();
        let Some(request) = sync.next() else { break };
        own += started.elapsed();
        let (ask, binding) = GuestSeal::Public.wrap_ask(&request.ask, &mut os_rng())?;
        let (answer, _) = node.answer(request.ask, now());
        let frame = GuestSeal::Public.wrap_answer(binding, &answer, &mut os_rng())?;
        bytes += ask.body().len() + frame.body().len();
        requests += 1;
        let started = Instant::now();
        sync.receive(request.id, Ok(answer));
        own += started.elapsed();
    }
    let started = Instant::now();
    let mut market = Market::new(rules(size));
    market.update(sync.finish()?, now());
    own += started.elapsed();
    report.add(&name("sync"), "KB", kilobytes(bytes));
    report.add(&name("requests of a sync"), "", f64::from(requests));
    report.add(&name("a guest's own time for a sync"), "ms", millis(own));
    let started = Instant::now();
    let found = market.find(&Requirements::default(), now())?;
    ensure!(found.len() == size, "all are found");
    report.add(&name("a search"), "ms", millis(started.elapsed()));
    Ok(())
}

fn rules(capacity: usize) -> Rules {
    let mut rules = Rules::new(NETWORK, 1, 1);
    // Newcomers have a quarter, and what is free.
    rules.capacity = capacity;
    rules
}

fn now() -> UnixSeconds {
    DAY.begins().plus(3600)
}

fn identity(number: usize) -> IdentityKey {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    IdentityKey::from_seed(&seed)
}

fn onion(number: u8) -> Endpoint {
    Endpoint::Onion(OnionAddress::from_public_key([number; 32]))
}

fn no_work() -> Work {
    let mut solution = [0; 68];
    os_rng().fill_bytes(&mut solution);
    Work {
        day: DAY,
        nonce: [0; 16],
        solution,
    }
}

/// As providers publish them: an onion address, a node, and three plans.
fn listing(key: &IdentityKey, work: Work) -> Result<SignedListing> {
    let plan = |name: &str| {
        let name = name.parse()?;
        anyhow::Ok(ListedPlan { name, price: 0 })
    };
    let listing = Listing {
        network: NETWORK,
        provider: key.id(),
        number: 0,
        previous: None,
        epoch: Epoch(1),
        advert: AdvertDigest([1; 32]),
        validity: Validity {
            from: DAY.begins(),
            until: DAY.begins().plus(30 * 3600),
        },
        endpoints: vec![onion(1)],
        node: vec![onion(2)],
        resources: Resources {
            cores: 4,
            memory_mib: 16_384,
            gpu_vram_mib: 0,
            tee: false,
        },
        region: None,
        plans: vec![plan("small")?, plan("medium")?, plan("large")?],
        functions: Vec::new(),
        work,
    };
    Ok(listing.sign(key)?)
}

fn thousands(number: usize) -> String {
    format!("{},000", number / 1000)
}

fn kilobytes(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes / 1000).unwrap_or(u32::MAX))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
