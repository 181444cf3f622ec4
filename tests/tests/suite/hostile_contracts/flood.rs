//! Floods of junk, and of good proposals.

use super::*;

/// Processor time of this thread so far, in nanoseconds.
fn cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let time = text.split_whitespace().next().expect("a number");
    time.parse().expect("a number")
}

fn cpu_of(work: impl FnOnce()) -> u64 {
    let before = cpu();
    work();
    cpu() - before
}

const JUNK: usize = 200;

fn junk() -> ContractEnvelope {
    ContractEnvelope {
        epoch: Epoch(1),
        encapsulated_key: seed(),
        ciphertext: random(16 << 10),
        work: None,
    }
}

/// Work that was not done.
const MADE_UP: ProofOfWork = ProofOfWork {
    solution: 1,
    hash: [0; 32],
    stamp: 0,
};

#[test]
fn junk_costs_its_sender_more_than_the_provider() {
    let provider = IdentityKey::from_seed(&[1; 32]).id();
    let mut flood: Vec<_> = (0..JUNK).map(|_| junk()).collect();
    let check = |flood: &[ContractEnvelope], is_good| {
        cpu_of(|| {
            for envelope in flood {
                assert_eq!(pow::verify(&provider, envelope, 0), is_good);
            }
        })
    };
    // One memory-hard hash, which is enough for no effort, and a stamp on it.
    let working = cpu_of(|| {
        for envelope in &mut flood {
            envelope.work = pow::perform(&provider, envelope, 0, [0; 2], || false);
        }
    });
    // One memory-hard hash each.
    let checking = check(&flood, true);
    // A sender who does not compute the hash, and hashes what is common to all
    // tries for a stamp only once.
    let stamping = cpu_of(|| {
        for envelope in &mut flood {
            let stamp = stamp(&provider, envelope, &MADE_UP);
            envelope.work = Some(ProofOfWork { stamp, ..MADE_UP });
        }
    });
    let checking_made_up = check(&flood, false);
    for envelope in &mut flood {
        envelope.work = Some(MADE_UP);
    }
    let discarding = check(&flood, false);
    let milliseconds = |time| time / 1_000_000;
    println!(
        "{JUNK} proposals, sender : provider, in ms: with work {} : {}, with stamps {} : {}, \
         without {}",
        milliseconds(working),
        milliseconds(checking),
        milliseconds(stamping),
        milliseconds(checking_made_up),
        milliseconds(discarding),
    );
    // Measured: 7.7 and 3.6 to one.
    assert!(working > 2 * checking);
    assert!(stamping > checking_made_up);
    assert!(
        discarding * 5 < checking,
        "no memory-hard hash without a stamp"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_junk_does_not_keep_honest_callers_out() {
    let market = Arc::new(Market::with(with_work(3)).await);
    let welcome = market.greet().await.1;
    let querier = market.customer("anne");
    market.buy(&querier, BatchSize::Calls32).await;
    let flood = tokio::spawn(flood_with_junk(Arc::clone(&market), welcome));
    for i in 0..16 {
        let called = querier
            .call(&market.call(format!("{i}")), LONG, |_| {})
            .await;
        assert!(called.is_ok(), "{called:?}");
    }
    // Also those who come for a contract, and do their work.
    let newcomer = market.customer("bert");
    market.buy(&newcomer, BatchSize::Calls8).await;
    flood.await.expect("ends");
    assert_eq!(market.contracts().await, (2, 2));
    let called = newcomer.call(&market.call("after"), LONG, |_| {}).await;
    assert!(called.is_ok(), "{called:?}");
}

/// 200 proposals with no work, made-up work, and work for less.
async fn flood_with_junk(market: Arc<Market>, welcome: VerifiedGreeting) {
    for i in 0..JUNK {
        let good = sealed_proposal(&welcome);
        let junk = match i % 4 {
            0 => good,
            1 => good.with_work(MADE_UP),
            2 => {
                let work = ProofOfWork {
                    stamp: stamp(&welcome.advert.provider, good.envelope(), &MADE_UP),
                    ..MADE_UP
                };
                good.with_work(work)
            }
            _ => {
                let mut work =
                    pow::perform(&welcome.advert.provider, good.envelope(), 0, [0; 2], || {
                        false
                    });
                if let Some(work) = &mut work {
                    work.hash[0] |= 0x80;
                }
                good.with_work(work.expect("done"))
            }
        };
        let (mut stream, _) = market.greet().await;
        let answer = exchange_contract(&mut *stream, junk, LONG).await;
        assert!(
            matches!(answer, Err(ExchangeError::Refused(Refusal::TooLittleWork))),
            "{answer:?}"
        );
    }
}

/// A good stamp on made-up work.
fn stamp(provider: &ProviderId, envelope: &ContractEnvelope, work: &ProofOfWork) -> u64 {
    let mut challenge = Sha256::new();
    challenge.update(b"dlambda/work/v1\0");
    challenge.update(provider.as_bytes());
    challenge.update(encode(&envelope.epoch));
    challenge.update(envelope.encapsulated_key);
    challenge.update(&envelope.ciphertext);
    let challenge = challenge.finalize();
    let mut head = Sha256::new();
    head.update(b"dlambda/stamp/v1\0");
    head.update(challenge);
    head.update(work.solution.to_be_bytes());
    head.update(work.hash);
    let is_good = |stamp: &u64| {
        let digest = head.clone().chain_update(stamp.to_be_bytes()).finalize();
        digest[..2] == [0, 0]
    };
    (0_u64..).find(is_good).expect("one")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_good_proposals_does_not_keep_callers_out() {
    let market = Arc::new(Market::open().await);
    let querier = market.customer("anne");
    market.buy(&querier, BatchSize::Calls32).await;
    let stop = Arc::new(AtomicBool::new(false));
    let granted = Arc::new(AtomicUsize::new(0));
    let floods: Vec<_> = (0..24)
        .map(|_| {
            let (market, stop, granted) =
                (Arc::clone(&market), Arc::clone(&stop), Arc::clone(&granted));
            tokio::spawn(async move {
                let welcome = market.greet().await.1;
                while !stop.load(Ordering::Relaxed) {
                    let proposal = proposal(&welcome, BatchSize::Calls128);
                    let request = ContractRequest::Propose(Box::new(proposal));
                    let (mut stream, _) = market.greet().await;
                    match ask(&mut stream, &welcome, &request).await {
                        Ok(ContractAnswer::Granted(_)) => {
                            granted.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(ExchangeError::Refused(Refusal::Busy)) => {}
                        other => panic!("{other:?}"),
                    }
                }
            })
        })
        .collect();
    while granted.load(Ordering::Relaxed) < 5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for i in 0..16 {
        let called = querier
            .call(&market.call(format!("{i}")), LONG, |_| {})
            .await;
        assert!(called.is_ok(), "{called:?}");
    }
    stop.store(true, Ordering::Relaxed);
    for flood in floods {
        flood.await.expect("ends");
    }
    let granted = granted.load(Ordering::Relaxed) as u64;
    assert_eq!(market.contracts().await, (granted + 1, 1));
    market.assert_alive().await;
}
