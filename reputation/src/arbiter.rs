//! The arbiter: runs a call again and says who is right. Anybody can be one.
//!
//! Nothing is believed that the evidence does not prove by itself: the advert
//! is signed by the provider's identity, the receipt by a key in the advert,
//! and the receipt commits to the very request and completion.
//!
//! An honest provider is never condemned: whatever may differ between honest
//! machines (clocks, stack depth, another engine) makes a claim undecidable.

use std::fmt;
use std::time::Duration;

use dlambda_executor::replay::{self, Replayed};
use dlambda_executor::{Executor, ExecutorConfig, ExecutorError, Isolation, fingerprint};
use dlambda_proto::{
    Advert, Evidence, Finding, FraudProof, FunctionId, FunctionSource, OutputCommitment, Plan,
    Receipt, Status, StopKind,
};

/// A function may take so many times longer here than the plan allows.
const SLOWER: u32 = 20;
/// And at least so long.
const LEAST_PATIENCE: Duration = Duration::from_secs(60);
/// Largest memory that we run a stranger's claim with: what a 32-bit
/// WebAssembly memory can have.
const MOST_MEMORY: usize = 4 << 30;

/// What an arbiter found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Judgement {
    /// The word.
    pub finding: Finding,
    /// The reason, in a sentence.
    pub reason: String,
}

/// Judges evidence. Keeps an executor between cases.
pub struct Arbiter {
    isolation: Isolation,
    most_patience: Duration,
    executor: Option<(usize, Executor)>,
}

impl Arbiter {
    /// An arbiter that runs functions under this isolation, and none for longer
    /// than `most_patience`.
    #[must_use]
    pub fn new(isolation: Isolation, most_patience: Duration) -> Self {
        Self {
            isolation,
            most_patience,
            executor: None,
        }
    }

    /// Judges. What needs no execution costs some signatures.
    ///
    /// # Errors
    ///
    /// [`ExecutorError`] if this machine cannot run functions at all. A
    /// function that cannot be run here is no error: it is undecidable.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a running function is ended.
    pub async fn judge(&mut self, evidence: &Evidence) -> Result<Judgement, ExecutorError> {
        match evidence {
            Evidence::Fraud(proof) => self.judge_fraud(proof).await,
            Evidence::Equivocation(proof) => Ok(match proof.verify() {
                Ok(_) => at_fault("it signed two different adverts for one epoch"),
                Err(error) => unproven(error.to_string()),
            }),
            Evidence::Receipt(evidence) => Ok(match evidence.verify() {
                Ok(_) => unproven("a receipt by itself claims no fault; it is genuine"),
                Err(error) => unproven(error.to_string()),
            }),
            _ => Ok(undecidable(
                "this kind of evidence is newer than this program",
            )),
        }
    }

    async fn judge_fraud(&mut self, proof: &FraudProof) -> Result<Judgement, ExecutorError> {
        let (advert, receipt) = match proof.evidence.verify() {
            Ok(verified) => verified,
            Err(error) => return Ok(unproven(error.to_string())),
        };
        let Some(plan) = advert.plan(Some(&receipt.plan)) else {
            return Ok(unproven("the receipt's plan is not on the menu"));
        };
        if let Err(judgement) = check_request(proof, &receipt) {
            return Ok(judgement);
        }
        if let Err(judgement) = check_decidable(&receipt, plan) {
            return Ok(judgement);
        }
        let patience = self.patience(plan);
        let longer = Plan {
            wall_ms: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
            ..plan.clone()
        };
        let executor = self.executor(&advert).await?;
        match replay::replay(&executor, &proof.request, &longer).await {
            Ok(replayed) => Ok(compare(&receipt, proof, &replayed)),
            Err(error) => Ok(undecidable(format!(
                "the function cannot be run here: {error}"
            ))),
        }
    }

    fn patience(&self, plan: &Plan) -> Duration {
        let wall = Duration::from_millis(plan.wall_ms.into());
        wall.saturating_mul(SLOWER)
            .max(LEAST_PATIENCE)
            .min(self.most_patience)
    }

    /// An executor that agrees with a provider's with this menu.
    async fn executor(&mut self, advert: &Advert) -> Result<Executor, ExecutorError> {
        // No function of ours has more: beyond it, a larger plan makes no difference.
        let most = replay::max_memory_bytes(&advert.plans).min(MOST_MEMORY);
        if let Some((same, executor)) = &self.executor
            && *same == most
        {
            return Ok(executor.clone());
        }
        let executor = Executor::new(ExecutorConfig {
            max_concurrent: 1,
            max_memory_bytes: most,
            memory_budget: (most as u64).max(1 << 20),
            ..ExecutorConfig::new(self.isolation.clone())
        })?;
        executor.ready().await?;
        self.executor = Some((most, executor.clone()));
        Ok(executor)
    }
}

/// The receipt must be for this request and no other.
fn check_request(proof: &FraudProof, receipt: &Receipt) -> Result<(), Judgement> {
    let FunctionSource::Attached(wasm) = &proof.request.function else {
        return Err(undecidable("the function is not in the proof"));
    };
    let function = FunctionId::of(wasm);
    if function != receipt.function {
        return Err(unproven("the receipt is for another function"));
    }
    if proof.request.digest(&function) != receipt.request {
        return Err(unproven("the receipt is for another request"));
    }
    Ok(())
}

/// What no run can tell, and what needs none.
fn check_decidable(receipt: &Receipt, plan: &Plan) -> Result<(), Judgement> {
    if receipt.fuel > plan.fuel {
        return Err(at_fault(format!(
            "it says that the call took {} fuel, and its plan allows {}",
            receipt.fuel, plan.fuel
        )));
    }
    if !receipt.deterministic {
        return Err(undecidable("the plan is not deterministic"));
    }
    if receipt.engine != fingerprint() {
        return Err(undecidable(
            "it ran on an engine other than ours: ask an arbiter with that version",
        ));
    }
    match receipt.status {
        Status::Stopped(StopKind::Deadline) => Err(undecidable(
            "it says that the time was up, and nobody can tell how fast its machine was",
        )),
        Status::Stopped(StopKind::StackOverflow) => Err(undecidable(
            "it says that the stack overflowed, and how deep a stack is depends on the machine",
        )),
        _ => Ok(()),
    }
}

fn compare(receipt: &Receipt, proof: &FraudProof, replayed: &Replayed) -> Judgement {
    if !replayed.reproducible {
        return undecidable(
            "running it here ended by the clock or at the end of the stack, which depends on the machine",
        );
    }
    let status = replayed.completion.status();
    if status != Some(receipt.status) {
        return at_fault(format!(
            "it says that the call ended as {}, and running it ends as {}",
            words(Some(receipt.status)),
            words(status)
        ));
    }
    if replayed.fuel != receipt.fuel {
        return at_fault(format!(
            "it says that the call took {} fuel, and running it takes {}",
            receipt.fuel, replayed.fuel
        ));
    }
    if replayed.peak_memory_bytes != receipt.peak_memory_bytes {
        return at_fault(format!(
            "it says that the call took {} bytes of memory, and running it takes {}",
            receipt.peak_memory_bytes, replayed.peak_memory_bytes
        ));
    }
    let output = OutputCommitment::to(&replayed.completion, &proof.request.seed);
    if output != receipt.output {
        return at_fault("its output is not what running the function gives");
    }
    unproven("running the call again gives just what the receipt says")
}

fn words(status: Option<Status>) -> String {
    match status {
        Some(Status::Exited(status)) => format!("exit status {status}"),
        Some(Status::Stopped(kind)) => format!("stopped ({})", kind.name()),
        None => "something else".to_owned(),
    }
}

fn at_fault(reason: impl Into<String>) -> Judgement {
    Judgement {
        finding: Finding::ProviderAtFault,
        reason: reason.into(),
    }
}

fn unproven(reason: impl Into<String>) -> Judgement {
    Judgement {
        finding: Finding::Unproven,
        reason: reason.into(),
    }
}

fn undecidable(reason: impl Into<String>) -> Judgement {
    Judgement {
        finding: Finding::NotDecidable,
        reason: reason.into(),
    }
}

impl fmt::Debug for Arbiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arbiter({:?})", self.most_patience)
    }
}

#[cfg(test)]
mod tests;
