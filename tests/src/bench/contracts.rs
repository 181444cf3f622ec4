//! What contracts cost: issuing tokens, redeeming them, and what a call that is
//! paid takes beside one that is not.
//!
//! Baselines: checking a receipt (one Ed25519 signature), for what a token
//! costs; the same call on a plan for everybody, for what being paid costs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dlambda_client::{Call, CallOutcome, FunctionName, Querier, Wallet};
use dlambda_crypto::negotiation::{ContractOptions, Issuers, Negotiation, Step, grant};
use dlambda_privacy::clock::SystemClock;
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_proto::{
    Advert, BatchSize, CallToken, Completion, ContractAnswer, Endpoint, Epoch, FunctionId,
    IdentityKey, OnionAddress, Plan, PlanName, Receipt, ReceiptKey, Reply, RequestDigest,
    UnixSeconds, Usage, Verified, encode,
};
use dlambda_provider::{ProviderConfig, SessionRecord};

use super::report::{Ratio, Report};
use super::{cpu, functions, millis, progress};
use crate::local::LocalProvider;

/// For one call or contract in memory.
const DEADLINE: Duration = Duration::from_secs(60);

/// Calls of each sort in a round; one contract pays for them.
const CALLS: usize = 100;

/// What is sent with a call, and comes back.
const PAYLOAD: usize = 1024;

/// Claims: a figure over its baseline.
const RATIOS: [Ratio; 4] = [
    (
        "redeeming a token over checking a receipt",
        "a token: redeeming, processor",
        "a receipt: checking, processor",
    ),
    (
        "time of a paid call over one that is not",
        "a call in memory, paid: time",
        "a call in memory, for everybody: time",
    ),
    (
        "... of its round trip alone, where the provider redeems",
        "a call in memory, paid: round trip",
        "a call in memory, for everybody: round trip",
    ),
    (
        "processor time of a paid call over one that is not",
        "a call in memory, paid: processor, both sides",
        "a call in memory, for everybody: processor, both sides",
    ),
];

/// Measures everything.
///
/// # Errors
///
/// Whatever does not answer as it should.
pub async fn run(rounds: u16) -> Result<Report> {
    let mut report = Report::new("dlambda.bench-contracts/1", &RATIOS);
    let shop = Shop::open()?;
    let market = Market::open().await?;
    for round in 0..rounds {
        progress(&format!("round {} of {rounds}", round + 1));
        let tokens = shop.issue(&mut report)?;
        shop.redeem(&tokens, &mut report)?;
        shop.receipts(&mut report)?;
        Box::pin(market.calls(round, &mut report)).await?;
    }
    market.bytes(&mut report)?;
    market.provider.stop().await?;
    Ok(report)
}

/// The largest contract.
fn wish() -> ContractOptions {
    ContractOptions {
        plan: None,
        calls: BatchSize::Calls128,
        service: None,
        deterministic: true,
        invitation: None,
    }
}

/// A provider's keys for contracts, and its advert.
struct Shop {
    identity: IdentityKey,
    receipts: ReceiptKey,
    advert: Verified<Advert>,
    issuers: Issuers,
    plan: PlanName,
}

impl Shop {
    fn open() -> Result<Self> {
        let identity = IdentityKey::from_seed(&[1; 32]);
        let receipts = ReceiptKey::from_seed(&[2; 32]);
        let endpoint = Endpoint::Onion(OnionAddress::from_public_key([1; 32]));
        let (id, epoch) = (identity.id(), Epoch(1));
        let mut advert = Advert::minimal(id, epoch, UnixSeconds(0), receipts.id(), endpoint);
        advert.plans.truncate(1);
        let plan = advert.plans[0].name.clone();
        advert.plans[0].needs_token = true;
        let names = std::slice::from_ref(&plan);
        let issuers = Issuers::generate(&[3; 32], &id, epoch, names, &mut os_rng())?;
        advert.call_keys.push(issuers.calls[&plan].key());
        let ratings = issuers.ratings.as_ref().context("a fresh epoch")?;
        advert.rating_key = ratings.key().to_vec();
        let advert = advert.sign(&identity)?.verify(UnixSeconds(10), &endpoint)?;
        Ok(Self {
            identity,
            receipts,
            advert,
            issuers,
            plan,
        })
    }

    /// A contract for the most calls, both sides in this thread.
    fn issue(&self, report: &mut Report) -> Result<Vec<CallToken>> {
        let wish = wish();
        let mut seed = [0; 32];
        rand_core::Rng::fill_bytes(&mut os_rng(), &mut seed);
        let (proposed, blinding) = timed(|| {
            let negotiation = Negotiation::begin(&self.advert, &wish, seed.into())?;
            anyhow::Ok(negotiation.propose()?)
        });
        let (proposal, proposed) = proposed?;
        let (granted, issuing) = timed(|| grant(&proposal, &self.identity, &self.issuers));
        let Ok(granted) = granted else {
            bail!("not granted");
        };
        let sizes = (encode(&proposal).len(), encode(&granted).len());
        let (step, checking) = timed(|| proposed.receive(ContractAnswer::Granted(granted)));
        let Step::Agreed(agreement) = step? else {
            bail!("not agreed");
        };
        for (name, time) in [
            ("caller blinds", blinding),
            ("provider issues", issuing),
            ("caller checks and unblinds", checking),
            ("both sides together", blinding + issuing + checking),
        ] {
            let name = format!("a contract for 128 calls: {name}, processor");
            report.add(&name, "ms", millis(time));
        }
        for (name, bytes) in [("proposal", sizes.0), ("grant", sizes.1)] {
            let name = format!("a contract for 128 calls: {name}, before padding");
            report.add(&name, "bytes", count(bytes));
        }
        Ok(agreement.calls)
    }

    /// What the provider does with a token, before it is written down.
    fn redeem(&self, tokens: &[CallToken], report: &mut Report) -> Result<()> {
        let issuer = &self.issuers.calls[&self.plan];
        let (all, time) = timed(|| tokens.iter().all(|token| issuer.recognises(token)));
        ensure!(all, "a token that was just issued is not good");
        let each = millis(time) * 1e3 / count(tokens.len());
        report.add("a token: redeeming, processor", "us", each);
        Ok(())
    }

    fn receipts(&self, report: &mut Report) -> Result<()> {
        let reply = Reply {
            completion: Completion::Exited {
                status: 0,
                stdout: vec![b'A'; PAYLOAD],
                stderr: vec![],
                http: None,
            },
            usage: Usage {
                deterministic: true,
                ..Usage::default()
            },
            engine: [0; 32],
            receipt: None,
        };
        let (provider, epoch) = (self.advert.provider, self.advert.epoch);
        let make = || {
            let (plan, function) = (self.plan.clone(), FunctionId::of(b"function"));
            let digest = RequestDigest([4; 32]);
            Receipt::of(&reply, provider, epoch, plan, function, digest, &[9; 32])
        };
        let (signed, signing) = timed(|| {
            let receipts = (0..CALLS).filter_map(|_| make());
            let signed: Vec<_> = receipts.map(|it| it.sign(&self.receipts)).collect();
            signed
        });
        let (good, checking) = timed(|| signed.iter().all(|it| it.verify(&self.advert).is_ok()));
        ensure!(good && signed.len() == CALLS, "a receipt is not good");
        for (name, time) in [("making and signing", signing), ("checking", checking)] {
            let each = millis(time) * 1e3 / count(CALLS);
            report.add(&format!("a receipt: {name}, processor"), "us", each);
        }
        Ok(())
    }
}

/// A provider with two plans that differ in nothing but that one takes tokens.
struct Market {
    network: MemoryNetwork,
    provider: LocalProvider,
    dir: tempfile::TempDir,
}

const FREE: &str = "free";

impl Market {
    async fn open() -> Result<Self> {
        let mut config = ProviderConfig::default();
        config.plans.truncate(1);
        let free = Plan {
            name: FREE.parse()?,
            needs_token: false,
            ..config.plans[0].clone()
        };
        config.plans.push(free);
        let network = MemoryNetwork::new(Duration::ZERO);
        let dir = tempfile::tempdir()?;
        let transport = Arc::new(network.transport([1; 32]));
        let clock = Arc::new(SystemClock::default());
        let (functions, data) = (functions(), dir.path().join("provider"));
        let started = LocalProvider::start(config, &functions, &data, transport, clock);
        Ok(Self {
            network,
            provider: Box::pin(started).await?,
            dir,
        })
    }

    async fn calls(&self, round: u16, report: &mut Report) -> Result<()> {
        let transport = Arc::new(self.network.transport([2; 32]));
        let wallet = Wallet::open(&self.dir.path().join(format!("wallet-{round}")))?;
        let querier = Querier::new(transport, Arc::new(SystemClock::default()));
        let querier = querier.with_wallet(wallet);
        let wish = wish();
        let endpoint = self.provider.endpoint;
        let bought = querier.contract(&endpoint, &wish, DEADLINE, |_| true, |_| {});
        Box::pin(bought).await?;
        querier.look_again(DEADLINE).await?;
        for _ in 0..CALLS {
            self.call(&querier, "for everybody", Some(FREE), report)
                .await?;
            self.call(&querier, "paid", None, report).await?;
        }
        Ok(())
    }

    async fn call(
        &self,
        querier: &Querier,
        title: &str,
        plan: Option<&str>,
        report: &mut Report,
    ) -> Result<()> {
        let upper = FunctionName::Alias("upper".to_owned());
        let mut call = Call::new(self.provider.endpoint, upper).input(vec![b'a'; PAYLOAD]);
        if let Some(plan) = plan {
            call = call.plan(plan.parse()?);
        }
        let before = cpu::of_this_process();
        let ended: CallOutcome = querier.call_outcome(&call, DEADLINE, |_| {}).await?;
        // Acknowledging is part of it.
        querier.flush_acks().await;
        let used = cpu::of_this_process().saturating_sub(before);
        let stages = ended.into_output()?.stages;
        for (name, unit, value) in [
            ("time", "ms", millis(stages.total)),
            ("round trip", "ms", millis(stages.round_trip)),
            ("processor, both sides", "ms", millis(used)),
        ] {
            report.add(&format!("a call in memory, {title}: {name}"), unit, value);
        }
        Ok(())
    }

    /// Of the last paid call, as the provider saw it.
    fn bytes(&self, report: &mut Report) -> Result<()> {
        let records = self.provider.recorder.records();
        let is_paid = |record: &&SessionRecord| {
            let request = record.request.as_deref().unwrap_or_default();
            dlambda_proto::decode::<dlambda_proto::Request>(request)
                .is_ok_and(|request| request.token.is_some())
        };
        let last = records.iter().rev().find(is_paid).context("a paid call")?;
        let (request, reply) = (last.request.as_deref(), last.reply.as_deref());
        let (request, reply) = (request.context("opened")?, reply.context("answered")?);
        let reply_parts: Reply = dlambda_proto::decode(reply)?;
        let receipt = encode(&reply_parts.receipt.context("a receipt")?).len();
        let token = encode(&dlambda_proto::decode::<dlambda_proto::Request>(request)?.token).len();
        let padded = 2 * dlambda_crypto::padding::bucket(PAYLOAD).context("a bucket")?;
        let advert = advert_len(&last.sent);
        let frames = last.received.len() + last.sent.len() - advert - padded;
        let beyond = request.len() + reply.len() - 2 * PAYLOAD;
        for (name, bytes) in [
            (
                "request and reply, beside what the function reads and writes",
                beyond,
            ),
            ("... of it the token", token),
            ("... of it the receipt", receipt),
            ("sealing and frames, both ways", frames),
            ("all of these", beyond + frames),
            ("the advert, the same for all", advert),
        ] {
            report.add(&format!("bytes of a call: {name}"), "bytes", count(bytes));
        }
        Ok(())
    }
}

/// Bytes of the advert's frame, the first that a provider sends.
fn advert_len(sent: &[u8]) -> usize {
    let length = sent.get(2..6).and_then(|bytes| bytes.try_into().ok());
    6 + length.map_or(0, |bytes| u32::from_be_bytes(bytes) as usize)
}

/// Processor time of this thread.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let before = cpu::of_this_thread();
    let done = work();
    (done, cpu::of_this_thread().saturating_sub(before))
}

#[allow(clippy::cast_precision_loss, reason = "small numbers")]
fn count(number: usize) -> f64 {
    number as f64
}
