//! Receipts: what a provider signs of a call, and what anybody can make of it.
//!
//! A receipt names plan, function, engine and cost. Input and output are in it
//! only as commitments, so that publishing it reveals neither; a holder of
//! the request can open both.

use std::fmt;

use minicbor::{CborLen, Decode, Encode};
use sha2::{Digest as _, Sha256};

use crate::{
    Advert, Completion, EngineFingerprint, Epoch, FunctionId, PlanName, ProviderId, ReceiptKey,
    Reply, RequestDigest, Status, decode, encode,
};

const DOMAIN: &[u8] = b"dlambda/receipt/v2";

/// What a provider claims of a call that ran.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Receipt {
    /// Who ran it.
    #[n(0)]
    pub provider: ProviderId,
    /// The epoch whose receipt key signs.
    #[n(1)]
    pub epoch: Epoch,
    /// The plan; its limits are in the epoch's advert.
    #[n(2)]
    pub plan: PlanName,
    /// The function that ran.
    #[n(3)]
    pub function: FunctionId,
    /// Commitment to the whole request; salted by the request's seed.
    #[n(4)]
    pub request: RequestDigest,
    /// Commitment to the whole completion; salted from the request's seed.
    #[n(5)]
    pub output: OutputCommitment,
    /// How it ended.
    #[n(6)]
    pub status: Status,
    /// Fuel consumed.
    #[n(7)]
    pub fuel: u64,
    /// Highest memory of the instance, in bytes.
    #[n(8)]
    pub peak_memory_bytes: u64,
    /// Whether the same call gives the same again.
    #[n(9)]
    pub deterministic: bool,
    /// The engine it ran on.
    #[cbor(n(10), with = "minicbor::bytes")]
    pub engine: EngineFingerprint,
}

/// SHA-256 of a completion and a salt that only the caller and the provider know.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct OutputCommitment(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]);

/// A receipt's bytes with a signature that is not checked yet.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct SignedReceipt {
    #[cbor(n(0), with = "minicbor::bytes")]
    receipt: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    signature: [u8; 64],
}

/// What is wrong with a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// There is none, although the function ran.
    #[error("the reply has no receipt")]
    Missing,
    /// The epoch's receipt key did not sign it.
    #[error("the receipt is not signed with the advertised key")]
    Signature,
    /// A field contradicts the call or the reply.
    #[error("the receipt contradicts the call: {0}")]
    Contradicts(&'static str),
}

impl OutputCommitment {
    /// The 32 bytes of the commitment.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Commits to `completion`, salted from `seed`, the request's.
    #[must_use]
    pub fn to(completion: &Completion, seed: &[u8; 32]) -> Self {
        let mut salt = Sha256::new();
        salt.update(b"dlambda/output-salt/v1\0");
        salt.update(seed);
        let mut hash = Sha256::new();
        hash.update(b"dlambda/output/v1\0");
        hash.update(salt.finalize());
        hash.update(encode(completion));
        Self(hash.finalize().into())
    }
}

impl Receipt {
    /// The receipt for a reply, if the function ran.
    #[must_use]
    pub fn of(
        reply: &Reply,
        provider: ProviderId,
        epoch: Epoch,
        plan: PlanName,
        function: FunctionId,
        request: RequestDigest,
        seed: &[u8; 32],
    ) -> Option<Self> {
        Some(Self {
            provider,
            epoch,
            plan,
            function,
            request,
            output: OutputCommitment::to(&reply.completion, seed),
            status: reply.completion.status()?,
            fuel: reply.usage.fuel,
            peak_memory_bytes: reply.usage.peak_memory_bytes,
            deterministic: reply.usage.deterministic,
            engine: reply.engine,
        })
    }

    /// Signs it with the epoch's receipt key.
    #[must_use]
    pub fn sign(&self, key: &ReceiptKey) -> SignedReceipt {
        let receipt = encode(self);
        let signature = key.sign(DOMAIN, &receipt);
        SignedReceipt { receipt, signature }
    }

    /// Whether the receipt says of a call what its caller knows: which
    /// function and request it was, and what came back.
    ///
    /// # Errors
    ///
    /// [`ReceiptError::Contradicts`] naming the field.
    pub fn matches(
        &self,
        function: &FunctionId,
        plan: &PlanName,
        request: &RequestDigest,
        seed: &[u8; 32],
        reply: &Reply,
    ) -> Result<(), ReceiptError> {
        for (good, field) in [
            (self.function == *function, "function"),
            (self.plan == *plan, "plan"),
            (self.request == *request, "input"),
            (
                self.output == OutputCommitment::to(&reply.completion, seed),
                "output",
            ),
            (Some(self.status) == reply.completion.status(), "status"),
            (self.fuel == reply.usage.fuel, "fuel"),
            (
                self.peak_memory_bytes == reply.usage.peak_memory_bytes,
                "memory",
            ),
            (
                self.deterministic == reply.usage.deterministic,
                "determinism",
            ),
            (self.engine == reply.engine, "engine"),
        ] {
            if !good {
                return Err(ReceiptError::Contradicts(field));
            }
        }
        Ok(())
    }
}

impl SignedReceipt {
    /// Believes that the provider of `advert` signed this, and returns what.
    ///
    /// # Errors
    ///
    /// [`ReceiptError::Signature`] if it did not, or the bytes are no receipt
    /// of this provider and epoch with a plan on its menu.
    pub fn verify(&self, advert: &Advert) -> Result<Receipt, ReceiptError> {
        let good = advert
            .receipt_key
            .verify(DOMAIN, &self.receipt, &self.signature);
        if !good {
            return Err(ReceiptError::Signature);
        }
        let receipt: Receipt = decode(&self.receipt).map_err(|_| ReceiptError::Signature)?;
        let plan = advert.plan(Some(&receipt.plan));
        for (good, field) in [
            (receipt.provider == advert.provider, "provider"),
            (receipt.epoch == advert.epoch, "epoch"),
            (plan.is_some(), "plan"),
            (
                plan.is_some_and(|plan| plan.deterministic == receipt.deterministic),
                "determinism",
            ),
        ] {
            if !good {
                return Err(ReceiptError::Contradicts(field));
            }
        }
        Ok(receipt)
    }

    /// What it says, whoever signed it, if it can be read at all.
    #[must_use]
    pub fn unverified(&self) -> Option<Receipt> {
        decode(&self.receipt).ok()
    }

    /// The signature.
    #[must_use]
    pub fn signature(&self) -> &[u8; 64] {
        &self.signature
    }
}

macro_rules! scrubbed {
    ($($type:ident),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($type), "([scrubbed])"))
            }
        }
    )*};
}

scrubbed!(OutputCommitment, Receipt, SignedReceipt);
