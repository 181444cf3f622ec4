//! Two customers of one provider, and what a test makes of its record of them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dlambda_client::wallet::{Draft, Resuming, TokenQuery};
use dlambda_client::{Call, ContractProgress, ProposalOutcome, Querier, Wallet};
use dlambda_crypto::negotiation::{ContractOptions, Negotiation};
use dlambda_crypto::seal::{SealedCall, SealedContractRequest};
use dlambda_privacy::clock::Clock;
use dlambda_privacy::exchange::{
    VerifiedGreeting, acknowledge, exchange, exchange_contract, receive_greeting,
};
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::{BoxStream, Service, Transport};
use dlambda_proto::{
    BatchSize, ContractAnswer, ContractId, ContractRequest, Endpoint, FunctionSource, Request,
    SignedContract,
};
use dlambda_provider::SessionRecord;
use dlambda_tests::adversary::{Adversary, Score};
use dlambda_tests::anonymity_set::Dice;
use dlambda_tests::local::Recorder;
use rand_core::Rng as _;

use crate::support::{LONG, alias, skip_second_look};

/// Calls of each of the two customers.
pub(crate) const EACH: usize = 20;

/// A caller with a contract for 32 calls.
pub(crate) struct Customer {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    endpoint: Endpoint,
    querier: Querier,
    pub(crate) contract: SignedContract,
}

impl Customer {
    pub(crate) async fn sign_up(
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        endpoint: Endpoint,
        wallet: &Path,
    ) -> Self {
        let wallet = Wallet::open(wallet).expect("a wallet");
        let querier = Querier::new(Arc::clone(&transport), Arc::clone(&clock));
        let querier = querier.with_wallet(wallet.clone());
        let wish = ContractOptions {
            plan: None,
            calls: BatchSize::Calls32,
            service: None,
            deterministic: true,
            invitation: None,
        };
        let mut draft = None;
        let look = |progress| {
            if progress == ContractProgress::Proposing {
                draft = wallet.drafts().expect("a wallet").pop();
            }
        };
        let offered = querier.contract(&endpoint, &wish, LONG, |_| true, look);
        let ProposalOutcome::Signed(contract) = Box::pin(offered).await.expect("an answer") else {
            panic!("countered");
        };
        skip_second_look(&wallet);
        let customer = Self {
            transport,
            clock,
            endpoint,
            querier,
            contract: *contract,
        };
        customer.propose_again(draft.expect("proposed")).await;
        customer
    }

    /// As if the answer had been lost. The record of a session keeps its last
    /// request, which was the confirmation; so it holds the proposal and the
    /// grant, too, which are the same as before.
    async fn propose_again(&self, draft: Draft) {
        let (mut stream, welcome) = self.greet().await;
        let advert = draft.advert.authenticate().expect("an advert");
        let (contract, seed) = (draft.contract, draft.seed.into());
        let negotiation = Negotiation::resume(advert, contract, seed, draft.invitation);
        let (proposal, _) = negotiation.expect("ours").propose().expect("blinds");
        let request = ContractRequest::Propose(Box::new(proposal));
        let sealed = SealedContractRequest::seal(&welcome.sealing, &request, &mut os_rng());
        let answer = exchange_contract(&mut *stream, sealed.expect("seals"), LONG).await;
        let ContractAnswer::Granted(grant) = answer.expect("an answer") else {
            panic!("not granted");
        };
        assert_eq!(grant.signature, self.contract.provider_signature);
        acknowledge(stream).await;
    }

    async fn greet(&self) -> (BoxStream, VerifiedGreeting) {
        // A circuit may fail.
        for _ in 0..3 {
            let Ok(dialled) = self.transport.dial(&self.endpoint, Service::Calls).await else {
                continue;
            };
            let mut stream = dialled.stream;
            let now = self.clock.now();
            let greeted = receive_greeting(&mut *stream, &self.endpoint, now, LONG).await;
            if let Ok(welcome) = greeted {
                return (stream, welcome);
            }
        }
        panic!("the provider cannot be reached");
    }

    /// The contract's id, as text.
    pub(crate) fn id(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.contract.contract.id().0)
    }

    /// A call as it should be; returns how many circuits it took.
    pub(crate) async fn call(&self, input: Vec<u8>, args: &[String]) -> u32 {
        let expected = dlambda_proto::FunctionId::of(&input);
        let expected = data_encoding::HEXLOWER.encode(expected.digest()) + "\n";
        let call = Call::new(self.endpoint, alias("sha256")).input(input);
        let call = call.args(args);
        let answer = self.querier.call(&call, LONG, |_| {}).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.stdout, expected.as_bytes());
        answer.attempts
    }

    /// A call with something wrong in it.
    pub(crate) async fn call_with(&self, input: Vec<u8>, change: impl FnOnce(&mut Request)) {
        let (mut stream, welcome) = self.greet().await;
        let advert = &welcome.advert;
        let mut call = [0; 32];
        os_rng().fill_bytes(&mut call);
        let taking = TokenQuery {
            endpoint: self.endpoint,
            plan: None,
            provider: None,
            call,
            now: self.clock.now(),
            valid_at: self.clock.now(),
            resuming: Resuming::Soon,
        };
        let wallet = self.querier.wallet().expect("a wallet");
        let held = wallet.reserve(&taking).expect("a wallet").expect("a token");
        let function = advert.function_by_alias("sha256").expect("published");
        let mut request = Request {
            function: FunctionSource::Known(function.id),
            args: vec![],
            input,
            seed: *held.seed(),
            http: None,
            token: Some(held.token()),
        };
        change(&mut request);
        let plan = &advert.plans[0].name;
        let sealed =
            SealedCall::seal(&welcome.sealing, plan, &request, &mut os_rng()).expect("seals");
        // A token that was tampered with pays for nothing; it is recorded all
        // the same.
        let answered = exchange(&mut *stream, sealed, LONG).await;
        answered.expect("a reply");
        acknowledge(stream).await;
        held.commit().expect("a wallet");
    }
}

/// Who calls when, and what the caller alone knows.
pub(crate) struct Script {
    /// Which customer makes each call.
    pub(crate) order: Vec<usize>,
    pub(crate) dice: Dice,
    /// Whose input it was.
    owners: HashMap<Vec<u8>, ContractId>,
}

impl Script {
    /// So many calls of each of two customers, in random order.
    pub(crate) fn new(each: usize, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut order: Vec<usize> = (0..2 * each).map(|call| call % 2).collect();
        dice.shuffle(&mut order);
        Self {
            order,
            dice,
            owners: HashMap::new(),
        }
    }

    /// A fresh input, whose size says nothing of who it is from.
    pub(crate) fn input(&mut self, customer: &Customer) -> Vec<u8> {
        let mut input = vec![0; 100 + self.dice.below(1000)];
        os_rng().fill_bytes(&mut input);
        self.owners
            .insert(input.clone(), customer.contract.contract.id());
        input
    }

    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.owners.keys()
    }

    pub(crate) fn scores(&self, adversary: &Adversary) -> Vec<Score> {
        adversary.best_guesses(|request| self.owners[&request.input])
    }
}

/// The records, once they hold so many calls.
pub(crate) async fn records_of(recorder: &Recorder, calls: usize) -> Vec<SessionRecord> {
    for _ in 0..200 {
        let records = recorder.records();
        if Adversary::new(&records).calls() >= calls {
            return records;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not all calls were recorded");
}

/// Fails if the adversary knows anything. An honest run fails once in a
/// million times, all strategies together.
pub(crate) fn assert_no_better_than_chance(adversary: &Adversary, scores: &[Score]) {
    assert_eq!(adversary.contracts().len(), 2);
    let with_contracts = adversary.shared_with_contracts();
    assert!(with_contracts.is_empty(), "{with_contracts:?}");
    let by_calls = adversary.shared_by_calls();
    assert!(by_calls.is_empty(), "{by_calls:?}");
    let limit = limit(scores);
    for score in scores {
        assert!(score.chance > limit, "{score:?}, above {limit:e} by chance");
    }
}

pub(crate) fn limit(scores: &[Score]) -> f64 {
    assert!(scores.len() > 30, "too few ways were tried: {scores:?}");
    1e-6 / scores.len() as f64
}

/// The best that the adversary did with a whole assignment.
pub(crate) fn report(title: &str, scores: &[Score]) {
    let mut scores: Vec<&Score> = scores.iter().collect();
    scores.sort_by(|one, two| one.chance.total_cmp(&two.chance));
    println!("{title}: {} strategies; the best of them:", scores.len());
    for score in scores.iter().take(5) {
        let Score {
            strategy,
            guessed,
            right,
            chance,
            ..
        } = score;
        println!("  {right:2} of {guessed:2}  p = {chance:.2e}  {strategy}");
    }
}
